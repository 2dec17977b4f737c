"""The fields a decision read, written down so that it can be made again; and read back.  [pure]

In goes a request as the policy judged it, out comes a flat mapping of exactly those fields which were read, by their
names in the policy: a text, an integer or a truth as it is; null where there was none; {} where there was an object, of
which only what is named beside it was read. What was anything else, or long, is left out. The other way round the
mapping stands for the params, and notes whatever is asked of it that nobody wrote down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from proxy.policy.compiled import NAMED_METHODS, NESTED_CALL_LIMIT, READ_LEVELS, RuleTable
from proxy.policy.rules import ABSENT, FieldPath, ReadLevel, Rule, is_object, read_field

MAX_TEXT: Final = 200  # characters of one value: names and ids; whatever is longer is somebody's data
MAX_INTEGER: Final = 2**63  # what a line of the log can hold
SHORTENED: Final = "…"  # where the log has blotted out what looked like a credential
QUERY: Final = "query."
Fields = dict[str, object]
# What a message is judged by holds objects there: anything else is not judged, and none of the log's business.
_HOLDERS: Final = frozenset(
    {("arguments",), ("context",), ("context", "arguments"), ("ref",), ("notifications", "resourceSubscriptions")}
)
_Read = tuple[str, object, tuple[ReadLevel, ...], Collection[FieldPath]]


def record_query(names: Collection[str], query: Mapping[str, str]) -> Fields:
    """The members of a query that the route has conditions for."""
    values = {name: query.get(name) for name in names}
    return {f"{QUERY}{name}": value for name, value in values.items() if value is None or len(value) <= MAX_TEXT}


def record_params(rules: RuleTable, method: str, params: Mapping[str, Any]) -> Fields | None:
    """What was read of a message; None: a member was refused for its spelling, which no field tells."""
    fields: Fields = {}
    for prefix, holder, levels, holders in _list_reads(rules, method, params):
        for level in levels:
            parent = read_field(holder, level.parent) if is_object(holder) else ABSENT
            if not is_object(holder) or not is_object(parent):
                continue  # what it is instead stands under its own name
            if level.find_variant(holder) is not None:
                return None
            for name in level.names:
                path = (*level.parent, name)
                value = parent.get(name, ABSENT)
                if value is ABSENT:
                    fields[prefix + ".".join(path)] = None
                elif is_object(value):
                    fields[prefix + ".".join(path)] = {}
                elif path not in holders and _is_recordable(value):
                    fields[prefix + ".".join(path)] = value
    return fields


def _is_recordable(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return isinstance(value, int) and -MAX_INTEGER <= value < MAX_INTEGER


def _list_reads(rules: RuleTable, method: str, params: Mapping[str, Any]) -> Iterator[_Read]:
    """In the order of judging: a prefix, what is read below it, at which levels, and what holds more levels."""
    yield "", params, READ_LEVELS.get(method, ()), _HOLDERS
    if method == "tools/call":
        yield from _list_call_reads(rules, params.get("name"), params.get("arguments"), "arguments.", 0)
    elif method == "prompts/get":
        yield from _list_rule_reads(_find_prompt(rules, params.get("name")), params.get("arguments"), "arguments.")
    elif method == "completion/complete":
        if read_field(params, ("ref", "type")) == "ref/prompt":
            rule = _find_prompt(rules, read_field(params, ("ref", "name")))
            yield from _list_rule_reads(rule, read_field(params, ("context", "arguments")), "context.arguments.")
    elif method not in NAMED_METHODS:
        yield from _list_rule_reads(rules.rpc.find(method), params, "")


def _list_call_reads(rules: RuleTable, name: object, arguments: object, prefix: str, depth: int) -> Iterator[_Read]:
    rule = rules.tools.find(name) if isinstance(name, str) else None
    yield from _list_rule_reads(rule, arguments, prefix)
    if rule is None or rule.nested is None or depth >= NESTED_CALL_LIMIT or not is_object(arguments):
        return
    nested = rule.nested
    inner = read_field(arguments, nested.arguments_path)
    inner_prefix = f"{prefix}{'.'.join(nested.arguments_path)}."
    yield from _list_call_reads(rules, read_field(arguments, nested.name_path), inner, inner_prefix, depth + 1)


def _list_rule_reads(rule: Rule | None, holder: object, prefix: str) -> Iterator[_Read]:
    if rule is not None and rule.levels:
        parents = {level.parent for level in rule.levels}
        yield prefix, holder, rule.levels, parents if rule.nested is None else {*parents, rule.nested.arguments_path}


def _find_prompt(rules: RuleTable, name: object) -> Rule | None:
    return rules.prompts.find(name) if isinstance(name, str) else None


class RecordedObject(Mapping[str, Any]):
    """An object of which some members are known. `unknown` takes the names of those that were asked for and are not."""

    def __init__(self, path: str, unknown: list[str]) -> None:
        self._path = path
        self._unknown = unknown
        self._members: dict[str, object] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - foreign JSON
        if name not in self._members:
            self._unknown.append(f"{self._path}{name}")
            raise KeyError(name)
        value = self._members[name]
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self._members.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return True  # it may have members that nobody knows

    def put(self, path: list[str], value: object) -> None:
        """Raises ValueError where the objects that hold it were not recorded."""
        name, *rest = path
        if rest:
            inner = self._members.get(name)
            if not isinstance(inner, RecordedObject):
                raise ValueError(f"{self._path}{name} was recorded as no object, and holds {rest[0]}")
            inner.put(rest, value)
        elif value == {}:
            self._members[name] = RecordedObject(f"{self._path}{name}.", self._unknown)
        else:
            self._members[name] = value


def read_params(fields: Mapping[str, object]) -> tuple[RecordedObject, list[str]]:
    """The params as far as they were recorded; the list fills with what is asked for beyond. Raises ValueError."""
    unknown: list[str] = []
    params = RecordedObject("", unknown)
    for path, value in sorted(fields.items()):  # what holds others comes first
        if not (isinstance(value, str) and SHORTENED in value):
            params.put(path.split("."), value)
    return params, unknown
