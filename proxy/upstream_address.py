"""Where the upstream listens.  [pure]

In: the URL an operator wrote. Out: the parts a connection and a request line need. Refuses to know: whether anybody
is there.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PLACE = re.compile(r"(?P<name>[a-z0-9._-]+|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """`authority` is the Host header; `base_path` stands as written, "" when the URL has none."""

    scheme: str
    host: str
    port: int
    authority: str
    base_path: str


def parse_upstream_address(url: str) -> UpstreamAddress:
    """Read `http://host[:port][/path]`. The text of its ValueError never repeats the URL: it may hold a password."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("an upstream URL is visible ASCII: write host names in punycode and %-encode the path")
    if "?" in url or "#" in url:
        raise ValueError("an upstream URL has no query and no fragment: it ends with the path")
    try:
        parts = urlsplit(url)
    except ValueError:  # crooked brackets
        raise ValueError("an upstream URL writes an IPv6 address in brackets, like http://[::1]:9000") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("an upstream URL starts with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("an upstream URL holds no user or password: configure the upstream's credential instead")
    place = _PLACE.fullmatch(parts.netloc.lower())
    if place is None or (place["ipv6"] and not _is_ipv6(place["ipv6"])):
        raise ValueError("an upstream URL names a host and perhaps a port, like http://127.0.0.1:9000 or https://[::1]")
    default_port = _DEFAULT_PORTS[parts.scheme]
    port = default_port if place["port"] is None else int(place["port"])
    if not 1 <= port <= 65535:
        raise ValueError("the port of an upstream URL is a number from 1 to 65535, or left out together with its colon")
    authority = place["name"] if port == default_port else f"{place['name']}:{port}"
    return UpstreamAddress(parts.scheme, place["ipv6"] or place["name"], port, authority, parts.path)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
