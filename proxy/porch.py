"""Where connections stand until it is known what they bring.  [io]

In come connections, and out go most of them at once to whoever serves requests. Those from an address that presents too
many invalid keys stay, and each of their requests is looked at here, before anything is built for it: a token that
certainly opens nothing is answered 429 from bytes made beforehand, and everything else is handed over as it came. A
refusal here takes a tenth of the time of one by the front door, few of them share a turn of the event loop, and a
connection is not refused again before a second has passed. Nothing is admitted here, and nothing is known of routes.

What is refused is counted, and logged by address and interval: a line for each would be the greater part of its cost.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from email.utils import formatdate
from http import HTTPStatus
from itertools import islice
from typing import Final, cast

from proxy.challenges import Answer, Dialect, form_answer
from proxy.client_address import Network, is_within, parse_client_address
from proxy.clock import Clock
from proxy.errors import Reason
from proxy.failures import FailureLimiter, find_source, refuse_failures
from proxy.glance import END, Glance, glance
from proxy.logs import get_logger
from proxy.screening import Screen, Verdict

log = get_logger("porch")

REST_SECONDS: Final = 1.0  # Retry-After counts in whole seconds
MAX_OF_TURN: Final = 16  # looked at in one turn of the event loop: about half a millisecond
TELL_SECONDS: Final = 10.0  # between two lines about one address
# Bytes of a request held to find its end. A longer one is answered, and its connection closed. While one is queued or
# waits for a verdict, what comes beyond it stays with the kernel, which makes the sender wait.
MAX_HELD: Final = 16 * 1024
# Of all connections, those of one address that have been refused and stand here; beyond it the longest-standing one is
# closed. Not few: who stands asks once a second, who is closed comes again, at ten times the cost.
STANDING_SHARE: Final = 1 / 4
MAX_CROWDS: Final = 1_000  # addresses with lines of their own; all others share one
ELSEWHERE: Final = "elsewhere"


class Crowd:
    """What one address was refused here. Its answers name the request id of its next line in the log."""

    def __init__(self, source: str, answer: Callable[[str], Answer]) -> None:
        self.source = source
        self.count = 0
        self.standing: dict[Newcomer, None] = {}  # the longest-standing first
        self._answer = answer
        self.renew()

    def renew(self) -> None:
        self.count, self.request_id = 0, secrets.token_hex(8)
        answer = self._answer(self.request_id)
        self.staying, self.leaving = write_answer(answer, stays=True), write_answer(answer, stays=False)


def write_answer(answer: Answer, *, stays: bool) -> bytes:
    """As it stands on the wire; `stays`: the connection does."""
    headers = {**answer.headers, "Date": formatdate(usegmt=True), "Content-Length": str(len(answer.body))}
    if not stays:
        headers["Connection"] = "close"
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        *(": ".join(one) for one in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + answer.body


class Porch:
    """One instance per process. `takes_tokens`: an identity provider's manage keys. `count` is told of each refusal."""

    def __init__(
        self,
        *,
        limiter: FailureLimiter,
        screen: Screen,
        clock: Clock,
        realm: str,
        trusted_proxies: Collection[Network],
        takes_tokens: bool,
        head_timeout_seconds: float,
        max_connections: int,
        count: Callable[[], None],
    ) -> None:
        self.limiter = limiter
        self.screen = screen
        self._clock = clock
        self._realm = realm
        self._trusted_proxies = trusted_proxies
        self.takes_tokens = takes_tokens
        self.head_timeout_seconds = head_timeout_seconds
        self._max_standing = max(1, int(max_connections * STANDING_SHARE))
        self._count = count
        self._crowds: dict[str, Crowd] = {}
        self._queue: dict[Newcomer, None] = {}
        self.newcomers: set[Newcomer] = set()

    def find_source(self, peer: object) -> str | None:
        """Where a connection comes from. None: from a proxy of ours, which speaks for many."""
        text = peer[0] if isinstance(peer, tuple) else None
        address = parse_client_address(text) if text else None
        trusted = address is not None and bool(self._trusted_proxies) and is_within(address, self._trusted_proxies)
        return None if trusted else find_source(address)

    def is_limited(self, source: str) -> bool:
        return self.limiter.find_wait(source, self._clock.boot()) is not None

    def queue(self, newcomer: Newcomer) -> None:
        """To be looked at in its turn: a few of them, then whatever else there is to do."""
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._queue[newcomer] = None

    def _take_turn(self) -> None:
        for newcomer in list(islice(self._queue, MAX_OF_TURN)):
            del self._queue[newcomer]
            try:
                newcomer.look()
            except Exception:  # nobody waits behind one that a check fell over
                log.exception("look_failed", source=newcomer.source)
                newcomer.abort()
        if self._queue:
            asyncio.get_running_loop().call_soon(self._take_turn)

    def refuse(self, newcomer: Newcomer, source: str) -> Crowd:
        """One request more of this address is answered 429."""
        crowd = self._crowds.get(source) or self._begin(source)
        crowd.count += 1
        self._count()
        crowd.standing.pop(newcomer, None)
        crowd.standing[newcomer] = None
        if len(crowd.standing) > self._max_standing:
            next(iter(crowd.standing)).abort()
        return crowd

    def _begin(self, source: str) -> Crowd:
        if len(self._crowds) >= MAX_CROWDS:
            source = ELSEWHERE
            if source in self._crowds:
                return self._crowds[source]
        crowd = self._crowds[source] = Crowd(source, self._form)
        log.warning("failures_limited", source=source, request_id=crowd.request_id)
        asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell, crowd)
        return crowd

    def _form(self, request_id: str) -> Answer:
        refusal = refuse_failures(self.limiter.longest_wait_seconds)
        return form_answer(refusal, Dialect(json_rpc=False), realm=self._realm, request_id=request_id)

    def _tell(self, crowd: Crowd) -> None:
        """What was refused since the last line; an interval without a refusal is the end of it."""
        if self._crowds.get(crowd.source) is not crowd:
            return
        if not crowd.count:
            del self._crowds[crowd.source]
            log.info("failures_ended", source=crowd.source)
            return
        self._log(crowd)
        crowd.renew()
        asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell, crowd)

    def _log(self, crowd: Crowd) -> None:
        log.warning(
            "failures_refused",
            source=crowd.source,
            outcome=Reason.TOO_MANY_FAILURES,
            count=crowd.count,
            request_id=crowd.request_id,
        )

    def close(self) -> None:
        """Send everybody away, and say what was not said yet."""
        for newcomer in list(self.newcomers):
            newcomer.abort()
        for crowd in self._crowds.values():
            if crowd.count:
                self._log(crowd)
        self._crowds.clear()


