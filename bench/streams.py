"""Commit to last byte: live streams, the keys they were opened with revoked all at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

import asyncpg

from bench.stage import ProxyAddress, revoke, say, wait_settled

OPENED_AT_ONCE = 100
END_SECONDS = 30.0
FIRST_EVENT, LAST_CHUNK = b": hello\n\n", b"\r\n0\r\n\r\n"


class StreamsLostError(Exception):
    """Streams ended that should live, or live on that should have ended."""


class Streams:
    """Open streams. `ends` fills with the time of each one's last byte; `all_ended` is set with the last of them."""

    def __init__(self) -> None:
        self.open: list[Stream] = []
        self.ends: list[float] = []
        self.all_ended = asyncio.Event()

    def note_end(self) -> None:
        """One stream more has ended, now."""
        self.ends.append(time.perf_counter())
        if len(self.ends) == len(self.open):
            self.all_ended.set()

    async def wait_ended(self, number: int) -> list[float]:
        """The end of every stream. Raises StreamsLostError."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.all_ended.wait()
        except TimeoutError:
            raise StreamsLostError(f"{number - len(self.ends)} of {number} streams never ended") from None
        return self.ends

    def close(self) -> None:
        """Hang up, everywhere."""
        for stream in self.open:
            stream.transport.abort()


class Stream(asyncio.Protocol):
    """The client of one stream. No reader, no task: what the clients take from the shared cores, the proxies lack."""

    __slots__ = ("_received", "_request", "_streams", "ended", "opened", "transport")

    def __init__(self, request: bytes, streams: Streams) -> None:
        self._request = request
        self._streams = streams
        self._received = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.opened.done():
            if not self._received.startswith(b"HTTP/1.1 200"):
                self.opened.set_exception(StreamsLostError(self._received.decode()))
            elif FIRST_EVENT in self._received:
                self.opened.set_result(None)
        elif self._received.endswith(LAST_CHUNK):
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.opened.done():
            self._end()
        else:
            self.opened.set_exception(StreamsLostError("the proxy hung up"))

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._streams.note_end()


async def open_streams(proxies: Sequence[ProxyAddress], tokens: Sequence[str], number: int) -> Streams:
    """So many streams, spread over proxies and keys, the first event of each read. Raises StreamsLostError."""
    streams = Streams()
    loop = asyncio.get_running_loop()

    async def open_one(index: int) -> None:
        port = proxies[index % len(proxies)].port
        token = tokens[index // len(proxies) % len(tokens)]
        request = (
            f"GET /mcp/v1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        _, stream = await loop.create_connection(lambda: Stream(request.encode(), streams), "127.0.0.1", port)
        await stream.opened
        streams.open.append(stream)

    for first in range(0, number, OPENED_AT_ONCE):  # this is no test of opening them
        await asyncio.gather(*(open_one(index) for index in range(first, min(first + OPENED_AT_ONCE, number))))
        if first and not first % 2000:
            say(f"  {first:,} of {number:,} streams are open")
    return streams


async def measure_streams(url: str, proxies: Sequence[ProxyAddress], tokens: Sequence[str], number: int) -> list[float]:
    """Open streams, revoke their keys in one statement: milliseconds to each end. Raises StreamsLostError."""
    streams = await open_streams(proxies, tokens, number)
    connection = await asyncpg.connect(url)
    try:
        await asyncio.sleep(0.5)  # what opening them left to do is done
        if streams.ends:
            raise StreamsLostError(f"{len(streams.ends)} streams ended by themselves")
        committed = await revoke(connection, tokens)
        ends = await streams.wait_ended(number)
    finally:
        connection.terminate()
        streams.close()
    await wait_settled(proxies)
    return [(end - committed) * 1000 for end in ends]
