"""The paths that the proxy answers itself, whatever the policy says.  [pure]

In go paths and the patterns of routes, out comes whether they are ours. A policy cannot route them: what manages keys
is never forwarded, and a route there would only look as if it were.
"""

from __future__ import annotations

from typing import Final

from proxy.policy.patterns import Pattern, contains, parse_path_pattern

MANAGEMENT: Final = tuple(
    map(
        parse_path_pattern,
        (
            "/v1/api-keys", "/v1/api-keys/**", "/v1/owners", "/v1/owners/**", "/v1/scopes", "/v1/scopes/**",
            "/v1/openapi.json",
        ),
    )
)  # fmt: skip
CONSOLE: Final = tuple(map(parse_path_pattern, ("/settings", "/settings/**")))


def is_reserved(path: str) -> bool:
    """Whether a canonical path is the management API's."""
    return any(pattern.find(path) is not None for pattern in MANAGEMENT)


def is_console(path: str) -> bool:
    """Whether a canonical path is the settings page's."""
    return any(pattern.find(path) is not None for pattern in CONSOLE)


def lies_within(route: Pattern) -> bool:
    """Whether a route would serve nothing but what is ours. One that reaches further serves the rest."""
    return any(contains(pattern, route) for pattern in (*MANAGEMENT, *CONSOLE))
