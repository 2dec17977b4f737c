"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    def __init__(self, boot: float = 1_000.0, wall: float = 1_800_000_000.0) -> None:
        self._boot = boot
        self._wall = wall

    def boot(self) -> float:
        return self._boot

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Time passes, by both clocks."""
        self._boot += seconds
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """Somebody sets the wall clock; boot time does not notice."""
        self._wall = wall
