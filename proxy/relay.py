"""The way back: one answer on its way to one client.  [io]

In goes the upstream's answer, out it goes as it arrives: filtered where it may hold a list, its handles bound. Before
every chunk it asks whether it may still flow; it can be paused, resumed and ended at any time. It knows neither keys
nor policy: what a list may show, what may flow, and whom handles belong to is told to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from proxy.authorization import Permit
from proxy.challenges import form_problem, form_rpc_error
from proxy.client_response import WHOLE_ANSWER_BYTES, begin_stream, cut, form_whole
from proxy.endpoints import Endpoints
from proxy.errors import Reason, Refusal, UpstreamError
from proxy.filtering import ListView, SseFilter, UnfilterableAnswer, filter_answer, refuse_lists
from proxy.handles import MAX_EVENT_ID_BYTES, Handles
from proxy.interjection import Interjector
from proxy.logs import get_logger
from proxy.sessions import Exchange, Flow
from proxy.sse import EventRewriter, IdRewriter, form_event, pass_any
from proxy.subscriptions import find_subscription
from proxy.upstream import UploadLengthError, UpstreamAborted, UpstreamResponse
from proxy.verification import refuse_ended

log = get_logger("relay")

EVENT_STREAM = "text/event-stream"
# The most that a Python client reads as one event: a handle in a larger one reaches nobody.
MAX_HANDLE_EVENT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a list answer held to be filtered; how long and how much is read on after a client left whose leaving
    cancels nothing."""

    max_answer_bytes: int
    leaving_seconds: float
    leaving_bytes: int


