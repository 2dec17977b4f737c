"""What we have to say ourselves on a stream of the upstream's.  [io]

In go whole events of ours, out they go between two events of the upstream's, never inside one: at once when the stream
rests there, else at the next such place, in the order they came, and never while nothing may flow. What an event says,
and to whom it goes, is not known here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from proxy.sse import EventBoundary
from proxy.upstream import UpstreamAborted

# A client that does not read its stream is not remembered endlessly what it was refused on another connection.
MAX_UNSAID = 64


class Interjector:
    """The place in one stream where something may be said. `may_flow` is asked before every event; `write` hands the
    bytes on before it first waits."""

    __slots__ = ("_may_flow", "_speaking", "_unsaid", "_write", "boundary")

    def __init__(self, may_flow: Callable[[], bool], write: Callable[[bytes], Awaitable[None]]) -> None:
        self.boundary = EventBoundary()
        self._may_flow = may_flow
        self._write = write
        self._unsaid: deque[bytes] = deque()
        self._speaking: asyncio.Task[None] | None = None

    def say(self, event: bytes) -> bool:
        """Have an event written, as soon as it may be; False when too much waits already."""
        if len(self._unsaid) >= MAX_UNSAID:
            return False
        self._unsaid.append(event)
        self.wake()
        return True

    def wake(self) -> None:
        """Something has changed: what waits may be said now."""
        if self._unsaid and (self._speaking is None or self._speaking.done()):
            self._speaking = asyncio.get_running_loop().create_task(self._speak())

    async def _speak(self) -> None:
        with suppress(UpstreamAborted):  # the relay hears of it as well
            await self.flush()

    async def flush(self) -> None:
        """Write what waits, if this is the place and the time."""
        while self._unsaid and self.boundary.at_boundary and self._may_flow():
            event = self._unsaid.popleft()
            self.boundary.feed(event)
            await self._write(event)

    def close(self) -> None:
        """The stream is over: nothing more is said."""
        self._unsaid.clear()
        if self._speaking is not None:
            self._speaking.cancel()
