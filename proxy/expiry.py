"""When does a key's end deserve a warning?  [pure]

In go an end and the time, out comes whether it is near, and how it is told: in a header of answers, a line of the log,
a mark in lists. Nothing here ends anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

WARNING_DAYS: Final = 14  # time enough for whoever rotates keys by hand, holidays included
DAY_SECONDS: Final = 86_400
SHARING: Final = frozenset({"public", "s-maxage", "must-revalidate"})
HEADER: Final = "API-Key-Expires-At"


def is_near(end: float | None, now: float) -> bool:
    """Whether an end lies ahead, and close. Both in seconds since the epoch; None means never."""
    return end is not None and now < end <= now + WARNING_DAYS * DAY_SECONDS


def may_be_shared(cache_control: str | None) -> bool:
    """Whether a cache may give this answer, made for one key, to another's client (RFC 9111 section 3.5)."""
    directives = (word.strip().partition("=")[0].lower() for word in (cache_control or "").split(","))
    return not SHARING.isdisjoint(directives)


def form_moment(end: float) -> str:
    """RFC 3339, and the second before rather than after."""
    return datetime.fromtimestamp(int(end), UTC).isoformat().replace("+00:00", "Z")
