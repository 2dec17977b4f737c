"""Carry it there and back.  [io]

In goes a Permit and nothing less, out comes the upstream's answer, relayed as it arrives. Before every chunk the
registry is asked whether it may still flow. It knows neither keys nor policy: what a list may show is asked of a
function it is given, and what has ended is told to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from proxy.authorization import Permit
from proxy.clock import Clock
from proxy.endpoints import Endpoints, form_reference
from proxy.errors import Reason, Refusal, UnavailableError, UpstreamError
from proxy.expiry import may_be_shared
from proxy.filtering import Allow, ListView, form_view
from proxy.handles import (
    STATEFUL_METHODS,
    Binder,
    Handles,
    form_context,
    form_event_context,
    form_travel_context,
)
from proxy.headers import form_client_headers, form_upstream_headers
from proxy.identity import KeyId, Principal
from proxy.policy import ListedKind, RouteMatch
from proxy.relay import Limits, Relay
from proxy.request_body import RequestUpload
from proxy.session_store import SessionStore, hash_session_id
from proxy.sessions import Exchange, Flow, Registry
from proxy.task_store import TaskStore, hash_task_id
from proxy.upstream import Upstream, UpstreamAborted, UpstreamResponse
from proxy.upstream_identity import NO_IDENTITY, Identity
from proxy.verification import refuse_ended


@dataclass(frozen=True, slots=True)
class Destination:
    """An upstream, the path its URL begins with, and how it learns who is asking."""

    upstream: Upstream
    base_path: str = ""
    identity: Identity = NO_IDENTITY
    resumable: bool = False  # it keeps the events of each session apart


@dataclass(frozen=True, slots=True)
class Outbound:
    """What is to be sent: a canonical target, the client's own headers, a body that was judged whole, or is not judged
    and passes through. `message_target`:
    where an upstream's session of HTTP+SSE takes its messages, in place of the client's target."""

    target: str = field(repr=False)
    headers: Collection[tuple[str, str]]
    body: bytes | RequestUpload
    session_id: str | None = field(repr=False)
    last_event_id: str | None  # as the client has it
    request_id: str
    message_target: str | None = field(default=None, repr=False)
    warnings: tuple[tuple[str, str], ...] = ()  # headers for the client, and for no other that a cache may serve


class SessionEnder(Protocol):
    """What `session_cleanup` does, as far as this room needs it."""

    def start(self, key_ids: Collection[KeyId] | None) -> None: ...

    def end_unbound(self, upstream: str, session_id: str, protocol_version: str | None, key_id: KeyId) -> None: ...


class Forwarder:
    """`cleanup` ends upstream what must not be left there."""

    def __init__(
        self,
        *,
        destinations: Mapping[str, Destination],
        registry: Registry,
        session_store: SessionStore,
        task_store: TaskStore,
        binder: Binder,
        clock: Clock,
        limits: Limits,
        may_list: Callable[[Permit, Exchange], Allow],
        cleanup: SessionEnder,
        count_dropped: Callable[[int], None] = lambda _events: None,
    ) -> None:
        self._destinations = destinations
        self._registry = registry
        self._session_store = session_store
        self._task_store = task_store
        self._binder = binder
        self._clock = clock
        self._limits = limits
        self._may_list = may_list
        self._cleanup = cleanup
        self._count_dropped = count_dropped

    async def forward(
        self, permit: Permit, exchange: Exchange, outbound: Outbound, request: web.BaseRequest
    ) -> web.StreamResponse:
        """Send, and relay the answer. Raises Refusal while nothing has been answered yet."""
        destination = find_destination(self._destinations, permit.match)
        relay = Relay(
            permit,
            exchange,
            request,
            judge_flow=lambda: self._registry.judge_flow(exchange, self._clock.boot()),
            turn_into_stream=lambda: self._registry.turn_into_stream(exchange),
            lists=await self._form_view(permit, exchange),
            handles=self._form_handles(permit, destination, outbound),
            endpoints=self._form_endpoints(permit, exchange, destination, outbound),
            bind_tasks=lambda task_ids: self._bind_tasks(permit, exchange, task_ids),
            limits=self._limits,
            count_dropped=self._count_dropped,
        )
        call = destination.upstream.open()
        relay.watch(call.abort)
        try:
            await relay.wait_open()
            headers = form_upstream_headers(
                outbound.headers,
                request_id=outbound.request_id,
                last_event_id=self._open_event_id(permit, destination, outbound),
                identity=destination.identity.form(exchange.principal),
                identity_names=destination.identity.names,
            )
            target = outbound.message_target or destination.base_path + outbound.target
            if isinstance(outbound.body, RequestUpload):
                outbound.body.gate = relay.wait_open
            response = await call.send(permit.method, target, headers, outbound.body, gate=relay.wait_open)
            check_answer(response, permit.match.route.protocol)
            relayed = form_client_headers(response.headers, request_id=outbound.request_id)
            if outbound.warnings and not may_be_shared(",".join(relayed.getall("Cache-Control", []))):
                relayed.extend(outbound.warnings)
            await self._settle_session(permit, exchange, outbound, response, relayed)
            answer = await relay.carry(response, relayed)
            response.release()
            return answer
        except UpstreamAborted as error:
            if exchange.ended is not None:
                raise refuse_ended(exchange.ended, relay.rpc_id) from error
            raise ConnectionResetError("the client has left") from error
        except Refusal as refusal:
            refusal.rpc_id = relay.rpc_id if refusal.rpc_id is None else refusal.rpc_id
            raise
        finally:
            call.abort()
            relay.unwatch()

    async def _form_view(self, permit: Permit, exchange: Exchange) -> ListView:
        """What lists may show: a list of tasks, the key's own; everything else, what the policy would let it use."""
        allow = self._may_list(permit, exchange)
        protocol, message = permit.match.route.protocol, permit.message
        asked = message is not None and message.method == "tasks/list"
        if not asked and not (protocol == "mcp-sse" and message is None):  # whose stream is where all answers come
            return form_view(message, permit.match, allow)
        owned = await self._task_store.list_owned(permit.match.route.upstream, permit.principal)

        def allow_owned(kind: ListedKind, name: str) -> bool:
            return hash_task_id(name) in owned if kind == "task" else allow(kind, name)

        return form_view(message, permit.match, allow_owned)

    def _open_event_id(self, permit: Permit, destination: Destination, outbound: Outbound) -> str | None:
        """The event to resume after, as the upstream named it. Raises Refusal."""
        if permit.match.route.protocol == "http":
            return outbound.last_event_id  # the path says whose events these are, and the path has been judged
        if outbound.last_event_id is None or permit.match.route.protocol != "mcp" or not destination.resumable:
            return None
        if outbound.session_id is None:
            return None  # nothing says which rights its call rested on
        context = form_event_context(permit.match.route.upstream, permit.principal.holder, outbound.session_id)
        return self._binder.check_event_id(outbound.last_event_id, context)

    def _form_handles(self, permit: Permit, destination: Destination, outbound: Outbound) -> Handles:
        message, upstream = permit.message, permit.match.route.upstream
        holder = permit.principal.holder
        is_mcp, apart = permit.match.route.protocol != "http", permit.match.route.protocol == "mcp-sse"
        stateful = message is not None and message.method in STATEFUL_METHODS and not apart
        has_event_ids = is_mcp and (message is None or not message.modern)
        state_context = event_context = None
        if message is not None and stateful:
            state_context = form_context(message, upstream, holder)
        elif message is None and apart:
            state_context = form_travel_context(upstream, holder)
        if has_event_ids and destination.resumable and not apart and outbound.session_id is not None:
            event_context = form_event_context(upstream, holder, outbound.session_id)
        return Handles(
            self._binder,
            state_context=state_context,
            event_context=event_context,
            has_event_ids=has_event_ids,
            expected=is_mcp and (message is None or stateful),  # a stream of its own may replay any result
            wall=self._clock.wall,
        )

    def _form_endpoints(
        self, permit: Permit, exchange: Exchange, destination: Destination, outbound: Outbound
    ) -> Endpoints | None:
        """For the stream of HTTP+SSE: where its client sends messages; what it is told is what finds the stream."""
        route, holder = permit.match.route, permit.principal.holder
        if route.messages is None or permit.message is not None:
            return None

        def bind(target: str) -> str:
            sealed = self._binder.seal_target(target, route.upstream, holder)
            exchange.session = (route.upstream, hash_session_id(sealed))
            return sealed

        address = destination.upstream.address
        stream_url = f"{address.scheme}://{address.authority}{destination.base_path}{outbound.target}"
        return Endpoints(stream_url, form_reference(route.path, route.messages), bind)

    async def _bind_tasks(self, permit: Permit, exchange: Exchange, task_ids: list[str]) -> None:
        for task_id in task_ids:
            await self._task_store.bind(permit.match.route.upstream, task_id, exchange.principal, exchange.scopes)

    async def _settle_session(
        self, permit: Permit, exchange: Exchange, outbound: Outbound, response: UpstreamResponse,
        headers: CIMultiDict[str],
    ) -> None:  # fmt: skip
        """Bind a new session to the key before the client can learn of it; let no other id through."""
        upstream = permit.match.route.upstream
        offered = headers.popall("Mcp-Session-Id", [])
        message = permit.message
        if permit.match.route.protocol == "mcp-sse":
            return  # there the stream is the session
        if message is not None and message.method == "initialize" and 200 <= response.status < 300 and offered:
            if len(offered) > 1:
                raise UpstreamError(Reason.UPSTREAM_PROTOCOL, "The upstream's answer names two sessions.")
            version = message.params.get("protocolVersion")
            await self._bind(upstream, offered[0], exchange.principal, version if isinstance(version, str) else None)
            if self._registry.judge_flow(exchange, self._clock.boot()) is Flow.ENDED:
                self._cleanup.start([exchange.principal.key_id])
            headers["Mcp-Session-Id"] = offered[0]
        elif outbound.session_id is not None:
            # A GET may be answered 404 by a server that only lacks the standalone stream.
            gone = response.status == 404 and permit.method != "GET" and not (message is not None and message.modern)
            if gone or (permit.method == "DELETE" and 200 <= response.status < 300):
                await self._session_store.forget(upstream, hash_session_id(outbound.session_id))
            if outbound.session_id in offered:
                headers["Mcp-Session-Id"] = outbound.session_id

    async def _bind(self, upstream: str, session_id: str, principal: Principal, version: str | None) -> None:
        """Raises UpstreamError, UnavailableError; a session that cannot be kept is not left behind either."""
        try:
            await self._session_store.bind(upstream, session_id, principal, version)
        except UnavailableError:
            self._cleanup.end_unbound(upstream, session_id, version, principal.key_id)
            raise


def find_destination(destinations: Mapping[str, Destination], match: RouteMatch) -> Destination:
    """Where the route leads. Raises UpstreamError."""
    destination = destinations.get(match.route.upstream)
    if destination is None:
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, "The upstream of this route is not configured.")
    return destination


def check_answer(response: UpstreamResponse, protocol: str) -> None:
    """What must not reach the client as it stands. Raises UpstreamError."""
    status = response.status
    if status in (401, 403, 407):
        # It concerns the proxy's credential: relayed, it would send the client to an authorization server not its own.
        raise UpstreamError(Reason.UPSTREAM_CREDENTIAL, f"The upstream refused the proxy's own credential ({status}).")
    if 300 <= status < 400 and not (status == 304 and protocol == "http"):
        raise UpstreamError(Reason.UPSTREAM_REDIRECT, "The upstream answered with a redirect, which is not followed.")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        # Asked for plain bytes: what comes compressed could be neither filtered nor read.
        raise UpstreamError(Reason.UPSTREAM_PROTOCOL, "The upstream's answer has a coding that was not asked for.")
