"""What is uploaded, as the HTTP library takes it.

In: a text, bytes, an open file, or pieces. Out: bytes, or something to iterate, of which one piece is held at a time.
Refuses to know: where it goes.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import IO

import anyio.to_thread

Uploadable = str | bytes | IO[bytes] | Iterable[bytes]
AsyncUploadable = Uploadable | AsyncIterable[bytes]
# Large enough that reading is not what takes time.
CHUNK_BYTES = 1 << 16


class Pieces:
    """An open file or an iterable, for a client that blocks."""

    def __init__(self, content: IO[bytes] | Iterable[bytes]) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        return iterate(self._content)


class AsyncPieces:
    """The same for one that does not: a file is read in a thread."""

    def __init__(self, content: IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._content, AsyncIterable):
            async for piece in self._content:
                yield piece
            return
        pieces = iterate(self._content)
        while piece := await anyio.to_thread.run_sync(next, pieces, b""):
            yield piece


def iterate(content: IO[bytes] | Iterable[bytes]) -> Iterator[bytes]:
    """Without empty pieces, which would mean the end."""
    read = getattr(content, "read", None)
    return filter(None, content) if read is None else iter(lambda: read(CHUNK_BYTES), b"")


def form_pieces(content: Uploadable) -> bytes | Pieces:
    if isinstance(content, str):
        return content.encode()
    return content if isinstance(content, bytes) else Pieces(content)


def form_async_pieces(content: AsyncUploadable) -> bytes | AsyncPieces:
    if isinstance(content, str):
        return content.encode()
    return content if isinstance(content, bytes) else AsyncPieces(content)
