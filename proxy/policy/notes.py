"""What is odd about a policy without being wrong.  [pure]

A file's model and the policy compiled from it come in, notes go out, each with its line and what one may do about it.
Nothing in here keeps a policy from being used: a right that nobody offers may be meant for keys made by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from proxy.policy.compiled import Policy, Route
from proxy.policy.model import PolicyFile
from proxy.policy.patterns import Pattern, contains, parse_path_pattern
from proxy.policy.places import Place, list_places
from proxy.policy.regions import list_probes
from proxy.policy.rules import Rule
from proxy.policy.scopes import EVERYTHING, covers, show, split_scope
from proxy.policy.source import Path, Source

NoteKind = Literal[
    "unused-scope", "idle-preset-scope", "no-preset", "inside", "open-pattern", "redundant", "undecided",
    "unknown-upstream",
]  # fmt: skip
NOTE_KINDS: tuple[str, ...] = get_args(NoteKind)


@dataclass(frozen=True, slots=True)
class Note:
    """Like a fault, but of a policy that may be used."""

    kind: NoteKind
    source: str
    line: int | None
    message: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line is not None else self.source
        return f"{place}: {self.message} ({self.mend})"


def find_notes(file: PolicyFile, policy: Policy, source: Source, upstreams: Collection[str] | None) -> tuple[Note, ...]:
    """In the order of the file. `upstreams`: those that are configured, if that is known."""
    places = list(list_places(file, policy))
    found = [
        *_list_scopes(file, policy, places),
        *_list_unopened(policy, places),
        *_list_inside(file, source),
        *_list_open_patterns(places),
        *_list_redundant(places),
        *_list_undecided(file, policy),
        *_list_upstreams(file, upstreams),
    ]
    notes = (Note(kind, source.name, source.get_line(path), message, mend) for kind, path, message, mend in found)
    return tuple(sorted(dict.fromkeys(notes), key=lambda note: note.line or 0))


MANAGING: Final = "key:"  # what the management of keys asks for, which is no route of a policy's
Found = tuple[NoteKind, Path, str, str]


def _list_scopes(file: PolicyFile, policy: Policy, places: Iterable[Place]) -> Iterator[Found]:
    """Scopes that open nothing: in a preset they are a promise, in the catalogue a word without meaning."""
    asked = [
        (needed.head, needed.scope if needed.selector_path is None else None)
        for place in places
        for scopes in place.rule.alternatives or ()
        for needed in scopes
    ]
    promised: set[str] = set()
    for name, preset in file.presets.items():
        for index, scope in enumerate(preset.scopes):
            if scope != EVERYTHING and not any(_serves(scope, *one) for one in asked):
                promised.add(split_scope(scope)[0])
                message = f"preset {show(name)} holds {show(scope)}, and no rule asks for it"
                mend = "take it out, or write the rule that it is for"
                yield "idle-preset-scope", ("presets", name, "scopes", index), message, mend
    heads = {head for head, _ in asked} | promised
    unused = [name for name in policy.catalogue if name not in heads and not name.startswith(MANAGING)]
    if unused:
        message = f"no rule asks for {len(unused)} scopes: {', '.join(unused)}"
        yield "unused-scope", ("scopes", unused[0]), message, "take them out, unless somebody behind the proxy asks"


def _serves(held: str, head: str, scope: str | None) -> bool:
    """Whether holding this one is of use to a rule that asks for that one, or for any selector of its head."""
    return split_scope(held)[0] == head if scope is None else covers(frozenset({held}), scope)


def _list_unopened(policy: Policy, places: Iterable[Place]) -> Iterator[Found]:
    """Rules that only keys made by hand, and those with every right, can use; by what they ask for."""
    narrow = [frozenset(one.scopes) for one in policy.presets.values() if EVERYTHING not in one.scopes]
    if not narrow:
        return
    unopened = [place for place in places if not any(place.rule.could_allow(grants) for grants in narrow)]
    counts: dict[str, set[str]] = {}
    for place in unopened:
        counts.setdefault(_describe_scopes(place.rule), set()).add(place.subject)
    if counts:
        total = sum(map(len, counts.values()))
        message = f"{total} rules are opened by no preset but those with *: what asks for {', '.join(counts)}"
        yield "no-preset", ("presets",), message, "add the scopes to a preset, unless they are for keys made by hand"


def _describe_scopes(rule: Rule) -> str:
    """Without the fields that select: `workflow:run` stands for each and for all."""
    ways = (
        " and ".join(needed.scope if needed.selector_path is None else needed.head for needed in scopes)
        for scopes in rule.alternatives or ()
    )
    return " or ".join(dict.fromkeys(ways))


def _list_inside(file: PolicyFile, source: Source) -> Iterator[Found]:
    """Paths inside another route's: the inner one decides, also about methods that only the outer one takes."""
    patterns = [parse_path_pattern(entry.path) for entry in file.routes]
    for index, (entry, inner) in enumerate(zip(file.routes, patterns, strict=True)):
        around = [number for number, outer in enumerate(patterns) if number != index and contains(outer, inner)]
        if not around:
            continue
        nearest = max(around, key=lambda number: patterns[number].rank)
        outer_entry = file.routes[nearest]
        refused = [method for method in outer_entry.methods if method not in entry.methods]
        line = source.get_line(("routes", nearest, "path"))
        message = f"{show(entry.path)} lies inside {show(outer_entry.path)} (line {line}) and decides for itself"
        message += f", without {' and '.join(refused)}" if refused else ""
        yield "inside", ("routes", index, "path"), message, "nothing to do, if the platform means the same"


