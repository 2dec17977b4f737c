"""List answers through the same decision.  [pure]

In come answers of the upstream, as one JSON text or as chunks of an event stream, and a `ListView`: what may be shown,
and what was asked for. Out goes the same answer without the entries this key would not be let near. An answer is a list
answer by its shape: on a GET stream it may belong to any request. So is the result of a tool, at the places that the
policy names (`lists_tools`). Order, `nextCursor` and counts stay, also of a page that has become empty: pages go by
what the upstream counts, and who stopped at a smaller total would miss what it may use. This room refuses to know keys
and where its bytes go.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from proxy.errors import ProxyError, Reason, RequestError, UpstreamError
from proxy.messages import Message, decode_json
from proxy.policy import ListedKind, RouteMatch
from proxy.policy.rules import FieldPath
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
# A text without any of these holds no list member, however it is read: its name could only hide in escaped characters.
# In a text of JSON within the JSON, quotes are escaped once more.
_NAMES = frozenset(kind.member for kind in LIST_KINDS.values())
_TRACES = re.compile(rb'"(?:%b)\\*"|\\u00(?:2[2d]|3[0-9]|[4-7])' % "|".join(sorted(_NAMES)).encode())
_TRACE_BYTES = 32  # longer than any of them


class UnfilterableAnswer(ProxyError):
    """An answer that must be filtered and cannot be read strictly: it must not reach the client."""


@dataclass(frozen=True, slots=True)
class ListView:
    """What the answers of one exchange may show of lists.

    `strict`: a list was asked for, or may come at any time, so that whatever cannot be read is one. `tool_lists`: where
    results of tools hold lists of tools. `awaits_tools`: the result that is awaited does. `reads_texts`: a text may be
    such a result, too; where the call is known to be another tool's it is only what that tool had to say.
    """

    allow: Allow
    strict: bool = True
    tool_lists: tuple[FieldPath, ...] = ()
    awaits_tools: bool = False
    reads_texts: bool = True
    traces: re.Pattern[bytes] = field(default=_TRACES, init=False, repr=False)
    trace_bytes: int = field(default=_TRACE_BYTES, init=False, repr=False)

    def __post_init__(self) -> None:
        others = [path[-1].encode() for path in self.tool_lists if path[-1] not in _NAMES]
        if others:
            within = rb'"(?:%b)\\*"|' % b"|".join(map(re.escape, others))
            object.__setattr__(self, "traces", re.compile(within + _TRACES.pattern))
            object.__setattr__(self, "trace_bytes", _TRACE_BYTES + max(map(len, others)))

    def may_hold(self, text: bytes) -> bool:
        """Whether a text could be read as holding a list answer."""
        return self.awaits_tools or self.traces.search(text) is not None


def form_view(message: Message | None, match: RouteMatch, allow: Allow) -> ListView:
    """What is asked for by a message on this route; None: by a stream, on which any answer may come."""
    rules = match.route.rules
    calls = message is not None and message.method == "tools/call"
    awaits_tools = message is not None and calls and rules.lists_tools(message.params.get("name"))
    strict = message is None or message.method in LIST_KINDS or awaits_tools
    return ListView(allow, strict, rules.tool_lists, awaits_tools, awaits_tools or not calls)


def refuse_lists(read: Callable[[], Awaitable[bytes]], view: ListView) -> Callable[[], Awaitable[bytes]]:
    """The same pieces of an answer too large to be held, until one may hold a list: then UpstreamError."""
    tail = b""

    async def read_on() -> bytes:
        nonlocal tail
        piece = await read()
        if view.may_hold(tail + piece):
            raise UpstreamError(Reason.UPSTREAM_ANSWER_TOO_LARGE, "The answer may hold a list and is too large.")
        tail = (tail + piece)[-view.trace_bytes :]
        return piece

    return read_on


def filter_answer(body: bytes, view: ListView) -> bytes:
    """One JSON-RPC message, filtered if it holds a list; the very same bytes if nothing is to be changed."""
    if not view.strict and not view.may_hold(body):
        return body
    try:
        answer, _ = decode_json(body, max_depth=MAX_ANSWER_DEPTH)
    except RequestError as refusal:
        raise UnfilterableAnswer(refusal.detail) from None
    if not isinstance(answer, dict):
        raise UnfilterableAnswer("The answer is not one JSON-RPC message.")
    changes: dict[str, Any] = {}
    for member in ("result", "params"):
        outer = answer.get(member)
        if isinstance(outer, dict):
            found = _find_changes(outer, view) if member == "result" else {}
            found |= _find_inner_changes(outer, view)
            changes |= {member: outer | found} if found else {}
    return orjson.dumps(answer | changes) if changes else body


def _find_changes(result: dict[str, Any], view: ListView) -> dict[str, Any]:
    """The members of the result that leave otherwise than they came."""
    lists = [entry for entry in LIST_KINDS.values() if result.get(entry.member) is not None]
    kept = {entry.member: _filter_entries(result[entry.member], entry, view.allow) for entry in lists}
    changes: dict[str, Any] = {name: left for name, left in kept.items() if len(left) < len(result[name])}
    of_tool = filter_tool_result(result, view)
    changes |= of_tool or {}
    # What one key sees is nobody else's to reuse, even if nothing was taken out (revision 2026-07-28, caching).
    if (lists or of_tool is not None) and result.get("cacheScope", "private") != "private":
        changes["cacheScope"] = "private"
    return changes


def _find_inner_changes(outer: dict[str, Any], view: ListView) -> dict[str, Any]:
    """A task that has ended brings the result of its call, in `tasks/get` and `notifications/tasks` (SEP-2663)."""
    result = outer.get("result")
    changes = filter_tool_result(result, view) if isinstance(result, dict) else None
    return {"result": result | changes} if isinstance(result, dict) and changes else {}


def _filter_entries(entries: object, where: ListKind, allow: Allow) -> list[Any]:
    if not isinstance(entries, list):
        raise UnfilterableAnswer(f"`{where.member}` of the answer is not a list.")
    return [entry for entry in entries if _is_allowed(entry, where, allow)]


def _is_allowed(entry: object, where: ListKind, allow: Allow) -> bool:
    name = entry.get(where.field) if isinstance(entry, dict) else None
    return isinstance(name, str) and allow(where.kind, name)


# The result of a tool, where rules of the route say `lists_tools`.


def filter_tool_result(result: dict[str, Any], view: ListView) -> dict[str, Any] | None:
    """What of it leaves otherwise than it came; None: it holds no list of tools.

    The list stands there twice: in `structuredContent` and, for clients that know none, as a text. Beside a list, what
    is no such text is left out: it may say the same in words that cannot be filtered. Raises UnfilterableAnswer when
    the list that was asked for is not where it should be; a tool that failed may say why.
    """
    structured, content = result.get("structuredContent"), result.get("content")
    if not view.tool_lists or (structured is None and content is None):
        return None
    blocks = content if isinstance(content, list) else []
    kept = _filter_value(structured, view)
    read = [_filter_block(block, view) for block in blocks] if view.reads_texts or kept is not None else []
    texts = [block for block in read if block is not None]
    holds = kept is not None or bool(texts)
    failed = result.get("isError") is True and not holds
    misplaced = not holds or (kept is None and structured is not None)
    if view.awaits_tools and misplaced and not failed:
        raise UnfilterableAnswer("The result holds no list of tools where the policy says that it does.")
    if not holds:
        return None
    changes: dict[str, Any] = {} if kept is None or kept is structured else {"structuredContent": kept}
    if content is not None and content != texts:
        changes["content"] = texts
    return changes


def _filter_block(block: object, view: ListView) -> dict[str, Any] | None:
    """A block of the content, if it is a text that holds such a list."""
    text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
    if not isinstance(block, dict) or not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        value, _ = decode_json(text.encode(), max_depth=MAX_ANSWER_DEPTH)
    except RequestError:
        return None
    kept = _filter_value(value, view)
    if kept is None:
        return None
    return block if kept is value else block | {"text": orjson.dumps(kept).decode()}


def _filter_value(value: object, view: ListView) -> dict[str, Any] | None:
    """The value without what may not be seen, the same one if that is nothing; None: it holds no list of tools."""
    kept: dict[str, Any] | None = None
    for path in view.tool_lists:
        found = _filter_at(value if kept is None else kept, path, view)
        kept = kept if found is None else found
    return kept


def _filter_at(value: object, path: FieldPath, view: ListView) -> dict[str, Any] | None:
    name, rest = path[0], path[1:]
    inner = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, dict) or inner is None:
        return None
    kept = _filter_at(inner, rest, view) if rest else _filter_tools(inner, view)
    if kept is None:
        return None
    return value if kept is inner else value | {name: kept}


def _filter_tools(entries: object, view: ListView) -> list[Any] | None:
    """By its shape, a list of tools is one that names something; where one was asked for, any list is."""
    if not isinstance(entries, list) or not (view.awaits_tools or any(map(_is_named, entries))):
        return None
    kept = _filter_entries(entries, LIST_KINDS["tools/list"], view.allow)
    return kept if len(kept) < len(entries) else entries


def _is_named(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


# Event streams.


def _holds_no_list(view: ListView, event: bytes) -> bool:
    return not view.may_hold(event)


def _filter_event(view: ListView, event: bytes) -> bytes:
    if not view.may_hold(event):
        return event
    data = b"\n".join(get_values(event, b"data"))
    try:
        filtered = filter_answer(data, view) if data else data
    except UnfilterableAnswer:
        return b""
    return event if filtered == data else replace_field(event, b"data", filtered)


class SseFilter:
    """Filters the list answers in an event stream; every other byte passes as it came, and at once.

    Of a list answer only `data` changes. One that cannot be read is dropped whole; `dropped` counts them.
    """

    def __init__(self, view: ListView, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._events = EventRewriter(
            partial(_filter_event, view),
            max_event_bytes=max_event_bytes,
            pass_large=None if view.strict else partial(_holds_no_list, view),
        )

    @property
    def dropped(self) -> int:
        return self._events.dropped

    def feed(self, chunk: bytes) -> bytes:
        return self._events.feed(chunk)

    def finish(self) -> bytes:
        return self._events.finish()
