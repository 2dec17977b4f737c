"""What has been said about keys, and which of our memories it makes doubtful.  [pure]

In go notifications, out comes one question's answer: is something read at sequence N still unquestioned? Every piece of
news gets the next number; whatever was read before that number, and concerns its subject, has to be read again. That
one comparison is the guard against the fill race (a row read before the news, remembered after it), and it pauses
relays without an index from keys to streams.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.identity import KeyId, OwnerId

CHANNEL = "aegis_key_events"
# A flood of distinct subjects is folded into "all": it costs reads, never correctness.
MAX_SUBJECTS = 100_000
# An id of any other form is nobody's: it would cost memory, and a NUL in it fails every statement that asks for it.
_KEY_ID = re.compile(r"[0-9A-Za-z]{12}")
_OWNER_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class News:
    """Something changed. Neither id: anything may have."""

    key_id: KeyId | None = None
    owner_id: OwnerId | None = None


EVERYTHING = News()


def parse_news(payload: str) -> News:
    """Read a payload. Any role of the database can send one, so it is a hint: what cannot be read means "anything"."""
    try:
        said = json.loads(payload)
        kind = said["kind"]
        if kind == "key" and _KEY_ID.fullmatch(said["key_id"]):
            return News(key_id=KeyId(said["key_id"]))
        if kind == "owner" and _OWNER_ID.fullmatch(said["owner_id"]):
            return News(owner_id=OwnerId(said["owner_id"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return EVERYTHING


class NewsLog:
    """The latest news of each subject, by number. One event loop's thread only."""

    def __init__(self) -> None:
        self.sequence = 0
        self._everything = 0
        self._subjects: dict[str, int] = {}

    def add(self, news: News) -> None:
        """Give news its number."""
        self.sequence += 1
        subject = news.key_id or news.owner_id
        if subject is None or len(self._subjects) >= MAX_SUBJECTS:
            self._everything = self.sequence
            self._subjects.clear()
        else:
            self._subjects[subject] = self.sequence

    def is_current(self, read_at: int, subjects: Iterable[str]) -> bool:
        """True when nothing was said about any of the subjects (key, ancestors, owner) since sequence `read_at`."""
        if read_at < self._everything:
            return False
        latest = self._subjects
        return not latest or all(latest.get(subject, 0) <= read_at for subject in subjects)
