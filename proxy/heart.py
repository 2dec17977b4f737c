"""The rooms that know which keys may do what right now, built in their order and introduced to each other.  [io]

In go settings, a policy and open resources, out comes a `Heart`. Nothing is decided here, and nothing runs yet: that is
`server`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from uuid import UUID

from proxy import __version__
from proxy.clock import Clock, DatabaseClock
from proxy.database import Database
from proxy.fittings import get_secret_key, make_digests, make_lease, make_memory, require_url
from proxy.forwarding import Destination
from proxy.handles import Binder
from proxy.identity import KeyId, Owner
from proxy.keys.hashing import Hasher
from proxy.keys.reader import KeyReader
from proxy.keys.store import KeyStore
from proxy.lease import Lease
from proxy.limits import Gate
from proxy.listener import Listener, Pace
from proxy.live_policy import LivePolicy
from proxy.metrics import Metrics
from proxy.news import NewsLog
from proxy.receipts import Receipts
from proxy.revocation import Revocation
from proxy.screening import Screen
from proxy.sealing import Seal, derive_key
from proxy.session_cleanup import SessionCleanup
from proxy.session_store import SessionStore
from proxy.sessions import Registry
from proxy.settings import Settings
from proxy.task_store import TaskStore
from proxy.verification import Verifier


@dataclass(frozen=True, slots=True)
class Heart:
    """The rooms that know which keys may do what right now, and hear when that changes."""

    instance: UUID
    clock: Clock
    database_clock: DatabaseClock
    lease: Lease
    registry: Registry
    gate: Gate
    verifier: Verifier
    screen: Screen
    session_store: SessionStore
    task_store: TaskStore
    binder: Binder
    cleanup: SessionCleanup
    revocation: Revocation
    listener: Listener
    receipts: Receipts
    sign_in_key: bytes = field(repr=False)  # what cookies of sign-ins are marked with


def build_heart(
    settings: Settings,
    live: LivePolicy,
    instance: UUID,
    clock: Clock,
    database: Database,
    destinations: Mapping[str, Destination],
    hasher: Hasher,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Heart:
    """Memory and trust first, then those who ask them, then those who hear the news."""

    async def read_rights(key_ids: Collection[KeyId]) -> Mapping[KeyId, tuple[Owner, frozenset[str]]]:
        now = database_clock.now(clock.boot())
        records = await store.read_keys(list(key_ids))
        return {
            record.id: (record.owner, live.find_rights(record))
            for record in records.values()
            if record.find_fault(now) is None
        }

    database_clock, news = DatabaseClock(), NewsLog()
    lease, memory = make_lease(settings), make_memory(settings, news, clock)
    store = KeyStore(database)
    reader = KeyReader(store.read_keys, news, clock.boot)
    stack.push_async_callback(reader.aclose)
    digests = make_digests(settings, store, news, clock)
    stack.push_async_callback(digests.aclose)
    registry = Registry(news=news, lease=lease, database_clock=database_clock, rights=live.find_rights)
    verifier = Verifier(
        memory=memory,
        reader=reader,
        digests=digests,
        hasher=hasher,
        lease=lease,
        clock=clock,
        database_clock=database_clock,
        rights=live.find_rights,
        count_memory=metrics.count_verification,
    )
    stack.push_async_callback(verifier.aclose)
    screen = Screen(memory=memory, reader=reader, digests=digests, lease=lease, clock=clock)
    stack.push_async_callback(screen.aclose)
    secret_key = get_secret_key(settings)
    session_store = SessionStore(
        database,
        seal=Seal(secret_key, "mcp-session"),
        instance=instance,
        max_attempts=settings.sessions.cleanup_attempts,
        idle_seconds=settings.sessions.idle_seconds,
        timer=clock.boot,
    )
    cleanup = SessionCleanup(
        session_store,
        destinations,
        find_paths=live.find_paths,
        timeout_seconds=settings.sessions.cleanup_timeout_seconds,
        read_rights=read_rights,
        find_used=registry.find_sessions,
    )
    stack.push_async_callback(cleanup.aclose)
    receipts = Receipts(
        database, instance=instance, version=__version__, bound_seconds=settings.revocation.bound_seconds
    )
    stack.push_async_callback(receipts.aclose)
    revocation = Revocation(
        news=news,
        memory=memory,
        reader=reader,
        registry=registry,
        lease=lease,
        clock=clock,
        database_clock=database_clock,
        clean_up_sessions=cleanup.start,
        renew_connections=database.renew,
        heartbeat_seconds=settings.revocation.heartbeat_seconds,
        revalidate_seconds=settings.revocation.revalidate_seconds,
        count_news=metrics.news_heard.inc,
        confirm=receipts.confirm,
    )
    listener = Listener(
        require_url(settings.database.listening_url),
        instance=instance,
        pace=Pace(
            heartbeat_seconds=settings.revocation.heartbeat_seconds,
            patience_seconds=settings.revocation.lease_seconds / 2,
            compare_seconds=settings.revocation.revalidate_seconds,
        ),
        clock=clock,
        database_clock=database_clock,
        hearer=revocation,
    )
    return Heart(
        instance,
        clock,
        database_clock,
        lease,
        registry,
        Gate(),
        verifier,
        screen,
        session_store,
        TaskStore(database),
        Binder(Seal(secret_key, "request-state"), Seal(secret_key, "event-id"), Seal(secret_key, "message-target")),
        cleanup,
        revocation,
        listener,
        receipts,
        derive_key(secret_key, "sign-in"),
    )
