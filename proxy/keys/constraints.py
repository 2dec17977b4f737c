"""What narrows a key beside its scopes: where from, how fast, how much at once.  [pure]

In goes JSON, from a request or from a row; out come frozen values that can be held against each other, so that no key
is made wider than its maker. Requests are counted elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

MAX_SOURCES: Final = 64
MAPPED: Final = IPv6Network("::ffff:0:0/96")
Network = IPv4Network | IPv6Network


def _parse_network(value: object) -> Network:
    """An address or CIDR. An IPv4-mapped one is the IPv4 one: sockets report either, as they are configured."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("an address or a CIDR, such as 10.0.0.0/8")
    network = ip_network(value)  # refuses bits beyond the prefix: 10.0.0.1/8 is a slip
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


Source = Annotated[Network, BeforeValidator(_parse_network), PlainSerializer(str, return_type=str)]
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
        return theirs is not None and all(any(_is_within(one, mine) for mine in self.sources) for one in theirs)

    def admits(self, address: str) -> bool:
        """Whether a request may come from this address. What is no address comes from nowhere that is allowed."""
        if self.sources is None:
            return True
        parsed = _parse_address(address)
        return parsed is not None and any(parsed in source for source in self.sources)

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


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
