"""Reads of keys, gathered into few statements.  [io]

In go ids one by one, out come states read by statements that *began after* each request for them (`gathering`), stamped
with what was known of the news before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from proxy.gathering import MAX_BATCH, Gathering
from proxy.identity import KeyId
from proxy.keys.record import KeyRecord
from proxy.memory import KeyState
from proxy.news import NewsLog

ReadKeys = Callable[[Sequence[KeyId]], Awaitable[Mapping[KeyId, KeyRecord]]]


class KeyReader:
    """`read_keys` is the store's; `boot` the clock that states are stamped with, before the statement is sent."""

    def __init__(self, read_keys: ReadKeys, news: NewsLog, boot: Callable[[], float]) -> None:
        self._read_keys = read_keys
        self._news = news
        self._boot = boot
        self._gathering = Gathering(self._read, "keys")

    async def read(self, key_id: KeyId) -> KeyState:
        """One key's state, read from now on. Raises DatabaseError."""
        return (await self._gathering.ask((key_id,)))[key_id]

    async def read_many(self, ids: Iterable[KeyId]) -> dict[KeyId, KeyState]:
        """Many keys' states; with no ids it still asks, which tells whether anybody answers. Raises DatabaseError."""
        wanted = list(ids)
        chunks = [wanted[start : start + MAX_BATCH] for start in range(0, len(wanted), MAX_BATCH)] or [[]]
        answers = await asyncio.gather(*(self._gathering.ask(chunk) for chunk in chunks))
        return {key_id: answer[key_id] for answer, chunk in zip(answers, chunks, strict=True) for key_id in chunk}

    async def _read(self, ids: Sequence[KeyId]) -> dict[KeyId, KeyState]:
        sequence, stamp = self._news.sequence, self._boot()
        records = await self._read_keys(ids)
        return {key_id: KeyState(key_id, records.get(key_id), sequence, stamp) for key_id in ids}

    async def aclose(self) -> None:
        """Give up what is running and waiting: whoever asked is told DatabaseError."""
        await self._gathering.aclose()
