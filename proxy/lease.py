"""How long may we believe what we remember?  [pure]

In go stamps of boot time (seconds), out comes a state of trust. A nonce sent at `stamp` and heard on the listener
proves that all news committed before it was heard too, because notifications arrive in commit order. A full
revalidation that began at `stamp` proves the same of what is open. Nothing here reads a clock: every question brings
its own `now`, so a stalled process is judged by the time it wakes up in, not by timers it slept through.
"""

from __future__ import annotations

from enum import StrEnum


class Trust(StrEnum):
    """What remembered state is worth."""

    TRUSTED = "trusted"  # the lease runs: memory decides
    READ_THROUGH = "read_through"  # news may be lost, the database answers: every request reads its row again
    CLOSED = "closed"  # the database is silent past lease + grace: nothing is admitted, nothing flows


class Lease:
    """The instants everything is compared with, in boot time.

    `trusted_until`: memory decides until then. `open_until`: requests are still answered from rows read anew.
    `proven_at`: all news committed before it was heard.
    """

    def __init__(self, *, lease_seconds: float, grace_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self.grace_seconds = grace_seconds
        self.trusted_until = float("-inf")
        self.open_until = float("-inf")
        self.proven_at = float("-inf")

    def renew(self, stamp: float) -> None:
        """The nonce sent at `stamp` was heard, on a listener behind which everything was revalidated."""
        self.trusted_until = max(self.trusted_until, stamp + self.lease_seconds)
        self.proven_at = max(self.proven_at, stamp)
        self.extend(stamp)

    def extend(self, stamp: float) -> None:
        """Everything open was revalidated by a read that began at `stamp`."""
        self.open_until = max(self.open_until, stamp + self.lease_seconds + self.grace_seconds)

    def distrust(self) -> None:
        """The listener is gone: memory decides nothing until the next one is proven."""
        self.trusted_until = float("-inf")

    def close(self) -> None:
        """Nothing is believed at all, until it is proven anew."""
        self.trusted_until = self.open_until = self.proven_at = float("-inf")

    def is_flowing(self, read_at: float, now: float) -> bool:
        """May something flow at `now` whose row was last read at `read_at`? Neither the news proven since nor that
        read may be older than lease + grace."""
        return now < max(self.proven_at, read_at) + self.lease_seconds + self.grace_seconds

    def judge(self, now: float) -> Trust:
        """The state of trust at `now`."""
        if now < self.trusted_until:
            return Trust.TRUSTED
        return Trust.READ_THROUGH if now < self.open_until else Trust.CLOSED
