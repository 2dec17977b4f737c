"""A raw TCP server that plays scripted bytes and keeps everything it was sent.

Each connection becomes a `Peer` and runs the script; when the script returns, the origin only listens until the other
side hangs up, so that a second request nobody expected is still seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

Script = Callable[["Peer"], Awaitable[None]]

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class Peer:
    """One connection as the origin sees it. `number` counts from 0; `requests` are kept byte for byte."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.requests: list[bytes] = []
        self.stray_bytes = b""  # what came after the script had ended
        self._gone = asyncio.Event()
        self._reader = reader
        self._writer = writer

    async def read_request(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(head)
        chunked = b"\r\ntransfer-encoding: chunked\r\n" in head.lower()
        body = await self._read_chunks() if chunked else await self.read_exactly(int(length[1]) if length else 0)
        self.requests.append(head + body)
        return head + body

    async def read_head(self) -> None:
        """The head alone: the body stays on the wire."""
        self.requests.append(await self._reader.readuntil(b"\r\n\r\n"))

    async def read_exactly(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    async def _read_chunks(self) -> bytes:
        """As they stand on the wire, the last one included."""
        chunks = b""
        while not chunks.endswith(b"\r\n0\r\n\r\n") and chunks != b"0\r\n\r\n":
            line = await self._reader.readuntil(b"\r\n")
            chunks += line + await self.read_exactly(int(line, 16) + 2)
        return chunks

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def close(self) -> None:
        """An orderly end (FIN)."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """RST instead of FIN."""
        connected = self._writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()

    def send_at_once(self, sent: bytes) -> None:
        """In the other side's kernel when this returns, while its event loop has not looked yet."""
        os.write(self._writer.get_extra_info("socket").fileno(), sent)

    def end_at_once(self) -> None:
        """FIN, like `send_at_once`."""
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as twin:
            twin.shutdown(socket.SHUT_WR)

    def is_held_back(self) -> bool:
        """More is waiting to be sent than the transport likes: the kernel takes no more."""
        transport: Any = self._writer.transport
        return bool(transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1])

    def set_gone(self) -> None:
        self._gone.set()

    async def wait_gone(self) -> None:
        """Until the connection has ended."""
        async with asyncio.timeout(10):
            await self._gone.wait()

    async def wait_hang_up(self) -> None:
        while received := await self._reader.read(65536):
            self.stray_bytes += received


class HostileOrigin:
    """Use as an async context manager; a failed assertion in a script fails the test on exit."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.peers: list[Peer] = []
        self._script = script
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def requests(self) -> list[bytes]:
        """Everything that was asked, on all connections."""
        return [request for peer in self.peers for request in peer.requests]

    async def __aenter__(self) -> HostileOrigin:
        self._server = await asyncio.start_server(self._welcome, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(len(self.peers), reader, writer)
        self.peers.append(peer)
        self._tasks.append(asyncio.create_task(self._serve(peer, writer)))

    async def _serve(self, peer: Peer, writer: asyncio.StreamWriter) -> None:
        try:
            await self._script(peer)
            await peer.wait_hang_up()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side hung up in the middle of the script: the tests look at `requests` and `wait_gone`
        finally:
            writer.transport.abort()
            peer.set_gone()


def answering(*answers: bytes) -> Script:
    """Answer the n-th request of all connections with the n-th answer, the last one for ever."""
    remaining = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            await peer.read_request()
            await peer.send(remaining.pop(0) if len(remaining) > 1 else remaining[0])

    return script
