"""Constraints of keys: bad ones are told, and none is ever wider than what contains it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.client_address import parse_client_address
from proxy.keys.constraints import UNCONSTRAINED, Constraints, parse_constraints

FAULTS = {
    "no object": ([], "object"),
    "an unknown member": ({"speed": 1}, "speed"),
    "bits beyond the prefix": ({"sources": ["10.0.0.1/8"]}, "sources.0"),
    "no address": ({"sources": ["home"]}, "sources.0"),
    "a number as address": ({"sources": [167772160]}, "sources.0"),
    "no source at all": ({"sources": []}, "sources"),
    "no speed at all": ({"requests_per_second": 0}, "requests_per_second"),
    "no number": ({"requests_per_second": float("nan")}, "requests_per_second"),
    "a burst of nothing": ({"burst": 5}, "burst"),
    "half a call": ({"max_calls": 1.5}, "max_calls"),
    "a truth for a number": ({"max_streams": True}, "max_streams"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_its_place(name: str) -> None:
    value, place = FAULTS[name]
    with pytest.raises(ValueError, match=place):
        parse_constraints(value)


def test_only_what_constrains_is_stored() -> None:
    assert UNCONSTRAINED.form() == {}
    stored = {"sources": ["10.0.0.0/8"], "requests_per_second": 5.0, "max_calls": 2}
    assert parse_constraints(stored).form() == stored


def test_an_address_mapped_into_ipv6_is_the_ipv4_one() -> None:
    constraints = parse_constraints({"sources": ["::ffff:10.0.0.0/104", "fe80::/10"]})
    assert constraints.form() == {"sources": ["10.0.0.0/8", "fe80::/10"]}
    assert all(map(constraints.admits, map(parse_client_address, ("10.1.2.3", "::ffff:10.1.2.3", "fe80::1%eth0"))))
    assert not any(map(constraints.admits, map(parse_client_address, ("11.0.0.1", "::1", "::10.1.2.3"))))


def test_what_has_no_address_comes_from_nowhere_that_is_allowed() -> None:
    assert not parse_constraints({"sources": ["0.0.0.0/0", "::/0"]}).admits(None)
    assert UNCONSTRAINED.admits(None)


NETWORKS = st.one_of(
    st.builds(lambda bits, length: f"{ip_network((bits << 24, 8))[0]}/{length}", st.integers(1, 3), st.integers(8, 10)),
    st.sampled_from(["fe80::/10", "fe80::/64", "10.0.0.1", "::1"]),
)
CONSTRAINTS = st.builds(
    lambda sources, rate, burst, calls, streams: Constraints(
        sources=None if sources is None else tuple(sources),
        requests_per_second=rate,
        burst=None if rate is None else burst,
        max_calls=calls,
        max_streams=streams,
    ),
    st.none() | st.lists(NETWORKS, min_size=1, max_size=3),
    st.none() | st.sampled_from([0.5, 1.0, 2.5, 4.0]),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 3),
    st.none() | st.integers(1, 3),
)
ADDRESSES = [ip_address(text) for text in ("1.0.0.0", "1.64.0.1", "2.0.0.9", "10.0.0.1", "fe80::1", "fe81::1", "::1")]


@given(CONSTRAINTS, CONSTRAINTS)
def test_what_is_contained_admits_nothing_that_its_container_refuses(outer: Constraints, inner: Constraints) -> None:
    assert UNCONSTRAINED.contains(outer)
    assert outer.contains(outer)
    assert parse_constraints(outer.form()) == outer
    if outer.contains(inner):
        assert all(outer.admits(address) for address in ADDRESSES if inner.admits(address))
        assert outer.depth is None or (inner.depth is not None and inner.depth <= outer.depth)
        assert outer.max_calls is None or (inner.max_calls is not None and inner.max_calls <= outer.max_calls)


@given(CONSTRAINTS, CONSTRAINTS, CONSTRAINTS)
def test_what_is_in_a_part_is_in_the_whole(outer: Constraints, inner: Constraints, innermost: Constraints) -> None:
    if outer.contains(inner) and inner.contains(innermost):
        assert outer.contains(innermost)
