"""Every kind of message in every revision by every transport: who may, and what has no place there, with its reason.

A kind is judged alike wherever it exists; only the way of saying so differs. `ANSWERS` knows those ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from itertools import product
from typing import Any, Literal

from proxy.policy import Policy, parse_policy
from proxy.settings import find_shipped

Json = dict[str, Any]
REVISIONS: Mapping[str, str] = {
    "A": "2024-11-05", "B": "2025-03-26", "C": "2025-06-18", "D": "2025-11-25", "E": "2026-07-28",
}  # fmt: skip
BY_EVENTS, STREAMABLE = "HTTP+SSE", "streamable HTTP"
TRANSPORTS = (BY_EVENTS, STREAMABLE)

MAY, MAY_NOT, REVOKED = "may", "may not", "revoked"
KEYS: Mapping[str, tuple[str, ...]] = {
    MAY: ("workflow:run:nightly-etl", "workflow:read:nightly-etl", "volume:read:v1", "execution:read"),
    MAY_NOT: ("workflow:list",),
    REVOKED: ("workflow:run:nightly-etl", "workflow:read:nightly-etl", "volume:read:v1", "execution:read"),
}


class Decision(StrEnum):
    """UNKNOWN: there is no such method, or no such handle of this key's."""

    ALLOWED = auto()
    DENIED = auto()
    UNKNOWN = auto()
    UNAUTHENTICATED = auto()


ALLOWED, DENIED, UNKNOWN = Decision.ALLOWED, Decision.DENIED, Decision.UNKNOWN
Form = Literal["request", "notification", "response", "bare"]

# (status, JSON-RPC code, our word for it) -> what that says. By HTTP+SSE the code is heard on the stream.
_REFUSED: Mapping[tuple[int, int | None, str | None], Decision] = {
    (401, -31401, "key_revoked"): Decision.UNAUTHENTICATED
}
_LEGACY = {
    (200, None, None): ALLOWED,
    (200, -31403, "message_denied"): DENIED,
    (200, -32601, "method_unknown"): UNKNOWN,
    (200, -32602, "handle_unknown"): UNKNOWN,
}
_MODERN = {
    (200, None, None): ALLOWED,
    (200, -31403, "message_denied"): DENIED,
    (404, -32601, "method_unknown"): UNKNOWN,
    (400, -32602, "handle_unknown"): UNKNOWN,
}
_APART = {(202, code, reason): decision for (_, code, reason), decision in _LEGACY.items()}
_WITHOUT_ID = {
    (202, None, None): ALLOWED,
    (403, -31403, "message_denied"): DENIED,
    (403, -32601, "method_unknown"): UNKNOWN,
}


def get_answers(revision: str, transport: str, form: Form) -> Mapping[tuple[int, int | None, str | None], Decision]:
    """How this revision says what it has decided, by this transport."""
    if form == "bare":
        return {(200, None, None): ALLOWED, **_REFUSED}
    if form != "request":
        return {**_WITHOUT_ID, **_REFUSED}
    if transport == BY_EVENTS:
        return {**_APART, **_REFUSED}
    return {**(_MODERN if revision == "E" else _LEGACY), **_REFUSED}


@dataclass(frozen=True, slots=True)
class Kind:
    """A message, or a bare HTTP method. `revisions` that have it; `transports` that carry it in which of them."""

    method: str
    params: Json = field(default_factory=dict)
    revisions: str = "ABCDE"
    may: Decision = ALLOWED
    may_not: Decision = DENIED
    form: Form = "request"
    transports: Mapping[str, str] = field(default_factory=dict)

    def exists(self, revision: str, transport: str) -> bool:
        spoken = {BY_EVENTS: "ABCDE", STREAMABLE: "BCDE"} | dict(self.transports)
        return revision in self.revisions and revision in spoken[transport]

    def expect(self, key: str) -> Decision:
        return {MAY: self.may, MAY_NOT: self.may_not, REVOKED: Decision.UNAUTHENTICATED}[key]


