"""The front door: the walk of every request, a line for each step.  [io]

present → verify → read the message → authorise → claim the session → forward → record. Each step hands on a different
type, so that a skipped check is a type error. In goes an aiohttp request, out comes the answer; every refusal on the
way is answered here, in one place, and every request is recorded.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from proxy.authorization import Permit, admit, authorize
from proxy.challenges import Dialect
from proxy.client_address import Network, find_client_address
from proxy.client_response import check_unanswered
from proxy.clock import Clock
from proxy.console.views import Console
from proxy.credentials import check_query, require_credential
from proxy.discovery import JWKS_PATH, Discovery
from proxy.endpoints import read_session_member
from proxy.envelope import (
    Target,
    check_framing,
    check_host,
    check_json_content_type,
    check_origin,
    check_page_origin,
    parse_query,
    parse_target,
)
from proxy.errors import (
    CredentialError,
    DeniedError,
    Reason,
    Refusal,
    RequestError,
    UnavailableError,
    UpstreamError,
)
from proxy.failures import FailureLimiter
from proxy.forwarding import Forwarder, Outbound
from proxy.handles import Binder, find_task_ids
from proxy.headers import SAFETY, SERVER
from proxy.identity import KeyId, Principal
from proxy.limits import Gate, Kind, check_address
from proxy.live_policy import LivePolicy
from proxy.logs import get_logger
from proxy.management.dispatch import Management
from proxy.messages import Message, check_mirrored_headers, check_revision, parse_message
from proxy.metrics import Metrics
from proxy.policy import RouteMatch
from proxy.public import PublicForwarder
from proxy.recording import Passage, Recorder
from proxy.refusing import Refuser
from proxy.request_body import BodyLimits, RequestUpload, read_body
from proxy.session_store import SessionStore, hash_session_id
from proxy.sessions import Exchange, Registry
from proxy.subscriptions import is_listening
from proxy.task_store import TaskStore
from proxy.verification import Verifier

log = get_logger("decision")

CLIENT_LEFT = "client_left"  # an outcome that nobody was told
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class DoorRules:
    """What the door itself insists on. Sizes in bytes. `public_url`: how clients write our address, if known."""

    allowed_hosts: Collection[str]
    allowed_origins: Collection[str]
    trusted_proxies: Collection[Network]
    discovery: Discovery
    public_url: str | None
    bodies: BodyLimits
    max_json_depth: int
    read_jwks: Callable[[], Awaitable[bytes]] | None = None  # where the public keys of assertions are for everybody


class FrontDoor:
    """Where every request of a client comes in. `console`: the page, where somebody can sign in."""

    def __init__(
        self,
        *,
        rules: DoorRules,
        live: LivePolicy,
        verifier: Verifier,
        failures: FailureLimiter,
        registry: Registry,
        gate: Gate,
        session_store: SessionStore,
        task_store: TaskStore,
        binder: Binder,
        forwarder: Forwarder,
        public: PublicForwarder,
        management: Management,
        console: Console | None,
        refuser: Refuser,
        recorder: Recorder,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._live = live
        self._verifier = verifier
        self._failures = failures
        self._registry = registry
        self._gate = gate
        self._session_store = session_store
        self._task_store = task_store
        self._binder = binder
        self._forwarder = forwarder
        self._public = public
        self._management = management
        self._metrics = metrics
        self._clock = clock
        self._refuser = refuser
        self._recorder = recorder
        self.draining = False
        self.console = console

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        passage = self._recorder.start(request.method, secrets.token_hex(8), request.headers.get("User-Agent"))
        outcome: str = CLIENT_LEFT
        status = 499
        try:
            response = await self._walk(request, passage)
            outcome, status = passage.outcome, response.status
        except Refusal as refused:
            check_unanswered(request)
            refusal = self._failures.weigh(refused, passage.address, self._clock.boot())
            if isinstance(refusal, CredentialError) and refusal.key_id is not None:
                passage.key_id = KeyId(refusal.key_id)
            self._recorder.note_refusal(passage, refusal)
            response = self._refuse(refusal, request, passage)
            outcome, status = refusal.reason, response.status
            if isinstance(refusal, UpstreamError) and passage.match is not None:
                self._metrics.count_upstream_error(passage.match.route.upstream, refusal.reason)
        except ConnectionError:
            raise
        except Exception:
            # Whatever was not foreseen refuses: nothing may pass because a check fell over.
            log.exception("check_failed", request_id=passage.request_id)
            check_unanswered(request)
            fallen = UnavailableError(Reason.INTERNAL, "The request could not be checked.", retry_after_seconds=1)
            response = self._refuse(fallen, request, passage)
            outcome, status = fallen.reason, response.status
        finally:
            self._recorder.record(passage, outcome, status)
        return response

    async def _walk(self, request: web.BaseRequest, passage: Passage) -> web.StreamResponse:
        passage.address = find_client_address(request.remote, request.headers, self._rules.trusted_proxies)
        target = passage.target = self._find_target(request)
        published = await self._find_published(target) if request.method == "GET" else None
        if published is not None:
            return web.Response(body=published, content_type="application/json", headers=dict((*SAFETY, SERVER)))
        own = self._management if self._management.serves(target.path) else self.console
        if own is not None and own.serves(target.path):
            check_page_origin(request.headers, self._rules.allowed_origins, self._rules.public_url)
            check_query(target.query)
            self._check_open()
            return await own.serve(request, target, passage)
        match = self._find_route(request, target, passage)
        if match.route.public:
            _check_no_body(request)
            query = parse_query(target.query, match.route.query_names, match.route.repeatable)
            admit(self._live.enforced, match, request.method, query)
            return await self._public.forward(match, target, request, passage.request_id)
        presented = require_credential(request.headers, target.query)
        parse_query(target.query, match.route.query_names, match.route.repeatable)  # nothing is read for a bad one
        passage.key_id = presented.key_id
        verified = await self._verifier.verify(presented)
        passage.key_id = verified.key_id
        self._recorder.note_end(passage, verified.key_id, verified.ends_at)
        check_address(verified, passage.address)
        if match.route.protocol == "mcp-sse" and request.method == "POST":
            self._find_session(target, match, passage, verified.holder)
        passage.message = await self._read_message(request, match, passage)
        # Reading took its time: verify again, and from here to the open exchange await nothing.
        principal = await self._verifier.verify(presented)
        kind = _find_kind(passage)
        self._registry.check_room(principal, kind)  # first, and before a decision is noted: it costs nothing
        self._gate.admit(principal, passage.address, self._clock.boot())
        permit = passage.permit = self._authorize(principal, passage, target)
        exchange = self._registry.open(principal, kind, permit.scopes, passage.address)
        exchange.revision = passage.policy
        exchange.reauthorize = partial(self._reauthorize, exchange, permit, target)
        try:
            session_id = await self._claim_session(request, permit, exchange)
            await self._claim_tasks(permit, exchange)
            outbound = self._form_outbound(request, target, permit, session_id, passage)
            return await self._forwarder.forward(permit, exchange, outbound, request)
        finally:
            self._registry.close(exchange)
            passage.ended = exchange.ended
            if exchange.ended is not None:
                self._metrics.count_exchange_ended(exchange.ended)

    # Present.

    def _find_target(self, request: web.BaseRequest) -> Target:
        """Refuse what could be read in two ways."""
        target = parse_target(request.raw_path)
        check_framing(request.version, request.raw_headers)
        check_host(request.headers, self._rules.allowed_hosts)
        return target

    async def _find_published(self, target: Target) -> bytes | None:
        """What stands here for everybody to read, without a credential."""
        if target.path == JWKS_PATH and self._rules.read_jwks is not None:
            return await self._rules.read_jwks()
        return self._rules.discovery.find_metadata(target.path, self._live.enforced)

    def _find_route(self, request: web.BaseRequest, target: Target, passage: Passage) -> RouteMatch:
        """The one route the target means."""
        match = passage.match = self._live.enforced.find_route(target.path)
        if match is None:
            raise RequestError(Reason.ROUTE_UNKNOWN, "Nothing is served at this path.")
        protocol = match.route.protocol
        passage.dialect = Dialect(protocol != "http", rpc_denials=match.route.rpc_denials, apart=protocol == "mcp-sse")
        check_origin(request.headers, self._rules.allowed_origins)
        methods = match.route.find_methods(target.path)
        if request.method not in methods:
            allowed = sorted(methods)
            raise RequestError(
                Reason.METHOD_NOT_ALLOWED, f"This path takes {', '.join(allowed)}.", data={"allow": allowed}
            )
        self._check_open()
        return match

    def _check_open(self) -> None:
        """Raises UnavailableError while shutting down."""
        if self.draining:
            raise UnavailableError(Reason.DRAINING, "This instance is shutting down.", retry_after_seconds=1)

    def _find_session(self, target: Target, match: RouteMatch, passage: Passage, holder: str) -> None:
        """The session of HTTP+SSE that the URL of a message names, if it was told to this key. Raises Refusal."""
        sealed, upstream = read_session_member(target.query), match.route.upstream
        passage.message_target = self._binder.unseal_target(sealed, upstream, holder)
        passage.session = (upstream, hash_session_id(sealed))

    # Read the message.

    async def _read_message(self, request: web.BaseRequest, match: RouteMatch, passage: Passage) -> Message | None:
        """The JSON-RPC message of a POST on an MCP route; None for a bare method."""
        _check_no_body(request)
        if match.route.protocol == "http" or request.method != "POST":
            return None
        check_json_content_type(request.headers)
        message = parse_message(await read_body(request, self._rules.bodies), max_depth=self._rules.max_json_depth)
        passage.rpc_id = message.id if message.kind == "request" else None
        passage.dialect = replace(passage.dialect, modern=message.modern)
        check_mirrored_headers(message, request.headers, required=match.route.protocol == "mcp")
        check_revision(message)
        return message

    # Authorise.

    def _authorize(self, principal: Principal, passage: Passage, target: Target) -> Permit:
        """By the policy in force now, which may be another than when the request came. Raises Refusal."""
        policy, match = self._live.enforced, passage.match
        assert match is not None
        if policy.revision != passage.policy:
            match = self._live.find_same_route(match, target.path)
            if match is None:
                detail = "The policy has changed while this request came in: send it again."
                raise UnavailableError(Reason.STATE_UNKNOWN, detail, retry_after_seconds=1)
            passage.match, passage.policy = match, policy.revision
        query = parse_query(target.query, match.route.query_names, match.route.repeatable)
        try:
            permit = authorize(policy, principal, match, passage.http, passage.message, query)
        except DeniedError as denial:
            self._recorder.note_decision(passage, principal, query, denial)
            raise
        self._recorder.note_decision(passage, principal, query, permit)
        return permit

    def _reauthorize(
        self, exchange: Exchange, permit: Permit, target: Target, principal: Principal
    ) -> tuple[str, ...] | None:
        """What this rests on by the policy in force; None: it would be refused now."""
        policy = self._live.enforced
        if policy.revision == exchange.revision:
            return exchange.permitted
        match = self._live.find_same_route(permit.match, target.path)
        if match is None:
            return None
        try:
            query = parse_query(target.query, match.route.query_names, match.route.repeatable)
            scopes = authorize(policy, principal, match, permit.method, permit.message, query).scopes
        except (DeniedError, RequestError):
            return None
        exchange.revision = policy.revision
        return scopes

    # Claim the session, and send.

    async def _claim_session(self, request: web.BaseRequest, permit: Permit, exchange: Exchange) -> str | None:
        """The session named by the request, if it is this key's. Raises Refusal."""
        if permit.match.route.protocol == "mcp-sse":
            if permit.message is None:  # the stream is the session: all that is done in it is done under these rights
                exchange.rest_on(tuple(permit.principal.grants))
            return None
        session_id = request.headers.get("Mcp-Session-Id")
        if session_id is None:
            if permit.message is not None and permit.message.kind == "response":
                raise RequestError(Reason.MESSAGE_INVALID, "An answer to the server needs its session's id.")
            return None
        upstream = permit.match.route.upstream
        exchange.rest_on_session(upstream, await self._session_store.claim(upstream, session_id, permit.principal))
        return session_id

    async def _claim_tasks(self, permit: Permit, exchange: Exchange) -> None:
        """The tasks named by the message, if they are this key's; the exchange rests on what they rest on."""
        task_ids = find_task_ids(permit.message) if permit.message is not None else []
        if task_ids:
            upstream = permit.match.route.upstream
            exchange.rest_on(await self._task_store.claim(upstream, task_ids, permit.principal))

    def _form_outbound(
        self, request: web.BaseRequest, target: Target, permit: Permit, session_id: str | None, passage: Passage
    ) -> Outbound:
        body: bytes | RequestUpload = b""
        apart = permit.match.route.protocol == "mcp-sse"
        if permit.message is None and request.body_exists:
            body = RequestUpload(request, self._rules.bodies)
        elif permit.message is not None:
            upstream, holder = permit.match.route.upstream, permit.principal.holder
            body = self._binder.open_state(permit.message, upstream, holder, self._clock.wall(), apart=apart)
        last_event_id = request.headers.get("Last-Event-ID") if permit.message is None else None
        headers: Collection[tuple[str, str]] = request.headers.items()
        if apart:  # no header names a session here, and nobody has claimed this one
            headers = [(name, value) for name, value in headers if name.lower() != "mcp-session-id"]
        return Outbound(
            target.text, headers, body, session_id, last_event_id, passage.request_id, passage.message_target,
            passage.warnings,
        )  # fmt: skip

    # Say no.

    def _refuse(self, refusal: Refusal, request: web.BaseRequest, passage: Passage) -> web.Response:
        if self.console is not None and passage.target and self.console.shows(request.method, passage.target.path):
            return self.console.refuse(refusal, request, passage)
        return self._refuser.refuse(refusal, request, passage)

    def refuse_unread(self, refusal: Refusal) -> web.Response:
        """The answer to something that never became a request."""
        request_id = secrets.token_hex(8)
        response = self._refuser.refuse_unread(refusal, request_id)
        self._recorder.record_unread(request_id, refusal.reason, response.status)
        return response


def _check_no_body(request: web.BaseRequest) -> None:
    """Two readers may differ in whether a GET or DELETE has one (RFC 9110 section 9.3.1). Raises RequestError."""
    if request.method not in WITH_BODY and request.body_exists:
        raise RequestError(Reason.BODY_UNEXPECTED, f"A {request.method} request here has no body.")


def _find_kind(passage: Passage) -> Kind:
    """A stream waits for its client to leave. A GET of REST may turn out to be one (`relay`)."""
    protocol = passage.match.route.protocol if passage.match is not None else "http"
    if passage.message is None:
        return "stream" if passage.http == "GET" and protocol != "http" else "call"
    return "stream" if protocol == "mcp" and is_listening(passage.message) else "call"
