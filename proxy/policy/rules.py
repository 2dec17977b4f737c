"""A rule, and what it says to one request.  [pure]

A rule reads the fields of one mapping: a tool's arguments, a method's params, or the variables of a URI or path.
Fields, grants and owner come in; `Allowed` or `Denied` goes out. Which rule is asked is decided in `compiled`.
Adding fields to a request never widens: a rule only compares fields, it never takes one as a permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeGuard

from proxy.identity import Owner
from proxy.messages import fold_name
from proxy.policy.scopes import EVERYTHING, covers, is_selector, show, split_scope

Kind = Literal["http", "rpc", "tool", "prompt", "uri"]
Value = str | int | bool
FieldPath = tuple[str, ...]

ABSENT: Final = object()
PROTOTYPE: Final = "__proto__"
_SUBJECTS: Final[Mapping[Kind, str]] = {
    "http": "request",
    "rpc": "method",
    "tool": "tool",
    "prompt": "prompt",
    "uri": "resource",
}
_FIELDS: Final[Mapping[Kind, str]] = {
    "http": "path variable",
    "rpc": "parameter",
    "tool": "argument",
    "prompt": "argument",
    "uri": "URI variable",
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """`scopes` are those that were needed, with their selectors; () for any key."""

    rule: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Denied:
    """`why` is one sentence for the client's user; `sufficient` are the smallest scopes each of which alone would make
    good what is missing, be it wider than anything that was asked for."""

    rule: str | None
    why: str
    required: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    sufficient: tuple[str, ...] = ()
    unknown_method: bool = False

    @property
    def singles(self) -> tuple[str, ...]:
        """Those that were asked for: nobody is sent for the right to everything because two things are missing."""
        asked = frozenset(map(make_grantable, self.missing))
        return tuple(scope for scope in self.sufficient if scope in asked)

    @property
    def smallest(self) -> str | None:
        return next(iter(self.singles), None)


Decision = Allowed | Denied


def describe(kind: Kind, name: str) -> str:
    return f"{_SUBJECTS[kind]} {show(name)}"


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """The exact type first: asking the abstract one takes 0.2 µs, and a decision has 3."""
    return type(value) is dict or isinstance(value, Mapping)


def read_field(fields: Mapping[str, Any], path: FieldPath) -> Any:  # noqa: ANN401 - a member of foreign JSON
    """The value at a path of member names, or ABSENT."""
    value: Any = fields
    for name in path:
        if not is_object(value):
            return ABSENT
        value = value.get(name, ABSENT)
    return value


@dataclass(frozen=True, slots=True)
class NeededScope:
    """One scope a rule asks for; its selector is fixed, read from a field, or not asked for."""

    head: str
    scope: str  # as written in the file
    selector_path: FieldPath | None

    def resolve(self, fields: Mapping[str, Any]) -> str | None:
        """The scope with its selector filled in; None when the field is absent, empty or not a string."""
        path = self.selector_path
        if path is None:
            return self.scope
        value = fields.get(path[0]) if len(path) == 1 else read_field(fields, path)
        return f"{self.head}:{value}" if type(value) is str and value else None

    def is_held(self, scope: str, grants: frozenset[str]) -> bool:
        return self.head in grants or scope in grants or EVERYTHING in grants


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field must be. Values compare by type and value: "1", 1 and true are three things."""

    path: FieldPath
    absent_allowed: bool
    values: frozenset[tuple[type, Value]]
    owner_fields: tuple[Literal["tenant_id", "subject"], ...]

    def holds(self, fields: Mapping[str, Any], owner: Owner) -> bool:
        path = self.path
        value = fields.get(path[0], ABSENT) if len(path) == 1 else read_field(fields, path)
        if value is ABSENT:
            return self.absent_allowed and (len(path) == 1 or self._is_reachable(fields))
        if not isinstance(value, (str, int)):  # bool is an int
            return False
        for name in self.owner_fields:
            if value == getattr(owner, name) and value:
                return True
        return (type(value), value) in self.values

    def _is_reachable(self, fields: Mapping[str, Any]) -> bool:
        """Absent means absent from objects: `{"filter": "text"}` does not leave out `filter.tenant_id`, it hides it."""
        parents = (read_field(fields, self.path[:depth]) for depth in range(1, len(self.path)))
        return all(parent is ABSENT or is_object(parent) for parent in parents)

    def describe(self) -> str:
        own = {"tenant_id": "the key owner's own tenant", "subject": "the key owner's own user id"}
        words = [own[name] for name in self.owner_fields] + sorted(show(repr(value)) for _, value in self.values)
        return ("absent or " if self.absent_allowed else "") + " or ".join(words)


