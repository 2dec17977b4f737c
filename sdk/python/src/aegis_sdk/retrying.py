"""Whether something is tried again, and how long from now.  [pure]

In: how an attempt failed, and a number drawn at random. Out: seconds to wait, or None: that was the last.
Refuses to know: what was asked; clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis_sdk.configuration import Retry
from aegis_sdk.errors import AegisError, ApiError

# The proxy cannot say, or what is behind it does not answer: the next moment may be better.
PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that did not succeed. `unsent`: there was no connection, so that nothing was sent."""

    error: AegisError
    unsent: bool = False

    @property
    def passing(self) -> bool:
        return self.unsent or (isinstance(self.error, ApiError) and self.error.status in PASSING)

    @property
    def retry_after(self) -> float:
        return (self.error.retry_after if isinstance(self.error, ApiError) else None) or 0.0


def find_wait(retry: Retry, attempt: int, failure: Failure, chance: float) -> float | None:
    """Seconds until the next attempt after the `attempt`-th, counted from 1. `chance`: at least 0 and below 1."""
    if attempt >= retry.attempts or not failure.passing or failure.retry_after > retry.longest_wait:
        return None
    most = min(retry.longest_wait, retry.first_wait * 2.0 ** min(attempt - 1, 1000))
    return max(most * (1 + chance) / 2, failure.retry_after)
