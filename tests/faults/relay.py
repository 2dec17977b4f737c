"""A TCP relay that can stop copying without closing anything, one way or both, or copy as a bad network does.

In front of Postgres it is a cut that nobody is told of; in front of a proxy or an upstream, a peer that has vanished
without a FIN. TCP hides lost packets from those who talk over it: what they see of one is everything behind it coming
late, by the retransmission timeout. So loss is staged as such stalls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

CHUNK_BYTES = 65_536
PIPELINE_CHUNKS = 64
RETRANSMIT_SECONDS = 0.2
"""Linux's TCP_RTO_MIN: how long the first retransmission takes at least."""

Weather: TypeAlias = Callable[[], float]
"""Seconds that the next chunk takes. Chunks never overtake each other."""


def calm() -> float:
    """Nothing is late."""
    return 0.0


def form_jitter(dice: random.Random, most_seconds: float) -> Weather:
    """Every chunk takes anything up to that."""
    return lambda: dice.uniform(0.0, most_seconds)


def form_loss(dice: random.Random, rate: float, retransmit_seconds: float = RETRANSMIT_SECONDS) -> Weather:
    """A chunk is lost at this rate, its retransmissions too, each of which takes twice as long as the one before."""

    def draw() -> float:
        late, timeout = 0.0, retransmit_seconds
        while dice.random() < rate:
            late, timeout = late + timeout, 2 * timeout
        return late

    return draw


@dataclass(slots=True)
class Direction:
    """One way of all connections."""

    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    weather: Weather = calm


@dataclass(slots=True)
class Relay:
    """`port` on the loopback leads to `target`: the path of a unix socket, or a port. `url` is that of a database."""

    target: str | int
    port: int = 0
    url: str = ""
    onward: Direction = field(default_factory=Direction)
    back: Direction = field(default_factory=Direction)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def freeze(self, *, onward: bool = True, back: bool = True) -> None:
        """Stop copying. Connections stay open; new ones are accepted and hear nothing."""
        if onward:
            self.onward.flowing.clear()
        if back:
            self.back.flowing.clear()

    def heal(self) -> None:
        """Copy again, what was held back included, and at once."""
        for direction in (self.onward, self.back):
            direction.weather = calm
            direction.flowing.set()

    def disturb(self, weather: Weather) -> None:
        """From now on chunks are late, both ways."""
        self.onward.weather = self.back.weather = weather

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                for source, sink, direction in (
                    (reader, server_writer, self.onward),
                    (server_reader, writer, self.back),
                ):
                    pipeline: Pipeline = asyncio.Queue(PIPELINE_CHUNKS)
                    tasks.create_task(_take(source, direction, pipeline))
                    tasks.create_task(_deliver(sink, direction, pipeline))
        except* OSError:
            pass
        finally:
            self._writers -= {writer, server_writer}
            for end in (writer, server_writer):
                end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)


Pipeline: TypeAlias = asyncio.Queue[tuple[float, bytes]]


async def _take(reader: asyncio.StreamReader, direction: Direction, pipeline: Pipeline) -> None:
    """Chunks, each with the instant at which it may arrive; the empty one at the end tells of the end."""
    clock = asyncio.get_running_loop().time
    chunk = b"anything"
    while chunk:
        chunk = await reader.read(CHUNK_BYTES)
        await pipeline.put((clock() + direction.weather(), chunk))


async def _deliver(writer: asyncio.StreamWriter, direction: Direction, pipeline: Pipeline) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due, chunk = await pipeline.get()
        if (late := due - clock()) > 0:
            await asyncio.sleep(late)
        await direction.flowing.wait()
        if not chunk:
            raise ConnectionResetError
        writer.write(chunk)
        await writer.drain()


@contextlib.asynccontextmanager
async def run_relay(database_url: str) -> AsyncIterator[Relay]:
    """A relay to a database that listens on a unix socket."""
    parts = urlsplit(database_url)
    directory = parse_qs(parts.query)["host"][0]
    async with run_relay_to(f"{directory}/.s.PGSQL.5432") as relay:
        relay.url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{relay.port}{parts.path}"
        yield relay


@contextlib.asynccontextmanager
async def run_relay_to(target: str | int) -> AsyncIterator[Relay]:
    """A relay to a unix socket, or to a port of the loopback."""
    relay = Relay(target)
    relay.heal()
    carrying: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(relay.carry(reader, writer))
        carrying.add(task)
        task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, family=socket.AF_INET, backlog=1024)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for task in tuple(carrying):
            task.cancel()
        if carrying:
            await asyncio.wait(carrying)
        await server.wait_closed()
