"""What the parsers of this world make of the same bytes, and whether it is the same.

The reference is Python's `json` with every number left as its text, since a number that is told apart by its digits
alone must still be told apart here. Every other reading is held against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import mcp_types
import orjson
import pydantic_core
from mcp_types.methods import MONOLITH_NOTIFICATIONS, MONOLITH_REQUESTS
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.alias_generators import to_snake

from proxy.messages import PROTOCOL_VERSION_KEY, Message

ABSENT = object()
MAX_SAFE = 2**53 - 1
# What the proxy reads, level by level; the upstream must not find any of it under another name.
READ_MEMBERS = {
    path: {spelling.casefold(): name for name in names for spelling in (name, name[0] + to_snake(name[1:]))}
    for path, names in {
        (): ("jsonrpc", "id", "method", "params", "result", "error"),
        ("params",): (
            "name", "arguments", "uri", "ref", "cursor", "_meta", "taskId", "task", "requestId", "requestState",
            "inputResponses", "notifications",
        ),
        ("params", "_meta"): (PROTOCOL_VERSION_KEY, "progressToken"),
        ("params", "ref"): ("type", "name", "uri"),
    }.items()
}  # fmt: skip
TYPED_MEMBERS = {"name", "arguments", "uri", "ref", "cursor", "requestId"}
KINDS = {
    "request": (mcp_types.JSONRPCRequest,),
    "notification": (mcp_types.JSONRPCNotification,),
    "response": (mcp_types.JSONRPCResponse, mcp_types.JSONRPCError),
}  # fmt: skip
PARSERS = (json.loads, orjson.loads, pydantic_core.from_json)


def _keep_number(text: str) -> tuple[str]:
    return (text,)


def _keep_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    assert len(members) == len(pairs), "a member stands there twice"
    return members


_REFERENCE = json.JSONDecoder(
    object_pairs_hook=_keep_members, parse_int=_keep_number, parse_float=_keep_number, parse_constant=_keep_number
)


def read_reference(body: bytes) -> Any:
    """Numbers as one-tuples of their text: nothing else in a JSON text is a tuple. Raises AssertionError."""
    return _REFERENCE.decode(body.decode())


def agrees(value: Any, reference: Any) -> bool:
    """Whether another parser has read the same; of a number it has to have the nearest double."""
    if isinstance(reference, tuple):
        return isinstance(value, int | float) and type(value) is not bool and float(value) == float(reference[0])
    if isinstance(reference, dict):
        return (
            type(value) is dict
            and len(value) == len(reference)
            and all(name in value and agrees(value[name], member) for name, member in reference.items())
        )
    if isinstance(reference, list):
        return type(value) is list and len(value) == len(reference) and all(map(agrees, value, reference))
    return type(value) is type(reference) and bool(value == reference)


def is_judged(value: Any, reference: Any) -> bool:
    """Whether the proxy has read the same: a number as what everybody reads, or as its digits and nothing else."""
    if isinstance(reference, tuple):
        if type(value) is orjson.Fragment:
            return bool(orjson.dumps(value) == reference[0].encode())
        if type(value) is int:
            return str(value) == reference[0] and abs(value) <= MAX_SAFE
        return type(value) is float and value == float(reference[0]) and len(reference[0]) < 26
    if isinstance(reference, dict):
        return value.keys() == reference.keys() and all(
            is_judged(value[name], member) for name, member in reference.items()
        )
    if isinstance(reference, list):
        return len(value) == len(reference) and all(map(is_judged, value, reference))
    return type(value) is type(reference) and bool(value == reference)


def check_readings(body: bytes, message: Message) -> Any:
    """Raises AssertionError unless everybody reads what was judged; returns what that is, for those not asked here."""
    reference = read_reference(message.body)
    assert read_reference(body) == reference, "what is sent is not what came"
    assert message.method == reference.get("method")
    assert is_judged(message.params, reference.get("params", {})), "what was judged is not what is sent"
    assert is_judged(message.id, reference.get("id")), "the id that was judged is not the one that is sent"
    for parse in PARSERS:
        assert agrees(parse(message.body), reference), parse
    check_forgiving(reference)
    check_server(message, reference)
    return reference


def check_forgiving(reference: dict[str, Any]) -> None:
    """Nor does a reader that folds case, as Go's does, or takes snake_case, as pydantic may, find anything else."""
    for path, known in READ_MEMBERS.items():
        if path == ("params", "ref") and reference.get("method") != "completion/complete":
            continue  # nobody reads one
        level: Any = reference
        for step in path:
            level = level.get(step) if isinstance(level, dict) else None
        for name in level if isinstance(level, dict) else ():
            meant = known.get(name.casefold(), name)
            assert meant == name, f"{name!r} may be read as {meant}"


def check_server(message: Message, reference: dict[str, Any]) -> None:
    """The official server's own models, by both of its ways in: streamable HTTP and HTTP+SSE."""
    adapter: TypeAdapter[Any] = mcp_types.jsonrpc_message_adapter
    try:
        read = adapter.validate_python(pydantic_core.from_json(message.body), by_name=False)
        assert read == adapter.validate_json(message.body, by_name=False)
    except ValidationError:
        assert message.kind == "response", "the official server refuses it"  # its result may be anything here
        return
    assert isinstance(read, KINDS[message.kind])
    assert agrees(read.id if hasattr(read, "id") else None, reference.get("id"))
    if message.kind != "response":
        assert read.method == message.method
        assert agrees(read.params or {}, reference.get("params", {}))
        check_typed(message, read.params or {}, reference.get("params", {}))


def check_typed(message: Message, params: dict[str, Any], reference: Mapping[str, Any]) -> None:
    """What handlers are handed: a model of the method, filled by alias or, by careless ones, by field name as well."""
    monolith: Mapping[str, Any] = {**MONOLITH_REQUESTS, **MONOLITH_NOTIFICATIONS}
    model = monolith[message.method or ""].model_fields["params"].annotation if message.method in monolith else None
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return
    for by_name in (False, True):
        try:
            typed = model.model_validate(params, by_name=by_name, by_alias=True)
        except ValidationError:
            continue
        read = typed.model_dump(by_alias=True, exclude_unset=True)
        for name in TYPED_MEMBERS & read.keys():
            assert name in reference, f"{name} is found under another name"
            expected = reference[name]
            if name == "ref":  # a model of it knows these members, and forgets any others
                expected = {member: expected.get(member) for member in read[name]}
            assert agrees(read[name], expected), name
        version = (getattr(typed, "meta", None) or {}).get(PROTOCOL_VERSION_KEY)
        assert version == message.protocol_version
