"""What comes after the head of a request: whole, to be judged, or piece by piece, to be carried on.  [io]

In goes a request whose head has been accepted, out comes its body, bounded in bytes and in patience; RequestError says
why not. A client that waits for `100 Continue` is told to send only now. What a body means is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from proxy.errors import Reason, RequestError

MAX_PATIENCE = 6  # times the silence allowed: as long as a body that is held may take, drop by drop
MIN_BYTES_PER_SECOND = 100  # of one that is not held: the slowest line there is, not a byte now and then


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes of a body that is held, and of one that is not; seconds it may pause."""

    max_body_bytes: int
    max_upload_bytes: int
    silence_seconds: float


async def read_body(request: web.BaseRequest, limits: BodyLimits) -> bytes:
    """The whole of it, up to the limit: what is judged is everything that is sent on. Raises RequestError."""
    _begin(request, limits.max_body_bytes)
    content = request.content
    if content.is_eof():
        return _check_size(content.read_nowait(), limits.max_body_bytes)
    chunks: list[bytes] = []
    size = 0
    latest = asyncio.get_running_loop().time() + MAX_PATIENCE * limits.silence_seconds
    while chunk := await _read_piece(request, limits.silence_seconds, latest):
        chunks.append(chunk)
        size += len(chunk)
        if size > limits.max_body_bytes:
            raise _too_large(limits.max_body_bytes)
    return b"".join(chunks)


class RequestUpload:
    """A body on its way through: `gate` is awaited before each piece, and may raise, so that it ends with its key.

    `length` is what the client announced; None: it comes in chunks.
    """

    __slots__ = ("_limits", "_request", "_size", "_waited_seconds", "gate", "length")

    def __init__(self, request: web.BaseRequest, limits: BodyLimits) -> None:
        _begin(request, limits.max_upload_bytes)
        self._request = request
        self._limits = limits
        self._size = 0
        self._waited_seconds = 0.0  # for the client; how long the upstream takes is not its fault
        self.length: int | None = request.content_length
        self.gate: Callable[[], Awaitable[None]] | None = None

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises RequestError, and what the gate raises."""
        loop, silence_seconds = asyncio.get_running_loop(), self._limits.silence_seconds
        began = loop.time()
        piece = await _read_piece(self._request, silence_seconds)
        self._waited_seconds += loop.time() - began
        if piece and self._size + len(piece) < (self._waited_seconds - silence_seconds) * MIN_BYTES_PER_SECOND:
            raise _too_slow()
        if self.gate is not None:
            await self.gate()
        self._size += len(piece)
        if self._size > self._limits.max_upload_bytes:
            raise _too_large(self._limits.max_upload_bytes)
        return piece


def _begin(request: web.BaseRequest, limit_bytes: int) -> None:
    """Only now, with the credential verified, is a client told to send its body."""
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    if "Expect" in request.headers and request.version >= (1, 1) and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read_piece(request: web.BaseRequest, silence_seconds: float, latest: float | None = None) -> bytes:
    """What has come, as soon as anything has; b"" at the end. `latest`: the loop's time at which patience ends."""
    content = request.content
    until = asyncio.get_running_loop().time() + silence_seconds
    try:
        async with asyncio.timeout_at(until if latest is None else min(until, latest)):
            while True:
                piece = await content.readany()
                if piece or content.is_eof():
                    return piece
    except TimeoutError as error:
        raise _too_slow() from error
    except web.RequestPayloadError as error:
        raise RequestError(Reason.REQUEST_UNREADABLE, "The request body is not framed as announced.") from error


def _check_size(body: bytes, limit_bytes: int) -> bytes:
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


def _too_slow() -> RequestError:
    return RequestError(Reason.BODY_TIMEOUT, "The request body came too slowly.")


def _too_large(limit_bytes: int) -> RequestError:
    return RequestError(Reason.BODY_TOO_LARGE, f"The request body is larger than {limit_bytes} bytes.")
