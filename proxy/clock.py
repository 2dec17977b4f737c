"""What time is it, here and at the database?  [io: reads the system's clocks; DatabaseClock is pure]

Boot time measures how long something lasted and goes on while a machine sleeps; wall time is for people. Whether a key
has expired is the database's business, so its clock is carried over to boot time. This room does not know what is
done with the time, and starts no timers.
"""

from __future__ import annotations

import math
import time
from typing import Final, Protocol

# NTP slews a clock by at most 500 ppm (RFC 5905 §11.3, and the kernel's own limit).
DRIFT: Final = 500e-6


class Clock(Protocol):
    def boot(self) -> float:
        """Seconds since some instant before the start; never runs backwards."""

    def wall(self) -> float:
        """Seconds since the epoch, as this machine believes."""


class SystemClock:
    """CLOCK_BOOTTIME, because the ordinary monotonic clock stands still while a machine sleeps, leases and all."""

    def __init__(self) -> None:
        self._boot_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has the former

    def boot(self) -> float:
        return time.clock_gettime(self._boot_clock)

    def wall(self) -> float:
        return time.time()


class DatabaseClock:
    """The database's clock, carried over to boot time: never behind it, ahead by no more than a round trip took.

    So a key may expire a little early, never late. Before the first observation everything has expired.
    """

    def __init__(self) -> None:
        self._offset = math.inf
        self._asked_at = 0.0

    def observe(self, database_epoch: float, asked_at_boot: float, answered_at_boot: float) -> None:
        """The database said `database_epoch` (its clock_timestamp()) at some instant between asking and the answer."""
        least, most = database_epoch - answered_at_boot, database_epoch - asked_at_boot
        carried = self._offset + DRIFT * abs(answered_at_boot - self._asked_at)
        # An earlier, quicker answer may bound the offset better, unless the database's clock was set forward since.
        self._offset = min(most, carried) if carried >= least else most
        self._asked_at = asked_at_boot

    @property
    def observed(self) -> bool:
        """Whether the database has told its time at all."""
        return self._offset < math.inf

    def now(self, boot: float) -> float:
        """Seconds since the epoch by the database's clock, at this boot time."""
        return boot + self._offset

    def skew_seconds(self, boot: float, wall: float) -> float:
        """How far the database is ahead of this machine; beyond a second someone should look at their NTP."""
        return self.now(boot) - wall
