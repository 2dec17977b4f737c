"""Rows of the matrix: what clients do to a proxy.

They are told nothing and ask for nothing more: what they held must be given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import aiohttp

from proxy.keys.minting import MintedKey
from tests.faults.load import Door
from tests.faults.row import Row
from tests.faults.rows_upstream import ARGUMENTS, TOOL
from tests.faults.third_proxy import ThirdProxy, ask, form_request, run_third_proxy, wait_until
from tests.faults.vanishing import find_obstacle as find_no_filters
from tests.faults.vanishing import vanish
from tests.faults.world import World
from tests.staging import GUARD_SECONDS

HUNDREDS, CROWD = 300, 5000
SPARE_DESCRIPTORS = 24
"""Idle connections to the upstream and the database."""
VANISHED_GUARD_SECONDS = 60.0
DESCRIPTORS = 256
CALLERS = 400
SERVED, SHED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Service Unavailable\r\n"
TAKEN_AT_ONCE = 50
"""Connections made at a time: no more than any backlog holds."""


class Crowd:
    """Clients on bare sockets, each with one stream."""

    def __init__(self, host: str, token: str, interval_seconds: float) -> None:
        self._host = host
        self._request = form_request(
            host, token, TOOL, {**ARGUMENTS, "behaviour": "stream", "interval_seconds": interval_seconds}
        )
        self._writers: list[asyncio.StreamWriter] = []
        self.heads: list[bytes] = []

    async def gather(self, number: int) -> None:
        """Ask, all of them, and read the head of each answer: b"" when the connection was closed instead."""
        for start in range(0, number, TAKEN_AT_ONCE):
            asking = (self._ask() for _ in range(min(TAKEN_AT_ONCE, number - start)))
            self.heads += await asyncio.gather(*asking)

    async def _ask(self) -> bytes:
        address, port = self._host.split(":")
        try:
            reader, writer = await asyncio.open_connection(address, int(port), limit=4096)
            self._writers.append(writer)
            writer.write(self._request)
            return await reader.readline()
        except ConnectionError:
            return b""

    def vanish(self) -> None:
        """Gone, all at once, without a word."""
        for writer in self._writers:
            vanish(writer.get_extra_info("socket"))

    def leave(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def gather_crowd(third: ThirdProxy, token: str, number: int, interval_seconds: float) -> AsyncIterator[Crowd]:
    crowd = Crowd(third.process.data.removeprefix("http://"), token, interval_seconds)
    try:
        await crowd.gather(number)
        yield crowd
    finally:
        crowd.leave()


async def let_vanish(world: World, number: int, interval_seconds: float) -> None:
    """Everything they held is given back, though no segment ever says that they are gone."""
    patience = {"slow_reader_seconds": 2.0}
    async with run_third_proxy(world, direct=True, server=patience) as third:
        before = third.process.count_descriptors()
        async with gather_crowd(third, world.good[0].token, number, interval_seconds) as crowd:
            while (missing := number - crowd.heads.count(SERVED)) > 0:  # a busy machine cannot tell now and then
                await crowd.gather(missing)
            crowd.vanish()
            await third.wait_exchanges(0, VANISHED_GUARD_SECONDS)
            await wait_until(
                lambda: third.process.count_descriptors() <= before + SPARE_DESCRIPTORS, VANISHED_GUARD_SECONDS
            )


async def few_descriptors(world: World) -> None:
    """More clients than descriptors: the excess is told so or closed, health answers, the news is heard."""
    limit = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    victim = world.victims[0]
    async with AsyncExitStack() as stack:
        third = await stack.enter_async_context(run_third_proxy(world, timing=world.timing, direct=True, prefix=limit))
        streaming = await open_stream(world, third, victim)
        stack.callback(streaming.cancel)
        async with gather_crowd(third, world.good[0].token, CALLERS, 1.0) as crowd:
            served, shed = crowd.heads.count(SERVED), crowd.heads.count(SHED)
            assert served > 0
            assert shed > 0
            assert served + shed + crowd.heads.count(b"") == CALLERS
            assert await read_health(third) == 200
            await world.admin.end_keys([victim])
            await asyncio.wait_for(streaming, VANISHED_GUARD_SECONDS)
        await third.wait_exchanges(0)
        await ask(world, Door(third.door.name, partial(getattr, third.process, "data")), ARGUMENTS)


async def open_stream(world: World, third: ThirdProxy, key: MintedKey) -> asyncio.Task[None]:
    """A stream that has begun; asked for again while the proxy cannot tell."""
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            opened = asyncio.Event()
            streaming = asyncio.create_task(world.load.stream(key, third.door, ARGUMENTS, opened))
            waiting = asyncio.create_task(opened.wait())
            await asyncio.wait({streaming, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if opened.is_set():
                return streaming


async def read_health(third: ThirdProxy) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{third.process.ops}/healthz") as answer:
        return answer.status


async def hundreds_vanish(world: World) -> None:
    await let_vanish(world, HUNDREDS, 0.5)


async def crowd_vanishes(world: World) -> None:
    await let_vanish(world, CROWD, 5.0)


async def idle_vanish(world: World) -> None:
    """Nothing is sent to them, so nothing stays unacknowledged: only probes find out."""
    await let_vanish(world, HUNDREDS, 3600.0)


ROWS = (
    Row("hundreds_vanish", "300 readers of streams are gone without a FIN", hundreds_vanish,
        find_obstacle=find_no_filters),
    Row("idle_vanish", "300 readers of silent streams are gone without a FIN", idle_vanish, long=True, slow=True,
        find_obstacle=find_no_filters),
    Row("crowd_vanishes", "5,000 readers of streams are gone without a FIN", crowd_vanishes, long=True, slow=True,
        find_obstacle=find_no_filters),
    Row("few_descriptors", "256 descriptors and 400 clients", few_descriptors),
)  # fmt: skip
