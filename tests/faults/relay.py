"""A TCP relay in front of Postgres that can stop copying without closing anything: a cut that nobody is told of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

CHUNK_BYTES = 65_536


@dataclass(slots=True)
class Relay:
    """`url` leads through the relay to the same database."""

    url: str
    socket_path: str
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def freeze(self) -> None:
        """Stop copying, both ways. Connections stay open; new ones are accepted and hear nothing."""
        self._flowing.clear()

    def heal(self) -> None:
        """Copy again, what was held back included."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        server_reader, server_writer = await asyncio.open_unix_connection(self.socket_path)
        self._writers |= {writer, server_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, server_writer))
                tasks.create_task(self._copy(server_reader, writer))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers -= {writer, server_writer}
            for end in (writer, server_writer):
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def run_relay(database_url: str) -> AsyncIterator[Relay]:
    """A relay to a database that listens on a unix socket."""
    parts = urlsplit(database_url)
    directory = parse_qs(parts.query)["host"][0]
    relay = Relay("", f"{directory}/.s.PGSQL.5432")
    relay.heal()
    carrying: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(relay.carry(reader, writer))
        carrying.add(task)
        task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    relay.url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
    try:
        yield relay
    finally:
        server.close()
        for task in tuple(carrying):
            task.cancel()
        if carrying:
            await asyncio.wait(carrying)
        await server.wait_closed()