class Newcomer(asyncio.Protocol):
    """One connection. `admit` makes whoever serves it; `is_overfull` says that not even a refusal has room."""

    __slots__ = (
        "_admit", "_buffer", "_crowd", "_is_overfull", "_left", "_porch", "_rests", "_silent", "_timer", "_transport",
        "_waits", "source",
    )  # fmt: skip

    def __init__(self, porch: Porch, admit: Callable[[], asyncio.Protocol], is_overfull: Callable[[], bool]) -> None:
        self._porch = porch
        self._admit = admit
        self._is_overfull = is_overfull
        self._buffer = b""
        self._crowd: Crowd | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits = False  # for a verdict
        self._rests = False  # was refused a moment ago, and is not refused again before it has rested
        self._left = False  # is served by somebody else, or gone
        self._silent = False  # all has been said: whatever comes is thrown away

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.source = self._porch.find_source(transport.get_extra_info("peername"))
        self._porch.newcomers.add(self)
        self._wait(self._porch.head_timeout_seconds, self._close)
        if self._is_overfull():
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._silent:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self._waits:
            if self.source is None or not self._porch.is_limited(self.source):
                return self._hand_over()
            self._porch.queue(self)
        if len(self._buffer) > MAX_HELD:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """It asks and does not read what it is told."""
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def look(self) -> None:
        """What has come so far: for whom is it?"""
        if self._left or self._waits or not self._buffer:
            return
        self._buffer = self._buffer.lstrip(b"\r\n")  # a server should skip empty lines (RFC 9112 section 2.2)
        if len(self._buffer) <= MAX_HELD:
            self._transport.resume_reading()
        head_length = self._buffer.find(END) + len(END)
        if head_length < len(END):
            if len(self._buffer) > MAX_HELD:
                self._hand_over()
            return
        found = glance(self._buffer, head_length, takes_tokens=self._porch.takes_tokens)
        if found is None:
            self._hand_over()
        elif found.token is None:
            self._refuse(found)
        else:
            self._judge(found, self._porch.screen.judge(found.token))

    def _judge(self, found: Glance, verdict: Verdict) -> None:
        if verdict is Verdict.UNREAD and found.token is not None:
            self._waits = True
            self._porch.screen.ask(found.token, lambda verdict: self._hear(found, verdict))
        elif verdict is Verdict.FAILS:
            self._refuse(found)
        else:
            self._hand_over()

    def _hear(self, found: Glance, verdict: Verdict) -> None:
        self._waits = False
        if not self._left:
            self._judge(found, verdict)

    def _refuse(self, found: Glance) -> None:
        """Once it has rested, and once the request is whole: closing on unread bytes takes the answer along."""
        length = len(self._buffer)
        if self._rests and length > MAX_HELD:
            self.abort()
        elif not self._rests and (found.length is None or found.length > MAX_HELD or length >= found.length):
            self._answer(stays=length == found.length)

    def _answer(self, *, stays: bool) -> None:
        assert self.source is not None
        self._transport.resume_reading()
        crowd = self._crowd = self._porch.refuse(self, self.source)
        self._buffer = b""
        if stays:
            self._transport.write(crowd.staying)
            self._rests = True
            self._wait(REST_SECONDS, self._return)
        else:
            self._transport.write(crowd.leaving)
            self._silent = True
            self._wait(self._porch.head_timeout_seconds, self._close)
            self._transport.write_eof()  # and the rest is read, for as long as a head may take

    def _return(self) -> None:
        """Rested: what has come meanwhile is looked at."""
        self._rests = False
        self._wait(self._porch.head_timeout_seconds, self._close)
        if self._buffer:
            self._porch.queue(self)

    def _hand_over(self) -> None:
        self._transport.resume_reading()
        self._leave()
        connection, buffer = self._admit(), self._buffer
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        connection.data_received(buffer)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _leave(self) -> None:
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
        self._porch.newcomers.discard(self)
        if self._crowd is not None:
            self._crowd.standing.pop(self, None)

    def _close(self) -> None:
        """It has had its time."""
        self._transport.close()

    def abort(self) -> None:
        """Without a word."""
        self._leave()
        self._transport.abort()
