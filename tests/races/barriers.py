"""Barriers for the tests of races: places where a request stands still until the test has done its worst.

Each is a real seam: a lock in Postgres, a store or a connection of ours that waits where the real one gives way to
others, a clock that was asleep. Nothing is timed; a poll waits, under a guard, for what offers no event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext
from typing import Any

import asyncpg
import pytest

import proxy.server
import proxy.upstream
from proxy.clock import SystemClock
from proxy.identity import KeyId, Principal
from proxy.keys.minting import MintedKey
from proxy.server import Proxy
from proxy.session_store import SessionStore
from proxy.sessions import ClaimedSession, Flow
from proxy.settings import Address
from proxy.upstream_address import UpstreamAddress
from proxy.upstream_connection import UpstreamConnection
from tests.raw_client import ask_raw, form_request
from tests.staging import GUARD_SECONDS, Stage

PATIENT: dict[str, dict[str, Any]] = {
    "database": {"query_timeout_seconds": GUARD_SECONDS},
    "revocation": {"lease_seconds": GUARD_SECONDS, "grace_seconds": GUARD_SECONDS, "revalidate_seconds": 3600.0},
}
"""Settings for a test that holds things back, on a machine that may be busy: only what it does itself is to count."""


class Barrier:
    """Whoever comes says so and waits until it may go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.passed = asyncio.Event()  # and what was held back has happened

    async def wait(self) -> None:
        self.reached.set()
        await self.open.wait()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let everybody run until something is so."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not condition():
            await asyncio.sleep(0)


# Revocation, and how far it has come.


@contextlib.asynccontextmanager
async def hold_rows(stage: Stage) -> AsyncIterator[None]:
    """Meanwhile keys can be changed, and that is told, but no row of a key can be read: the time between the two."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE api_key_secrets IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def until_heard(proxy: Proxy) -> AsyncIterator[None]:
    """Return when the proxy has heard of what was done meanwhile, whether or not it has read the row again."""
    news = proxy.registry._news
    heard = news.sequence
    yield
    await wait_until(lambda: news.sequence > heard)


async def revoke_and_wait_heard(stage: Stage, proxy: Proxy, key: MintedKey) -> None:
    async with until_heard(proxy):
        await stage.revoke_by_sql(key)


async def revoke_and_wait_read(stage: Stage, proxy: Proxy, key: MintedKey) -> None:
    """Revoke; return when the row was read again: whatever is opened from now on, the news says nothing of it."""
    await stage.revoke_by_sql(key)
    await wait_until(lambda: proxy.heart.verifier._memory.is_revoked(KeyId(key.summary.id)))


async def revoke_and_wait_ended(stage: Stage, proxy: Proxy, key: MintedKey) -> None:
    """Revoke; return when everything open here was judged and has ended."""
    await stage.revoke_by_sql(key)
    await wait_until(lambda: set(list_flows(proxy)) <= {Flow.ENDED})


def list_flows(proxy: Proxy) -> list[Flow]:
    """What may flow right now, of everything that is open."""
    now = proxy.heart.clock.boot()
    open_now = [exchange for siblings in proxy.registry._by_key.values() for exchange in siblings]
    return [proxy.registry.judge_flow(exchange, now) for exchange in open_now]


async def pass_through(proxy: Proxy) -> None:
    """Send a request and read its answer: whoever could go on before has gone on by then, one loop serves all."""
    assert (await ask_raw(proxy.data_address, form_request(body={}))).status == 401


class Client:
    """One connection to the proxy that keeps every byte it gets, also those before a reset."""

    def __init__(self, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
        self.received = bytearray()
        self._writer = writer
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                self.received += chunk

    def send(self, sent: bytes) -> None:
        self._writer.write(sent)

    async def wait_for(self, words: bytes) -> None:
        """Until these have come."""
        await wait_until(lambda: words in self.received or self._reading.done())
        assert words in self.received

    async def wait_end(self) -> bytes:
        """Until the proxy has hung up; everything that came."""
        async with asyncio.timeout(GUARD_SECONDS):
            await self._reading
        return bytes(self.received)

    def close(self) -> None:
        self._reading.cancel()
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connect_client(address: Address) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    client = Client(writer, reader)
    try:
        yield client
    finally:
        client.close()


# Where a request stands still. To be called before the proxy is built.


def hold_claims(monkeypatch: pytest.MonkeyPatch) -> Barrier:
    """A session was found to be the key's, and its request has not gone on yet."""
    barrier = Barrier()

    class HeldStore(SessionStore):
        async def claim(self, upstream: str, session_id: str, principal: Principal) -> ClaimedSession:
            claimed = await super().claim(upstream, session_id, principal)
            await barrier.wait()
            return claimed

    monkeypatch.setattr(proxy.heart, "SessionStore", HeldStore)
    return barrier


def hold_bindings(monkeypatch: pytest.MonkeyPatch) -> Barrier:
    """The upstream has made a session that stands in no row yet."""
    barrier = Barrier()

    class HeldStore(SessionStore):
        async def bind(self, upstream: str, session_id: str, principal: Principal, version: str | None) -> None:
            await barrier.wait()
            await super().bind(upstream, session_id, principal, version)
            barrier.passed.set()

    monkeypatch.setattr(proxy.heart, "SessionStore", HeldStore)
    return barrier


def hold_connections(monkeypatch: pytest.MonkeyPatch) -> Barrier:
    """The connection to the upstream stands, and nothing was sent on it yet."""
    barrier = Barrier()

    class HeldConnection(UpstreamConnection):
        async def connect(self, address: UpstreamAddress, tls: SSLContext | None, timeout_seconds: float) -> None:
            await super().connect(address, tls, timeout_seconds)
            await barrier.wait()

    monkeypatch.setattr(proxy.upstream, "UpstreamConnection", HeldConnection)
    return barrier


class Tally:
    """How many bytes of answers the proxy has taken from its upstreams."""

    def __init__(self) -> None:
        self.taken_bytes = 0

    async def wait_taken(self, sent: bytes, proxy: Proxy) -> None:
        """Until the proxy has taken as much as this, and done with it what it does."""
        await wait_until(lambda: self.taken_bytes >= len(sent))
        await pass_through(proxy)


def tally_answers(monkeypatch: pytest.MonkeyPatch) -> Tally:
    """What arrived in a kernel may have to wait there: this tells when it was read."""
    tally = Tally()

    class CountingConnection(UpstreamConnection):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            tally.taken_bytes += nbytes

    monkeypatch.setattr(proxy.upstream, "UpstreamConnection", CountingConnection)
    return tally


class SleepingClock(SystemClock):
    """Boot time as it is after the machine slept: timers have noticed nothing."""

    asleep_seconds = 0.0

    def boot(self) -> float:
        return super().boot() + self.asleep_seconds

    def wall(self) -> float:
        return super().wall() + self.asleep_seconds


def put_to_sleep(monkeypatch: pytest.MonkeyPatch) -> SleepingClock:
    """The clock of the proxy that is built next."""
    clock = SleepingClock()
    monkeypatch.setattr(proxy.server, "SystemClock", lambda: clock)
    return clock
