"""Which key has this digest? The way in for tokens of the older form, apart from every other.  [io]

In go digests one by one, out come key ids, or None. Look-ups by primary key are gathered, so that a flood of made-up
tokens costs at most one statement at a time, and no hash. What was found to be nobody's stays so for a few seconds, and
only as long as no news of any kind was heard: an import is news. What was found is remembered by `memory`, as a proof.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from cachetools import TTLCache

from proxy.gathering import Gathering
from proxy.identity import KeyId
from proxy.news import NewsLog

FindDigests = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, KeyId]]]


class Digests:
    """`find_digests` is the store's. `max_unknown` and `unknown_seconds` bound what is remembered to be nobody's."""

    def __init__(
        self,
        find_digests: FindDigests,
        news: NewsLog,
        *,
        max_unknown: int,
        unknown_seconds: float,
        timer: Callable[[], float],
    ) -> None:
        self._gathering = Gathering(find_digests, "digests")
        self._news = news
        self._unknown: TTLCache[bytes, int] = TTLCache(max_unknown, unknown_seconds, timer)

    async def find_key(self, digest: bytes, *, trusted: bool) -> KeyId | None:
        """The key it belongs to. `trusted`: news is heard, so that memory may answer. Raises DatabaseError."""
        sequence = self._news.sequence
        if trusted and self._unknown.get(digest) == sequence:
            return None
        found = (await self._gathering.ask((digest,))).get(digest)
        if found is None:
            self._unknown[digest] = sequence
        return found

    async def aclose(self) -> None:
        """Give up what is asked: whoever waits is told DatabaseError."""
        await self._gathering.aclose()
