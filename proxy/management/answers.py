"""From a call to its answer: which operation an endpoint means, and what HTTP says beside its result.  [io]

In goes a call as `dispatch` has read it, out comes a result with its status and headers. One function for each row of
`endpoints`, by its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from proxy.keys.rights import Caller
from proxy.management.operations import Operations


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked for, of the shape that the endpoint takes. `key_id`: from the path."""

    caller: Caller
    key_id: str
    query: Any
    body: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is answered."""

    result: BaseModel
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Operations, Call], Awaitable[Outcome]]


async def _list(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.list_keys(call.caller, call.query))


async def _create(operations: Operations, call: Call) -> Outcome:
    key = await operations.mint_key(call.caller, call.body)
    return Outcome(key, 201, _tag(key.version))


async def _show(operations: Operations, call: Call) -> Outcome:
    key = await operations.show_key(call.caller, call.key_id)
    return Outcome(key, headers=_tag(key.version))


async def _list_scopes(operations: Operations, call: Call) -> Outcome:
    return Outcome(operations.list_scopes(call.caller))


def _tag(version: int) -> Mapping[str, str]:
    return {"ETag": f'"{version}"'}


ANSWERS: Final[Mapping[str, Answer]] = {
    "list_api_keys": _list,
    "create_api_key": _create,
    "show_api_key": _show,
    "list_scopes": _list_scopes,
}
