"""What narrows a key beside its scopes: where from, how fast, how much at once.  [pure]

In goes JSON, from a request or from a row; out come frozen values that can be held against each other, so that no key
is made wider than its maker. Requests are counted elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from proxy.client_address import ClientAddress, Network, is_within, parse_network

MAX_SOURCES: Final = 64

Source = Annotated[Network, BeforeValidator(parse_network), PlainSerializer(str, return_type=str)]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]


class Constraints(BaseModel):
    """None: not constrained. `burst`: how many requests may come at once; a second's worth unless told."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sources: Annotated[tuple[Source, ...], Field(strict=False, min_length=1, max_length=MAX_SOURCES)] | None = Field(
        None, description="Addresses and CIDRs that requests may come from."
    )
    requests_per_second: Annotated[float, Field(strict=False, gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    burst: Limit | None = Field(None, description="Requests that may come at once.")
    max_calls: Limit | None = Field(None, description="Calls under way at once, on one instance.")
    max_streams: Limit | None = Field(None, description="Streams open at once, on one instance.")

    @model_validator(mode="after")
    def _check_burst(self) -> Constraints:
        if self.burst is not None and self.requests_per_second is None:
            raise ValueError("burst is of use beside requests_per_second only")
        return self

    @property
    def depth(self) -> int | None:
        """The burst in force; None: any."""
        if self.requests_per_second is None:
            return None
        return self.burst or max(1, math.ceil(self.requests_per_second))

    def contains(self, other: Constraints) -> bool:
        """Whether whatever the other lets through, this one does, too."""
        limits = (
            (self.requests_per_second, other.requests_per_second),
            (self.depth, other.depth),
            (self.max_calls, other.max_calls),
            (self.max_streams, other.max_streams),
        )
        if any(mine is not None and (theirs is None or theirs > mine) for mine, theirs in limits):
            return False
        if self.sources is None:
            return True
        theirs = other.sources
        return theirs is not None and all(any(_is_inside(one, mine) for mine in self.sources) for one in theirs)

    def admits(self, address: ClientAddress | None) -> bool:
        """Whether a request may come from this address. What has none comes from nowhere that is allowed."""
        return self.sources is None or (address is not None and is_within(address, self.sources))

    def form(self) -> dict[str, Any]:
        """As it is stored and shown: only what constrains."""
        return self.model_dump(mode="json", exclude_none=True)


UNCONSTRAINED: Final = Constraints()


def parse_constraints(value: object) -> Constraints:
    """Raises ValueError with every fault, in words for whoever wrote it."""
    if not isinstance(value, Mapping):
        raise ValueError("constraints are an object")
    try:
        return Constraints.model_validate(dict(value))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc'])) or 'constraints'}: {one['msg']}" for one in error.errors())
        raise ValueError("; ".join(faults)) from None


def _is_inside(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)
