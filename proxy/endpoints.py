"""Where messages go in HTTP+SSE (MCP 2024-11-05).  [pure]

The stream of this transport begins with an event `endpoint`: the URL to POST messages to, which names the session, so
whoever has it can speak in it. In go such events of an upstream; out they go again with our own path and the upstream's
target sealed into it. Nothing here knows keys: what seals is told to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from urllib.parse import SplitResult, urljoin, urlsplit

from proxy.errors import Reason, RequestError, UpstreamError
from proxy.sse import get_values, replace_field
from proxy.upstream_address import parse_upstream_address

# Sealed and spelled for a URL it still fits into a request line.
MAX_TARGET_BYTES = 2048
# No backslash: some readers of URLs take it for a slash.
_REFERENCE = re.compile(r"[!-\[\]-~]+")
_SESSION_MEMBER = "session_id"


def read_session_member(query: str) -> str:
    """The one member in the query of a message's URL. Raises RequestError."""
    name, _, value = query.partition("=")
    if name != _SESSION_MEMBER or "&" in value:
        raise RequestError(
            Reason.QUERY_NOT_ALLOWED,
            f"A message names its session by one query member, {_SESSION_MEMBER}, and no other.",
        )
    return value


def form_reference(stream_path: str, messages_path: str) -> str:
    """The path of the messages as seen from the stream's: relative, so that whatever prefix a client reaches us under
    stays in front of it."""
    here, there = stream_path.split("/")[:-1], messages_path.split("/")
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(here, there[:-1], strict=False))))
    rest = "/".join(there[shared:])
    if shared < len(here):
        return "../" * (len(here) - shared) + rest
    return f"./{rest}" if ":" in there[shared] else rest  # RFC 3986 section 4.2: it would pass for a scheme


def resolve_target(stream_url: str, reference: str) -> str:
    """The target that an upstream's `endpoint` names, in origin form. Raises UpstreamError."""
    if _REFERENCE.fullmatch(reference) is None:
        raise _bad_endpoint("The upstream's endpoint is not a URL.")
    try:
        found = urlsplit(urljoin(stream_url, reference))
        is_ours = _get_origin(found) == _get_origin(urlsplit(stream_url))
    except ValueError as error:  # crooked brackets and ports, a user, another scheme
        raise _bad_endpoint("The upstream's endpoint is not a URL of its own.") from error
    if not is_ours:
        raise _bad_endpoint("The upstream's endpoint is of another origin.")
    target = (found.path or "/") + (f"?{found.query}" if found.query else "")
    if len(target) > MAX_TARGET_BYTES:
        raise _bad_endpoint("The upstream's endpoint is too long.")
    return target


def _get_origin(url: SplitResult) -> tuple[str, str]:
    """In the one spelling that all of an origin's share. Raises ValueError."""
    address = parse_upstream_address(f"{url.scheme}://{url.netloc}")
    return address.scheme, address.authority


def _bad_endpoint(detail: str) -> UpstreamError:
    return UpstreamError(Reason.UPSTREAM_PROTOCOL, detail)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The `endpoint` events of one stream. `stream_url`: where the upstream serves it; `reference`: our own path for
    messages as its client resolves it; `bind` seals a target and notes whose it is."""

    stream_url: str
    reference: str
    bind: Callable[[str], str] = field(repr=False)

    def rewrite_event(self, event: bytes) -> bytes:
        """The event as the client may see it; the very same bytes if it is of another kind. Raises UpstreamError."""
        # Any spelling, any of several: what some reader could take for an endpoint must be one of ours.
        if all(name.strip().lower() != b"endpoint" for name in get_values(event, b"event")):
            return event
        reference = b"\n".join(get_values(event, b"data")).decode("latin-1")
        sealed = self.bind(resolve_target(self.stream_url, reference))
        return replace_field(event, b"data", f"{self.reference}?{_SESSION_MEMBER}={sealed}".encode())
