"""Whose request is it: peers, honest and forged chains, and what nobody can read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.client_address import (
    MAX_HOPS,
    find_client_address,
    form_network,
    is_within,
    parse_client_address,
    parse_network,
)
from proxy.errors import Reason, RequestError

OURS = [parse_network("10.0.0.0/8"), parse_network("fd00::/8")]


def find(peer: str | None, *fields: str) -> str:
    """The address, when these are the X-Forwarded-For headers and our proxies stand in 10.0.0.0/8 and fd00::/8."""
    headers = CIMultiDict(("X-Forwarded-For", field) for field in fields)
    return str(find_client_address(peer, headers, OURS))


@pytest.mark.parametrize(
    ("peer", "fields", "address"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("::ffff:192.0.2.1", (), "192.0.2.1"),
        ("fe80::1%eth0", (), "fe80::1"),
        ("10.0.0.1", (), "10.0.0.1"),  # it asks for itself
        ("10.0.0.1", ("192.0.2.1",), "192.0.2.1"),
        ("::ffff:10.0.0.1", ("::ffff:192.0.2.1",), "192.0.2.1"),
        ("fd00::1", ("2001:db8::1",), "2001:db8::1"),
        ("10.0.0.1", ("192.0.2.1, 10.0.0.3, 10.0.0.2",), "192.0.2.1"),
        ("10.0.0.1", ("192.0.2.1", "10.0.0.3,10.0.0.2"), "192.0.2.1"),  # RFC 9110 section 5.3: one list
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),  # from inside
        ("10.0.0.1", ("192.0.2.1:4711",), "192.0.2.1"),
        ("10.0.0.1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("10.0.0.1", ("[2001:db8::1]",), "2001:db8::1"),
        # Forged: what stands left of the first foreign address is whatever its client likes.
        ("10.0.0.1", ("127.0.0.1, 192.0.2.1",), "192.0.2.1"),
        ("10.0.0.1", ("10.0.0.9, 192.0.2.1, 10.0.0.2",), "192.0.2.1"),
        ("10.0.0.1", ("who knows, , 192.0.2.1",), "192.0.2.1"),
        ("192.0.2.1", ("10.0.0.1",), "192.0.2.1"),  # not by way of our proxies: never read
        ("192.0.2.1", ("not even read",), "192.0.2.1"),
        ("::10.0.0.1", ("192.0.2.1",), "::a00:1"),  # looks like one of ours
    ],
)
def test_a_request_comes_from_the_last_address_that_one_of_our_proxies_vouches_for(
    peer: str, fields: tuple[str, ...], address: str
) -> None:
    assert find(peer, *fields) == address


def test_no_proxy_is_trusted_unless_it_was_named() -> None:
    headers = CIMultiDict({"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Real-IP": "192.0.2.1"})
    assert find_client_address("127.0.0.1", headers, ()) == parse_client_address("127.0.0.1")


def test_no_other_header_says_where_a_request_comes_from() -> None:
    headers = CIMultiDict(dict.fromkeys(("Forwarded", "X-Real-IP", "X_Forwarded_For", "CF-Connecting-IP"), "192.0.2.1"))
    assert find_client_address("10.0.0.1", headers, OURS) == parse_client_address("10.0.0.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_ipv6_subscriber_is_one_network(one: str, other: str, same: bool) -> None:
    assert (form_network(parse_client_address(one)) == form_network(parse_client_address(other))) is same


@pytest.mark.parametrize("peer", [None, ""])
def test_a_unix_socket_has_no_address(peer: str | None) -> None:
    assert find_client_address(peer, CIMultiDict({"X-Forwarded-For": "192.0.2.1"}), OURS) is None


@pytest.mark.parametrize(
    "field",
    ["", "unknown", "_hidden", "192.0.2.1,", ", 10.0.0.2", "192.0.2.1/32", "192.0.2.01", "192.0.2.1:", "2001:db8::1:",
     "[192.0.2.1", "[2001:db8::1]4711", "192.0.2.1:99999999", "1", "192.0.2.1 10.0.0.2", "\x00", "١٩٢.0.2.1",
     ",".join(["10.0.0.2"] * (MAX_HOPS + 2)), f"192.0.2.1{',10.0.0.2' * MAX_HOPS * 100}"],
)  # fmt: skip
def test_what_a_trusted_proxy_vouches_for_and_nobody_can_read_is_refused(field: str) -> None:
    with pytest.raises(RequestError) as caught:
        find("10.0.0.1", field)
    assert caught.value.reason is Reason.HEADER_INVALID
    assert not field.strip(", ") or field not in caught.value.detail


def test_a_chain_may_be_as_long_as_a_house_has_proxies() -> None:
    assert find("10.0.0.1", ",".join(["made up", "192.0.2.1", *["10.0.0.2"] * (MAX_HOPS - 1)])) == "192.0.2.1"


ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "192.0.2.1"])


@given(
    st.lists(ADDRESSES | st.text(st.characters(codec="ascii"), max_size=9), max_size=4),
    ADDRESSES.filter(lambda text: not is_within(parse_client_address(text), OURS)),
    st.lists(st.sampled_from(["10.0.0.1", "fd00::1", "::ffff:10.1.1.1"]), min_size=1, max_size=5),
)
def test_nothing_a_client_sends_moves_it_elsewhere(forged: list[str], client: str, proxies: list[str]) -> None:
    *between, peer = proxies
    assert find(peer, ",".join([*forged, client, *between])) == str(parse_client_address(client))
