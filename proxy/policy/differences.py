"""What an edit opens and closes, and for whom.  [pure]

Two compiled policies come in, the differences go out: by holder (each preset, each tier, a key without scopes), by
subject (tool, prompt, resource, method, path). What a rule allows a holder is compared as a *reach*: which fields have
to be what. So a dropped condition is a difference, and another order, another id or a comment is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from proxy.policy.compiled import URI_METHODS, Lookup, Policy, Route, RouteMatch
from proxy.policy.patterns import Pattern
from proxy.policy.rules import Kind, NeededScope, Rule, describe
from proxy.policy.scopes import EVERYTHING, split_scope

Verdict = Literal["opened", "closed", "widened", "narrowed", "changed"]
SAMPLE = "sample"  # stands for what a pattern leaves open, in no rule but by accident

# A field, and the texts it may be; None: any text but an empty one.
Constraint = tuple[str, frozenset[str] | None]


@dataclass(frozen=True, slots=True)
class Reach:
    """What a rule lets a holder do: any one of `ways`, each with all of its constraints, and all of `conditions`."""

    ways: frozenset[frozenset[Constraint]]
    conditions: frozenset[str]

    def contains(self, other: Reach) -> bool:
        """Whether whatever the other allows is allowed by this one, as far as one can tell by the words."""
        return self.conditions <= other.conditions and all(
            any(_is_looser(mine, theirs) for mine in self.ways) for theirs in other.ways
        )

    def describe(self) -> str:
        ways = sorted(" and ".join(sorted(map(_describe_constraint, way))) or "whatever it is for" for way in self.ways)
        return "; ".join((" or ".join(ways), *sorted(self.conditions)))


@dataclass(frozen=True, slots=True)
class Difference:
    """`subject` in words; `before` and `after` are None where it is closed."""

    verdict: Verdict
    subject: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Differences:
    """`holders`: by "preset execution", "tier free", "any key", those that differ at all. `general`: in words."""

    general: tuple[str, ...]
    holders: Mapping[str, tuple[Difference, ...]]

    def __bool__(self) -> bool:
        return bool(self.general or self.holders)


def compare(old: Policy, new: Policy) -> Differences:
    """What becomes allowed or denied when the new policy replaces the old one."""
    subjects = list(_list_subjects(old, new))
    holders: dict[str, tuple[Difference, ...]] = {}
    for name, before, after in _list_holders(old, new):
        found = tuple(_compare_holder(subjects, before, after))
        if found:
            holders[name] = found
    return Differences(tuple(_list_general(old, new)), holders)


def _list_holders(old: Policy, new: Policy) -> Iterator[tuple[str, frozenset[str], frozenset[str]]]:
    """Those that both policies know: what they hold before and after, under no ceiling."""
    for name in old.presets.keys() & new.presets.keys():
        yield f"preset {name}", frozenset(old.presets[name].scopes), frozenset(new.presets[name].scopes)
    for name in old.tiers.keys() & new.tiers.keys():
        yield f"tier {name}", old.tiers[name], new.tiers[name]
    yield "any key", frozenset(), frozenset()


@dataclass(frozen=True, slots=True)
class _Subject:
    words: str
    before: tuple[Rule | None, frozenset[str]]  # the rule that decides, and the conditions beside it
    after: tuple[Rule | None, frozenset[str]]


def _compare_holder(
    subjects: Iterable[_Subject], held_before: frozenset[str], held_after: frozenset[str]
) -> Iterator[Difference]:
    for subject in subjects:
        before = _find_reach(*subject.before, held_before)
        after = _find_reach(*subject.after, held_after)
        if before == after:
            continue
        words = [None if reach is None else reach.describe() for reach in (before, after)]
        yield Difference(_judge(before, after), subject.words, *words)


def _judge(before: Reach | None, after: Reach | None) -> Verdict:
    if before is None or after is None:
        return "opened" if before is None else "closed"
    if after.contains(before):
        return "widened"
    return "narrowed" if before.contains(after) else "changed"


def _find_reach(rule: Rule | None, beside: frozenset[str], grants: frozenset[str]) -> Reach | None:
    """None: nothing at all."""
    if rule is None:
        return None
    needs: tuple[tuple[NeededScope, ...], ...] = rule.alternatives if rule.alternatives is not None else ((),)
    ways = frozenset(way for needed in needs if (way := _find_way(needed, grants)) is not None)
    if not ways:
        return None
    conditions = {f"{'.'.join(one.path)} is {one.describe()}" for one in rule.conditions} | beside
    if rule.nested is not None:
        conditions.add(f"the call in {'.'.join(rule.nested.name_path)} must be allowed, too")
    return Reach(ways, frozenset(conditions))


def _find_way(needed_scopes: tuple[NeededScope, ...], grants: frozenset[str]) -> frozenset[Constraint] | None:
    constraints: set[Constraint] = set()
    for needed in needed_scopes:
        field = ".".join(needed.selector_path or ())
        if EVERYTHING in grants or needed.head in grants or (not field and needed.scope in grants):
            if field:
                constraints.add((field, None))
            continue
        selectors = {split_scope(grant)[1] for grant in grants if split_scope(grant)[0] == needed.head}
        named = frozenset(selector for selector in selectors if selector)
        if not field or not named:
            return None
        constraints.add((field, named))
    return frozenset(constraints)


def _is_looser(one: frozenset[Constraint], other: frozenset[Constraint]) -> bool:
    """Whether whatever meets the other's constraints meets these."""
    return all(
        any(field == theirs and (values is None or (named is not None and named <= values)) for theirs, named in other)
        for field, values in one
    )