@dataclass(frozen=True, slots=True)
class NestedCall:
    """Where a tool's arguments hold another call, which must be allowed too."""

    name_path: FieldPath
    arguments_path: FieldPath


@dataclass(frozen=True, slots=True)
class ReadLevel:
    """The member names a rule reads inside one object, to refuse their case variants beside or instead of them.

    An upstream that folds case (Go's JSON decoder does: CVE-2026-27896) would read what was not judged; so would one in
    JavaScript that copies what came with `__proto__` in it: the copy has the members inside of it, too.
    """

    parent: FieldPath
    names: frozenset[str]
    folded: frozenset[str]

    def find_variant(self, fields: Mapping[str, Any]) -> str | None:
        level = read_field(fields, self.parent) if self.parent else fields
        if not is_object(level):
            return None
        for name in level:
            if name not in self.names and (fold_name(name) in self.folded or name == PROTOTYPE):
                return name
        return None


def blame(variant: str) -> str:
    """What is wrong with such a member."""
    return "other members hide in it" if variant == PROTOTYPE else "its case is wrong"


def get_read_levels(paths: Iterable[FieldPath]) -> tuple[ReadLevel, ...]:
    """The member names on these paths, by the object they are in."""
    names: dict[FieldPath, set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path):
            names.setdefault(path[:depth], set()).add(name)
    return tuple(
        ReadLevel(parent, frozenset(members), frozenset(fold_name(name) for name in members))
        for parent, members in names.items()
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """`alternatives`: any one list of scopes suffices, each list is needed whole; None: any key may."""

    id: str
    kind: Kind
    alternatives: tuple[tuple[NeededScope, ...], ...] | None
    conditions: tuple[Condition, ...] = ()
    nested: NestedCall | None = None
    levels: tuple[ReadLevel, ...] = ()
    lists_tools: FieldPath | None = None  # where the structured result holds entries that name tools
    line: int | None = field(default=None, compare=False)  # of the file it was read from
    any_key: Allowed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "any_key", Allowed(self.id, ()))

    def judge(self, name: str, fields: Mapping[str, Any], grants: frozenset[str], owner: Owner) -> Decision:
        for level in self.levels:
            variant = level.find_variant(fields)
            if variant is not None:
                return self._deny(name, f"must not have the {_FIELDS[self.kind]} {show(variant)}: {blame(variant)}")
        for condition in self.conditions:
            if not condition.holds(fields, owner):
                what = f"{_FIELDS[self.kind]} {'.'.join(condition.path)}"
                return self._deny(name, f"wants its {what} to be {condition.describe()}")
        if self.alternatives is None:
            return self.any_key
        for needed_scopes in self.alternatives:
            scopes = _get_held(needed_scopes, fields, grants)
            if scopes is not None:
                return Allowed(self.id, scopes)
        return self._deny_scopes(self.alternatives, name, fields, grants)

    def could_allow(self, grants: frozenset[str]) -> bool:
        """Whether these grants suffice for some fields."""
        return self.alternatives is None or any(_is_attainable(needed, grants) for needed in self.alternatives)

    def _deny(self, name: str, why: str) -> Denied:
        return Denied(self.id, f"{describe(self.kind, name)} {why}")

    def _deny_scopes(
        self,
        alternatives: tuple[tuple[NeededScope, ...], ...],
        name: str,
        fields: Mapping[str, Any],
        grants: frozenset[str],
    ) -> Denied:
        readable: list[list[tuple[str, bool]]] = []  # each alternative: its scopes, and which of them are held
        for needed_scopes in alternatives:
            resolved = [(needed, needed.resolve(fields)) for needed in needed_scopes]
            pairs = [(scope, needed.is_held(scope, grants)) for needed, scope in resolved if scope is not None]
            if len(pairs) == len(needed_scopes):
                readable.append(pairs)
        if not readable:
            return self._deny_unreadable(alternatives, name, fields)
        required = tuple(dict.fromkeys(scope for pairs in readable for scope, _ in pairs))
        missing = tuple(dict.fromkeys(scope for pairs in readable for scope, held in pairs if not held))
        words = "scope" if len(missing) == 1 else "one of the scopes" if len(readable) > 1 else "the scopes"
        why = f"{describe(self.kind, name)} needs {words} {', '.join(show(scope) for scope in missing)}"
        lacking = ([make_grantable(scope) for scope, held in pairs if not held] for pairs in readable)
        return Denied(self.id, why, required, missing, find_narrowest(map(find_cover, lacking)))

    def _deny_unreadable(
        self, alternatives: tuple[tuple[NeededScope, ...], ...], name: str, fields: Mapping[str, Any]
    ) -> Denied:
        unreadable = next(n for needed in alternatives for n in needed if n.resolve(fields) is None)
        what = f"{_FIELDS[self.kind]} {'.'.join(unreadable.selector_path or ())}"
        why = f"{describe(self.kind, name)} needs its {what} to be a text that is not empty: it selects the scope"
        return Denied(self.id, why, tuple(n.scope for needed in alternatives for n in needed))


