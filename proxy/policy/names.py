"""Where the names come from that the key page offers for a selector.  [pure]

A file's model comes in, and where the platform lists names goes out; then the answers to such lists, and the names in
them. The policy's own routes judge who may ask: a list gives nobody anything that the same GET would not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from proxy.envelope import parse_query, parse_target
from proxy.errors import RequestError
from proxy.policy.compiled import Policy
from proxy.policy.model import PolicyFile
from proxy.policy.rules import is_object, read_field
from proxy.policy.scopes import NameList, is_selector, show
from proxy.policy.source import Source

MAX_NAMES: Final = 1000  # as many as the platform puts on its longest page; nobody reads on
MAX_TITLE: Final = 120


@dataclass(frozen=True, slots=True)
class OfferedName:
    """What a selector may name. `title`: in words, where the list has any beside the name."""

    name: str
    title: str | None


def build_name_lists(file: PolicyFile) -> dict[str, NameList]:
    """By the words of the selectors."""
    return {
        selector: NameList(
            entry.path, tuple(entry.list.split(".")) if entry.list is not None else (), entry.name, entry.title
        )
        for selector, entry in file.names.items()
    }


def add_name_faults(file: PolicyFile, policy: Policy, source: Source) -> None:
    """Lists that no scope wants, and that nobody can ask for."""
    selectors = dict.fromkeys(entry.selector for entry in file.scopes.values() if entry.selector is not None)
    for selector, entry in file.names.items():
        if selector not in selectors:
            mend = f"write the words of a scope's selector: {', '.join(selectors)}"
            source.add_fault(("names", selector), f"no scope has the selector {show(selector)}", mend)
        problem = find_target_fault(policy, entry.path)
        if problem is not None:
            mend = "write a path of an http route that takes GET and asks for a key, with its query if it needs one"
            source.add_fault(
                ("names", selector, "path"), f"names cannot be had from {show(entry.path)}: {problem}", mend
            )


def find_target_fault(policy: Policy, text: str) -> str | None:
    """Why a GET of it could never be allowed to anybody."""
    try:
        target = parse_target(text)
        match = policy.find_route(target.path)
        if match is None:
            return "no route serves it"
        parse_query(target.query, match.route.query_names, match.route.repeatable)
    except RequestError as refusal:
        return refusal.detail.removesuffix(".")
    if match.route.protocol != "http" or "GET" not in match.route.methods:
        return f"route {match.route.id} takes no plain GET"
    return f"route {match.route.id} asks nobody for a key" if match.route.public else None


def read_names(answer: Any, names: NameList) -> tuple[OfferedName, ...]:  # noqa: ANN401 - as the platform sent it
    """Each of them once, in the answer's order; what no selector could hold is left out. Raises ValueError."""
    entries = read_field(answer, names.place)
    if not isinstance(entries, list):
        raise ValueError("the answer holds no list where the policy says")
    found: dict[str, OfferedName] = {}
    for entry in entries[:MAX_NAMES]:
        name = entry.get(names.name) if is_object(entry) else None
        if isinstance(name, str) and is_selector(name) and name not in found:
            found[name] = OfferedName(name, _read_title(entry.get(names.title)) if names.title is not None else None)
    return tuple(found.values())


def _read_title(value: object) -> str | None:
    return show(value, MAX_TITLE) if isinstance(value, str) and value else None
