"""The composition root: builds the rooms in their order and owns their lifetimes.  [io]

In go settings and a policy, out comes a running proxy with two listeners. This is the only place where rooms are
introduced to each other; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from aiohttp import web
from pydantic import SecretStr

from proxy import __version__
from proxy.authorization import Permit
from proxy.client_connection import ClientServer
from proxy.clock import Clock, DatabaseClock, SystemClock
from proxy.database import Database
from proxy.envelope import LOOPBACK_NAMES
from proxy.errors import ConfigError, Fault, ProxyError, Reason
from proxy.filtering import Allow
from proxy.forwarding import Destination, Forwarder
from proxy.front_door import DoorRules, FrontDoor
from proxy.keys.hashing import Hasher
from proxy.keys.reader import KeyReader
from proxy.keys.record import KeyRecord
from proxy.keys.store import KeyStore
from proxy.lease import Lease, Trust
from proxy.listener import Listener, Pace
from proxy.logs import get_logger
from proxy.memory import Memory
from proxy.metrics import Metrics
from proxy.news import NewsLog
from proxy.ops import build_ops
from proxy.policy import Policy
from proxy.relay import Limits
from proxy.revocation import Revocation
from proxy.sealing import Seal
from proxy.session_cleanup import SessionCleanup
from proxy.session_store import SessionStore
from proxy.sessions import Exchange, Registry
from proxy.settings import Address, Settings, UpstreamSettings
from proxy.upstream import Upstream
from proxy.verification import Verifier

log = get_logger("server")

LINGERING_SECONDS = 2.0  # how long the unread rest of a refused body is read and thrown away


class ListenError(ProxyError):
    """An address cannot be listened on."""


@dataclass(slots=True)
class Proxy:
    """A running proxy. `drain` begins the end: readiness goes, streams end, running calls may finish."""

    data_address: Address
    ops_address: Address
    registry: Registry
    lease: Lease
    listener: Listener
    door: FrontDoor
    revocation: Revocation
    drain_seconds: float

    async def wait_trusted(self) -> None:
        """Return when the news is heard and proven."""
        await self.listener.proven.wait()

    async def drain(self) -> None:
        """Refuse new requests, end streams, let calls finish for as long as the budget lasts."""
        self.door.draining = True
        self.revocation.end_streams(Reason.DRAINING)
        empty = asyncio.Event()
        self.registry.on_empty = empty.set
        if len(self.registry):
            with suppress(TimeoutError):
                async with asyncio.timeout(self.drain_seconds):
                    await empty.wait()
        self.revocation.end_all(Reason.DRAINING)


@asynccontextmanager
async def run_proxy(settings: Settings, policy: Policy, *, clock: Clock | None = None) -> AsyncIterator[Proxy]:
    """A proxy for as long as the context lasts. Raises ConfigError, DatabaseError, ListenError."""
    clock = clock or SystemClock()
    url = _require_url(settings.database.url)
    instance, secret_key = uuid4(), _get_secret_key(settings)
    metrics = Metrics(__version__)
    metrics.show_policy(policy.revision)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            Database.open(
                url,
                min_size=settings.database.pool_min_size,
                max_size=settings.database.pool_max_size,
                connect_timeout_seconds=settings.database.connect_timeout_seconds,
                query_timeout_seconds=settings.database.query_timeout_seconds,
            )
        )
        destinations = _open_destinations(settings, stack)
        hasher = _open_hasher(settings, metrics, stack)

        def find_rights(record: KeyRecord) -> frozenset[str]:
            ancestors = (ancestor.scopes for ancestor in record.ancestors)
            return policy.effective_scopes(record.scopes, ancestors, record.owner.tier)

        def find_listable(permit: Permit, exchange: Exchange) -> Allow:
            match = permit.match
            return lambda kind, name: policy.may_list(
                match, kind, name, exchange.principal.grants, exchange.principal.owner
            )

        news, lease, database_clock = NewsLog(), _make_lease(settings), DatabaseClock()
        memory = Memory(
            news,
            digest_key=secrets.token_bytes(32),
            max_proofs=settings.cache.max_proofs,
            max_states=settings.cache.max_states,
            max_unknown=settings.cache.negative_max,
            unknown_seconds=settings.cache.negative_ttl_seconds,
            max_age_seconds=settings.revocation.revalidate_seconds,
            timer=clock.boot,
        )
        reader = KeyReader(KeyStore(database).read_keys, news, clock.boot)
        stack.push_async_callback(reader.aclose)
        registry = Registry(news=news, lease=lease, database_clock=database_clock, rights=find_rights)
        verifier = Verifier(
            memory=memory,
            reader=reader,
            hasher=hasher,
            lease=lease,
            clock=clock,
            database_clock=database_clock,
            rights=find_rights,
            count_memory=metrics.count_verification,
        )
        stack.push_async_callback(verifier.aclose)
        session_store = SessionStore(
            database,
            seal=Seal(secret_key, "mcp-session"),
            instance=instance,
            max_attempts=settings.sessions.cleanup_attempts,
            timer=clock.boot,
        )
        cleanup = SessionCleanup(
            session_store, destinations, timeout_seconds=settings.sessions.cleanup_timeout_seconds,
            paths={route.upstream: route.path for route in policy.routes if route.protocol == "mcp"},
        )  # fmt: skip
        stack.push_async_callback(cleanup.aclose)
        revocation = Revocation(
            news=news,
            memory=memory,
            reader=reader,
            registry=registry,
            lease=lease,
            clock=clock,
            database_clock=database_clock,
            clean_up_sessions=cleanup.start,
            heartbeat_seconds=settings.revocation.heartbeat_seconds,
            revalidate_seconds=settings.revocation.revalidate_seconds,
            count_news=metrics.news_heard.inc,
        )
        listener = Listener(
            _require_url(settings.database.listening_url),
            instance=instance,
            pace=Pace(settings.revocation.heartbeat_seconds, settings.revocation.lease_seconds / 2),
            clock=clock,
            database_clock=database_clock,
            hearer=revocation,
        )
        forwarder = Forwarder(
            destinations=destinations,
            registry=registry,
            session_store=session_store,
            clock=clock,
            limits=_form_limits(settings),
            may_list=find_listable,
            clean_up_sessions=cleanup.start,
            count_dropped=metrics.list_events_dropped.inc,
        )
        door = FrontDoor(
            rules=_form_door_rules(settings),
            policy=policy,
            verifier=verifier,
            registry=registry,
            session_store=session_store,
            forwarder=forwarder,
            bearer_tokens={name: destination.bearer_token for name, destination in destinations.items()},
            metrics=metrics,
            clock=clock,
        )

        def find_faults() -> Mapping[str, str]:
            faults = {}
            if lease.judge(clock.boot()) is not Trust.TRUSTED:
                faults["revocation"] = listener.fault or "the lease has run out"
            if door.draining:
                faults["draining"] = "shutting down"
            return faults

        def show_state() -> Mapping[str, object]:
            now = clock.boot()
            return {
                "version": __version__,
                "instance": str(instance),
                "trust": lease.judge(now),
                "policy": policy.revision,
                "bound_seconds": settings.revocation.bound_seconds,
                "exchanges": len(registry),
            }

        def probe() -> None:
            now = clock.boot()
            metrics.show_lease(lease.judge(now), lease.trusted_until - now)
            metrics.hashing_queue.set(hasher.pending)
            for kind, live in registry.count_kinds().items():
                metrics.show_exchanges(kind, live)
            for name, destination in destinations.items():
                upstream = destination.upstream
                metrics.show_upstream(name, idle=upstream.idle_connections, active=upstream.active_connections)
            if database_clock.observed:
                metrics.database_clock_skew_seconds.set(database_clock.skew_seconds(now, clock.wall()))

        metrics.add_probe(probe)
        await _run_beside(listener.run(), stack)
        await _run_beside(revocation.run(), stack)
        ops_runner = web.AppRunner(build_ops(find_faults, show_state, metrics), access_log=None)
        ops_address = await _listen(ops_runner, settings.ops_listen, stack)
        data_runner = web.ServerRunner(_build_client_server(door, settings), shutdown_timeout=1.0)
        data_address = await _listen(data_runner, settings.listen, stack)
        log.info(
            "listening",
            data=f"http://{data_address}",
            ops=f"http://{ops_address}",
            instance=str(instance),
            policy=policy.revision,
            lease_seconds=settings.revocation.lease_seconds,
            bound_seconds=settings.revocation.bound_seconds,
        )
        yield Proxy(
            data_address, ops_address, registry, lease, listener, door, revocation, settings.server.drain_seconds
        )


async def _run_beside(work: Coroutine[None, None, None], stack: AsyncExitStack) -> None:
    """Run a room's own loop until the stack unwinds; its failure would be silence, so it is logged and ends nothing
    else: without it the lease runs out, and the proxy closes."""
    task = asyncio.create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.wait({task})

    def report(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            log.critical("room_failed", exc_info=done.exception())

    task.add_done_callback(report)
    stack.push_async_callback(stop)


async def _listen(runner: web.BaseRunner, address: Address, stack: AsyncExitStack) -> Address:
    """Listen; the address really bound (port 0 picks a free one). Raises ListenError."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, address.host.strip("[]"), address.port, backlog=1024).start()
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
    host, port = runner.addresses[0][:2]
    return Address(f"[{host}]" if ":" in host else host, port)