def find_cover(scopes: Sequence[str]) -> str | None:
    """The smallest scope that covers all of these, if any does; everything only where everything was asked for."""
    head, _ = split_scope(scopes[0])
    candidates = (scopes[0], head) if EVERYTHING not in scopes else (EVERYTHING,)
    return next((one for one in candidates if all(covers(frozenset({one}), scope) for scope in scopes)), None)


def make_grantable(scope: str) -> str:
    """What a key can hold to satisfy it: no key is made for a selector of any length, or with control characters."""
    head, selector = split_scope(scope)
    return scope if selector is None or is_selector(selector) else head


def find_narrowest(scopes: Iterable[str | None]) -> tuple[str, ...]:
    """Those of these scopes that none of the others is a part of."""
    every = list(dict.fromkeys(scope for scope in scopes if scope is not None))
    return tuple(one for one in every if not any(covers(frozenset({one}), other) for other in every if other != one))


def _get_held(
    needed_scopes: tuple[NeededScope, ...], fields: Mapping[str, Any], grants: frozenset[str]
) -> tuple[str, ...] | None:
    """The resolved scopes when all of them are held, otherwise None."""
    scopes = []
    for needed in needed_scopes:
        scope = needed.resolve(fields)
        if scope is None or not needed.is_held(scope, grants):
            return None
        scopes.append(scope)
    return tuple(scopes)


def _is_attainable(needed_scopes: tuple[NeededScope, ...], grants: frozenset[str]) -> bool:
    """Whether one choice of field values satisfies the whole list: a field read twice has one value."""
    choices: dict[FieldPath, set[str]] = {}
    for needed in needed_scopes:
        if needed.is_held(needed.scope, grants):
            continue
        if needed.selector_path is None:
            return False
        start = f"{needed.head}:"
        selectors = {grant[len(start) :] for grant in grants if grant.startswith(start) and grant != start}
        choices[needed.selector_path] = choices.get(needed.selector_path, selectors) & selectors
    return all(choices.values())
