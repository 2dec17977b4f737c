"""One run on the sample platform: what it writes, how it ends, and whoever waits for either.  [io]

In: lines and an outcome. Out: the same as records and as events. Refuses to know: what makes it run, and for how long.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from proxy.demo.sample_faults import Missing

LOG_FILE = "log.txt"


class Bell:
    """Wakes everybody who waits, each time it rings; `parent` rings with it."""

    def __init__(self, parent: Bell | None = None) -> None:
        self.parent = parent
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()
        if self.parent is not None:
            self.parent.ring()

    async def wait(self) -> None:
        await self._rung.wait()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as it is told on a stream of events. The SDKs read its type from its data."""

    type: str
    data: dict[str, Any]

    def encode(self) -> bytes:
        return f"event: {self.type}\ndata: {json.dumps({'type': self.type, **self.data})}\n\n".encode()


@dataclass
class Execution:
    """One run of an agent, a workflow or a pipeline. `due` is a reading of the platform's clock; None: when told."""

    kind: str
    subject: str
    input: object
    due: float | None
    outcome: str | None = None
    log: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    news: Bell = field(default_factory=Bell, repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    @property
    def status(self) -> str:
        return self.outcome or "running"

    def write(self, line: str) -> None:
        self.log.append(line)
        self.news.ring()

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended.set()
        self.write(outcome)

    def describe(self) -> dict[str, Any]:
        return {
            "execution_id": self.id,
            "kind": self.kind,
            "subject": self.subject,
            "status": self.status,
            "started_at": self.started_at,
            "input": self.input,
        }

    def tell(self, first: int) -> list[Event]:
        """What it wrote from that line on."""
        return [
            Event("log", {"execution_id": self.id, "number": number, "line": line})
            for number, line in enumerate(self.log[first:], first)
        ]

    def read_file(self, path: str) -> str:
        """A file it left behind. Raises Missing."""
        if path.strip("/") != LOG_FILE:
            raise Missing(f"execution {self.id!r} left no file {path!r}; there is: {LOG_FILE}")
        return "\n".join(self.log)


@dataclass
class Runs:
    """How many workflow runs were started, finished or cancelled."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    _news: Bell = field(default_factory=Bell, repr=False)

    def count(self, what: Literal["started", "finished", "cancelled"]) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self._news.ring()

    async def wait_for(self, *, started: int = 0, finished: int = 0, cancelled: int = 0) -> None:
        """Return once every count is at least this."""
        while self.started < started or self.finished < finished or self.cancelled < cancelled:
            await self._news.wait()
