"""Scopes: `resource:action` or `resource:action:selector`, and what covers what.  [pure]

`*` covers everything, `workflow:run` covers every selector, `workflow:run:nightly-etl` covers itself, byte for byte.
A scope is split at its first two colons; the selector is all the rest, so that no value can change the meaning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

EVERYTHING = "*"
_HEAD = re.compile(r"[a-z][a-z0-9_-]*:[a-z][a-z0-9_-]*")
_SELECTOR_LIMIT = 256  # characters: twice the longest name MCP recommends, and short enough for a log line


@dataclass(frozen=True, slots=True)
class NameList:
    """Where the platform lists what a selector may name: a target to GET, where its answer holds the entries, and which
    members of an entry are its name and its title."""

    target: str
    place: tuple[str, ...]
    name: str
    title: str | None


@dataclass(frozen=True, slots=True)
class Scope:
    """An entry of the catalogue. `selector` says in words what a selector names; None: the scope takes none.
    `names`: where such names are listed; None: nowhere."""

    title: str
    selector: str | None
    names: NameList | None = None


def is_head(text: str) -> bool:
    return _HEAD.fullmatch(text) is not None


def split_scope(scope: str) -> tuple[str, str | None]:
    """`workflow:run:a:b` -> (`workflow:run`, `a:b`); None: no selector, "": an empty one."""
    resource, _, rest = scope.partition(":")
    action, colon, selector = rest.partition(":")
    return f"{resource}:{action}", selector if colon else None


def covers(held: frozenset[str], scope: str) -> bool:
    """Whether holding these scopes is at least holding that one."""
    if EVERYTHING in held or scope in held:
        return True
    head, selector = split_scope(scope)
    return bool(selector) and head in held


def intersect(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """What both allow: the greatest lower bound of the two, without redundant members."""
    both = {scope for scope in one if covers(other, scope)} | {scope for scope in other if covers(one, scope)}
    return simplify(both)


def simplify(scopes: Iterable[str]) -> frozenset[str]:
    """The same rights in the fewest words: nothing that another member covers."""
    every = frozenset(scopes)
    if EVERYTHING in every:
        return frozenset({EVERYTHING})
    return frozenset(scope for scope in every if (head := split_scope(scope)[0]) == scope or head not in every)


def is_grantable(scope: str, catalogue: Mapping[str, Scope]) -> bool:
    """Whether a key may hold it: the same test at load, at mint and at use."""
    if scope == EVERYTHING:
        return True
    head, selector = split_scope(scope)
    entry = catalogue.get(head)
    if entry is None or selector is None:
        return entry is not None and scope == head
    return entry.selector is not None and is_selector(selector)


def is_selector(text: str) -> bool:
    """One exact name. An asterisk is refused because whoever writes one expects a wildcard, and there is none."""
    return 0 < len(text) <= _SELECTOR_LIMIT and text.isprintable() and "*" not in text


def get_scope_fault(scope: str, catalogue: Mapping[str, Scope]) -> tuple[str, str]:
    """What is wrong with a scope that is not grantable, and the mend, each in one phrase."""
    head, selector = split_scope(scope)
    entry = catalogue.get(head)
    if entry is None or selector is None:
        close = difflib.get_close_matches(head, catalogue, n=1)
        hint = f"did you mean {close[0]}?" if close else "the catalogue under scopes: lists what there is"
        return f"unknown scope {show(scope)}", hint
    if entry.selector is None:
        return f"scope {head} takes no selector, but {show(scope)} has one", f"write {head}"
    if not selector:
        return f"scope {show(scope)} has an empty selector", f"name one {entry.selector}, or write {head} for all"
    mend = f"a selector is one exact {entry.selector}, without * or control characters; write {head} for all"
    return f"scope {show(scope)} has a selector that names nothing", mend


def show(text: str, limit: int = 160) -> str:
    """Foreign text for an error message: short, and without control characters."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    return short if short.isprintable() else ascii(short)[1:-1]
