"""Rules and routes that can never allow anything.  [pure]

A file's model and the policy compiled from it come in; faults are added to the source: what nothing can reach, because
more specific rules take all of it, and what contradicts itself. Whoever writes such a rule meant something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from proxy.policy.compiled import Policy
from proxy.policy.model import PolicyFile
from proxy.policy.places import Place, list_places
from proxy.policy.regions import list_probes
from proxy.policy.rules import Condition, FieldPath, NeededScope, Rule, Value
from proxy.policy.scopes import show
from proxy.policy.source import Source


def add_dead_rules(file: PolicyFile, policy: Policy, source: Source) -> None:
    is_whole = not source.faults  # what reaches a rule depends on all the others
    places = list(list_places(file, policy))
    for place in places:
        clash = find_clash(place.rule)
        if clash is not None:
            mend = "take one of them out: each request would fail the one or the other"
            source.add_fault((*place.path, "where"), f"{place.subject} can never be allowed: {clash}", mend)
    if is_whole:
        _add_unreachable_rules(places, source)
        _add_unreachable_routes(file, policy, source)


def _add_unreachable_rules(places: Iterable[Place], source: Source) -> None:
    for place in places:
        if place.pattern is not None and not _decides(place):
            mend = "take it out, or change the more specific rules"
            source.add_fault(place.path, f"nothing can reach {place.subject}: other rules take all of it", mend)


def _decides(place: Place) -> bool:
    assert place.pattern is not None
    probes = list_probes(place.pattern, [pattern for pattern, _ in place.lookup.patterns])
    found = (place.lookup.patterns.find(probe) for probe in probes)
    return any(one is not None and one[0] is place.rule for one in found)


def _add_unreachable_routes(file: PolicyFile, policy: Policy, source: Source) -> None:
    templates = [pattern for pattern, _ in policy.route_templates]
    dead = set()
    for pattern, route in policy.route_templates:
        matches = (policy.find_route(probe) for probe in list_probes(pattern, templates))
        if not any(match is not None and match.route is route for match in matches):
            dead.add(route.id)
    for index, entry in enumerate(file.routes):
        if entry.id in dead:
            mend = "take the route out, or change those inside it"
            source.add_fault(("routes", index, "path"), f"nothing can reach {show(entry.path)}: other routes do", mend)


# What a rule wants of one request, held against what else it wants.


@dataclass(frozen=True, slots=True)
class _Want:
    """`values` None: any text but an empty one. `is_owners`: or a text that the owner of the key decides."""

    field: FieldPath
    values: frozenset[tuple[type, Value]] | None
    is_owners: bool = False
    absent_allowed: bool = False

    def takes_text(self) -> bool:
        return self.is_owners or self.values is None or any(kind is str and value for kind, value in self.values)

    def shares_value(self, other: _Want) -> bool:
        if self.values is None or other.values is None or self.is_owners or other.is_owners:
            return self.takes_text() and other.takes_text()
        return bool(self.values & other.values)

    def clashes(self, other: _Want) -> bool:
        """Whether no request gives both what they want."""
        if self.absent_allowed and other.absent_allowed:
            return False
        if self.field == other.field:
            return not self.shares_value(other)
        shorter, longer = sorted((self.field, other.field), key=len)
        return longer[: len(shorter)] == shorter  # a value and what is inside of it: no text has members


_TEXT_KINDS: Final = frozenset(("http", "uri"))  # their variables always stand for a text


def find_clash(rule: Rule) -> str | None:
    """Which two things a rule wants no request can give, in words; None when there are requests that it allows."""
    common = [_want(condition) for condition in rule.conditions]
    if rule.nested is not None:
        common.append(_Want(rule.nested.name_path, None))
    if rule.kind in _TEXT_KINDS:
        common += [_Want(one.field, None) for one in common]
    clashes = [next(_list_clashes([*common, *selectors]), None) for selectors in _list_selectors(rule)]
    return clashes[0] if all(clashes) else None


def _want(condition: Condition) -> _Want:
    return _Want(condition.path, condition.values, bool(condition.owner_fields), condition.absent_allowed)


def _list_selectors(rule: Rule) -> list[list[_Want]]:
    """What each alternative reads to know which scope it takes."""
    needs: tuple[tuple[NeededScope, ...], ...] = rule.alternatives if rule.alternatives is not None else ((),)
    return [[_Want(one.selector_path, None) for one in needed if one.selector_path is not None] for needed in needs]


def _list_clashes(wants: Iterable[_Want]) -> Iterator[str]:
    for one, other in combinations(wants, 2):
        if one.clashes(other):
            fields = dict.fromkeys((".".join(one.field), ".".join(other.field)))
            yield f"what it wants of {' and '.join(map(show, fields))} contradicts itself"
