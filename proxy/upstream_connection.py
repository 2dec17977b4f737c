"""One connection to the upstream, one exchange at a time.  [io]

In: an address to dial, the bytes of a request, or its head and an upload. Out: an `Answer` that fills while it is read,
with the upstream held back when nobody reads. Whatever goes wrong becomes one failure, told to whoever waits, and the
end of the connection.
Refuses to know: the pool, what the bytes mean, who may see them.

There is no timer for each request and, but for an upload, no task: one future for each wait, and one timer for each
connection that is moved only when a deadline comes nearer (arming one costs as much as parsing a small answer).
"""

from __future__ import annotations

import asyncio
import math
import select
import ssl
from collections.abc import Callable
from typing import cast

from proxy.errors import ProxyError, Reason, UpstreamError
from proxy.upstream_address import UpstreamAddress
from proxy.upstream_answer import Answer
from proxy.upstream_socket import allow_silence, ended_orderly, read_rest, watch_peer
from proxy.upstream_upload import Outflow, Upload

# How much may wait for a slow reader before the upstream is held back; one receive buffer comes on top. A reader takes
# all there is, so the upstream may go on as soon as it has read.
PAUSE_ABOVE_BYTES = 64 * 1024
RECEIVE_BUFFER_BYTES = 64 * 1024


class UpstreamAborted(ProxyError):
    """The call was ended from our side."""

    def __init__(self) -> None:
        super().__init__("the call to the upstream was ended")


