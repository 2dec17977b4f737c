"""Who is warned that a key ends soon: its client by a header, its operator by one line of the log a day.  [io]

In goes the end of a verified key, its ancestors' and its secret's included, out comes the header. Clients that do not
know it notice nothing. What ends a key is `verification`'s and `sessions`' affair.
"""

from __future__ import annotations

from typing import Final

from proxy.clock import Clock, DatabaseClock
from proxy.expiry import DAY_SECONDS, HEADER, form_moment, is_near
from proxy.identity import KeyId
from proxy.logs import get_logger

log = get_logger("expiry")

MAX_TOLD: Final = 10_000  # keys told of in one day; of more the log holds its peace, and their headers tell


class ExpiryWarnings:
    """One instance per process."""

    def __init__(self, clock: Clock, database_clock: DatabaseClock) -> None:
        self._clock = clock
        self._database_clock = database_clock
        self._day = 0
        self._told: set[KeyId] = set()

    def warn(self, key_id: KeyId, end: float | None) -> tuple[tuple[str, str], ...]:
        """Headers for the answers to this key; `end` in seconds since the epoch, by the database's clock."""
        if end is None:
            return ()
        now = self._database_clock.now(self._clock.boot())
        if not is_near(end, now):
            return ()
        self._tell(key_id, end, int(now // DAY_SECONDS))
        return ((HEADER, form_moment(end)),)

    def _tell(self, key_id: KeyId, end: float, day: int) -> None:
        if day != self._day:
            self._day = day
            self._told.clear()
        if key_id not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(key_id)
            log.warning("key_ends_soon", key_id=key_id, ends_at=form_moment(end))
