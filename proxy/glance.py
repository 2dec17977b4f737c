"""What does a request present, at a glance?  [pure]

In go the first bytes of a connection, out comes the token of a request if it presents one, and where the request ends:
enough to refuse it, never enough to let it in. What cannot be told at a glance is None, and left to whoever reads
requests properly.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxy.credentials import parse_bearer
from proxy.errors import UnprovenError
from proxy.keys.legacy import LegacyToken
from proxy.keys.token import Token
from proxy.policy.reserved import is_reserved

END: Final = b"\r\n\r\n"
_CREDENTIAL: Final = b"\r\nauthorization:"
# Whatever says where a body ends or what becomes of the connection, in any spelling.
_FRAMING: Final = re.compile(rb"\r\n(content-length|transfer-encoding|connection|expect|upgrade)[^\r\n]*")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Glance:
    """A request that presents something. `token` is None when that is not one key. `length`: of the whole request in
    bytes; None when another request might be read out of what follows, so that the connection has to end."""

    token: Token | LegacyToken | None
    length: int | None


def glance(data: bytes, head_length: int, *, takes_tokens: bool) -> Glance | None:
    """At a request whose head, with the empty line, is so many bytes long. None: it presents nothing, or what may be a
    token of the identity provider's (`takes_tokens`: there is one)."""
    head = data[: head_length - 2].lower()
    start = head.find(_CREDENTIAL)
    if start < 0:
        return None
    start += len(_CREDENTIAL)
    token = None
    if head.find(_CREDENTIAL, start) < 0:
        value = data[start : head.index(b"\r\n", start)].decode("latin-1")
        if takes_tokens and "." in value and is_reserved(_find_path(data)):
            return None
        with suppress(UnprovenError):
            token = parse_bearer(value.strip(" \t"))
    return Glance(token, _find_length(head, head_length))


def _find_path(data: bytes) -> str:
    target = data[: data.index(b"\r\n")].partition(b" ")[2].partition(b" ")[0]
    return target.partition(b"?")[0].decode("latin-1")


def _find_length(head: bytes, head_length: int) -> int | None:
    """Nothing but HTTP/1.1 with one plain Content-Length, or with none, in lines that nobody reads otherwise."""
    if not head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n") or b"\r\n " in head or b"\r\n\t" in head:
        return None  # some take a bare CR or LF for the end of a line, or a folded line for one of its own
    if not head.startswith(b" http/1.1", head.index(b"\r\n") - 9) or head.startswith(b"head "):
        return None  # the answer to a HEAD has no body
    lines = _FRAMING.finditer(head)
    first, second = next(lines, None), next(lines, None)
    if first is None:
        return head_length
    plain = _LENGTH.fullmatch(first[0])
    return head_length + int(plain[1]) if plain is not None and second is None else None
