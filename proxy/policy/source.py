"""The file as text: strict YAML to plain values, each with its line.  [pure]

Text comes in; plain dicts, lists and scalars, the line of every one of them, and the faults of spelling go out:
duplicate keys, aliases, tags, a missing end marker. What the values mean is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.errors import ConfigError, Fault

Path = tuple[str | int, ...]

_SIZE_LIMIT = 1_048_576  # characters; a policy of 2,000 rules has about 300,000
_DEPTH_LIMIT = 32  # a rule of the language nests to 9; the scanner takes quadratic time in the depth
_TAG = "tag:yaml.org,2002:"
_SCALARS: Final[Mapping[str, Callable[[str], Any]]] = {
    "str": str,
    "int": lambda text: int(text.replace("_", ""), 10),
    "float": float,
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
    "timestamp": str,
}


@dataclass(slots=True)
class Source:
    """One file being read: its values, their lines, and the faults found so far."""

    name: str
    values: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    read: dict[int, Any] = field(default_factory=dict)  # by node: what an alias repeats is read once

    def add_fault(self, path: Path, message: str, mend: str) -> None:
        self.faults.append(Fault(self.name, self.get_line(path), message, mend))

    def get_line(self, path: Path) -> int | None:
        """The line of the value, or of the innermost value around it when it is not there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def raise_faults(self) -> None:
        """Raises ConfigError with every fault, in the order of the file, when there is any."""
        if self.faults:
            unique = dict.fromkeys(self.faults)
            raise ConfigError(sorted(unique, key=lambda fault: fault.line or 0))


def read_source(text: str, name: str) -> Source:
    """Raises ConfigError when the text is no YAML at all; other faults are collected in the result."""
    source = Source(name)
    if len(text) > _SIZE_LIMIT:
        raise ConfigError([Fault(name, None, f"is longer than {_SIZE_LIMIT} characters", "split or shorten it")])
    lines = text.rstrip().splitlines()
    if not lines or lines[-1] != "...":
        mend = "end the file with a line of three dots, so that a half-written file never loads"
        source.faults.append(Fault(name, len(lines) or None, "the document end marker ... is missing", mend))
    try:
        _check_events(text, source)
        root = YAML(typ="rt", pure=True).compose(text)
        source.values = _read_node(root, (), source) if root is not None else None
    except (YAMLError, ValueError) as error:
        raise ConfigError([*source.faults, _get_syntax_fault(error, name)]) from None
    return source


def _get_syntax_fault(error: Exception, name: str) -> Fault:
    mark = error.problem_mark or error.context_mark if isinstance(error, MarkedYAMLError) else None
    problem = error.problem if isinstance(error, MarkedYAMLError) else None
    reason = problem or (str(error) if isinstance(error, ValueError) else "it cannot be read")
    return Fault(name, mark.line + 1 if mark else None, f"not YAML: {reason}", "mend the spelling here or just above")


def _check_events(text: str, source: Source) -> None:
    """Refuses aliases and directives, and raises ValueError as soon as the text nests too deep."""
    depth = 0
    for event in YAML(typ="rt", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _DEPTH_LIMIT:
            raise ValueError("it is nested too deep")
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            message = "a directive, by which the same words could mean something else"
            source.faults.append(Fault(source.name, event.start_mark.line + 1, message, "take the line with % out"))
        if isinstance(event, AliasEvent):
            line = event.start_mark.line + 1
            source.faults.append(Fault(source.name, line, f"alias *{event.anchor}", "write the value out"))


def _read_node(node: Node, path: Path, source: Source) -> Any:  # noqa: ANN401 - whatever the file holds
    source.lines[path] = node.start_mark.line + 1
    if id(node) in source.read:
        return source.read[id(node)]
    source.read[id(node)] = None  # while it is being read: an alias to what it stands in ends here
    value: Any
    match node:
        case ScalarNode():
            value = _read_scalar(node, path, source)
        case SequenceNode():
            _check_tag(node, path, source, "seq")
            value = [_read_node(item, (*path, index), source) for index, item in enumerate(node.value)]
        case MappingNode():
            _check_tag(node, path, source, "map")
            value = dict(_read_members(node, path, source))
        case _:
            raise ValueError("an unknown kind of node")
    source.read[id(node)] = value
    return value


def _check_tag(node: Node, path: Path, source: Source, expected: str) -> None:
    if node.tag != f"{_TAG}{expected}":
        source.add_fault(path, f"tag {node.tag}", "write the value without a tag")


def _read_members(node: MappingNode, path: Path, source: Source) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode) or key.tag != f"{_TAG}str":
            source.faults.append(Fault(source.name, line, "a key that is not a text", "write a plain or quoted text"))
        elif key.value in seen:
            message = f"{key.value} is written twice, first in line {seen[key.value]}"
            source.faults.append(Fault(source.name, line, message, "keep one of them"))
        else:
            seen[key.value] = line
            yield key.value, _read_node(value, (*path, key.value), source)


def _read_scalar(node: ScalarNode, path: Path, source: Source) -> Any:  # noqa: ANN401 - whatever the file holds
    read = _SCALARS.get(str(node.tag).removeprefix(_TAG))
    if read is not None:
        return read(node.value)
    source.add_fault(path, f"tag {node.tag}", "write the value without a tag")
    return node.value