def _describe_constraint(constraint: Constraint) -> str:
    field, values = constraint
    return f"{field} given" if values is None else f"{field} is {' or '.join(sorted(values))}"


# Subjects: every name and pattern of either policy, and who decides about it in each.


def _list_subjects(old: Policy, new: Policy) -> Iterator[_Subject]:
    paths = dict.fromkeys(route.path for policy in (old, new) for route in policy.routes)
    for path in paths:
        before, after = (_find_route(policy, path) for policy in (old, new))
        methods = {method for match in (before, after) if match for method in match.route.methods}
        for method in sorted(methods):
            words = describe("http", f"{method} {path}")
            yield _Subject(words, _find_http(before, method), _find_http(after, method))
        if any(match is not None and match.route.protocol != "http" for match in (before, after)):
            yield from _list_messages(path, before, after)


def _find_route(policy: Policy, path: str) -> RouteMatch | None:
    """The route with this path, as it is written, or the one that serves what such a path looks like."""
    written = next((route for route in policy.routes if path in route.paths), None)
    return RouteMatch(written, {}) if written is not None else policy.find_route(_fill(path))


def _fill(pattern: str) -> str:
    return "/".join(SAMPLE if "{" in part or "*" in part else part for part in pattern.split("/"))


def _find_http(match: RouteMatch | None, method: str) -> tuple[Rule | None, frozenset[str]]:
    if match is None:
        return None, frozenset()
    conditions = {f"the query's {one.path[0]} is {one.describe()}" for one in match.route.query}
    return match.route.rules.http.get(method), frozenset(conditions)


