"""The composition root: builds the rooms in their order and owns their lifetimes.  [io]

In go settings and a policy, out comes a running proxy with two listeners. This is the only place where rooms are
introduced to each other; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from aiohttp import web

from proxy import __version__
from proxy.alarms import Alarms
from proxy.audit import Audit
from proxy.authorization import Permit
from proxy.back_office import BackOffice, build_back_office
from proxy.client_connection import ClientServer
from proxy.clock import SystemClock
from proxy.database import Database
from proxy.errors import ProxyError, Reason
from proxy.expiry_warnings import ExpiryWarnings
from proxy.failures import FailureLimiter
from proxy.filtering import Allow
from proxy.fittings import (
    find_max_connections,
    form_body_limits,
    form_door_rules,
    form_limits,
    make_assertions,
    open_database,
    open_destinations,
    open_hasher,
    open_identity_provider,
    open_porch,
    open_signing_keys,
    require_c_parser,
)
from proxy.flushing import Flusher
from proxy.forwarding import Destination, Forwarder
from proxy.front_door import FrontDoor
from proxy.heart import Heart, build_heart
from proxy.keys.hashing import Hasher
from proxy.keys.last_uses import LastUseLog
from proxy.keys.networks import Networks
from proxy.lease import Trust
from proxy.live_policy import LivePolicy
from proxy.logs import get_logger
from proxy.management.dispatch import Management
from proxy.metrics import Metrics
from proxy.ops import build_ops
from proxy.policy import Policy
from proxy.policy_files import PolicyFiles
from proxy.porch import Porch
from proxy.public import PublicForwarder
from proxy.recording import Recorder
from proxy.refusing import Refuser
from proxy.sessions import Exchange, Registry
from proxy.settings import Address, Settings
from proxy.signing_keys import SigningKeys
from proxy.usage import Usage

log = get_logger("server")

LINGERING_SECONDS = 2.0  # how long the unread rest of a refused body is read and thrown away
RESTART_SECONDS = 0.5  # before a room that failed begins again
ABORT_SECONDS = 1.0  # how long handlers have to end once everything they carried has been ended


class ListenError(ProxyError):
    """An address cannot be listened on."""


@dataclass(slots=True)
class Proxy:
    """A running proxy."""

    settings: Settings
    live: LivePolicy
    heart: Heart
    door: FrontDoor
    office: BackOffice
    destinations: Mapping[str, Destination]
    signing_keys: SigningKeys | None
    data_address: Address
    ops_address: Address
    policy_files: PolicyFiles | None = None

    @property
    def management(self) -> Management:
        return self.office.management

    @property
    def registry(self) -> Registry:
        return self.heart.registry

    async def wait_trusted(self) -> None:
        """Return when the news is heard and proven."""
        await self.heart.listener.proven.wait()

    def judge_trust(self) -> Trust:
        """The state of trust now."""
        return self.heart.lease.judge(self.heart.clock.boot())

    def find_faults(self) -> Mapping[str, str]:
        """Why requests should go elsewhere, by the name of the part; empty when all is well."""
        faults = {}
        if self.judge_trust() is not Trust.TRUSTED:
            faults["revocation"] = self.heart.listener.fault or "the lease has run out"
        if self.signing_keys is not None and (fault := self.signing_keys.find_fault()) is not None:
            faults["assertions"] = fault
        if self.door.draining:
            faults["draining"] = "shutting down"
        return faults

    def describe(self) -> Mapping[str, object]:
        """What `/readyz` says beside its faults."""
        return {
            "version": __version__,
            "instance": str(self.heart.instance),
            "trust": self.judge_trust(),
            "policy": self.live.enforced.revision,
            "candidate": self.live.candidate.policy.revision if self.live.candidate is not None else None,
            "policy_fault": self.policy_files.fault if self.policy_files is not None else None,
            "bound_seconds": self.settings.revocation.bound_seconds,
            "silent_bound_seconds": self.settings.revocation.silent_bound_seconds,
            "exchanges": len(self.registry),
        }

    def show(self, metrics: Metrics, hasher: Hasher) -> None:
        """Set the gauges, before each scrape."""
        heart, now = self.heart, self.heart.clock.boot()
        metrics.show_lease(heart.lease.judge(now), heart.lease.trusted_until - now)
        metrics.hashing_queue.set(hasher.pending)
        metrics.rate_buckets.set(len(heart.gate))
        metrics.tasks.set(len(asyncio.all_tasks()))
        metrics.notification_queue_ratio.set(heart.listener.queue_usage)
        for kind, live in heart.registry.count_kinds().items():
            metrics.show_exchanges(kind, live)
        for name, destination in self.destinations.items():
            upstream = destination.upstream
            metrics.show_upstream(name, idle=upstream.idle_connections, active=upstream.active_connections)
        if heart.database_clock.observed:
            metrics.database_clock_skew_seconds.set(heart.database_clock.skew_seconds(now, heart.clock.wall()))

    async def drain(self) -> None:
        """Refuse new requests, end streams, let calls finish for as long as the budget lasts, then end them too."""
        self.door.draining = True
        self.heart.revocation.end_streams(Reason.DRAINING)
        empty = asyncio.Event()
        self.registry.on_empty = empty.set
        if not len(self.registry):
            empty.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.server.drain_seconds):
                await empty.wait()
                await self.management.wait_idle()
        self.end_all()

    def end_all(self) -> None:
        """End whatever still runs, now."""
        self.heart.revocation.end_all(Reason.DRAINING)


@asynccontextmanager
async def run_proxy(
    settings: Settings, policy: Policy, policy_files: PolicyFiles | None = None
) -> AsyncIterator[Proxy]:
    """A proxy for as long as the context lasts. `policy_files`: where edits of the policy are to be found, if any are.
    Raises ConfigError, DatabaseError, ListenError."""
    require_c_parser()
    max_connections = find_max_connections(settings)
    metrics = Metrics(__version__)
    metrics.show_policy(policy.revision)
    metrics.show_bounds(settings.revocation.bound_seconds, settings.revocation.silent_bound_seconds)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        instance, clock = uuid4(), SystemClock()
        signing_keys = open_signing_keys(settings, database, instance, clock)
        assertions = make_assertions(settings, signing_keys, clock) if signing_keys is not None else None
        destinations = open_destinations(settings, assertions, stack)
        hasher = open_hasher(settings, metrics, stack)
        live = LivePolicy(policy)
        heart = build_heart(settings, live, instance, clock, database, destinations, hasher, metrics, stack)
        recorder = _build_recorder(settings, live, heart, database, metrics, stack)
        provider = open_identity_provider(settings, clock, metrics, stack)
        porch = open_porch(settings, max_connections, heart.screen, clock, metrics, stack)
        office = build_back_office(
            settings, live, heart, database, hasher, destinations, recorder, provider, porch.limiter
        )
        door = _build_door(settings, live, heart, destinations, signing_keys, porch.limiter, recorder, metrics, office)
        addresses = settings.listen, settings.ops_listen
        proxy = Proxy(settings, live, heart, door, office, destinations, signing_keys, *addresses, policy_files)
        metrics.add_probe(lambda: proxy.show(metrics, hasher))
        _run_beside(heart.listener.run, heart.revocation.close, stack)
        _run_beside(heart.revocation.run, heart.revocation.close, stack)
        _run_beside(heart.receipts.run, lambda: None, stack)  # a missing receipt reports itself: nothing else ends
        if policy_files is not None:
            follow = partial(policy_files.follow, live, heart.revocation.rejudge, metrics)
            _run_beside(follow, lambda: None, stack)  # the policy in force stays in force
        if signing_keys is not None:
            await signing_keys.start()
            _run_beside(signing_keys.run, lambda: None, stack)  # its keys stay good; a lost beat reports itself
        read_jwks = signing_keys.read_published if signing_keys is not None else None
        ops = web.AppRunner(build_ops(proxy.find_faults, proxy.describe, metrics, read_jwks), access_log=None)
        proxy.ops_address = await _listen(ops, settings.ops_listen, stack)
        data = web.ServerRunner(
            _build_client_server(door, porch, settings, max_connections), shutdown_timeout=ABORT_SECONDS
        )
        proxy.data_address = await _listen(data, settings.listen, stack)
        log.info(
            "listening",
            data=f"http://{proxy.data_address}",
            ops=f"http://{proxy.ops_address}",
            upstreams={name: one.upstream.address.authority for name, one in destinations.items()},
            instance=str(heart.instance),
            policy=policy.revision,
            lease_seconds=settings.revocation.lease_seconds,
            bound_seconds=settings.revocation.bound_seconds,
            silent_bound_seconds=settings.revocation.silent_bound_seconds,
            max_connections=max_connections,
        )
        yield proxy


def _build_recorder(
    settings: Settings,
    live: LivePolicy,
    heart: Heart,
    database: Database,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Recorder:
    """What it gathers is written beside everything else, and the rest once no request is under way any more."""
    flusher, clock = Flusher(database, heart.instance, settings.usage.flush_seconds), heart.clock
    usage = Usage(flusher, clock, metrics.usage_dropped.inc)
    last_uses = LastUseLog(flusher, clock, metrics.usage_dropped.inc)
    audit = Audit(flusher, clock, metrics.audit_dropped.inc)
    networks = Networks(flusher, clock, metrics.audit_dropped.inc)
    rooms = (usage, last_uses, audit, networks)
    alarms = Alarms(audit=audit, find_proven=heart.screen.find_proven, count=metrics.count_alarm, timer=clock.boot)

    async def write_rest() -> None:
        await asyncio.gather(*(room.aclose() for room in rooms))  # a database that is away is waited for once

    stack.push_async_callback(write_rest)
    for room in rooms:
        _run_beside(room.run, lambda: None, stack)  # what is not written is kept, and said
    stack.push_async_callback(alarms.aclose)
    return Recorder(
        live=live, usage=usage, audit=audit, last_uses=last_uses, networks=networks, alarms=alarms, metrics=metrics,
        expiry=ExpiryWarnings(clock, heart.database_clock), clock=clock,
    )  # fmt: skip


def _build_door(
    settings: Settings,
    live: LivePolicy,
    heart: Heart,
    destinations: Mapping[str, Destination],
    signing_keys: SigningKeys | None,
    failures: FailureLimiter,
    recorder: Recorder,
    metrics: Metrics,
    office: BackOffice,
) -> FrontDoor:
    def find_listable(permit: Permit, exchange: Exchange) -> Allow:
        match = permit.match
        return lambda kind, name: live.may_list(match, kind, name, exchange.principal.grants, exchange.principal.owner)

    forwarder = Forwarder(
        destinations=destinations,
        registry=heart.registry,
        session_store=heart.session_store,
        task_store=heart.task_store,
        binder=heart.binder,
        clock=heart.clock,
        limits=form_limits(settings),
        may_list=find_listable,
        cleanup=heart.cleanup,
        count_dropped=metrics.list_events_dropped.inc,
    )
    rules = form_door_rules(settings, signing_keys)
    return FrontDoor(
        rules=rules,
        live=live,
        verifier=heart.verifier,
        failures=failures,
        registry=heart.registry,
        gate=heart.gate,
        session_store=heart.session_store,
        task_store=heart.task_store,
        binder=heart.binder,
        forwarder=forwarder,
        public=PublicForwarder(destinations, form_body_limits(settings)),
        management=office.management,
        console=office.console,
        refuser=Refuser(settings.server.realm, rules.discovery, heart.registry),
        recorder=recorder,
        metrics=metrics,
        clock=heart.clock,
    )


def _run_beside(
    work: Callable[[], Coroutine[None, None, None]], close: Callable[[], None], stack: AsyncExitStack
) -> None:
    """Run a room's own loop until the stack unwinds. Should it ever fail, that is said, everything is closed, because
    nothing may go on unwatched, and it begins again."""

    async def keep_running() -> None:
        while True:
            try:
                await work()
            except Exception:
                log.critical("room_failed", exc_info=True)
                close()
            await asyncio.sleep(RESTART_SECONDS)

    task = asyncio.create_task(keep_running())

    async def stop() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(stop)


async def _listen(runner: web.BaseRunner, address: Address, stack: AsyncExitStack) -> Address:
    """Listen; the address really bound (port 0 picks a free one). Raises ListenError."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, address.host.strip("[]"), address.port, backlog=1024).start()
    except OSError as error:
        mend = "stop what holds it, or choose another: AEGIS_LISTEN, AEGIS_OPS_LISTEN (demo: --listen, --ops-listen)"
        raise ListenError(f"cannot listen on {address}: {os.strerror(error.errno or 0)} ({mend})") from error
    host, port = runner.addresses[0][:2]
    return Address(f"[{host}]" if ":" in host else host, port)


def _build_client_server(door: FrontDoor, porch: Porch, settings: Settings, max_connections: int) -> ClientServer:
    """aiohttp's defaults replaced: they keep idle connections for an hour and unpack bodies without saying so."""
    limits = settings.server
    return ClientServer(
        door.handle,
        handler_cancellation=False,  # a relay decides itself what a client's leaving means
        head_timeout_seconds=limits.header_timeout_seconds,
        slow_reader_seconds=limits.slow_reader_seconds,
        refuse=door.refuse_unread,
        porch=porch,
        max_connections=max_connections,
        keepalive_timeout=limits.keepalive_timeout_seconds,
        lingering_time=LINGERING_SECONDS,
        max_line_size=limits.max_line_bytes,
        max_field_size=limits.max_field_bytes,
        max_headers=limits.max_header_count,
        read_bufsize=limits.read_buffer_bytes,
        auto_decompress=False,  # the bytes judged are the bytes that came
        access_log=None,  # our decision line says more
    )
