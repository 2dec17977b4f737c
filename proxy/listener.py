"""Hearing the news: LISTEN on a connection of its own, and the nonces that prove it is not deaf.  [io]

In go notifications, out come calls to whoever must know: news heard, listener proven, listener lost. It never uses the
pool (releasing a connection runs UNLISTEN *) and trusts no silence: a half-open connection raises no error and a
transaction-mode pooler swallows LISTEN, so every heartbeat sends a nonce to itself over a second, reserved connection.
Notifications arrive in commit order, so the nonce that comes back proves everything committed before it was heard.
What such a proof rests on is looked at with every beat (`_check`, `_hold_channels`, `_hold_clock`), and now and then
whether the address still leads to the same server (`_compare_servers`). What is found wrong has one mend: begin anew.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from proxy.clock import Clock, DatabaseClock
from proxy.database import FOREIGN_ERRORS, Connection, connect, describe_failure
from proxy.errors import DatabaseError
from proxy.logs import get_logger
from proxy.news import CHANNEL, News, parse_news

log = get_logger("listener")

T = TypeVar("T")

MAX_BACKOFF_SECONDS = 2.0
# NTP slews; what moves the wall clock further between two beats has set it, or has stopped the whole machine.
MAX_CLOCK_STEP_SECONDS = 1.0
CHANNELS = "SELECT array(SELECT pg_listening_channels()) AS channels"
# Which server, and which of its histories: a promoted standby begins a new timeline, named in its WAL files.
SERVER = """
SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline FROM pg_control_system()
"""
BEAT = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now, pg_notify($1, $2)"
# Asking for its usage also cuts the queue of notifications, which PostgreSQL leaves full after whoever held it up left.
# What must stand in the database for a silence to mean "nothing happened": triggers that fire for every writer, even
# under session_replication_role = replica, and even after a restore that had disabled them.
TRIGGERS = 13
CHECK = """
SELECT pg_is_in_recovery() AS standby, pg_notification_queue_usage() AS queue_usage,
       (SELECT count(*) FROM pg_trigger t
         WHERE t.tgrelid = ANY ('{api_keys,api_key_secrets,legacy_digests,owners}'::regclass[])
           AND NOT t.tgisinternal AND t.tgname LIKE 'aegis\\_%' AND t.tgenabled = 'A') AS triggers
"""


class Hearer(Protocol):
    """Whom the listener tells."""

    def hear(self, news: News) -> None:
        """News has arrived. Called in the notification's callback: nothing may be awaited."""

    async def revalidate(self) -> None:
        """LISTEN stands: read everything open again, before trusting. Raises DatabaseError."""

    def prove(self, stamp: float) -> None:
        """The nonce sent at boot time `stamp` was heard."""

    def lose(self) -> None:
        """The listener is gone."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Heartbeat interval, how long to wait for an answer before the listener is replaced, and how often to look whether
    the address still leads to the same server; seconds."""

    heartbeat_seconds: float
    patience_seconds: float
    compare_seconds: float