def _list_messages(path: str, before: RouteMatch | None, after: RouteMatch | None) -> Iterator[_Subject]:
    kinds: list[tuple[Kind, str, Lookup, Lookup]] = []
    sides = [_get_lookups(match) for match in (before, after)]
    for label in sides[0] | sides[1]:
        kind: Kind = "uri" if label in URI_METHODS else label  # type: ignore[assignment]
        kinds.append((kind, label, sides[0].get(label, Lookup()), sides[1].get(label, Lookup())))
    for kind, label, one, other in kinds:
        suffix = f" of {path}" + (f" by {label}" if label in URI_METHODS else "")
        patterns = {pattern.text: pattern for lookup in (one, other) for pattern, _ in lookup.patterns}
        for name in dict.fromkeys((*one.exact, *other.exact)):
            rules = (_find_exact(lookup, kind, name) for lookup in (one, other))
            yield _Subject(describe(kind, name) + suffix, *((rule, frozenset()) for rule in rules))
        for text, pattern in patterns.items():
            rules = (_find_pattern(lookup, kind, pattern) for lookup in (one, other))
            yield _Subject(describe(kind, text) + suffix, *((rule, frozenset()) for rule in rules))


def _get_lookups(match: RouteMatch | None) -> dict[str, Lookup]:
    if match is None or match.route.protocol == "http":
        return {}
    rules = match.route.rules
    return {"rpc": rules.rpc, "tool": rules.tools, "prompt": rules.prompts, **rules.uris}


def _find_exact(lookup: Lookup, kind: Kind, name: str) -> Rule | None:
    if kind != "uri":
        return lookup.find(name)
    found = lookup.find_uri(name)
    return found[0] if found is not None else None


def _find_pattern(lookup: Lookup, kind: Kind, pattern: Pattern) -> Rule | None:
    """The rule with this very pattern, or the one that decides about what it looks like."""
    written = next((rule for other, rule in lookup.patterns if other.text == pattern.text), None)
    if written is not None:
        return written
    middle = "".join(SAMPLE if piece is None else piece for piece in pattern.pieces)
    return _find_exact(lookup, kind, middle + ("" if pattern.tail is None else f"{pattern.tail}{SAMPLE}"))


# What is no decision, but changes who holds what, or where it goes.


def _list_general(old: Policy, new: Policy) -> Iterator[str]:
    if old.default_tier != new.default_tier:
        yield f"default_tier: {old.default_tier} becomes {new.default_tier}"
    yield from _list_named("scope", old.catalogue, new.catalogue)
    for name in old.catalogue.keys() & new.catalogue.keys():
        before, after = old.catalogue[name].selector is not None, new.catalogue[name].selector is not None
        if before != after:
            yield f"scope {name} {'takes a selector now' if after else 'takes no selector any more'}"
    for word, one, other in (
        ("preset", {name: preset.scopes for name, preset in old.presets.items()},
         {name: preset.scopes for name, preset in new.presets.items()}),
        ("tier", old.tiers, new.tiers),
    ):  # fmt: skip
        yield from _list_named(word, one, other)
        for name in one.keys() & other.keys():
            yield from (f"{word} {name} also holds {scope}" for scope in sorted(set(other[name]) - set(one[name])))
            yield from (f"{word} {name} no longer holds {scope}" for scope in sorted(set(one[name]) - set(other[name])))
    yield from _list_routes(old, new)


def _list_named(word: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    yield from (f"{word} {name} is new" for name in new if name not in old)
    yield from (f"{word} {name} is gone" for name in old if name not in new)


def _list_routes(old: Policy, new: Policy) -> Iterator[str]:
    before, after = ({route.path: route for route in policy.routes} for policy in (old, new))
    yield from _list_named("path", before, after)
    for path in before.keys() & after.keys():
        facts = zip(_get_facts(before[path]), _get_facts(after[path]), strict=True)
        yield from (f"path {path}: {name} was {was}, is {now}" for (name, was), (_, now) in facts if was != now)


def _get_facts(route: Route) -> list[tuple[str, str]]:
    return [
        ("upstream", route.upstream),
        ("protocol", route.protocol),
        ("rpc_denials", route.rpc_denials),
        ("messages", str(route.messages)),
        ("open to anyone", "yes" if route.public else "no"),
        ("repeatable", ", ".join(sorted(route.repeatable)) or "nothing"),
        ("lists_tools", ", ".join(".".join(path) for path in sorted(route.rules.tool_lists)) or "nothing"),
    ]
