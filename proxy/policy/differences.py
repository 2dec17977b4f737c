"""What an edit opens and closes, and for whom.  [pure]

Two compiled policies come in, the differences go out: by holder (each preset, each tier, a key without scopes, nobody
with a key), by subject (tool, prompt, resource, method, path). What a rule allows a holder is compared as a `Reach`, so
a dropped condition is a difference, and another order, another id, another name for a variable or a comment is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from proxy.policy.compiled import URI_METHODS, Lookup, Policy, Route, RouteMatch
from proxy.policy.model import describe_lifetime
from proxy.policy.patterns import Pattern
from proxy.policy.reaches import Asked, Reach, find_withheld
from proxy.policy.regions import Region, is_sample, list_regions
from proxy.policy.rules import Kind, Rule, describe

Verdict = Literal["opened", "closed", "widened", "narrowed", "changed"]
_KINDS: Mapping[str, Kind] = {"rpc": "rpc", "tool": "tool", "prompt": "prompt", **dict.fromkeys(URI_METHODS, "uri")}


@dataclass(frozen=True, slots=True)
class Difference:
    """`subject` in words; `before` and `after` are None where it is closed."""

    verdict: Verdict
    subject: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Differences:
    """`holders`: by "preset execution", "tier free", "any key", "anyone without a key", those that differ at all.
    `general`: in words."""

    general: tuple[str, ...]
    holders: Mapping[str, tuple[Difference, ...]]

    def __bool__(self) -> bool:
        return bool(self.general or self.holders)


def compare(old: Policy, new: Policy) -> Differences:
    """What becomes allowed or denied when the new policy replaces the old one."""
    meetings = list(_list_meetings(old, new))
    subjects = [subject for meeting in meetings for subject in _list_subjects(meeting)]
    holders: dict[str, tuple[Difference, ...]] = {}
    for holder in _list_holders(old, new):
        found = tuple(dict.fromkeys(_compare_holder(subjects, holder)))
        if found:
            holders[holder.name] = found
    return Differences((*_list_general(old, new), *_list_routes(meetings)), holders)


def list_holders(old: Policy, new: Policy) -> list[str]:
    """Everybody whose rights are compared."""
    return [holder.name for holder in _list_holders(old, new)]


# Who: what they hold before and after, under no ceiling.


@dataclass(frozen=True, slots=True)
class _Holder:
    name: str
    before: frozenset[str]
    after: frozenset[str]
    has_key: bool = True


def _list_holders(old: Policy, new: Policy) -> Iterator[_Holder]:
    """A preset or tier that only one of the two has is compared with holding nothing."""
    none: frozenset[str] = frozenset()
    before, after = (_list_held_scopes(policy) for policy in (old, new))
    for name in {**before, **after}:
        yield _Holder(name, before.get(name, none), after.get(name, none))
    yield _Holder("any key", none, none)
    yield _Holder("anyone without a key", none, none, has_key=False)


def _list_held_scopes(policy: Policy) -> dict[str, frozenset[str]]:
    presets = {f"preset {name}": frozenset(preset.scopes) for name, preset in policy.presets.items()}
    return {**presets, **{f"tier {name}": scopes for name, scopes in policy.tiers.items()}}


def _compare_holder(subjects: Iterable[_Subject], holder: _Holder) -> Iterator[Difference]:
    for subject in subjects:
        before = subject.before.find_reach(holder.before, holder) if subject.before is not None else None
        after = subject.after.find_reach(holder.after, holder) if subject.after is not None else None
        if before != after:
            words = [None if reach is None else reach.describe() for reach in (before, after)]
            yield Difference(_judge(before, after), subject.words, *words)


def _judge(before: Reach | None, after: Reach | None) -> Verdict:
    if before is None or after is None:
        return "opened" if before is None else "closed"
    if after.contains(before):
        return "widened"
    return "narrowed" if before.contains(after) else "changed"


# Where: the paths on which two routes meet, one of each policy.


@dataclass(frozen=True, slots=True)
class _Meeting:
    """The routes that serve one path, before and after."""

    path: str
    probe: str
    before: RouteMatch | None
    after: RouteMatch | None


def _list_meetings(old: Policy, new: Policy) -> Iterator[_Meeting]:
    """Each pair of routes once for each fixed path, and once for all others they share."""
    exact = {**old.exact_routes, **new.exact_routes}.keys()
    templates = [pattern for policy in (old, new) for pattern, _ in policy.route_templates]
    seen = set()
    for region in list_regions(exact, templates):
        before, after = old.find_route(region.probe), new.find_route(region.probe)
        pair = (region.words in exact and region.words, *(match and match.route.path for match in (before, after)))
        if pair not in seen:
            seen.add(pair)
            yield _Meeting(region.words, region.probe, before, after)


# What: the requests and messages that rules are about, and what each policy says of them.


@dataclass(frozen=True, slots=True)
class _Side:
    asked: Asked
    public: bool

    def find_reach(self, grants: frozenset[str], holder: _Holder) -> Reach | None:
        return self.asked.find_reach(grants) if holder.has_key or self.public else None


@dataclass(frozen=True, slots=True)
class _Subject:
    words: str
    before: _Side | None
    after: _Side | None


def _list_subjects(meeting: _Meeting) -> Iterator[_Subject]:
    sides = (meeting.before, meeting.after)
    methods = {method for match in sides if match for method in match.route.find_methods(meeting.probe)}
    variables = [match.path_params if match else {} for match in sides]
    withheld = find_withheld(one for match in sides if match for one in match.route.query)
    for method in sorted(methods):
        asked = [_ask_http(match, meeting.probe, method, _name(*variables), withheld) for match in sides]
        if any(asked):
            yield _Subject(describe("http", f"{method} {meeting.path}"), *asked)
    tables = [_get_lookups(match, meeting.probe) for match in sides]
    route = next(match.route for match in reversed(sides) if match is not None)
    for label in {**tables[0], **tables[1]}:
        suffix = f" of {route.path}" + (f" by {label}" if label in URI_METHODS else "")
        yield from _list_messages(_KINDS[label], suffix, *(table.get(label, Lookup()) for table in tables))


def _ask_http(
    match: RouteMatch | None, path: str, method: str, names: Mapping[str, str], withheld: frozenset[str]
) -> _Side | None:
    if match is None or method not in match.route.find_methods(path):
        return None
    rule = match.route.rules.http.get(method)
    if rule is None:
        return None
    return _Side(Asked(rule, match.path_params, names, match.route.query, withheld), match.route.public)


def _get_lookups(match: RouteMatch | None, path: str) -> dict[str, Lookup]:
    """Of a path that takes messages."""
    if match is None or match.route.protocol == "http" or "POST" not in match.route.find_methods(path):
        return {}
    rules = match.route.rules
    return {"rpc": rules.rpc, "tool": rules.tools, "prompt": rules.prompts, **rules.uris}


def _list_messages(kind: Kind, suffix: str, old: Lookup, new: Lookup) -> Iterator[_Subject]:
    exact = {**old.exact, **new.exact}.keys()
    patterns: list[Pattern] = [pattern for lookup in (old, new) for pattern, _ in lookup.patterns]
    seen = set()
    for region in list_regions(exact, patterns):
        found = [_find_rule(lookup, kind, region) for lookup in (old, new)]
        pair = (region.words in exact and region.words, *(one and id(one[0]) for one in found))
        if pair in seen or not any(found):
            continue
        seen.add(pair)
        names = _name(*(one[1] if one else {} for one in found))
        sides = (_Side(Asked(one[0], one[1], names), public=False) if one else None for one in found)
        yield _Subject(describe(kind, region.words) + suffix, *sides)


def _find_rule(lookup: Lookup, kind: Kind, region: Region) -> tuple[Rule, Mapping[str, str]] | None:
    if kind == "uri":
        return lookup.find_uri(region.probe)
    rule = lookup.find(region.probe)
    return (rule, {}) if rule is not None else None


def _name(old: Mapping[str, str], new: Mapping[str, str]) -> Mapping[str, str]:
    """What to call what stands at the same place: as the new policy does."""
    return {value: name for variables in (old, new) for name, value in variables.items() if is_sample(value)}


# What is no decision, but changes who holds what, or where it goes.


def _list_general(old: Policy, new: Policy) -> Iterator[str]:
    if old.default_tier != new.default_tier:
        yield f"default_tier: {old.default_tier} becomes {new.default_tier}"
    if old.longest_expiry != new.longest_expiry:
        was, now = describe_lifetime(old.longest_expiry), describe_lifetime(new.longest_expiry)
        yield f"longest_expiry: {was} becomes {now}"
    yield from _list_named("scope", old.catalogue, new.catalogue)
    for name in _list_common(old.catalogue, new.catalogue):
        before, after = old.catalogue[name].selector is not None, new.catalogue[name].selector is not None
        if before != after:
            yield f"scope {name} {'takes a selector now' if after else 'takes no selector any more'}"
    presets = [{name: one.scopes for name, one in policy.presets.items()} for policy in (old, new)]
    yield from _list_held("preset", *presets)
    yield from _list_held("tier", old.tiers, new.tiers)


def _list_held(word: str, old: Mapping[str, Iterable[str]], new: Mapping[str, Iterable[str]]) -> Iterator[str]:
    yield from _list_named(word, old, new)
    for name in _list_common(old, new):
        before, after = set(old[name]), set(new[name])
        yield from (f"{word} {name} also holds {scope}" for scope in sorted(after - before))
        yield from (f"{word} {name} no longer holds {scope}" for scope in sorted(before - after))


def _list_named(word: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    yield from (f"{word} {name} is new" for name in new if name not in old)
    yield from (f"{word} {name} is gone" for name in old if name not in new)


def _list_common(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [name for name in old if name in new]


def _list_routes(meetings: Iterable[_Meeting]) -> Iterator[str]:
    lines: dict[str, None] = {}
    for meeting in meetings:
        if meeting.before is None or meeting.after is None:
            lines[f"path {meeting.path} is {'new' if meeting.before is None else 'gone'}"] = None
            continue
        facts = zip(_get_facts(meeting.before.route), _get_facts(meeting.after.route), strict=True)
        for (name, was), (_, now) in facts:
            if was != now:
                lines[f"path {meeting.path}: {name} was {was}, is {now}"] = None
    yield from lines


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
