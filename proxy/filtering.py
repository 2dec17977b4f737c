"""List answers through the same decision.  [pure]

In come answers of the upstream, as one JSON text or as chunks of an event stream, and `allow`: would this key be let
near that name? Out goes the same answer without the entries it would not. An answer is a list answer by its shape: on
a GET stream it may belong to any request. Order and `nextCursor` stay, also
of a page that has become empty. This room refuses to know keys, rules and where its bytes go.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.errors import ProxyError, Reason, RequestError, UpstreamError
from proxy.messages import Message, decode_json
from proxy.policy import ListedKind
from proxy.sse import EventRewriter, get_values, replace_field

Allow = Callable[[ListedKind, str], bool]
"""(kind, name) -> whether the entry may be seen."""

MAX_ANSWER_DEPTH = 200  # tool schemas nest deeper than requests do; orjson's encoder gives up at 254
MAX_EVENT_BYTES = 4 * 1024 * 1024  # the MCP SDKs' own limit for a message


@dataclass(frozen=True, slots=True)
class ListKind:
    """Where a list answer keeps its entries, which field names an entry, and what `allow` calls such a name."""

    member: str
    field: str
    kind: ListedKind


LIST_KINDS: Mapping[str, ListKind] = {
    "tools/list": ListKind("tools", "name", "tool"),
    "prompts/list": ListKind("prompts", "name", "prompt"),
    "resources/list": ListKind("resources", "uri", "uri"),
    "resources/templates/list": ListKind("resourceTemplates", "uriTemplate", "uri_template"),
    "tasks/list": ListKind("tasks", "taskId", "task"),
}
# A text without any of these holds no list member, however it is read: its name could only hide in escaped letters.
_TRACES = re.compile(rb'"(?:tools|prompts|resources|resourceTemplates|tasks)"|\\u00[4-7]')


_TRACE_BYTES = 32  # longer than any of them


class UnfilterableAnswer(ProxyError):
    """An answer that must be filtered and cannot be read strictly: it must not reach the client."""


def is_list_request(message: Message) -> bool:
    return message.method in LIST_KINDS


def may_hold_list(text: bytes) -> bool:
    """Whether a text could be read as holding a list answer."""
    return _TRACES.search(text) is not None


def refuse_lists(read: Callable[[], Awaitable[bytes]]) -> Callable[[], Awaitable[bytes]]:
    """The same pieces of an answer too large to be held, until one may hold a list: then UpstreamError."""
    tail = b""

    async def read_on() -> bytes:
        nonlocal tail
        piece = await read()
        if may_hold_list(tail + piece):
            raise UpstreamError(Reason.UPSTREAM_ANSWER_TOO_LARGE, "The answer may hold a list and is too large.")
        tail = (tail + piece)[-_TRACE_BYTES:]
        return piece

    return read_on


def filter_answer(body: bytes, allow: Allow, *, strict: bool = True) -> bytes:
    """One JSON-RPC message, filtered if its result is a list; the very same bytes if nothing is to be changed.

    `strict`: a list was asked for, so that whatever cannot be read is one. Otherwise only what may hold one is read.
    """
    if not strict and not may_hold_list(body):
        return body
    try:
        answer, _ = decode_json(body, max_depth=MAX_ANSWER_DEPTH)
    except RequestError as refusal:
        raise UnfilterableAnswer(refusal.detail) from None
    if not isinstance(answer, dict):
        raise UnfilterableAnswer("The answer is not one JSON-RPC message.")
    result = answer.get("result")
    if not isinstance(result, dict):
        return body
    changes = _find_changes(result, allow)
    return orjson.dumps(answer | {"result": result | changes}) if changes else body


def _find_changes(result: dict[str, Any], allow: Allow) -> dict[str, Any]:
    """The members of the result that leave otherwise than they came."""
    lists = [entry for entry in LIST_KINDS.values() if result.get(entry.member) is not None]
    kept = {entry.member: _filter_entries(result[entry.member], entry, allow) for entry in lists}
    changes: dict[str, Any] = {name: left for name, left in kept.items() if len(left) < len(result[name])}
    # What one key sees is nobody else's to reuse, even if nothing was taken out (revision 2026-07-28, caching).
    if lists and result.get("cacheScope", "private") != "private":
        changes["cacheScope"] = "private"
    return changes


def _filter_entries(entries: object, where: ListKind, allow: Allow) -> list[Any]:
    if not isinstance(entries, list):
        raise UnfilterableAnswer(f"`{where.member}` of the answer is not a list.")
    return [entry for entry in entries if _is_allowed(entry, where, allow)]


def _is_allowed(entry: object, where: ListKind, allow: Allow) -> bool:
    name = entry.get(where.field) if isinstance(entry, dict) else None
    return isinstance(name, str) and allow(where.kind, name)


def _holds_no_list(event: bytes) -> bool:
    return not may_hold_list(event)


class SseFilter:
    """Filters the list answers in an event stream; every other byte passes as it came, and at once.

    Of a list answer only `data` changes. One that cannot be read is dropped whole; `dropped` counts them.
    """

    def __init__(self, allow: Allow, *, max_event_bytes: int = MAX_EVENT_BYTES, strict: bool = True) -> None:
        self._allow = allow
        self._strict = strict
        self._events = EventRewriter(
            self._filter_event, max_event_bytes=max_event_bytes, pass_large=None if strict else _holds_no_list
        )

    @property
    def dropped(self) -> int:
        return self._events.dropped

    def feed(self, chunk: bytes) -> bytes:
        return self._events.feed(chunk)

    def finish(self) -> bytes:
        return self._events.finish()

    def _filter_event(self, event: bytes) -> bytes:
        if not may_hold_list(event):
            return event
        data = b"\n".join(get_values(event, b"data"))
        try:
            filtered = filter_answer(data, self._allow) if data else data
        except UnfilterableAnswer:
            return b""
        return event if filtered == data else replace_field(event, b"data", filtered)
