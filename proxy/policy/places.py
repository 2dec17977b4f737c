"""Where each rule of a policy was written.  [pure]

A file's model and the policy compiled from it come in; out goes every rule by the name it was written for, with its
place in the file. What is wrong or odd with a rule is not known here (see `dead_rules`, `notes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.policy.compiled import URI_METHODS, Lookup, Policy, Route, RuleTable
from proxy.policy.model import PolicyFile, RouteEntry, RuleEntry
from proxy.policy.patterns import Pattern
from proxy.policy.rules import Kind, Rule, describe
from proxy.policy.source import Path


@dataclass(frozen=True, slots=True)
class Place:
    """One rule for one name or pattern. `lookup` holds those beside it, of the same kind."""

    path: Path
    route: Route
    kind: Kind
    name: str
    rule: Rule
    pattern: Pattern | None
    lookup: Lookup

    @property
    def subject(self) -> str:
        name = f"{self.name} {self.route.path}" if self.kind == "http" else self.name
        return describe(self.kind, name)


def list_places(file: PolicyFile, policy: Policy) -> Iterator[Place]:
    """In the order of the file; rules that a faulty file leaves out are left out here."""
    routes = {(route.id, route.path): route for route in policy.routes}
    for index, entry in enumerate(file.routes):
        route = routes.get((entry.id, entry.path))
        if route is not None:
            yield from _list_of_route(entry, ("routes", index), route)


def _list_of_route(entry: RouteEntry, path: Path, route: Route) -> Iterator[Place]:
    if entry.rules is None and entry.rules_of is None:
        yield from _find_places(RuleEntry(http=entry.methods), path, route)
    for number, rule in enumerate(entry.rules or ()):
        yield from _find_places(rule, (*path, "rules", number), route)


def _find_places(entry: RuleEntry, path: Path, route: Route) -> Iterator[Place]:
    for kind, lookup, names in _list_names(entry, route.rules):
        patterns = {pattern.text: (pattern, rule) for pattern, rule in lookup.patterns}
        for name in names:
            pattern, rule = patterns.get(name, (None, lookup.exact.get(name)))
            if rule is not None:
                yield Place(path, route, kind, name, rule, pattern, lookup)


def _list_names(entry: RuleEntry, rules: RuleTable) -> Iterator[tuple[Kind, Lookup, list[str]]]:
    yield "http", Lookup(rules.http), list(entry.http or ())
    yield "tool", rules.tools, _list(entry.tool)
    yield "prompt", rules.prompts, _list(entry.prompt)
    if entry.uri is None:
        yield "rpc", rules.rpc, _list(entry.rpc)
        return
    for method in _list(entry.rpc) or URI_METHODS:
        yield "uri", rules.uris.get(method, Lookup()), [entry.uri]


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
