"""Request bodies for tests: brought piece by piece, at the test's word or as fast as they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from httptools import HttpParserError, HttpRequestParser


class Faucet:
    """Gives what the test puts in: pieces, b"" for the end, an exception to be raised."""

    def __init__(self, *items: bytes | BaseException, length: int | None = None) -> None:
        self.length = length
        self.reads = 0
        self.waiting = False
        self._items: asyncio.Queue[bytes | BaseException] = asyncio.Queue()
        self.put(*items)

    def put(self, *items: bytes | BaseException) -> None:
        for item in items:
            self._items.put_nowait(item)

    async def read(self) -> bytes:
        self.reads += 1
        self.waiting = True
        try:
            item = await self._items.get()
        finally:
            self.waiting = False
        if isinstance(item, BaseException):
            raise item
        return item


class Flood:
    """As many pieces as are wanted, at once; `look` is called before each."""

    def __init__(
        self, pieces: Iterator[bytes], length: int | None = None, look: Callable[[], None] = lambda: None
    ) -> None:
        self.length = length
        self.reads = 0
        self._pieces = pieces
        self._look = look

    async def read(self) -> bytes:
        self._look()
        self.reads += 1
        return next(self._pieces, b"")


class ReadRequest:
    """What an upstream makes of the bytes it was sent."""

    def __init__(self, sent: bytes) -> None:
        self.body = b""
        self.complete = False
        self.headers: dict[bytes, bytes] = {}
        self.broken = False
        parser = HttpRequestParser(self)
        try:
            parser.feed_data(sent)
        except HttpParserError:
            self.broken = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True
