"""From where, how fast, how much at once: what a key's constraints let in.  [pure]

In go a verified key, where its request comes from and the time, out comes nothing, or a refusal. The limits of every
key it descends from hold, too, and what it does counts for all of them: a tree of keys does not get past its root's.
Rates are counted here, what is open in `sessions`. All counts are this process's own: each instance lets in as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, Protocol

from proxy.client_address import ClientAddress
from proxy.errors import DeniedError, LimitError, Reason
from proxy.identity import KeyId, Principal
from proxy.keys.constraints import Constraints

Kind = Literal["call", "stream"]

EXCEEDED: Final[Mapping[Kind, Reason]] = {"call": Reason.CALLS_EXCEEDED, "stream": Reason.STREAMS_EXCEEDED}
# When a place becomes free nobody knows: as soon as whoever refuses for now usually says.
RETRY_SECONDS: Final = 1
# Buckets kept at most, of about 250 bytes: as many as key states, by default. Beyond it the one longest unused is
# forgotten, and its key has its burst again.
MAX_BUCKETS: Final = 50_000
FEWEST_SWEPT: Final = 1024  # fewer are not worth looking for those that are full
ROUNDING: Final = 1e-8  # seconds: as exact as differences of boot times are after a year


class Constrained(Protocol):
    """A key, and those of its lineage that are constrained, and how: a principal's, or of who holds it otherwise."""

    @property
    def key_id(self) -> KeyId: ...

    @property
    def constrained(self) -> tuple[tuple[KeyId, Constraints], ...]: ...


def is_admitted(principal: Constrained, address: ClientAddress | None) -> bool:
    """Whether the key, and every one it descends from, may be used from there."""
    return all(constraints.admits(address) for _, constraints in principal.constrained)


def check_address(principal: Constrained, address: ClientAddress | None) -> None:
    """Raises DeniedError."""
    if principal.constrained and not is_admitted(principal, address):
        raise DeniedError(Reason.ADDRESS_NOT_ALLOWED, "This API key may not be used from where this came from.")


def find_limits(constrained: Iterable[tuple[KeyId, Constraints]], kind: Kind) -> Iterator[tuple[KeyId, int]]:
    """How many of a kind may be open at once, for each key of a lineage whose constraints say so."""
    for key_id, constraints in constrained:
        limit = constraints.max_calls if kind == "call" else constraints.max_streams
        if limit is not None:
            yield key_id, limit


def refuse_excess(principal: Principal, key_id: KeyId, kind: Kind, limit: int) -> LimitError:
    """The refusal of one too many, by the limit of this key of the lineage."""
    kinds = kind if limit == 1 else f"{kind}s"
    detail = f"{_name_limited(principal, key_id)} no more than {limit} {kinds} open at once."
    return LimitError(EXCEEDED[kind], detail, retry_after_seconds=RETRY_SECONDS, data={f"max_{kind}s": limit})


def _name_limited(principal: Constrained, key_id: KeyId) -> str:
    if key_id == principal.key_id:
        return "This API key and those made by it may have"
    return "The API key that this one descends from, and all made by it, may have"


class Rate(NamedTuple):
    """How fast, and how many at once, one key of a lineage lets requests in."""

    key_id: KeyId
    per_second: float
    depth: int


class Bucket(NamedTuple):
    """Tokens left at one instant, and the boot time at which it is full again if nobody takes any more."""

    left: float
    at: float
    full_at: float


class Gate:
    """Stands between verified keys and what they ask for: one per process.

    An admission takes 0.2 µs where nothing of a lineage is constrained; 7 µs with sources and a rate, and 5 more for
    each ancestor with as much (processor time, 2026-11-29).
    """

    def __init__(self, max_buckets: int = MAX_BUCKETS) -> None:
        self._max_buckets = max_buckets
        self._buckets: dict[KeyId, Bucket] = {}  # the longest unused first; a full one is as good as none
        self._sweep_at = min(FEWEST_SWEPT, max_buckets)

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, principal: Constrained, address: ClientAddress | None, now: float) -> None:
        """Let one request in at boot time `now`, and count it for each key of the lineage; what is refused counts for
        none. Raises DeniedError, LimitError."""
        if not principal.constrained:
            return
        check_address(principal, address)
        rates = [
            Rate(key_id, constraints.requests_per_second, constraints.depth or 1)
            for key_id, constraints in principal.constrained
            if constraints.requests_per_second is not None
        ]
        left = [self._find_left(rate, now) for rate in rates]
        waits = [(1 - tokens) / rate.per_second for rate, tokens in zip(rates, left, strict=True)]
        longest = max(waits, default=0.0)
        if longest > ROUNDING:
            raise _refuse_haste(principal, rates[waits.index(longest)], longest)
        for rate, tokens in zip(rates, left, strict=True):
            self._keep(rate, tokens - 1, now)

    def _find_left(self, rate: Rate, now: float) -> float:
        bucket = self._buckets.get(rate.key_id)
        if bucket is None:
            return rate.depth
        return min(rate.depth, bucket.left + (now - bucket.at) * rate.per_second)

    def _keep(self, rate: Rate, left: float, now: float) -> None:
        if self._buckets.pop(rate.key_id, None) is None and len(self._buckets) >= self._sweep_at:
            self._sweep(now)
        self._buckets[rate.key_id] = Bucket(left, now, now + (rate.depth - left) / rate.per_second)

    def _sweep(self, now: float) -> None:
        """Forget the full ones, and some of the others where that makes too little room: a few steps for each new
        bucket, all in all."""
        kept = [(key_id, bucket) for key_id, bucket in self._buckets.items() if bucket.full_at > now]
        self._buckets = dict(kept[-(self._max_buckets * 3 // 4) :])
        self._sweep_at = min(self._max_buckets, max(FEWEST_SWEPT, 2 * len(self._buckets)))


def _refuse_haste(principal: Constrained, rate: Rate, wait_seconds: float) -> LimitError:
    detail = (
        f"{_name_limited(principal, rate.key_id)} no more than {rate.per_second:g} requests a second, and {rate.depth} "
        "at once."
    )
    limits = {"requests_per_second": rate.per_second, "burst": rate.depth}
    return LimitError(Reason.RATE_EXCEEDED, detail, retry_after_seconds=math.ceil(wait_seconds), data=limits)
