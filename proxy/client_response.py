"""The answer to a client, as aiohttp sends it: in one piece, or begun and then written.  [io]

In go the upstream's status, the headers as the client may see them and perhaps a body; out comes a response. Whether
any of it may be sent, and what it says, is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import CIMultiDict

from proxy.upstream import UpstreamResponse

# Answers up to this size are sent as one piece; larger ones flow through.
WHOLE_ANSWER_BYTES = 64 * 1024


def form_whole(
    request: web.BaseRequest, response: UpstreamResponse, headers: CIMultiDict[str], body: bytes
) -> web.StreamResponse:
    """In one piece. The answer to HEAD announces a body that does not come (RFC 9110 section 9.3.2)."""
    declared = response.headers.get("Content-Length", "")
    if request.method == "HEAD" and declared.isdigit():
        headers["Content-Length"] = declared
    return _close_unread(request, web.Response(status=response.status, headers=headers, body=body or None))


def begin_stream(
    request: web.BaseRequest, response: UpstreamResponse, headers: CIMultiDict[str], length: str | None
) -> web.StreamResponse:
    """To be prepared and written. `length` as announced; None: in chunks, as far as the client knows them."""
    answer = web.StreamResponse(status=response.status, headers=headers)
    if length is not None and length.isdigit():
        answer.content_length = int(length)
    elif request.version >= (1, 1):
        answer.enable_chunked_encoding()
    return _close_unread(request, answer)


def _close_unread(request: web.BaseRequest, answer: web.StreamResponse) -> web.StreamResponse:
    """What is still to come of the request must not be taken for the next one."""
    if not request.content.is_eof():
        answer.force_close()
    return answer


def check_unanswered(request: web.BaseRequest) -> None:
    """Nothing of a second answer may stand inside the first: that one is cut. Raises ConnectionResetError."""
    if request.writer.output_size > 0:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("an answer has begun already")


def cut(body: bytes, *, then: Callable[[], Awaitable[bytes]] | None) -> Callable[[], Awaitable[bytes]]:
    """Something to read a body from in pieces, and then what follows it; b"" at its end."""
    pieces = (body[start : start + WHOLE_ANSWER_BYTES] for start in range(0, len(body), WHOLE_ANSWER_BYTES))

    async def read() -> bytes:
        piece = next(pieces, b"")
        return piece if piece or then is None else await then()

    return read
