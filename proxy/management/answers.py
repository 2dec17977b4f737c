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
from proxy.management.idempotency import Once
from proxy.management.operations import Operations
from proxy.management.shown import Key, NewKey


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked for, of the shape that the endpoint takes. `subject`: the id in the path."""

    caller: Caller
    subject: str
    query: Any
    body: Any
    version: int | None = None
    once: Once | None = None


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
    key = await operations.mint_key(call.caller, call.body, call.once)
    return _show_key(key, call.once, 201 if isinstance(key, NewKey) else 200)


async def _show(operations: Operations, call: Call) -> Outcome:
    return _show_key(await operations.show_key(call.caller, call.subject))


async def _update(operations: Operations, call: Call) -> Outcome:
    return _show_key(await operations.update_key(call.caller, call.subject, call.body, call.version))


async def _disable(operations: Operations, call: Call) -> Outcome:
    return _show_key(await operations.disable_key(call.caller, call.subject))


async def _enable(operations: Operations, call: Call) -> Outcome:
    return _show_key(await operations.enable_key(call.caller, call.subject))


async def _rotate(operations: Operations, call: Call) -> Outcome:
    return _show_key(await operations.rotate_key(call.caller, call.subject, call.body, call.once), call.once)


async def _revoke(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.revoke_key(call.caller, call.subject, call.query.reason))


async def _validate(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.validate_key(call.caller))


async def _list_sessions(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.list_sessions(call.caller, call.subject))


async def _list_events(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.list_events(call.caller, call.subject, call.query))


async def _show_usage(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.read_usage(call.caller, call.subject, call.query.days))


async def _explain(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.explain_key(call.caller, call.subject, call.body))


async def _list_owners(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.list_owners(call.caller, call.query))


async def _add_owner(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.add_owner(call.caller, call.body), 201)


async def _show_owner(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.show_owner(call.caller, call.subject))


async def _update_owner(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.update_owner(call.caller, call.subject, call.body))


async def _list_scopes(operations: Operations, call: Call) -> Outcome:
    return Outcome(operations.list_scopes(call.caller))


async def _list_names(operations: Operations, call: Call) -> Outcome:
    return Outcome(await operations.list_names(call.caller, call.query))


def _show_key(key: Key, once: Once | None = None, status: int = 200) -> Outcome:
    """`once`: of a request that brings a token only the first time."""
    headers = {"ETag": f'"{key.version}"'}
    if once is not None and not isinstance(key, NewKey):
        headers["Idempotent-Replay"] = "true"
    return Outcome(key, status, headers)


ANSWERS: Final[Mapping[str, Answer]] = {
    "list_api_keys": _list,
    "create_api_key": _create,
    "show_api_key": _show,
    "update_api_key": _update,
    "disable_api_key": _disable,
    "enable_api_key": _enable,
    "rotate_api_key": _rotate,
    "revoke_api_key": _revoke,
    "validate_api_key": _validate,
    "list_api_key_sessions": _list_sessions,
    "list_api_key_events": _list_events,
    "show_api_key_usage": _show_usage,
    "explain_api_key": _explain,
    "list_owners": _list_owners,
    "add_owner": _add_owner,
    "show_owner": _show_owner,
    "update_owner": _update_owner,
    "list_scopes": _list_scopes,
    "list_names": _list_names,
}
