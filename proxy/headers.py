"""What crosses the wall?  [pure]

In go headers of one side, out come those for the other. Toward the upstream: everything but hop-by-hop fields, the
client's credentials, anything that could pass for identity or routing of ours, and names another implementation might
fold into one of those. Toward the client: a list of what is known to be harmless.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from multidict import CIMultiDict

# RFC 9110 section 7.6.1, and what older peers still treat so.
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade", "http2-settings",
})  # fmt: skip
# Ours to say, the client's never to: credentials and cookies, framing and host (the pool writes them), codings (list
# answers are filtered as text), browser provenance (judged here), and every way to claim an address or another target.
WITHHELD = frozenset({
    "authorization", "cookie", "host", "content-length", "expect", "accept-encoding", "origin", "referer", "forwarded",
    "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip", "x-original-url",
    "x-original-uri", "x-original-host", "x-rewrite-url", "x-http-method", "x-http-method-override",
    "x-method-override", "x-host", "x-api-key", "api-key", "x-auth-token", "x-access-token", "last-event-id",
    "x-request-id", "x-user", "x-user-id", "x-remote-user", "remote-user", "x-tenant-id",
})  # fmt: skip
WITHHELD_PREFIXES = (
    "x-forwarded-",
    "x-aegis-",
    "x-zaru-",
    "x-key-",
    "x-auth-request-",
    "x-authenticated-",
    "sec-fetch-",
)
_NAME = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
_SEPARATORS = re.compile(r"[^A-Za-z0-9]", re.ASCII)
# What was judged is what is sent: no `Connection` strikes these out on the way (RFC 9110 section 7.6.1 forbids it to
# name fields that are meant for the recipient).
JUDGED = frozenset({
    "accept", "content-type", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name",
})  # fmt: skip
# What an upstream may tell a client. Not Set-Cookie (the page of ours shares this origin), not WWW-Authenticate (it
# concerns our credential), not Location, not Server.
RELAYED = frozenset({
    "content-type", "content-language", "content-disposition", "content-range", "accept-ranges", "cache-control",
    "expires", "last-modified", "etag", "vary", "retry-after", "allow", "mcp-session-id", "mcp-protocol-version",
    "x-accel-buffering", "deprecation", "sunset",
})  # fmt: skip
# Proxied answers share their origin with the settings page: they may not script it, nor be taken for a page.
SAFETY = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox; default-src 'none'"))
SERVER = ("Server", "aegis-proxy")  # no version, and not a word about what we are built with


def form_upstream_headers(
    headers: Collection[tuple[str, str]],
    *,
    request_id: str,
    last_event_id: str | None = None,
    identity: Collection[tuple[str, str]] = (),
    identity_names: Collection[str] = (),
) -> list[tuple[str, str]]:
    """The client's headers as the upstream may see them, and what is ours to say. `identity`: who is asking,
    and our own credential; `identity_names`: all headers that could say the former, folded, present or not."""
    kept = [
        (name, value)
        for name, value in headers
        if _is_forwardable(name)
        and value.isascii()
        and value.isprintable()
        and not (identity_names and fold_header(name) in identity_names)
    ]
    named = _read_connection(headers)
    if named:
        kept = [(name, value) for name, value in kept if name.lower() not in named]
    kept.append(("Accept-Encoding", "identity"))
    kept.append(("X-Request-Id", request_id))
    if last_event_id is not None:
        kept.append(("Last-Event-ID", last_event_id))
    kept.extend(identity)
    return kept


@lru_cache(maxsize=1024)  # as above
def fold_header(name: str) -> str:
    """One form for all spellings that some server might take for the same name (`X-Key-Id`, `x_key_id`, `XKeyID`)."""
    return _SEPARATORS.sub("", name).lower()


def _read_connection(headers: Collection[tuple[str, str]]) -> frozenset[str]:
    """Names the client declared hop-by-hop; read before ours are added, so that none of ours can be struck out."""
    values = [value for name, value in headers if len(name) == len("connection") and name.lower() == "connection"]
    return frozenset(token.strip().lower() for value in values for token in value.split(",")) - JUDGED


@lru_cache(maxsize=1024)  # clients send the same few names over and over
def _is_forwardable(name: str) -> bool:
    lowered = name.lower()
    return (
        lowered not in WITHHELD
        and lowered not in HOP_BY_HOP
        and not lowered.startswith(WITHHELD_PREFIXES)
        and _NAME.fullmatch(name) is not None
    )


def form_client_headers(headers: CIMultiDict[str], *, request_id: str) -> CIMultiDict[str]:
    """The upstream's headers as the client may see them."""
    kept = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in RELAYED)
    kept.extend((*SAFETY, SERVER))
    kept["X-Request-Id"] = request_id
    return kept
