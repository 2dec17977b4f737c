"""From the file to the policy, or to every fault at once.  [pure, but for reading the file]

A path or a text comes in; a `Policy` goes out, or a ConfigError with all faults: those of spelling, of shape and of
meaning together. A file with faults of shape is repaired in memory, only so that its meaning can be checked as well.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.errors import ConfigError, Fault
from proxy.policy import model
from proxy.policy.build import build_policy
from proxy.policy.compiled import Policy
from proxy.policy.dead_rules import add_dead_rules
from proxy.policy.names import add_name_faults
from proxy.policy.notes import Note, find_notes
from proxy.policy.source import Path as ValuePath
from proxy.policy.source import Source, read_source

_REVISION_LENGTH = 12  # hexadecimal digits: 48 bits, enough to tell the versions of one file apart


def load_policy(path: Path) -> Policy:
    """Raises ConfigError."""
    return parse_policy(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), None, "is not UTF-8", f"mend byte {error.start}")]) from None
    except OSError as error:
        fault = Fault(str(path), None, f"cannot be read: {error.strerror}", "check the path and its permissions")
        raise ConfigError([fault]) from None


def parse_policy(text: str, source: str) -> Policy:
    """`source` names the text in faults. Raises ConfigError."""
    return _parse(text, source)[0]


def check_policy(path: Path, upstreams: Collection[str] | None) -> tuple[Policy, tuple[Note, ...]]:
    """The policy, and what is odd about it; `upstreams` are those configured, if that is known. Raises ConfigError."""
    policy, file, source = _parse(read_text(path), str(path))
    return policy, find_notes(file, policy, source, upstreams)


def _parse(text: str, source: str) -> tuple[Policy, model.PolicyFile, Source]:
    read = read_source(text, source)
    file = _validate(read)
    revision = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_REVISION_LENGTH]
    policy = build_policy(file, read, revision)
    add_dead_rules(file, policy, read)
    add_name_faults(file, policy, read)
    read.raise_faults()
    return policy, file, read


def _validate(read: Source) -> model.PolicyFile:
    """The file's model; when its shape is at fault, that of a repaired copy. Raises ConfigError when there is none."""
    try:
        return model.PolicyFile.model_validate(read.values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
    repaired = copy.deepcopy(read.values)
    for detail in details:
        place = find_place(read.values, detail)
        read.add_fault(place, *describe_shape(place, detail, model.ENTRIES, "config/policy.schema.json"))
        _repair(repaired, place, detail["type"])
    try:
        return model.PolicyFile.model_validate(repaired)
    except ValidationError:
        read.raise_faults()
        raise


def find_place(values: Any, detail: ErrorDetails) -> ValuePath:  # noqa: ANN401 - the plain values of the file
    """pydantic's location without its names of union variants."""
    place: ValuePath = ()
    for part in detail["loc"]:
        is_member = isinstance(values, dict) and part in values
        if is_member or (isinstance(values, list) and isinstance(part, int)):
            place, values = (*place, part), values[part]
    return (*place, detail["loc"][-1]) if detail["type"] == "missing" else place


def describe_shape(
    place: ValuePath, detail: ErrorDetails, entries: Sequence[type[BaseModel]], schema: str
) -> tuple[str, str]:
    """The fault and its mend, without repeating what the file says: only where it says it."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".") or "the file"
    word = str(place[-1]) if place else ""
    if detail["type"] == "missing":
        return f"{name} is missing", f"add {word}:"
    if detail["type"] == "extra_forbidden":
        known = sorted({field for entry in entries for field in entry.model_fields})
        close = difflib.get_close_matches(word, known, n=1)
        return f"{name}: {word} is not a word of the policy", f"did you mean {close[0]}?" if close else "take it out"
    return f"{name}: {detail['msg']}", f"{schema} says what is expected"


def _repair(values: Any, place: ValuePath, kind: str) -> None:  # noqa: ANN401 - the plain values of the file
    """Puts something in the place of a faulty entry that raises no further faults; what it cannot mend stays."""
    match place:
        case ("routes", int(route), "rules", int(rule), *_):
            values["routes"][route]["rules"][rule] = {"id": model.UNREADABLE}
        case ("routes", int(route), str(member), *_) if kind != "extra_forbidden":
            _repair_route(values["routes"][route], member, route)
        case ("scopes", str(name), *_):
            values["scopes"][name] = {"title": model.UNREADABLE, "selector": model.UNREADABLE}
        case ("presets", str(name), *_):
            values["presets"][name] = {"title": model.UNREADABLE, "scopes": []}
        case ("tiers", str(name), *_):
            values["tiers"][name] = []
        case ("routes", int(), str(member)):
            values["routes"][place[1]].pop(member, None)
        case (str(member),) if kind == "extra_forbidden" or member == "longest_expiry":
            values.pop(member, None)
        case ("version" | "default_tier" | "presets" | "routes" as member, *_):
            whole = {"version": 1, "default_tier": model.UNREADABLE, "presets": {}, "routes": []}
            values[member] = whole[str(member)]
        case _:
            pass


def _repair_route(route: dict[str, Any], member: str, number: int) -> None:
    is_http = "rules" not in route and "rules_of" not in route
    is_sse = "messages" in route
    stand_ins = {
        "id": f"routes[{number}]",
        "path": f"/unreadable/{number}",
        "messages": f"/unreadable/{number}/messages",
        "methods": ["GET", "POST"] if is_sse else ["GET", "POST", "DELETE"],
        "upstream": model.UNREADABLE,
        "protocol": "mcp-sse" if is_sse else "http" if is_http else "mcp",
        "require": None,
        "rules": [{"id": model.UNREADABLE}],
    }
    route[member] = stand_ins.get(member)
    if route[member] is None:
        del route[member]
