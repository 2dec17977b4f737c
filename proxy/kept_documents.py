"""A document of somebody else's: read when it is needed and old, kept through an outage for a while.  [io]

In goes how to read it, out comes the document, or a ProviderError once it cannot be known any more. One reading at a
time serves all who ask, and no two begin within a moment of each other, whatever asks for them. What stands in it is
not known here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from proxy.logs import get_logger
from proxy.outages import Outage
from proxy.provider_documents import ProviderError

log = get_logger("kept_documents")

T = TypeVar("T")


class KeptDocument(Generic[T]):
    """`read` raises ProviderError. Ages are by `boot` time, from when a reading began. `count(worked)` hears of all."""

    def __init__(
        self,
        read: Callable[[], Awaitable[T]],
        *,
        refresh_seconds: float,
        keep_seconds: float,
        retry_seconds: float,
        boot: Callable[[], float],
        outage: Outage,
        count: Callable[[bool], None] = lambda _worked: None,
    ) -> None:
        self._read_document = read
        self._refresh_seconds = refresh_seconds
        self._keep_seconds = keep_seconds
        self._retry_seconds = retry_seconds
        self._boot = boot
        self._outage = outage
        self._count = count
        self._document: T | None = None
        self._read_at = -math.inf
        self._tried_at = -math.inf
        self._flight: asyncio.Task[None] | None = None

    @property
    def fails(self) -> bool:
        """Whether the latest reading did."""
        return self._outage.lasts

    async def get(self) -> T:
        """As it was when it was read, which is not too long ago. Raises ProviderError."""
        if self._age_seconds >= self._refresh_seconds:
            await self.renew()
        if self._document is None or self._age_seconds >= self._keep_seconds:
            raise ProviderError("it cannot be known right now")
        return self._document

    async def renew(self) -> None:
        """Read it anew, or join who does, unless that was tried a moment ago."""
        if self._flight is None:
            if self._boot() < self._tried_at + self._retry_seconds:
                return
            self._flight = asyncio.create_task(self._read())
            self._flight.add_done_callback(self._land)
        await asyncio.wait({self._flight})  # whoever leaves meanwhile leaves the reading to the others

    async def aclose(self) -> None:
        """Give up what is being read; whoever waits for it hears that it is not known."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})

    @property
    def _age_seconds(self) -> float:
        return self._boot() - self._read_at

    def _land(self, _flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _read(self) -> None:
        self._tried_at = began_at = self._boot()
        try:
            self._document = await self._read_document()
        except ProviderError as error:
            self._note_failure(error)
        except Exception:  # nothing may pass, nor look like a token's fault, because a check fell over
            log.exception("reading_failed")
            self._note_failure(ProviderError("it could not be read"))
        else:
            self._read_at = began_at
            self._outage.end()
            self._count(True)

    def _note_failure(self, error: ProviderError) -> None:
        self._outage.begin(error)
        self._count(False)
