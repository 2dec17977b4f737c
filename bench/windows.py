"""When the news cannot arrive: how long a revoked key is still admitted, when everything closes, how it heals.

Every cut comes at the shipped timing, at a random moment between two heartbeats. Two keys ask all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import aiohttp
import asyncpg

from bench.cuts import Cut, freeze_relays, freeze_server
from bench.stage import READY_SECONDS, ProxyAddress, Wire, mint_keys, revoke, run_proxies, say, wait_settled
from bench.streams import StreamsLostError, open_streams
from proxy.embedded_postgres import EmbeddedPostgres
from tests.faults.relay import run_relay

HEARTBEAT_SECONDS, BOUND_SECONDS = 0.5, 3.0  # as shipped: lease 2 s and grace 1 s
BROKEN_SECONDS = BOUND_SECONDS + 1.0
PAUSE_SECONDS = 0.002  # between two questions: the proxies must not lack the processor
STREAMS = 100

Answers: TypeAlias = list[tuple[float, int]]
Rows: TypeAlias = dict[str, list[float]]


@dataclass(slots=True)
class Sightings:
    """What one proxy answered, and when: to a good key, to the one that is revoked, and on `/readyz`."""

    good: Answers = field(default_factory=list)
    revoked: Answers = field(default_factory=list)
    ready: Answers = field(default_factory=list)


@dataclass(slots=True)
class Course:
    """A cut from its beginning to its end, as every proxy took it."""

    cut: Cut
    broken: float
    committed: float
    mended: float
    proxies: Sequence[Sightings]
    stream_ends: Sequence[float]

    def count_late(self) -> int:
        """Admissions past the bound, of which there must be none."""
        seen = [one.revoked if self.cut.commits else one.good for one in self.proxies]
        bound = self.committed + BOUND_SECONDS
        return sum(said == 200 and bound <= moment < self.mended for answers in seen for moment, said in answers)

    def check(self) -> None:
        """Streams end when nothing can be read, and only then; so do good keys' calls. Raises StreamsLostError."""
        expected = STREAMS if self.cut.closes else 0
        if len(self.stream_ends) != expected:
            raise StreamsLostError(f"{self.cut.name}: {len(self.stream_ends)} of {STREAMS} streams ended")
        refused = sum(said != 200 for one in self.proxies for _, said in one.good)
        if refused and not self.cut.closes:
            raise StreamsLostError(f"{self.cut.name}: a good key was refused {refused} times")


async def measure_windows(postgres: EmbeddedPostgres, rounds: int) -> tuple[Rows, int]:
    """Each cut so many times, each time another key revoked: the rows, and the admissions past the bound."""
    rows: Rows = {}
    late = 0
    async with run_relay(postgres.url) as pool, run_relay(postgres.url) as listener:
        cuts = (
            Cut("LISTEN cut", lambda: freeze_relays(listener), closes=False, commits=True),
            Cut("all cut", lambda: freeze_relays(pool, listener), closes=True, commits=True),
            Cut("frozen", lambda: freeze_server(postgres.pid), closes=True, commits=False),
        )
        good, *others = await mint_keys(postgres.url, 1 + len(cuts) * rounds)
        connection = await asyncpg.connect(postgres.url)
        async with run_proxies(pool.url, listener.url) as proxies:
            for cut, round_ in itertools.product(cuts, range(rounds)):
                say(f"{cut.name} for {BROKEN_SECONDS:g} s, {round_ + 1} of {rounds}")
                course = await take_course(proxies, cut, good, others.pop(), connection)
                course.check()
                add_rows(rows, course)
                late += course.count_late()
        connection.terminate()
    return rows, late


async def take_course(
    proxies: Sequence[ProxyAddress], cut: Cut, good: str, revoked: str, connection: asyncpg.Connection
) -> Course:
    """Cut, revoke one key if that can be done, wait, mend, wait until all is well again."""
    async with contextlib.AsyncExitStack() as stack:
        streams = await open_streams(proxies, [good], STREAMS)
        stack.callback(streams.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        seen = [await stack.enter_async_context(watch_proxy(proxy, good, revoked, http)) for proxy in proxies]
        await asyncio.sleep(random.uniform(1, 2) * HEARTBEAT_SECONDS)
        with cut.begin():
            broken = time.perf_counter()
            committed = await revoke(connection, [revoked]) if cut.commits else broken
            await asyncio.sleep(BROKEN_SECONDS)
            ends = tuple(streams.ends)
        mended = time.perf_counter()
        async with asyncio.timeout(READY_SECONDS):
            while not all(find_first(one.ready, 200, mended) and find_first(one.good, 200, mended) for one in seen):
                await asyncio.sleep(PAUSE_SECONDS)
    await wait_settled(proxies)
    return Course(cut, broken, committed, mended, seen, ends)


@contextlib.asynccontextmanager
async def watch_proxy(
    proxy: ProxyAddress, good: str, revoked: str, http: aiohttp.ClientSession
) -> AsyncIterator[Sightings]:
    """Everything one proxy answers meanwhile. Both keys are known to it when the context begins."""

    async def ask_ready() -> int:
        async with http.get(f"{proxy.ops}/readyz") as answer:
            return answer.status

    sightings, wires = Sightings(), (Wire(proxy, good), Wire(proxy, revoked))
    assert [await wire.ask() for wire in wires] == [200, 200]
    questions = ((wires[0].ask, sightings.good), (wires[1].ask, sightings.revoked), (ask_ready, sightings.ready))
    tasks = [asyncio.create_task(watch(ask, answers)) for ask, answers in questions]
    try:
        yield sightings
    finally:
        for task in tasks:
            task.cancel()
        for wire in wires:
            wire.close()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                raise outcome


async def watch(ask: Callable[[], Awaitable[int]], answers: Answers) -> NoReturn:
    """Ask again and again, until cancelled."""
    while True:
        status = await ask()
        answers.append((time.perf_counter(), status))
        await asyncio.sleep(PAUSE_SECONDS)


def find_first(answers: Answers, status: int, since: float) -> float | None:
    """Milliseconds until an answer of that status came."""
    return next(((moment - since) * 1000 for moment, said in answers if said == status and moment >= since), None)


def find_last(answers: Answers, status: int, since: float, until: float) -> float:
    """Milliseconds to the last such answer before `until`; zero when there was none."""
    times = [moment for moment, said in answers if said == status and since <= moment < until]
    return (times[-1] - since) * 1000 if times else 0.0


def add_rows(rows: Rows, course: Course) -> None:
    """What a course says, by the names of the table's rows."""

    def add(what: str, times: Iterable[float | None]) -> None:
        rows.setdefault(f"{course.cut.name}: {what}", []).extend(time for time in times if time is not None)

    proxies, broken, committed, mended = course.proxies, course.broken, course.committed, course.mended
    add("memory distrusted", (find_first(one.ready, 503, broken) for one in proxies))
    if course.cut.commits:
        add("revoked key last admitted", (find_last(one.revoked, 200, committed, mended) for one in proxies))
    if course.cut.closes:
        add("any key last admitted", (find_last(one.good, 200, broken, mended) for one in proxies))
        add("first 503", (find_first(one.good, 503, broken) for one in proxies))
        add("streams ended", ((end - broken) * 1000 for end in course.stream_ends))
        add("mended, first 200", (find_first(one.good, 200, mended) for one in proxies))
    add("mended, memory trusted", (find_first(one.ready, 200, mended) for one in proxies))