def _build_client_server(door: FrontDoor, settings: Settings) -> ClientServer:
    """aiohttp's defaults replaced with reasons (security.md section 2.F)."""
    limits = settings.server
    return ClientServer(
        door.handle,
        handler_cancellation=False,  # a relay decides itself what a client's leaving means
        head_timeout_seconds=limits.header_timeout_seconds,
        refuse=door.refuse_unread,
        keepalive_timeout=limits.keepalive_timeout_seconds,
        lingering_time=LINGERING_SECONDS,
        max_line_size=limits.max_line_bytes,
        max_field_size=limits.max_field_bytes,
        max_headers=limits.max_header_count,
        read_bufsize=limits.read_buffer_bytes,
        auto_decompress=False,
        access_log=None,
    )


def _open_destinations(settings: Settings, stack: AsyncExitStack) -> dict[str, Destination]:
    destinations = {}
    configured: dict[str, UpstreamSettings | None] = {"mcp": settings.upstreams.mcp, "api": settings.upstreams.api}
    for name, upstream_settings in configured.items():
        if upstream_settings is None:
            continue
        upstream = Upstream(
            upstream_settings.url,
            connect_timeout_seconds=upstream_settings.connect_timeout_seconds,
            headers_timeout_seconds=upstream_settings.headers_timeout_seconds,
            idle_timeout_seconds=upstream_settings.idle_timeout_seconds,
            max_idle_connections=upstream_settings.max_idle_connections,
            keepalive_seconds=upstream_settings.keepalive_seconds,
        )
        stack.push_async_callback(upstream.aclose)
        token = upstream_settings.bearer_token
        destinations[name] = Destination(name, upstream, token.get_secret_value() if token else None)
    return destinations