TASK_ID = "the id of the task that the key which may has made"
RUN, PROMPT, SUMMARY = "aegis.workflow.run", "aegis.report", "aegis.summary"
NIGHTLY, WEEKLY = {"name": "nightly-etl"}, {"name": "report-weekly"}
OURS, OTHERS = "aegis://volumes/v1/notes.txt", "aegis://volumes/v2/notes.txt"
_TASK: Json = {"taskId": TASK_ID}


def _open(method: str, revisions: str = "ABCDE", params: Json | None = None, form: Form = "request") -> Kind:
    """For any key."""
    return Kind(method, params or {}, revisions, may_not=ALLOWED, form=form)


def _shut(method: str, params: Json, revisions: str = "ABCDE", form: Form = "request") -> Kind:
    """For neither key."""
    return Kind(method, params, revisions, may=DENIED, form=form)


def _refer(kind: str, **name: str) -> Json:
    return {"ref": {"type": kind, **name}, "argument": {"name": "a", "value": ""}}


def _listen(uri: str) -> Json:
    return {"notifications": {"resourceSubscriptions": [uri]}}


KINDS: Mapping[str, Kind] = {
    # The protocol itself.
    "initialize": _open(
        "initialize", "ABCD", {"capabilities": {}, "clientInfo": {"name": "a test", "version": "1"}}
    ),
    "discover": _open("server/discover", "E"),
    "ping": _open("ping", "ABCD"),
    "logging level": _open("logging/setLevel", "ABCD", {"level": "info"}),
    "notification": _open("notifications/roots/list_changed", "ABCD", form="notification"),
    "cancelling": _open("notifications/cancelled", params={"requestId": 999}, form="notification"),
    "unknown notification": Kind("no/such", may=UNKNOWN, may_not=UNKNOWN, form="notification"),
    "unknown method": Kind("no/such", may=UNKNOWN, may_not=UNKNOWN),
    "answer of the client": _open("", "ABCD", form="response"),
    # What is used by its name.
    "call": Kind("tools/call", {"name": RUN, "arguments": NIGHTLY}),
    "call, by argument": _shut("tools/call", {"name": RUN, "arguments": WEEKLY}),
    "call, without the argument": _shut("tools/call", {"name": RUN}),
    "call no rule names": _shut("tools/call", {"name": "aegis.no.such"}),
    "call without id": Kind("tools/call", {"name": RUN, "arguments": NIGHTLY}, form="notification"),
    "call without id, by argument": _shut("tools/call", {"name": RUN, "arguments": WEEKLY}, form="notification"),
    "prompt": Kind("prompts/get", {"name": PROMPT, "arguments": NIGHTLY}),
    "prompt, by argument": _shut("prompts/get", {"name": PROMPT, "arguments": WEEKLY}),
    "prompt no rule names": _shut("prompts/get", {"name": "aegis.no.such"}),
    # What is used by its URI.
    "read": Kind("resources/read", {"uri": OURS}),
    "read, by URI": _shut("resources/read", {"uri": OTHERS}),
    "read without id": Kind("resources/read", {"uri": OURS}, form="notification"),
    "subscribe": Kind("resources/subscribe", {"uri": OURS}, "ABCD"),
    "subscribe, by URI": _shut("resources/subscribe", {"uri": OTHERS}, "ABCD"),
    "unsubscribe": Kind("resources/unsubscribe", {"uri": OURS}, "ABCD"),
    "unsubscribe, by URI": _shut("resources/unsubscribe", {"uri": OTHERS}, "ABCD"),
    "listen to lists": _open("subscriptions/listen", "E", {"notifications": {"toolsListChanged": True}}),
    "listen": Kind("subscriptions/listen", _listen(OURS), "E"),
    "listen, by URI": _shut("subscriptions/listen", _listen(OTHERS), "E"),
    "completion of a resource": Kind("completion/complete", _refer("ref/resource", uri=OURS)),
    "completion of a resource, by URI": _shut("completion/complete", _refer("ref/resource", uri=OTHERS)),
    "completion of a prompt": Kind("completion/complete", _refer("ref/prompt", name=SUMMARY)),
    "completion of a prompt, by argument": _shut("completion/complete", _refer("ref/prompt", name=PROMPT)),
    # Lists.
    **{f"list of {what}": _open(f"{what}/list") for what in ("tools", "prompts", "resources", "resources/templates")},
    # Tasks: whoever may not has not made it.
    "call as a task": Kind("tools/call", {"name": RUN, "arguments": NIGHTLY, "task": {"ttl": 60000}}, "D"),
    "call as a task, by argument": _shut("tools/call", {"name": RUN, "arguments": WEEKLY, "task": {}}, "D"),
    "task": Kind("tasks/get", _TASK, "DE", may_not=UNKNOWN),
    "result of a task": Kind("tasks/result", _TASK, "D", may_not=UNKNOWN),
    "input for a task": Kind("tasks/update", {**_TASK, "inputResponses": {}}, "E", may_not=UNKNOWN),
    "cancelling a task": Kind("tasks/cancel", _TASK, "DE", may_not=UNKNOWN),
    "listen to a task": Kind(
        "subscriptions/listen", {"notifications": {"taskIds": [TASK_ID]}}, "E", may_not=UNKNOWN
    ),
    "task of nobody": Kind("tasks/get", {"taskId": "nobody's"}, "DE", may=UNKNOWN, may_not=UNKNOWN),
    "list of tasks": _open("tasks/list", "D"),
    # Bare methods; the last ends the session.
    "GET": Kind("GET", may_not=ALLOWED, form="bare", transports={STREAMABLE: "BCD"}),
    "DELETE": Kind("DELETE", may_not=ALLOWED, form="bare", transports={BY_EVENTS: "", STREAMABLE: "BCD"}),
}  # fmt: skip