class Relay:
    """One answer on its way to one client, and the hooks by which it is paused and ended."""

    def __init__(
        self,
        permit: Permit,
        exchange: Exchange,
        request: web.BaseRequest,
        *,
        judge_flow: Callable[[], Flow],
        turn_into_stream: Callable[[], None],
        lists: ListView,
        handles: Handles,
        endpoints: Endpoints | None,
        bind_tasks: Callable[[list[str]], Awaitable[None]],
        limits: Limits,
        count_dropped: Callable[[int], None],
    ) -> None:
        self._permit = permit
        self._exchange = exchange
        self._request = request
        self._judge_flow = judge_flow
        self._turn_into_stream = turn_into_stream
        self._lists = lists
        self._handles = handles
        self._endpoints = endpoints
        self._subscription = find_subscription(permit.message, exchange.view)
        self._interjector: Interjector | None = None
        self._bind_tasks = bind_tasks
        self._limits = limits
        self._count_dropped = count_dropped
        self._loop = asyncio.get_running_loop()
        self._resumed: asyncio.Future[None] | None = None
        self._answer: web.StreamResponse | None = None  # an event stream that may end without a last word
        self._abort: Callable[[], None] = lambda: None
        self._drain_timer: asyncio.TimerHandle | None = None
        self._drained_bytes = 0
        self._client_left = False
        self._given_up = False

    @property
    def rpc_id(self) -> str | int | None:
        """The id of the JSON-RPC request that awaits an answer."""
        message = self._permit.message
        return message.id if message is not None and message.kind == "request" else None

    # Hooks.

    def watch(self, abort: Callable[[], None]) -> None:
        """From now on, ends, resumptions and the client's leaving are heard."""
        self._abort = abort
        self._exchange.on_end = self._end
        self._exchange.on_resume = self._resume
        self._request.protocol.on_lost = self._note_client_left  # type: ignore[attr-defined]
        if self._request.transport is None or self._request.transport.is_closing():
            self._note_client_left()

    def unwatch(self) -> None:
        """The exchange is over: break the cycle of references."""
        self._exchange.on_end = self._exchange.on_resume = self._exchange.inject = None
        if self._interjector is not None:
            self._interjector.close()
            self._interjector = None
        self._request.protocol.on_lost = None  # type: ignore[attr-defined]
        if self._drain_timer is not None:
            self._drain_timer.cancel()

    def _end(self) -> None:
        """The upstream's side first, then the client's: bytes a slow reader has not taken are not delivered."""
        self._abort()
        self._resume()
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() > 0:
            transport.abort()
        elif self._answer is not None and self._interjector is not None and self._interjector.boundary.at_boundary:
            # Nothing is written and nothing is left to be said: thousands of streams that end together need not wait
            # for each other's tasks. With an empty buffer the last chunk is written before anything is waited for.
            with suppress(StopIteration):
                self._answer.write_eof().send(None)

    def _resume(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)
        self._announce()
        if self._interjector is not None:
            self._interjector.wake()

    def _announce(self) -> None:
        """Who listens for changes of lists hears that they look different now: to this key, or to all."""
        if self._subscription is not None and self._interjector is not None:
            for notice in self._subscription.form_notices(self._exchange.view):
                self._interjector.say(notice)

    def _note_client_left(self) -> None:
        """In revision 2026-07-28 leaving is cancelling. Before it, and over HTTP+SSE, whose answers take another way,
        it is not: the upstream's answer is drained."""
        self._client_left = True
        message = self._permit.message
        modern = message is not None and message.modern and self._permit.match.route.protocol == "mcp"
        if message is None or modern or message.kind != "request":
            self._give_up()
        else:
            self._drain_timer = self._loop.call_later(self._limits.leaving_seconds, self._give_up)

    def _give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self._given_up = True
        self._abort()
        self._resume()

    # The way back.

    async def wait_open(self) -> None:
        """Return when the next byte may flow. Raises UpstreamAborted when none ever will."""
        while (flow := self._judge_flow()) is not Flow.OPEN or self._given_up:
            if flow is Flow.ENDED or self._given_up:
                self._abort()
                raise UpstreamAborted
            if self._resumed is None or self._resumed.done():
                self._resumed = self._loop.create_future()
            await asyncio.shield(self._resumed)  # the body going up and the answer coming down wait for the same

    async def carry(self, response: UpstreamResponse, headers: CIMultiDict[str]) -> web.StreamResponse:
        """Relay the answer whole or as a stream, filtered where it may hold a list."""
        message = self._permit.message
        protocol = self._permit.match.route.protocol
        acknowledges = protocol == "mcp-sse" and message is not None
        is_events = headers.get("Content-Type", "").lower().startswith(EVENT_STREAM) and not acknowledges
        # By shape, whatever was asked: servers route answers by the id alone, and a client may use one twice.
        listing = protocol != "http" and not acknowledges
        if listing and self._lists.strict:
            headers["Cache-Control"] = "no-store"  # what one key may see is nobody else's
        if is_events:
            return await self._stream_events(response, headers, listing)
        body, complete = await self._take_in(response, listing)
        if acknowledges:
            body, complete = b"", True  # the answer comes on the stream: nobody reads this, nor was it filtered
        elif complete:
            body = await self._rewrite(body, response.status, listing)
        await self.wait_open()
        if complete and len(body) <= WHOLE_ANSWER_BYTES:
            return form_whole(self._request, response, headers, body)
        # Larger than a client takes at once: in pieces, so that it can be ended between them.
        length = str(len(body)) if complete else response.headers.get("Content-Length")
        read = cut(body, then=None if complete else response.read_chunk)
        return await self._stream(
            response, headers, refuse_lists(read, self._lists) if listing and not complete else read, length
        )

    async def _take_in(self, response: UpstreamResponse, listing: bool) -> tuple[bytes, bool]:
        """What has to be read before any of it is sent, and whether that is all: a list to be filtered, a result that
        may hold a handle, whatever is small or has come already."""
        body = response.try_read_all()
        if body is not None:
            return body, True
        if listing and self._lists.strict:
            return await response.read_all(self._limits.max_answer_bytes), True
        declared = response.headers.get("Content-Length", "")
        limit = self._limits.max_answer_bytes if listing else WHOLE_ANSWER_BYTES
        fits = int(declared) <= limit if declared.isdigit() else listing  # without a length it may be a log that grows
        taken = bytearray()
        while fits and len(taken) <= limit:
            chunk = await response.read_chunk()
            if not chunk:
                return bytes(taken), True
            taken += chunk
        return bytes(taken), False

    async def _rewrite(self, body: bytes, status: int, listing: bool) -> bytes:
        """A whole answer as this key may see it."""
        if listing and body:
            try:
                body = filter_answer(body, self._lists)
            except UnfilterableAnswer as error:
                if not 200 <= status < 300:
                    return b""  # an error page is no list: its status says it all
                self._count_dropped(1)
                log.error("list_answer_dropped", route=self._permit.match.route.id, error=str(error))
                raise UpstreamError(Reason.UPSTREAM_PROTOCOL, "The upstream's list cannot be read.") from error
        if self._handles.expected:
            body = self._handles.rewrite_answer(body)
            await self._keep_tasks()
        return body

    async def _keep_tasks(self) -> None:
        """Tasks are bound before the client learns of them."""
        if self._handles.new_tasks:
            await self._bind_tasks(self._handles.new_tasks)
            self._handles.new_tasks.clear()

    async def _stream(
        self,
        response: UpstreamResponse,
        headers: CIMultiDict[str],
        read: Callable[[], Awaitable[bytes]],
        length: str | None,
    ) -> web.StreamResponse:
        """Anything but events, as it comes."""
        answer = begin_stream(self._request, response, headers, length)
        try:
            await answer.prepare(self._request)
            while chunk := await read():
                await self.wait_open()
                await self._write(answer, chunk)
        except (Refusal, UploadLengthError, UpstreamAborted):  # an upload may fail when its answer has begun
            self._abort_client()  # a cut answer must look cut
            answer.force_close()
        return answer

    async def _stream_events(
        self, response: UpstreamResponse, headers: CIMultiDict[str], listing: bool
    ) -> web.StreamResponse:
        """Events, flushed one by one as they come, and a last one that says why when they end early."""
        await self.wait_open()
        if self._permit.match.route.protocol == "http" and self._request.method == "GET":
            self._turn_into_stream()  # only now is it known that it waits for its client to leave
        headers["X-Accel-Buffering"] = "no"
        answer = begin_stream(self._request, response, headers, None)
        limit = self._limits.max_answer_bytes
        sse_filter = SseFilter(self._lists, max_event_bytes=limit) if listing else None
        rewriters = [*([sse_filter] if sse_filter else []), *self._form_handle_rewriters()]
        interjector = Interjector(self._may_interject, lambda event: self._write(answer, event))
        try:
            await answer.prepare(self._request)
            self._interjector, self._exchange.inject = interjector, interjector.say
            self._answer = answer if self.rpc_id is None and listing else None
            await self._pump(response, answer, rewriters, interjector)
        except (Refusal, UploadLengthError, UpstreamAborted) as error:
            await self._end_early(answer, error, interjector.boundary.at_boundary)
        finally:
            if sse_filter is not None and sse_filter.dropped:
                self._count_dropped(sse_filter.dropped)
                log.error("list_events_dropped", route=self._permit.match.route.id, events=sse_filter.dropped)
        return answer

    def _form_handle_rewriters(self) -> list[EventRewriter | IdRewriter]:
        """None where no handle can come: then the stream passes byte for byte, however its events are cut."""
        rewriters: list[EventRewriter | IdRewriter] = []
        if self._endpoints is not None:
            rewriters.append(
                EventRewriter(self._endpoints.rewrite_event, max_event_bytes=self._limits.max_answer_bytes)
            )
        if self._subscription is not None:
            rewriters.append(
                EventRewriter(
                    self._subscription.read_event, max_event_bytes=MAX_HANDLE_EVENT_BYTES, pass_large=pass_any
                )
            )
        if self._handles.expected:
            rewriters.append(
                EventRewriter(self._handles.rewrite_event, max_event_bytes=MAX_HANDLE_EVENT_BYTES, pass_large=pass_any)
            )
        if self._handles.has_event_ids:
            rewriters.append(IdRewriter(self._handles.sign_event_id, max_id_bytes=MAX_EVENT_ID_BYTES))
        return rewriters

    async def _pump(
        self,
        response: UpstreamResponse,
        answer: web.StreamResponse,
        rewriters: Sequence[SseFilter | EventRewriter | IdRewriter],
        interjector: Interjector,
    ) -> None:
        while chunk := await response.read_chunk():
            await self.wait_open()
            await self._send(answer, self._pass_through(rewriters, chunk), interjector)
        await self.wait_open()
        await self._send(answer, self._pass_through(rewriters, b"", ended=True), interjector)

    def _pass_through(
        self, rewriters: Sequence[SseFilter | EventRewriter | IdRewriter], chunk: bytes, *, ended: bool = False
    ) -> bytes:
        for rewriter in rewriters:
            chunk = rewriter.feed(chunk)
            if ended:
                chunk += rewriter.finish()
        return chunk

    async def _send(self, answer: web.StreamResponse, chunk: bytes, interjector: Interjector) -> None:
        if chunk:
            await self._keep_tasks()
            await self.wait_open()
            interjector.boundary.feed(chunk)
            await self._write(answer, chunk)
            if self._subscription is not None:
                self._subscription.note_sent()
                self._announce()
            await interjector.flush()

    def _may_interject(self) -> bool:
        return not self._client_left and self._judge_flow() is Flow.OPEN

    async def _write(self, answer: web.StreamResponse, chunk: bytes) -> None:
        """Write, at the reader's pace (`client_connection` ends one that takes nothing); what a client that left is
        owed is drained up to a cap."""
        if not self._client_left:
            try:
                await answer.write(chunk)
                return
            except ConnectionError:
                if not self._client_left:
                    self._note_client_left()
        self._drained_bytes += len(chunk)
        if self._given_up or self._drained_bytes > self._limits.leaving_bytes:
            raise UpstreamAborted

    async def _end_early(self, answer: web.StreamResponse, error: Exception, at_boundary: bool) -> None:
        """Tell why if the client can still read it whole, else break the connection: a cut answer must look cut."""
        reason = self._exchange.ended
        resumable = isinstance(error, UpstreamError) and self._handles.event_context is not None
        refusal = refuse_ended(reason) if reason is not None else error if isinstance(error, Refusal) else None
        transport = self._request.transport
        clean = transport is not None and not transport.is_closing() and transport.get_write_buffer_size() == 0
        if refusal is None or not clean or not at_boundary or resumable:
            self._abort_client()
            answer.force_close()
        elif self.rpc_id is not None:
            refusal.rpc_id = self.rpc_id
            await answer.write(form_event(form_rpc_error(refusal, answer.headers["X-Request-Id"])))
        elif self._permit.match.route.protocol == "http":
            await answer.write(form_event(form_problem(refusal, answer.headers["X-Request-Id"]), b"error"))

    def _abort_client(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
