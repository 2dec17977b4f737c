"""Whose request is it? The address a request comes from.  [pure]

In go the peer of the connection, the headers, and which networks our own proxies stand in; out comes one address. An
IPv4 address mapped into IPv6 is the IPv4 one: sockets report either, as they are configured. `Forwarded`, `X-Real-IP`
and their like are never read: one header, one order, one writer. What an address may do is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import Reason, RequestError

ClientAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAPPED: Final = IPv6Network("::ffff:0:0/96")
MAX_HOPS: Final = 16  # our own proxies in a row: a longer chain is a loop, or made up by somebody inside
# Some proxies write the port, too, and brackets around IPv6 with it or without.
_HOP: Final = re.compile(r"\[(?P<bracketed>[0-9A-Fa-f:.]+)\](:[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5}", re.ASCII)


def parse_network(value: object) -> Network:
    """An address or CIDR. Raises ValueError."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("an address or a CIDR, such as 10.0.0.0/8")
    try:
        network = ip_network(value)  # refuses bits beyond the prefix: 10.0.0.1/8 is a slip
    except ValueError:
        meant = ip_network(value, strict=False)  # no network at all: raises, too
        raise ValueError(f"{value} is no network: write {meant}, or {value.partition('/')[0]}") from None
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


@lru_cache(maxsize=4096)  # the same few over and over, and parsing one takes some microseconds
def parse_client_address(text: str) -> ClientAddress:
    """An address without its zone, which says something about our machine only. Raises ValueError."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)  # making one takes microseconds
def form_network(address: ClientAddress) -> str:
    """What counts as one place: an IPv4 address, or the /64 of an IPv6 address, because who holds one address there
    holds them all."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def is_within(address: ClientAddress, networks: Collection[Network]) -> bool:
    """Whether the address belongs to one of them."""
    return any(address in network for network in networks)


def find_client_address(
    peer: str | None, headers: CIMultiDict[str] | CIMultiDictProxy[str], trusted: Collection[Network]
) -> ClientAddress | None:
    """Where the request comes from; None: from a Unix socket, which has no address. Raises RequestError.

    `X-Forwarded-For` is read from the right, each place only on the word of a trusted hop: what stands left of the
    first foreign address was written by whoever is there, and may be anything. A trusted hop that adds nothing asks
    for itself. What a trusted hop vouches for and nobody can read is refused: its own address, the last one known to
    be true, stands inside our walls, where keys bound to a network of ours may come from.
    """
    if not peer:
        return None
    address = parse_client_address(peer)
    if not trusted or not is_within(address, trusted):
        return address
    fields = headers.getall("X-Forwarded-For", ())
    for hop in reversed(",".join(fields).rsplit(",", MAX_HOPS)) if fields else ():
        address = _parse_hop(hop.strip())
        if not is_within(address, trusted):
            break
    return address


@lru_cache(maxsize=4096)  # as above
def _parse_hop(text: str) -> ClientAddress:
    match = _HOP.fullmatch(text)
    try:
        return parse_client_address(match["bracketed"] or match["v4"] if match else text)
    except ValueError as error:
        detail = "X-Forwarded-For, as a trusted proxy sent it, holds something else than addresses."
        raise RequestError(Reason.HEADER_INVALID, detail) from error
