"""What a route says of its query: `query` and `repeatable`, from their words to values.  [pure]

A route's entry comes in; conditions on members of the query go out. Faults are added to the source. How a query is read
is known to `envelope`, which holds every request to the names that are checked here.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from proxy.envelope import CREDENTIAL_MEMBERS, WITHHELD_MEMBERS, fold_member
from proxy.policy.model import ConditionEntry, RouteEntry
from proxy.policy.requirements import Reader
from proxy.policy.rules import Condition
from proxy.policy.scopes import show
from proxy.policy.source import Path, Source

_MEMBER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}(?:\[\])?")


def build_query(route: RouteEntry, path: Path, source: Source) -> tuple[Condition, ...]:
    if route.protocol != "http" and (route.query is not None or route.repeatable is not None):
        message = f"route {show(route.id)} with protocol {route.protocol} takes no members in its query"
        source.add_fault(path, message, "take query and repeatable out, or set protocol: http")
        return ()
    entries = route.query or {}
    for name in entries:
        _check_name(name, (*path, "query", name), source)
    _check_repeatable(route, (*path, "repeatable"), source)
    reader = Reader("http", frozenset(), MappingProxyType({}), source)
    parsed = [
        reader.parse_condition(name, (name,), entry, (*path, "query", name))
        for name, entry in entries.items()
        if _check_values(name, entry, (*path, "query", name), source)
    ]
    conditions = tuple(condition for condition in parsed if condition is not None)
    if route.allow == "anyone":
        _check_ownerless(conditions, (*path, "query"), source)
    return conditions


def _check_name(name: str, path: Path, source: Source) -> None:
    if fold_member(name) in CREDENTIAL_MEMBERS:
        mend = "take it out: a key is sent as Authorization: Bearer"
        source.add_fault(path, f"{show(name)} is where keys leak: no route takes it in a query", mend)
    elif _MEMBER.fullmatch(name) is None:
        mend = "up to 128 of A-Z a-z 0-9 _ . - after a letter, and [] at the end"
        source.add_fault(path, f"{show(name)} names no member of a query", mend)


def _check_repeatable(route: RouteEntry, path: Path, source: Source) -> None:
    judged = {fold_member(name) for name in route.query or ()}
    for index, name in enumerate(route.repeatable or ()):
        _check_name(name, (*path, index), source)
        if fold_member(name) in judged:
            mend = "keep it in one of them: what is judged stands once"
            source.add_fault((*path, index), f"{show(name)} is in query, too", mend)
        elif fold_member(name) in WITHHELD_MEMBERS:
            mend = "write a condition on it under query: instead"
            source.add_fault((*path, index), f"{show(name)} says who is meant, so it stands once", mend)


def _check_values(name: str, entry: ConditionEntry, path: Path, source: Source) -> bool:
    given = [value for value in (entry.absent_or, entry.equals, *(entry.one_of or ())) if value is not None]
    for value in given:
        if not isinstance(value, str):
            written = str(value).lower()  # as YAML has it: true, not True
            message = f"{show(name)} compares with {written}, and what stands in a query is a text"
            source.add_fault(path, message, f'write "{written}", in quotes')
    return all(isinstance(value, str) for value in given)


def _check_ownerless(conditions: tuple[Condition, ...], path: Path, source: Source) -> None:
    for condition in conditions:
        if condition.owner_fields:
            (name,) = condition.path
            mend = "compare with texts, or write allow: any-key"
            source.add_fault((*path, name), f"{show(name)} compares with the owner of a key, and anyone has none", mend)