class UpstreamConnection(asyncio.BufferedProtocol):
    """A socket and at most one answer in flight. `closed` is done when the transport has gone."""

    __slots__ = (
        "_answer",
        "_deadline",
        "_dialling",
        "_failure",
        "_loop",
        "_on_closed",
        "_outflow",
        "_paused",
        "_poller",
        "_received",
        "_timer",
        "_timer_at",
        "_transport",
        "_turn_at",
        "_waiter",
        "closed",
    )

    def __init__(self, received: memoryview, on_closed: Callable[[UpstreamConnection], None]) -> None:
        """`received` may be shared by all connections of a loop: it is read to the end before anyone else runs."""
        self._loop = asyncio.get_running_loop()
        self._received = received
        self._on_closed = on_closed
        self._dialling: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._poller = select.poll()
        self._answer: Answer | None = None
        self._outflow: Outflow | None = None  # while an upload is under way
        self._paused = False
        self._failure: Callable[[], BaseException] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._turn_at = math.inf  # since when the next move is the upstream's
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # What the pool and its calls use.

    async def connect(self, address: UpstreamAddress, tls: ssl.SSLContext | None, timeout_seconds: float) -> None:
        self._dialling = dialling = self._loop.create_task(self._dial(address, tls))
        dialling.add_done_callback(self._dialled)
        deadline = self._loop.time() + timeout_seconds
        while not dialling.done() and self._failure is None:
            await self._wait(deadline)
        if self._failure is not None:
            raise self._failure()

    async def exchange(
        self, request: bytes, answer: Answer, timeout_seconds: float, upload: Upload | None = None
    ) -> None:
        """Send the request, or its head and the upload; return when the head of its answer is there.

        The timeout runs from the end of the request, and bounds each wait for the upstream to take more of an upload.
        """
        self._answer = answer
        self._turn_at = self._loop.time()
        if self._transport is not None and self._failure is None:
            if upload is None:
                self._transport.write(request)
            else:
                self._begin_upload(self._transport, request, upload, timeout_seconds)
        while not answer.head_complete:
            if self._failure is not None:
                raise self._failure()
            await self._wait(self._turn_at + timeout_seconds)

    async def read(self, timeout_seconds: float | None) -> bytes:
        """Whatever part of the body is there, as soon as there is one; b"" at its clean end."""
        answer = self._answer
        assert answer is not None
        began_at = self._loop.time()
        while not answer.chunks:
            if answer.complete:
                return b""
            if self._failure is not None:
                raise self._failure()
            await self._wait(math.inf if timeout_seconds is None else max(began_at, self._turn_at) + timeout_seconds)
        return self._take(answer)

    def read_if_complete(self) -> bytes | None:
        answer = self._answer
        return self._take(answer) if answer is not None and answer.complete else None

    def is_silent(self) -> bool:
        """Open, and the kernel holds nothing unread: neither an end nor bytes nobody asked for (one system call)."""
        return self._transport is not None and not self._transport.is_closing() and not self._poller.poll(0)

    def rest(self, timeout_seconds: float) -> bool:
        """Go idle, if the answer ended so that nobody can doubt it; close after the timeout."""
        answer, transport = self._answer, self._transport
        if answer is None or transport is None or not answer.complete or not answer.keep_alive:
            return False
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        self._resume()
        self._answer = None
        self._watch(self._loop.time() + timeout_seconds)
        return True

    def abort(self) -> None:
        """At once, in any state, any number of times: no byte goes out or is handed on after this."""
        self._abandon(UpstreamAborted)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._failure is not None:
            self._transport.abort()
            return
        connected = transport.get_extra_info("socket")
        self._poller.register(connected.fileno(), select.POLLIN)
        watch_peer(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        answer = self._answer
        if answer is None or self._failure is not None:
            self._fail(_broken_protocol)  # bytes nobody asked for
            return
        answer.feed(self._received[:nbytes])
        if answer.broken:
            self._fail(_broken_protocol)
        elif answer.surplus or (answer.complete and self._outflow is not None):
            self._hang_up()  # the answer stands; what was not sent by then is not sent any more
        elif answer.buffered_bytes > PAUSE_ABOVE_BYTES:
            self._pause()
        if answer.head_complete:
            self._wake()

    def eof_received(self) -> bool:
        if self._answer is not None and self._transport is not None and ended_orderly(self._transport):
            self._answer.finish()
        self._hang_up()
        return False

    def pause_writing(self) -> None:
        if self._outflow is not None:
            self._outflow.pause()

    def resume_writing(self) -> None:
        if self._outflow is not None:
            self._outflow.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        answer = self._answer
        if exc is not None and self._failure is None and answer is not None and self._transport is not None:
            read_rest(self._transport, answer, PAUSE_ABOVE_BYTES)
        if self._failure is None and (answer is None or not answer.complete):
            self._failure = _broken_protocol if answer is not None and answer.started else _unreachable
        self._settle()

    # How it is done.

    async def _dial(self, address: UpstreamAddress, tls: ssl.SSLContext | None) -> None:
        try:
            await self._loop.create_connection(
                lambda: self, address.host, address.port, ssl=tls, server_hostname=address.host if tls else None
            )
        except TimeoutError:
            self._failure = self._failure or _timed_out
        except (OSError, UnicodeError):  # refused, unknown name, TLS; a name that cannot be one
            self._failure = self._failure or _unreachable

    def _dialled(self, dialling: asyncio.Task[None]) -> None:
        """Settle where nobody calls `connection_lost`: there never was a transport, or uvloop closed it under the task.

        Not at the end of `_dial` itself: a task cancelled before its first step never comes to any `finally`.
        """
        if self._transport is None or dialling.cancelled():
            self._failure = self._failure or _unreachable
            self._settle()
        self._wake()

    def _begin_upload(self, transport: asyncio.Transport, head: bytes, upload: Upload, timeout_seconds: float) -> None:
        allow_silence(transport, timeout_seconds)
        self._outflow = Outflow(transport, head, upload, on_turn=self._take_turn, on_end=self._end_upload)

    def _take_turn(self, turn_at: float) -> None:
        self._turn_at = turn_at
        self._wake()

    def _end_upload(self, error: BaseException | None) -> None:
        self._outflow = None
        assert self._transport is not None
        if self._transport.is_closing():
            return  # it was ended by what ended the connection
        if error is None:
            allow_silence(self._transport, 0)
            self._take_turn(self._loop.time())
        else:
            self._abandon(lambda: error)

    def _take(self, answer: Answer) -> bytes:
        taken = answer.take()
        self._resume()
        return taken

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()

    async def _wait(self, deadline: float) -> None:
        """Until something happened; the caller looks what."""
        if self._waiter is not None:
            raise RuntimeError("somebody is reading this answer already")
        self._watch(deadline)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._deadline = math.inf

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._loop.time() < self._deadline:
            self._watch(self._deadline)
        elif self._outflow is not None and self._outflow.note_progress():
            self._take_turn(self._loop.time())
        else:
            self._fail(_timed_out)

    def _abandon(self, failure: Callable[[], BaseException]) -> None:
        if self._answer is not None:
            self._answer.abandon()
        self._fail(failure)

    def _fail(self, failure: Callable[[], BaseException]) -> None:
        if self._failure is None:
            self._failure = failure
        self._hang_up()
        self._wake()

    def _hang_up(self) -> None:
        if self._outflow is not None:
            self._outflow.cancel()
        if self._transport is not None:
            self._transport.abort()
        elif self._dialling is not None:
            self._dialling.cancel()

    def _settle(self) -> None:
        if self._outflow is not None:
            self._outflow.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at, self._deadline = None, math.inf, math.inf
        if not self.closed.done():
            self.closed.set_result(None)
        self._on_closed(self)
        self._wake()


def _unreachable() -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_UNREACHABLE, "the upstream could not be reached")


def _timed_out() -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_TIMEOUT, "the upstream did not answer in time")


def _broken_protocol() -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_PROTOCOL, "the upstream's answer could not be understood")
