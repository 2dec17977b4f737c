"""Whether something is tried again, and how long from now.  [pure]

In: how an attempt went, and a number drawn at random. Out: seconds to wait, or None: that was the last.
Refuses to know: what was asked; clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis_sdk.configuration import Retry

# The proxy cannot say, or what is behind it does not answer: the next moment may be better.
PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that did not succeed. `status` None: there was no connection, so that nothing was sent."""

    status: int | None
    retry_after: float | None = None

    @property
    def passing(self) -> bool:
        return self.status is None or self.status in PASSING


def find_wait(retry: Retry, attempt: int, failure: Failure, chance: float) -> float | None:
    """Seconds until the next attempt after the `attempt`-th, counted from 1. `chance`: at least 0 and below 1."""
    if attempt >= retry.attempts or not failure.passing:
        return None
    if failure.retry_after is not None and failure.retry_after > retry.longest_wait:
        return None
    most = min(retry.longest_wait, retry.first_wait * 2.0 ** min(attempt - 1, 1000))
    return max(most * (1 + chance) / 2, failure.retry_after or 0.0)