def _open_hasher(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Hasher:
    hasher = Hasher(
        memory_cost_kib=settings.hashing.memory_cost_kib,
        time_cost=settings.hashing.time_cost,
        threads=settings.hashing.threads,
        queue_size=settings.hashing.queue_size,
        timeout_seconds=settings.hashing.timeout_seconds,
        observe_seconds=metrics.argon2_seconds.observe,
    )
    stack.callback(hasher.close)
    return hasher


def _make_lease(settings: Settings) -> Lease:
    revocation = settings.revocation
    grace_seconds = revocation.grace_seconds + revocation.database_loss_grace_seconds
    return Lease(lease_seconds=revocation.lease_seconds, grace_seconds=grace_seconds)


def _form_limits(settings: Settings) -> Limits:
    server = settings.server
    return Limits(
        max_answer_bytes=server.max_answer_bytes,
        drain_seconds=server.legacy_drain.seconds,
        drain_bytes=server.legacy_drain.bytes,
        slow_reader_seconds=server.slow_reader_seconds,
    )


def _form_door_rules(settings: Settings) -> DoorRules:
    server = settings.server
    hosts = server.allowed_hosts
    if hosts is None:
        hosts = tuple(LOOPBACK_NAMES) if settings.listen.is_loopback else ()
    return DoorRules(
        allowed_hosts=frozenset(str(host).lower() for host in hosts),
        allowed_origins=frozenset(str(origin) for origin in server.allowed_origins),
        realm=server.realm,
        max_body_bytes=server.max_body_bytes,
        max_json_depth=server.max_json_depth,
        body_timeout_seconds=server.body_timeout_seconds,
    )


def _require_url(url: SecretStr | None) -> str:
    if url is None:
        mend = "set AEGIS_DATABASE_URL, or run with --embedded for a private database in the state directory"
        raise ConfigError([Fault("AEGIS_DATABASE_URL", None, "there is no database to verify keys against", mend)])
    return url.get_secret_value()


def _get_secret_key(settings: Settings) -> bytes:
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    log.warning("secret_key_random", mend="set AEGIS_SECRET_KEY to one secret for all instances, kept across restarts")
    return secrets.token_bytes(32)
