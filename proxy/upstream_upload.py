"""A request body on its way to the upstream, piece by piece.  [io]

In: a head, a body that is read in pieces, a transport. Out: both on the wire, framed, at the upstream's pace; and never
a complete request unless the body came to its end as announced.
Refuses to know: the answer, deadlines, where the pieces come from.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Protocol

from proxy.errors import ProxyError

# How much may wait in a transport before no more is read of the body; the piece read last comes on top. Under TLS there
# are two such buffers, one above the other. Said explicitly: asyncio's default under TLS is 512 KiB.
MAX_UNSENT_BYTES = 64 * 1024


class Upload(Protocol):
    """A request body that is not held in memory. `length`: its bytes, announced to the upstream; None: chunked.

    `read` gives the next piece, b"" at the end, and may raise: then the request stays incomplete for ever and its
    sender gets that very exception. It is called in a task of its own, one call at a time, never again after its end,
    and is cancelled while it waits when the call to the upstream ends. A piece that completes the announced length is
    sent only when the next `read` has confirmed the end.
    """

    @property
    def length(self) -> int | None: ...

    async def read(self) -> bytes: ...


class UploadLengthError(ProxyError, ValueError):
    """The body is shorter or longer than its announced length: a fault of whoever brings it, not of the upstream."""

    def __init__(self) -> None:
        super().__init__("the request body has not the length that was announced")


class Outflow:
    """One upload under way."""

    __slots__ = ("_crowded", "_on_end", "_on_turn", "_room", "_task", "_transport", "_unsent_bytes")

    def __init__(
        self,
        transport: asyncio.Transport,
        head: bytes,
        upload: Upload,
        on_turn: Callable[[float], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """`on_turn` hears since when the next move is the upstream's; infinity: the next piece is ours to bring.

        `on_end` is called once, with None in the same step as the last byte is written.
        """
        transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self._transport = transport
        self._on_turn = on_turn
        self._on_end = on_end
        self._crowded = False
        self._unsent_bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(head, upload))
        on_turn(math.inf)

    def pause(self) -> None:
        """The transport holds more than it likes."""
        self._crowded = True

    def resume(self) -> None:
        self._crowded = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def note_progress(self) -> bool:
        """Has the upstream taken anything since it was its turn, or since this was asked last?

        Under TLS only whole buffers show: there an upstream that takes less than some 64 KiB seems to take nothing.
        """
        before, self._unsent_bytes = self._unsent_bytes, self._transport.get_write_buffer_size()
        return self._crowded and self._unsent_bytes < before

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self, head: bytes, upload: Upload) -> None:
        try:
            self._write(await carry(head, upload, self._put))
        except BaseException as error:
            self._on_end(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._on_end(None)

    async def _put(self, part: bytes) -> None:
        """Write, and wait while the transport is crowded: until then nothing more is read of the body."""
        self._write(part)
        await asyncio.sleep(0)  # a body that never has to be waited for must not keep others, or an early answer, out
        if not self._crowded:
            return
        loop = asyncio.get_running_loop()
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._on_turn(loop.time())
        while self._crowded:
            self._room = loop.create_future()
            await self._room
        self._on_turn(math.inf)

    def _write(self, part: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the connection has ended before the upload")
        self._transport.write(part)


Put = Callable[[bytes], Awaitable[None]]


async def carry(head: bytes, upload: Upload, put: Put) -> bytes:
    """Put all but the part that completes the request; return that. Raises UploadLengthError, what `read` raises."""
    length = upload.length
    return await (_carry_chunks(head, upload, put) if length is None else _carry_counted(head, upload, length, put))


async def _carry_chunks(head: bytes, upload: Upload, put: Put) -> bytes:
    """RFC 9112 section 7.1."""
    await put(head)
    while piece := await upload.read():
        await put(b"%x\r\n%b\r\n" % (len(piece), piece))
    return b"0\r\n\r\n"


async def _carry_counted(head: bytes, upload: Upload, missing_bytes: int, put: Put) -> bytes:
    part = head
    while True:
        if missing_bytes:
            await put(part)
        piece = await upload.read()
        missing_bytes -= len(piece)
        if missing_bytes < 0 or (missing_bytes and not piece):
            raise UploadLengthError
        if not piece:
            return part
        part = piece
