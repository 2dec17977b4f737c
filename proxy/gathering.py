"""Questions to the database, gathered: one statement running, one waiting.  [io]

In go questions one by one, out come answers by statements that *began after* each question was put, which is what makes
an answer as good as the row at the time of asking. It is the single flight of every look-up: a flood of questions costs
at most one statement at a time, and each statement asks the same only once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from proxy.errors import DatabaseError
from proxy.logs import get_logger

log = get_logger("gathering")

Q = TypeVar("Q", bound=Hashable)
A = TypeVar("A")
# Bounds one statement's parameters and answer; the rest waits for the next one.
MAX_BATCH = 1_000


class _Batch(Generic[Q, A]):
    """The questions of the next statement, and the one future everybody who put them awaits."""

    def __init__(self) -> None:
        self.questions: set[Q] = set()
        self.answer: asyncio.Future[Mapping[Q, A]] = asyncio.get_running_loop().create_future()

    def fail(self, error: DatabaseError) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # counts as seen: those who asked may all have left


class Gathering(Generic[Q, A]):
    """`read` is one statement, and answers what it knows of. `what`: for the log."""

    def __init__(self, read: Callable[[Sequence[Q]], Awaitable[Mapping[Q, A]]], what: str) -> None:
        self._read = read
        self._what = what
        self._waiting: list[_Batch[Q, A]] = []
        self._running: asyncio.Task[None] | None = None

    def ask(self, questions: Sequence[Q]) -> asyncio.Future[Mapping[Q, A]]:
        """The answers to these, and to whatever else was asked at the time. No more than MAX_BATCH at once."""
        if not self._waiting or len(self._waiting[-1].questions) + len(questions) > MAX_BATCH:
            self._waiting.append(_Batch())
        batch = self._waiting[-1]
        batch.questions.update(questions)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())
        return asyncio.shield(batch.answer)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._run_batch(self._waiting.pop(0))
        finally:
            self._running = None

    async def _run_batch(self, batch: _Batch[Q, A]) -> None:
        try:
            answers = await self._read(list(batch.questions))
        except DatabaseError as error:
            batch.fail(error)
        except asyncio.CancelledError:
            batch.fail(DatabaseError(f"reading {self._what} was given up"))
            raise
        except Exception:  # a row we cannot read must not stop the reads after it
            log.exception("reading_failed", what=self._what, count=len(batch.questions))
            batch.fail(DatabaseError(f"reading {self._what} failed"))
        else:
            batch.answer.set_result(answers)

    async def aclose(self) -> None:
        """Give up what is running and waiting: whoever asked is told DatabaseError."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            self._running = None  # a task cancelled before its first step never came to say so
        while self._waiting:
            self._waiting.pop().fail(DatabaseError(f"reading {self._what} was given up"))
