"""Reads of keys, gathered: one statement running, one waiting.  [io]

In go ids one by one, out come states read by statements that *began after* each request for them, which is what makes
a read as good as the row at the time of asking. It is the single flight of every look-up: a flood of requests costs at
most one statement at a time, and each statement asks for a key once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from proxy.errors import DatabaseError
from proxy.identity import KeyId
from proxy.keys.record import KeyRecord
from proxy.logs import get_logger
from proxy.memory import KeyState
from proxy.news import NewsLog

log = get_logger("reader")

ReadKeys = Callable[[Sequence[KeyId]], Awaitable[Mapping[KeyId, KeyRecord]]]
# Bounds one statement's parameters and answer; the rest waits for the next one.
MAX_BATCH = 1_000


class _Batch:
    """The ids of the next statement, and the one future everybody who asked for them awaits."""

    def __init__(self) -> None:
        self.ids: set[KeyId] = set()
        self.answer: asyncio.Future[dict[KeyId, KeyState]] = asyncio.get_running_loop().create_future()

    def fail(self, error: DatabaseError) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # counts as seen: those who asked may all have left


class KeyReader:
    """`read_keys` is the store's; `boot` the clock that states are stamped with, before the statement is sent."""

    def __init__(self, read_keys: ReadKeys, news: NewsLog, boot: Callable[[], float]) -> None:
        self._read_keys = read_keys
        self._news = news
        self._boot = boot
        self._waiting: list[_Batch] = []
        self._running: asyncio.Task[None] | None = None

    async def read(self, key_id: KeyId) -> KeyState:
        """One key's state, read from now on. Raises DatabaseError."""
        return (await self._join((key_id,)))[key_id]

    async def read_many(self, ids: Iterable[KeyId]) -> dict[KeyId, KeyState]:
        """Many keys' states; with no ids it still asks, which tells whether anybody answers. Raises DatabaseError."""
        wanted = list(ids)
        chunks = [wanted[start : start + MAX_BATCH] for start in range(0, len(wanted), MAX_BATCH)] or [[]]
        answers = await asyncio.gather(*(self._join(chunk) for chunk in chunks))
        return {key_id: answer[key_id] for answer, chunk in zip(answers, chunks, strict=True) for key_id in chunk}

    def _join(self, ids: Sequence[KeyId]) -> asyncio.Future[dict[KeyId, KeyState]]:
        if not self._waiting or len(self._waiting[-1].ids) + len(ids) > MAX_BATCH:
            self._waiting.append(_Batch())
        batch = self._waiting[-1]
        batch.ids.update(ids)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())
        return asyncio.shield(batch.answer)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._run_batch(self._waiting.pop(0))
        finally:
            self._running = None

    async def _run_batch(self, batch: _Batch) -> None:
        sequence, stamp = self._news.sequence, self._boot()
        try:
            records = await self._read_keys(list(batch.ids))
        except DatabaseError as error:
            batch.fail(error)
        except asyncio.CancelledError:
            batch.fail(DatabaseError("reading keys was given up"))
            raise
        except Exception:  # a row we cannot read must not stop the reads after it
            log.exception("reading_keys_failed", keys=len(batch.ids))
            batch.fail(DatabaseError("reading keys failed"))
        else:
            batch.answer.set_result(
                {key_id: KeyState(key_id, records.get(key_id), sequence, stamp) for key_id in batch.ids}
            )

    async def aclose(self) -> None:
        """Give up what is running and waiting: whoever asked is told DatabaseError."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            self._running = None  # a task cancelled before its first step never came to say so
        while self._waiting:
            self._waiting.pop().fail(DatabaseError("reading keys was given up"))
