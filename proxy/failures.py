"""How often may one address present what is no key?  [pure]

In go where failed attempts came from, and when; out comes nothing, or how long to wait. Only attempts that proved no
secret are told here, and only such are ever held against an address: a right key passes whatever its neighbours behind
the same NAT do. An IPv6 subscriber has a whole /64 to speak from, so that counts as one address. All counts are this
process's own.
"""

from __future__ import annotations

import math
from typing import Final

from cachetools import LRUCache

from proxy.client_address import ClientAddress, form_network
from proxy.errors import CredentialError, Reason, Refusal, UnprovenError

# Sources remembered, about 200 bytes each; beyond it the one that failed longest ago has its burst again.
MAX_SOURCES: Final = 20_000
LOCAL: Final = "local"  # a Unix socket
KEYS_FAILED: Final = "Too many invalid API keys came from this address. A valid one is still accepted."
CODES_FAILED: Final = "Too many sign-ins from this address came to nothing. Wait a moment, then try again."
ROUNDING: Final = 1e-6  # seconds


def find_source(address: ClientAddress | None) -> str:
    """Whose failures are counted together."""
    return LOCAL if address is None else form_network(address)


class FailureLimiter:
    """At most `burst` failures at once from each source, and `per_second` from then on; `detail` is said beyond."""

    def __init__(
        self, *, burst: int, per_second: float, max_sources: int = MAX_SOURCES, detail: str = KEYS_FAILED
    ) -> None:
        self._detail = detail
        self._interval = 1 / per_second
        self._tolerance = burst * self._interval
        # Until when what a source has failed is not yet forgiven: the one number a token bucket needs (GCRA).
        self._forgiven_at: LRUCache[str, float] = LRUCache(max_sources)

    @property
    def longest_wait_seconds(self) -> int:
        """What nobody waits longer than for the next failure."""
        return math.ceil(self._interval)

    def count(self, source: str, now: float) -> int | None:
        """One more failure at boot time `now`. None when it is within the budget; else it does not count, and may be
        tried again after so many seconds."""
        wait = self.find_wait(source, now)
        if wait is None:
            self._forgiven_at[source] = max(self._forgiven_at.get(source, now), now) + self._interval
        return wait

    def find_wait(self, source: str, now: float) -> int | None:
        """What the next failure would hear. Costs a look-up."""
        wait = self._forgiven_at.get(source, now) + self._interval - self._tolerance - now
        return math.ceil(wait) if wait > ROUNDING else None

    def weigh(self, refusal: Refusal, address: ClientAddress | None, now: float) -> Refusal:
        """The refusal as it came, or, of a failure beyond the budget, the one to give in its place."""
        if not isinstance(refusal, UnprovenError):
            return refusal
        wait = self.count(find_source(address), now)
        return refusal if wait is None else refuse_failures(wait, self._detail)

    def check(self, address: ClientAddress | None, now: float) -> None:
        """Before what is costly to judge and may well be made up. Raises CredentialError beyond the budget."""
        wait = self.find_wait(find_source(address), now)
        if wait is not None:
            raise refuse_failures(wait, self._detail)


def refuse_failures(wait_seconds: int, detail: str = KEYS_FAILED) -> CredentialError:
    """One answer for whatever was presented, as it is for failures within the budget."""
    return CredentialError(Reason.TOO_MANY_FAILURES, detail, retry_after_seconds=wait_seconds)