def _list_open_patterns(places: Iterable[Place]) -> Iterator[Found]:
    for place in places:
        if place.kind in ("tool", "prompt") and place.pattern is not None:
            who = "any key" if place.rule.alternatives is None else _describe_scopes(place.rule)
            message = f"{place.subject} is open to {who}, whatever the server adds by such a name"
            yield "open-pattern", place.path, message, "write the names out, if new ones should wait for a rule"


def _list_redundant(places: Iterable[Place]) -> Iterator[Found]:
    for place in places:
        broader = _find_broader(place) if place.kind != "http" else None
        if broader is not None:
            message = f"{place.subject} says no more than {show(broader.text)} does"
            yield "redundant", place.path, message, "take it out, or keep it in case the broader one changes"


def _find_broader(place: Place) -> Pattern | None:
    """The pattern that would decide alike everywhere, were this rule not there."""
    others = [(pattern, rule) for pattern, rule in place.lookup.patterns if rule is not place.rule]
    probes = [place.name]
    if place.pattern is not None:
        probes = list_probes(place.pattern, [pattern for pattern, _ in others])
    found = [next(((p, r) for p, r in others if p.find(probe) is not None), None) for probe in probes]
    first = found[0]
    if first is None or any(one is None or not _is_alike(one[1], place.rule) for one in found):
        return None
    return first[0]


def _is_alike(one: Rule, other: Rule) -> bool:
    return (one.alternatives, one.conditions, one.nested, one.lists_tools) == (
        other.alternatives, other.conditions, other.nested, other.lists_tools,
    )  # fmt: skip


def _list_undecided(file: PolicyFile, policy: Policy) -> Iterator[Found]:
    """Methods that a route takes and no rule allows: refused to every key, where leaving them out would say so."""
    routes: dict[str, Route] = {route.id: route for route in policy.routes}
    for index, entry in enumerate(file.routes):
        rules = routes[entry.id].rules
        for method in entry.methods:
            if method not in rules.http and (method != "POST" or entry.protocol == "http"):
                message = f"route {show(entry.id)} takes {method}, and no rule allows it to any key"
                yield "undecided", ("routes", index, "methods"), message, "write an http rule, or take the method out"


def _list_upstreams(file: PolicyFile, upstreams: Collection[str] | None) -> Iterator[Found]:
    """Told once for each upstream."""
    missing: dict[str, list[int]] = {}
    for index, entry in enumerate(file.routes):
        if upstreams is not None and entry.upstream not in upstreams:
            missing.setdefault(entry.upstream, []).append(index)
    for name, those in missing.items():
        first = file.routes[those[0]].id
        message = f"upstream {show(name)} is not configured: {len(those)} routes answer 502, {show(first)} first"
        mend = f"configure it in gateway.yaml, where there is {' and '.join(upstreams or ())}"
        yield "unknown-upstream", ("routes", those[0], "upstream"), message, mend
