"""Where may a client get what opens this door?  [pure]

In go the path of a request and what the operator configured, out comes the metadata of a protected resource (RFC 9728),
or nothing. Without an authorization server there is nothing to discover: whoever answers such paths makes editors start
OAuth and drop the key they were given (MCP 2025-11-25, "Authorization"; the reports of clients).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from proxy.policy import Policy

WELL_KNOWN = "/.well-known/oauth-protected-resource"
JWKS_PATH = "/.well-known/jwks.json"  # the public keys of assertions, as verifiers expect them (RFC 7517)


@dataclass(frozen=True, slots=True)
class Discovery:
    """`public_url`: how clients write our address, without a route's path. No servers: nothing is discovered."""

    public_url: str
    authorization_servers: tuple[str, ...]

    def find_metadata(self, path: str, policy: Policy) -> bytes | None:
        """The document at this path: of the route it names behind the well-known part, or of the first MCP route."""
        if not self.authorization_servers or not path.startswith(WELL_KNOWN):
            return None
        named = path.removeprefix(WELL_KNOWN)
        resource = named.removeprefix(urlsplit(self.public_url).path.rstrip("/"))
        if not named:
            resource = next((route.path for route in policy.routes if route.protocol != "http"), "")
        if policy.find_route(resource) is None:
            return None
        document = {
            "resource": self.public_url.rstrip("/") + resource,
            "authorization_servers": self.authorization_servers,
            "bearer_methods_supported": ["header"],
        }
        return orjson.dumps(document)

    def form_metadata_url(self, resource: str) -> str | None:
        """What a challenge for this route's path points to: the well-known part stands before the resource's path."""
        if not self.authorization_servers:
            return None
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}{resource}"


NOTHING = Discovery("", ())