Combination = tuple[str, str, str, str]
"""(revision, transport, kind, key)."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What the protocol does not have. Empty `kinds`: none of it; empty `transports`: by none."""

    reason: str
    revisions: str
    kinds: tuple[str, ...] = ()
    transports: tuple[str, ...] = ()

    def expand(self) -> Iterator[Combination]:
        return product(self.revisions, self.transports or TRANSPORTS, self.kinds or KINDS, KEYS)


_TASKS = (
    "call as a task", "call as a task, by argument", "task", "result of a task", "input for a task",
    "cancelling a task", "listen to a task", "task of nobody", "list of tasks",
)  # fmt: skip
EXCEPTIONS = (
    Missing("streamable HTTP came with 2025-03-26", "A", transports=(STREAMABLE,)),
    Missing("discovery came with 2026-07-28, when the handshake went", "ABCD", ("discover",)),
    Missing("a version travels with every request of 2026-07-28: there is no handshake", "E", ("initialize",)),
    Missing("2026-07-28 has no ping, and the level of logs is in `_meta`", "E", ("ping", "logging level")),
    Missing("2026-07-28 has no roots to notify of, nor requests of servers to answer", "E",
            ("notification", "answer of the client")),
    Missing("in 2026-07-28 subscriptions are listened to", "E",
            ("subscribe", "subscribe, by URI", "unsubscribe", "unsubscribe, by URI")),
    Missing("listening came with 2026-07-28", "ABCD", ("listen to lists", "listen", "listen, by URI")),
    Missing("tasks came with 2025-11-25", "ABC", _TASKS),
    Missing("input for tasks, and listening to them, came with their extension", "D",
            ("input for a task", "listen to a task")),
    Missing("by the extension the server decides what is a task; it is polled, not listed", "E",
            ("call as a task", "call as a task, by argument", "result of a task", "list of tasks")),
    Missing("2026-07-28 has no sessions to hear of or to end", "E", ("GET", "DELETE"), (STREAMABLE,)),
    Missing("the stream is the session, and ends with it", "ABCDE", ("DELETE",), (BY_EVENTS,)),
)  # fmt: skip


def load_policy_with_prompts() -> Policy:
    """The one that is shipped, with rules for prompts, which it does not have."""
    text = find_shipped("policy.yaml").read_text()
    prompts = f"""    rules:
      - {{ prompt: {PROMPT}, require: "workflow:read:{{arguments.name}}" }}
      - {{ prompt: {SUMMARY}, require: execution:read }}
"""
    return parse_policy(text.replace("    rules:\n", prompts, 1), "the shipped policy, with prompts")
