"""Something we depend on fails for a while: said once, and once that it works again.  [io: writes log lines]

In go failures and successes as they happen, out come two lines for each outage, however many failures it holds. What
failed, and what is done about it, is its owner's business.
"""

from __future__ import annotations

from proxy.errors import ProxyError
from proxy.logs import get_logger


class Outage:
    """Of the room that says so. `what` begins the names of both lines: `reading_failing`, `reading_works_again`."""

    def __init__(self, room: str, what: str) -> None:
        self._log = get_logger(room)
        self._what = what
        self.lasts = False

    def begin(self, error: ProxyError) -> None:
        """It failed."""
        if not self.lasts:
            self._log.warning(f"{self._what}_failing", error=str(error))
        self.lasts = True

    def end(self) -> None:
        """It worked."""
        if self.lasts:
            self._log.info(f"{self._what}_works_again")
        self.lasts = False