class Listener:
    """Keeps one listening connection alive for as long as `run` runs."""

    def __init__(
        self, url: str, *, instance: UUID, pace: Pace, clock: Clock, database_clock: DatabaseClock, hearer: Hearer
    ) -> None:
        self._url = url
        self._own_channel = f"aegis_beat_{instance.hex}"
        self._pace = pace
        self._clock = clock
        self._database_clock = database_clock
        self._hearer = hearer
        self._sent: dict[str, float] = {}
        self._heard = asyncio.Event()
        self._patience: asyncio.Timeout | None = None  # while a nonce is waited for
        self._wall_ahead: float | None = None  # of boot time, at the last beat
        self.fault: str | None = "not connected yet"
        self.queue_usage = 0.0  # of the server's notifications, 1.0: full, and no revocation commits
        self.proven = asyncio.Event()

    async def run(self) -> None:
        """Listen; whenever that fails, say so, back off with jitter and begin again. Ends only by cancellation."""
        failures = 0
        while True:
            try:
                await self._listen()
            except DatabaseError as error:
                failures = 0 if self.fault is None else failures + 1
                self.fault = str(error)
                log.warning("listener_lost", error=str(error), failures=failures)
            finally:
                self.proven.clear()
                self._hearer.lose()
            backoff = min(MAX_BACKOFF_SECONDS, 0.1 * 2 ** min(failures, 5))
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))

    async def _listen(self) -> None:
        listening = await connect(self._url, self._pace.patience_seconds, name="aegis-proxy listening")
        try:
            beating = await connect(self._url, self._pace.patience_seconds, name="aegis-proxy beating")
            try:
                await self._serve(listening, beating)
            finally:
                beating.terminate()
        finally:
            listening.terminate()  # a polite goodbye would wait for a server that may be frozen

    async def _serve(self, listening: Connection, beating: Connection) -> None:
        """LISTEN first, then revalidate, then trust; from then on beat."""
        await self._check(beating)  # first, because a standby refuses LISTEN without saying what to do
        self._sent.clear()
        self._wall_ahead = None
        listening.add_termination_listener(lambda _connection: self._heard.set())
        await self._ask(listening.add_listener(CHANNEL, self._hear_news))
        await self._ask(listening.add_listener(self._own_channel, self._hear_nonce))
        await self._beat(beating, listening)  # proves that LISTEN was heard at all
        server = await self._ask(listening.fetchrow(SERVER))
        await self._hearer.revalidate()
        comparing = asyncio.create_task(self._compare_servers(server))
        try:
            while not comparing.done():
                stamp = await self._beat(beating, listening)
                self._hearer.prove(stamp)
                self.fault = None
                self.proven.set()
                await asyncio.sleep(max(0.0, self._pace.heartbeat_seconds - (self._clock.boot() - stamp)))
            comparing.result()
        finally:
            comparing.cancel()
            await asyncio.wait({comparing})

    async def _beat(self, beating: Connection, listening: Connection) -> float:
        """Send a nonce and wait until it is heard; the stamp taken before it was sent. Raises DatabaseError.

        What makes silence mean "nothing happened" is looked at every time: triggers can be disabled under our feet.
        """
        nonce = secrets.token_hex(8)
        self._heard.clear()
        stamp = self._clock.boot()
        self._hold_clock(stamp)
        await self._check(beating)
        self._sent = {nonce: stamp}
        asked_at = self._clock.boot()
        row = await self._ask(beating.fetchrow(BEAT, self._own_channel, nonce))
        self._database_clock.observe(row["now"], asked_at, self._clock.boot())
        try:
            async with asyncio.timeout(self._pace.patience_seconds) as self._patience:
                if not listening.is_closed():  # else its end was heard before, and nothing more will be
                    await self._heard.wait()
        except TimeoutError as error:
            raise DatabaseError(
                "the database answers, but what we NOTIFY is not heard: is the listener's URL a pooler in transaction"
                " mode? Set AEGIS_LISTENER_DATABASE_URL to the primary itself."
            ) from error
        finally:
            self._patience = None
        if listening.is_closed():
            raise DatabaseError("the listening connection was closed")
        await self._hold_channels(listening)
        return stamp

    def _hold_clock(self, boot: float) -> None:
        """A wall clock that jumps against boot time may mean that the whole machine stood still, boot time too."""
        ahead = self._clock.wall() - boot
        step = 0.0 if self._wall_ahead is None else ahead - self._wall_ahead
        self._wall_ahead = ahead
        if abs(step) > MAX_CLOCK_STEP_SECONDS:
            raise DatabaseError(f"this machine's clock was set by {step:+.0f} s, or the machine stood still")

    async def _hold_channels(self, listening: Connection) -> None:
        """Still listening to both: since nobody but us listens for this connection, it has listened all the while."""
        row = await self._ask(listening.fetchrow(CHANNELS))
        missing = {CHANNEL, self._own_channel} - set(row["channels"])
        if missing:
            raise DatabaseError(f"the listening connection no longer listens to {', '.join(sorted(missing))}")

    async def _compare_servers(self, server: object) -> None:
        """Look, on a fresh connection that resolves the name anew, whether it still leads to the server we listen to:
        ends by DatabaseError when it does not. A connection that is not had proves nothing, and is tried again."""
        while True:
            await asyncio.sleep(self._pace.compare_seconds)
            try:
                fresh = await connect(self._url, self._pace.patience_seconds, name="aegis-proxy comparing")
            except DatabaseError as error:
                log.warning("servers_not_compared", error=str(error))
                continue
            try:
                await self._check(fresh)
                found = await self._ask(fresh.fetchrow(SERVER))
            finally:
                fresh.terminate()
            if found != server:
                raise DatabaseError("the address leads to another server now, or to another history of the same")

    async def _check(self, connection: Connection) -> None:
        row = await self._ask(connection.fetchrow(CHECK))
        self.queue_usage = row["queue_usage"]
        if row["standby"]:
            raise DatabaseError("this server is a standby, which hears nothing: name the primary")
        if row["triggers"] < TRIGGERS:
            raise DatabaseError(
                f"only {row['triggers']} of {TRIGGERS} triggers on the key tables are ENABLE ALWAYS (a restore may"
                " have disabled them): ALTER TABLE … ENABLE ALWAYS TRIGGER each of them"
            )

    async def _ask(self, question: Awaitable[T]) -> T:
        """One question to the database, in time. Raises DatabaseError."""
        try:
            async with asyncio.timeout(self._pace.patience_seconds):
                return await question
        except FOREIGN_ERRORS as error:
            raise DatabaseError(describe_failure(error)) from error

    def _hear_news(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self._hearer.hear(parse_news(payload))
        if self._patience is not None and not self._patience.expired():  # not deaf: much was said before the nonce
            self._patience.reschedule(asyncio.get_running_loop().time() + self._pace.patience_seconds)

    def _hear_nonce(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload in self._sent:
            self._heard.set()
