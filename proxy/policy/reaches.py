"""How far a rule lets somebody go: which fields have to be what.  [pure]

A rule and the scopes somebody holds come in; a `Reach` goes out, or None where they can do nothing. Two reaches can be
held against each other, so that a condition that was dropped is seen, and the same rights in other words are none the
wider. Requests are not known here: a reach speaks of all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from proxy.envelope import WITHHELD_MEMBERS, fold_member
from proxy.policy.regions import is_sample
from proxy.policy.rules import Condition, NeededScope, Rule
from proxy.policy.scopes import EVERYTHING, split_scope


@dataclass(frozen=True, slots=True)
class Demand:
    """What one field must be. `values` in words; None: any text but an empty one."""

    field: str
    values: frozenset[str] | None
    absent_allowed: bool = False

    def implies(self, other: Demand) -> bool:
        """Whether whatever meets this one meets the other, too."""
        if self.field != other.field or (self.absent_allowed and not other.absent_allowed):
            return False
        return other.values is None or (self.values is not None and self.values <= other.values)

    def describe(self) -> str:
        if self.values is None:
            return f"{self.field} given"
        words = " or ".join(sorted(self.values))
        if self.absent_allowed:
            words = f"absent or {words}" if words else "absent"
        return f"{self.field} is {words}"


Way = frozenset[Demand]


@dataclass(frozen=True, slots=True)
class Reach:
    """Any one of `ways`, each with all of its demands; and all of `conditions`; and what `besides` says in words."""

    ways: frozenset[Way]
    conditions: frozenset[Demand]
    besides: frozenset[str] = frozenset()

    def contains(self, other: Reach) -> bool:
        """Whether whatever the other allows is allowed by this one, as far as the words tell."""
        return (
            self.besides <= other.besides
            and _implies(other.conditions, self.conditions)
            and all(any(_implies(theirs, mine) for mine in self.ways) for theirs in other.ways)
        )

    def describe(self) -> str:
        ways = sorted(" and ".join(sorted(one.describe() for one in way)) or "whatever it is for" for way in self.ways)
        conditions = sorted(one.describe() for one in self.conditions)
        return "; ".join((" or ".join(ways), *conditions, *sorted(self.besides)))


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule as it is asked about one subject: `variables` are those of its path or URI, `names` what to call the open
    ones, `query` the conditions beside it, `withheld` the query members that are refused unless there is one."""

    rule: Rule
    variables: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    query: tuple[Condition, ...] = ()
    withheld: frozenset[str] = frozenset()

    def find_reach(self, grants: frozenset[str]) -> Reach | None:
        """None: these scopes suffice for nothing."""
        rule = self.rule
        needs: tuple[tuple[NeededScope, ...], ...] = rule.alternatives if rule.alternatives is not None else ((),)
        ways = {way for needed in needs if (way := self._find_way(needed, grants)) is not None}
        if not ways:
            return None
        widest = frozenset(way for way in ways if not any(way != one and _implies(way, one) for one in ways))
        return Reach(widest, frozenset(self._list_conditions()), frozenset(_list_besides(rule)))

    def _find_way(self, needed_scopes: Iterable[NeededScope], grants: frozenset[str]) -> Way | None:
        wanted: dict[str, frozenset[str] | None] = {}
        for needed in needed_scopes:
            name, value = self._read(needed)
            whole = EVERYTHING in grants or needed.head in grants
            if name is None:
                if not whole and value not in grants:
                    return None
                continue
            selectors = None if whole else _find_selectors(needed.head, grants)
            wanted[name] = selectors = _meet(wanted.get(name), selectors)
            if selectors is not None and not selectors:
                return None
        return frozenset(Demand(name, values) for name, values in wanted.items())

    def _read(self, needed: NeededScope) -> tuple[str | None, str]:
        """The field that selects the scope and "", or None and the scope, where the selector is fixed."""
        path = needed.selector_path
        if path is None:
            return None, needed.scope
        value = self.variables.get(path[0])
        if value is not None and not is_sample(value):
            return None, f"{needed.head}:{value}"
        return self._name(path), ""

    def _name(self, path: tuple[str, ...]) -> str:
        """A variable is what it stands for, whatever it is called."""
        value = self.variables.get(path[0])
        return ".".join(path) if value is None else self.names.get(value, path[0])

    def _list_conditions(self) -> Iterator[Demand]:
        for one in self.rule.conditions:
            yield Demand(self._name(one.path), _list_values(one), one.absent_allowed)
        for one in self.query:
            yield Demand(f"the query's {one.path[0]}", _list_values(one), one.absent_allowed)
        judged = {one.path[0] for one in self.query}
        for name in self.withheld - judged:
            yield Demand(f"the query's {name}", frozenset(), absent_allowed=True)


def find_withheld(conditions: Iterable[Condition]) -> frozenset[str]:
    """Of the query members judged, those that no route takes unjudged."""
    return frozenset(one.path[0] for one in conditions if fold_member(one.path[0]) in WITHHELD_MEMBERS)


def _implies(demands: Iterable[Demand], others: Iterable[Demand]) -> bool:
    """Whether whatever meets all of these meets all of the others."""
    return all(any(one.implies(other) for one in demands) for other in others)


def _find_selectors(head: str, grants: frozenset[str]) -> frozenset[str]:
    pairs = map(split_scope, grants)
    return frozenset(selector for name, selector in pairs if name == head and selector)


def _meet(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """A field that selects two scopes has one value."""
    if one is None or other is None:
        return one if other is None else other
    return one & other


def _list_values(condition: Condition) -> frozenset[str]:
    """Each value in the words in which a denial tells it."""
    bare = replace(condition, absent_allowed=False)
    owned = (replace(bare, values=frozenset(), owner_fields=(name,)) for name in bare.owner_fields)
    fixed = (replace(bare, values=frozenset({value}), owner_fields=()) for value in bare.values)
    return frozenset(one.describe() for one in (*owned, *fixed))


def _list_besides(rule: Rule) -> Iterator[str]:
    if rule.nested is not None:
        name, arguments = ".".join(rule.nested.name_path), ".".join(rule.nested.arguments_path)
        yield f"the call in {name}, with {arguments}, must be allowed, too"
    if rule.lists_tools is not None:
        yield f"of the tools in its {'.'.join(rule.lists_tools)} only those that the key could use"
