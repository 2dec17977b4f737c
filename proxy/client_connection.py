"""The connection to a client: aiohttp's, with the deadlines and the silence it lacks.  [io]

aiohttp 3.14 sets no deadline before a handler runs, answers a malformed request with the bytes it could not read, and
logs a traceback for each. Here a request head has to arrive in time, an unreadable one gets a constant answer and a
counted, short line, and a client that leaves is noticed by whoever asked to be told (`on_lost`). It also accepts
connections until there are no descriptors left, for the database neither: here those beyond a number are told to come
back later.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from proxy.client_response import check_unanswered
from proxy.envelope import SUPPORTED_VERSIONS
from proxy.errors import Reason, Refusal, RequestError, UnavailableError
from proxy.logs import get_logger
from proxy.porch import Newcomer, Porch

log = get_logger("connection")

# Connections beyond the limit that are open at once, to be told so; any more are closed without a word.
MAX_SHED = 32
TOO_MANY_FIELDS = "Too many headers received"  # aiohttp has no exception of its own for it


class ClientConnection(RequestHandler):
    """One client. `refuse` turns a refusal into a complete response."""

    __slots__ = (
        "_head_deadline",
        "_head_timeout_seconds",
        "_reader_deadline",
        "_refuse",
        "_server",
        "_slow_reader_seconds",
        "on_lost",
    )

    def __init__(
        self,
        manager: ClientServer,
        *,
        head_timeout_seconds: float,
        slow_reader_seconds: float,
        refuse: Callable[[Refusal], web.Response],
        **settings: Any,  # noqa: ANN401 - aiohttp's own, passed through
    ) -> None:
        super().__init__(manager, **settings)
        self._server = manager
        self._head_timeout_seconds = head_timeout_seconds
        self._slow_reader_seconds = slow_reader_seconds
        self._reader_deadline: asyncio.TimerHandle | None = None
        self._refuse = refuse
        self._head_deadline: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._notice_vanishing(transport)
        self._arm()
        excess = self._server.excess
        if excess > MAX_SHED:
            self._abort()
        elif excess > 0:
            self._request_handler = self._shed

    def _notice_vanishing(self, transport: asyncio.BaseTransport) -> None:
        """A client that is gone without a FIN acknowledges nothing: neither data nor, when there is none, probes."""
        connected = transport.get_extra_info("socket")
        if connected is None or not hasattr(socket, "TCP_USER_TIMEOUT"):
            return
        seconds = max(1, int(self._slow_reader_seconds))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, seconds // 2))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 4))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)

    async def _shed(self, _request: web.BaseRequest) -> web.Response:
        """In the handler's place. Whatever the request is, there is no room for it."""
        response = self._refuse(
            UnavailableError(
                Reason.TOO_MANY_CONNECTIONS, "This instance has too many connections.", retry_after_seconds=1
            )
        )
        response.force_close()
        return response

    def data_received(self, data: bytes) -> None:
        """A head begun has to be finished in time; one that has arrived stops the clock.

        aiohttp queues what it cannot parse as a next request; when that happens inside a body, whoever reads the body
        must not be left waiting for the rest of it.
        """
        super().data_received(data)
        current = self._current_request
        broken = bool(self._messages) and isinstance(self._messages[-1][0], _ErrInfo)
        if broken and current is not None and not current.content.is_eof():
            current.content.set_exception(web.RequestPayloadError("the body is not framed as announced"))
        if self._messages or self._current_request is not None:
            self._disarm()
        elif self._head_deadline is None:
            self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        self._excuse_reader()
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes nothing: for so long, and no longer."""
        super().pause_writing()
        if self._reader_deadline is None:
            self._reader_deadline = self._loop.call_later(self._slow_reader_seconds, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._excuse_reader()

    def _excuse_reader(self) -> None:
        if self._reader_deadline is not None:
            self._reader_deadline.cancel()
            self._reader_deadline = None

    def _abort(self) -> None:
        """Nothing polite: a closed transport would wait for the reader all over again."""
        self._reader_deadline = None
        if self.transport is not None:
            self.transport.abort()

    def _arm(self) -> None:
        self._head_deadline = self._loop.call_later(self._head_timeout_seconds, self._give_up)

    def _disarm(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _give_up(self) -> None:
        self._head_deadline = None
        if self._current_request is None:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A constant answer: what could not be read is not repeated, neither to the client nor to the log."""
        if isinstance(exc, LineTooLong) or message == TOO_MANY_FIELDS:
            refusal = RequestError(Reason.HEAD_TOO_LARGE, "The request line or its headers are too long or too many.")
        elif isinstance(exc, ConnectionError):
            raise exc  # the client has left: aiohttp closes what is left of the connection
        elif status == 500:
            log.error("handler_failed", exc_info=exc)
            refusal = RequestError(Reason.INTERNAL, "The request could not be handled.")
        else:
            refusal = RequestError(Reason.REQUEST_UNREADABLE, "This is not a request that can be read as HTTP/1.1.")
        check_unanswered(request)
        response = self._refuse(refusal)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """An answer names our version (RFC 9110 section 2.5), where aiohttp would repeat an HTTP/0.9 or HTTP/2.0."""
        if request.version not in SUPPORTED_VERSIONS:
            request._cache["version"] = HttpVersion11  # where aiohttp keeps what it has once read
        return await super().finish_response(request, resp, start_time)


class ClientServer(web.Server):
    """aiohttp's low-level server, making `ClientConnection`s of newcomers: `max_connections` that are served."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - aiohttp's own
        porch: Porch,
        max_connections: int,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*arguments, **settings)
        self._porch = porch
        self._max_connections = max_connections

    @property
    def excess(self) -> int:
        """How many connections there are beyond those that are served; not above 0 when there are none."""
        return len(self._connections) + len(self._porch.newcomers) - self._max_connections

    def __call__(self) -> Newcomer:  # type: ignore[override]  # an asyncio.Protocol is all that is asked for
        return Newcomer(self._porch, self._admit, lambda: self.excess > MAX_SHED)

    def _admit(self) -> ClientConnection:
        return ClientConnection(self, loop=self._loop, **self._kwargs)
