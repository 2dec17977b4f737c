"""What one rule asks for: `require`, `where` and `also_tool`, from their words to values.  [pure]

An entry of the file comes in; needed scopes, conditions and the fields they read go out. Faults are added to the
source. Which fields may be named depends on the kind of rule: arguments, params, or the variables of its pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from proxy.policy.model import AnyOf, ConditionEntry, NestedCallEntry, Scalar
from proxy.policy.rules import Condition, FieldPath, Kind, NeededScope, NestedCall, ReadLevel, Value, get_read_levels
from proxy.policy.scopes import EVERYTHING, Scope, get_scope_fault, is_grantable, show, split_scope
from proxy.policy.source import Path, Source

_ROOTS: Final[Mapping[Kind, str]] = {"tool": "arguments", "prompt": "arguments", "rpc": "params"}
_REFERENCE = re.compile(r"\{([^{}]*)\}")
_OWNER_FIELDS: Final[Mapping[str, Literal["tenant_id", "subject"]]] = {
    "{owner.tenant}": "tenant_id",
    "{owner.subject}": "subject",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Where a rule of one kind may read: below `arguments` or `params`, or the variables its pattern captures."""

    kind: Kind
    variables: frozenset[str]
    catalogue: Mapping[str, Scope]
    source: Source

    def parse_field(self, reference: str, path: Path) -> FieldPath | None:
        root = _ROOTS.get(self.kind)
        first, *rest = reference.split(".")
        if root is not None and first == root and rest and all(rest):
            return tuple(rest)
        if root is None and not rest and first in self.variables:
            return (first,)
        names = f"{root}.NAME" if root else ", ".join(sorted(self.variables)) or "nothing: its pattern has no variable"
        self.source.add_fault(path, f"{show(reference)} names nothing a {self.kind} rule can read", f"it reads {names}")
        return None

    def parse_require(self, require: str | Sequence[str] | AnyOf, path: Path) -> tuple[tuple[NeededScope, ...], ...]:
        if isinstance(require, str):
            return (self._parse_scopes([(require, path)]),)
        if isinstance(require, AnyOf):
            return tuple(self._parse_scopes([(text, (*path, "any", index))]) for index, text in enumerate(require.any))
        return (self._parse_scopes([(text, (*path, index)) for index, text in enumerate(require)]),)

    def _parse_scopes(self, texts: Iterable[tuple[str, Path]]) -> tuple[NeededScope, ...]:
        parsed = (self._parse_scope(text, path) for text, path in texts)
        return tuple(needed for needed in parsed if needed is not None)

    def _parse_scope(self, text: str, path: Path) -> NeededScope | None:
        head, selector = split_scope(text)
        reference = _REFERENCE.fullmatch(selector or "")
        if reference is None:
            return self._parse_fixed_scope(text, head, path)
        if (entry := self.catalogue.get(head)) is None or entry.selector is None:
            self.source.add_fault(path, *get_scope_fault(text, self.catalogue))
            return None
        field = self.parse_field(reference[1], path)
        return NeededScope(head, text, field) if field is not None else None

    def _parse_fixed_scope(self, text: str, head: str, path: Path) -> NeededScope | None:
        if text == EVERYTHING:
            return NeededScope(EVERYTHING, EVERYTHING, None)
        if "{" in text or "}" in text:
            mend = "write resource:action:{field}, with the field as the whole selector"
            self.source.add_fault(path, f"{show(text)} is no scope template", mend)
            return None
        if not is_grantable(text, self.catalogue):
            self.source.add_fault(path, *get_scope_fault(text, self.catalogue))
            return None
        return NeededScope(head, text, None)

    def parse_where(self, where: Mapping[str, ConditionEntry], path: Path) -> tuple[Condition, ...]:
        parsed = [
            self.parse_condition(name, self.parse_field(name, (*path, name)), entry, (*path, name))
            for name, entry in where.items()
        ]
        return tuple(condition for condition in parsed if condition is not None)

    def parse_condition(
        self, name: str, field: FieldPath | None, entry: ConditionEntry, path: Path
    ) -> Condition | None:
        given = [word for word in ("absent_or", "equals", "one_of") if getattr(entry, word) is not None]
        if len(given) != 1:
            self.source.add_fault(path, f"{show(name)} needs one comparison", "write absent_or, equals or one_of")
            return None
        accepted = [value for value in (entry.absent_or, entry.equals) if value is not None]
        values, owner_fields = self._parse_values(entry.one_of or accepted, path)
        return Condition(field, given == ["absent_or"], values, owner_fields) if field is not None else None

    def _parse_values(
        self, accepted: Iterable[Scalar], path: Path
    ) -> tuple[frozenset[tuple[type, Value]], tuple[Literal["tenant_id", "subject"], ...]]:
        values: set[tuple[type, Value]] = set()
        owner_fields: list[Literal["tenant_id", "subject"]] = []
        for value in accepted:
            if isinstance(value, str) and value in _OWNER_FIELDS:
                owner_fields.append(_OWNER_FIELDS[value])
            elif isinstance(value, str) and ("{" in value or "}" in value):
                mend = f"write {' or '.join(_OWNER_FIELDS)}, as the whole value"
                self.source.add_fault(path, f"{show(value)} names nothing", mend)
            else:
                values.add((type(value), value))
        return frozenset(values), tuple(owner_fields)

    def parse_nested(self, entry: NestedCallEntry, path: Path) -> NestedCall | None:
        name = self.parse_field(entry.name, (*path, "name"))
        arguments = self.parse_field(entry.arguments, (*path, "arguments"))
        return NestedCall(name, arguments) if name is not None and arguments is not None else None


def get_levels(
    alternatives: tuple[tuple[NeededScope, ...], ...] | None,
    conditions: Iterable[Condition],
    nested: NestedCall | None,
) -> tuple[ReadLevel, ...]:
    """The member names a rule reads, by the object they are in."""
    fields = [needed.selector_path for scopes in alternatives or () for needed in scopes if needed.selector_path]
    fields += [condition.path for condition in conditions]
    fields += [nested.name_path, nested.arguments_path] if nested else []
    return get_read_levels(fields)
