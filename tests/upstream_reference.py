"""The upstream's interface once more, on aiohttp's `ClientSession`: slower, and with nothing left to teach by now.

The contract tests run against both, so that a test which only our own pool passes is a test of our own making.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from proxy.errors import Reason, UpstreamError
from proxy.upstream import Upload, UpstreamAborted, UpstreamAddress

T = TypeVar("T")


class ReferenceUpstream:
    def __init__(
        self,
        address: UpstreamAddress,
        *,
        connect_timeout_seconds: float = 5.0,
        headers_timeout_seconds: float = 60.0,
        idle_timeout_seconds: float | None = None,
    ) -> None:
        self.address = address
        self.headers_timeout_seconds = headers_timeout_seconds
        self.idle_timeout_seconds = idle_timeout_seconds
        self.closing = False
        self.calls: set[ReferenceCall] = set()
        self.session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )

    @property
    def active_connections(self) -> int:
        return len(self.calls)

    @property
    def idle_connections(self) -> int:
        return 0  # aiohttp does not tell

    def open(self) -> ReferenceCall:
        return ReferenceCall(self)

    async def aclose(self) -> None:
        self.closing = True
        for call in tuple(self.calls):
            call.abort()
        await self.session.close()


class ReferenceCall:
    def __init__(self, upstream: ReferenceUpstream) -> None:
        self.upstream = upstream
        self.response: aiohttp.ClientResponse | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._aborted = False

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes | Upload
    ) -> ReferenceResponse:
        if self._aborted or self.upstream.closing:
            raise UpstreamAborted
        self.upstream.calls.add(self)
        address = self.upstream.address
        if not isinstance(body, bytes) and body.length is not None:
            headers = [*headers, ("Content-Length", str(body.length))]
        self.response = await self.run(
            self.upstream.session.request(
                method,
                URL(f"{address.scheme}://{address.authority}{target}", encoded=True),
                headers=CIMultiDict(headers),
                data=(body or None) if isinstance(body, bytes) else _read_all(body),
                allow_redirects=False,
            ),
            self.upstream.headers_timeout_seconds,
        )
        return ReferenceResponse(self, self.response)

    async def run(self, work: Coroutine[Any, Any, T], timeout_seconds: float | None) -> T:
        """Wait for one step, in a task of its own so that `abort` can end it."""
        if self._aborted:
            work.close()
            raise UpstreamAborted
        self._waiting = asyncio.create_task(work)
        try:
            return await asyncio.wait_for(self._waiting, timeout_seconds)
        except asyncio.CancelledError:
            if self._aborted:
                raise UpstreamAborted from None
            self.abort()
            raise
        except (TimeoutError, aiohttp.ClientError) as error:
            self.end()
            raise UpstreamError(_find_reason(error), "the upstream failed") from None

    def abort(self) -> None:
        self._aborted = True
        if self._waiting is not None:
            self._waiting.cancel()
        self.end()

    def end(self) -> None:
        self.upstream.calls.discard(self)
        if self.response is not None:
            self.response.close()


class ReferenceResponse:
    def __init__(self, call: ReferenceCall, response: aiohttp.ClientResponse) -> None:
        self._call = call
        self._response = response
        self.status = response.status
        self.headers = CIMultiDict(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
        )

    async def read_chunk(self) -> bytes:
        return await self._call.run(self._response.content.readany(), self._call.upstream.idle_timeout_seconds)

    async def read_all(self, limit_bytes: int) -> bytes:
        body = b""
        while chunk := await self.read_chunk():
            body += chunk
            if len(body) > limit_bytes:
                self._call.abort()
                raise UpstreamError(Reason.UPSTREAM_ANSWER_TOO_LARGE, "the upstream's answer is too large")
        return body

    def try_read_all(self) -> bytes | None:
        content = self._response.content
        if not content.is_eof() or content.exception() is not None:
            return None
        return content.read_nowait()

    def release(self) -> None:
        self._call.upstream.calls.discard(self._call)
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()


async def _read_all(upload: Upload) -> AsyncIterator[bytes]:
    while piece := await upload.read():
        yield piece


def _find_reason(error: Exception) -> Reason:
    if isinstance(error, TimeoutError):
        return Reason.UPSTREAM_TIMEOUT
    unreachable = (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError)
    return Reason.UPSTREAM_UNREACHABLE if isinstance(error, unreachable) else Reason.UPSTREAM_PROTOCOL
