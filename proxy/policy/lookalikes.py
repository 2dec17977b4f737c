"""Paths that a careless upstream takes for another route's.  [pure]

The paths of all routes come in; of a path and the route found for it, out goes whether a reader who ignores case, or
who decodes escapes before choosing a route, would choose another. What follows from that is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from proxy.policy.patterns import PatternIndex, parse_path_pattern

# What a canonical target may escape (`envelope`), but for what would end the path.
_ESCAPES = re.compile(r"(?:%(?!3F|23)[0-9A-F]{2})+")


class Lookalikes:
    """By the paths as the policy writes them."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._index = PatternIndex((parse_path_pattern(path.casefold()), path.casefold()) for path in paths)

    def misleads(self, path: str, route_path: str) -> bool:
        """Whether `path`, for which a route with `route_path` was found, could mean another route."""
        if "%" not in path and path.islower():
            return False
        found = self._index.find(_read_carelessly(path))
        return found is None or found[0] != route_path.casefold()


def _read_carelessly(path: str) -> str:
    return _ESCAPES.sub(lambda run: unquote(run[0]), path).casefold()
