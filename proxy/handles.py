"""What an upstream hands out to be handed back, bound to the key it went to.  [pure]

Behind the proxy every caller looks alike to the upstream, so whoever holds one of its handles could use it: the state
of an unfinished request, the id of an event to resume after, the id of a task, where a session of HTTP+SSE takes its
messages. In go answers and messages, out come the same ones with states sealed and event ids signed, and the tasks that
were made in them, which `task_store` remembers.
Whom they belong to is the `holder`: a key in its owner's hands. Nothing here knows what is in a state, or where its
bytes go.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from proxy.errors import Reason, Refusal, RequestError
from proxy.messages import Message, decode_json, find_case_variant
from proxy.sealing import Seal, SealError
from proxy.sse import get_values, replace_field

# Whose results may ask for input and carry a state (MCP 2026-07-28, "Multi Round-Trip Requests").
STATEFUL_METHODS: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
# Members that a retry adds or changes; everything else of it must be as it was the first time.
_OF_THE_ROUND: Final = frozenset({"inputResponses", "requestState", "_meta"})
STATE_SECONDS: Final = 3600.0  # six times what the Python SDK's servers allow theirs
MAX_EVENT_ID_BYTES: Final = 1024
# A text without any of these holds no handle, however it is read: its name could only hide in escaped letters.
_TRACES: Final = (b'"requestState"', b'"taskId"', b"\\u00")
_MAX_ANSWER_DEPTH: Final = 200
_LISTENED: Final = frozenset({"taskIds"})


def refuse_state() -> Refusal:
    """One answer for a state that is foreign, old, changed or of another request."""
    return Refusal(Reason.HANDLE_UNKNOWN, "This requestState is not valid for this request, or no longer.")


def refuse_task() -> Refusal:
    """One answer for a task that is somebody else's, and one that never was."""
    return Refusal(Reason.HANDLE_UNKNOWN, "There is no such task.")


def refuse_session() -> Refusal:
    """One answer for a session that is somebody else's, and one that never was."""
    return Refusal(Reason.SESSION_UNKNOWN, "There is no such session: it has ended, or never was.")


def find_task_ids(message: Message) -> list[str]:
    """The tasks a message names. Raises RequestError."""
    if message.method is None:
        return []
    if message.method.startswith("tasks/") and "taskId" in message.params:
        return _require_texts([message.params["taskId"]], "taskId")
    notifications = message.params.get("notifications") if message.method == "subscriptions/listen" else None
    if not isinstance(notifications, dict):
        return []
    if find_case_variant(notifications, _LISTENED) is not None:
        raise RequestError(Reason.MESSAGE_INVALID, "A member imitates `taskIds` in another spelling.")
    listened = notifications.get("taskIds")
    return [] if listened is None else _require_texts(listened, "taskIds")


def _require_texts(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RequestError(Reason.PARAMS_INVALID, f"`{name}` must be of texts.")
    return value


class Binder:
    """Seals states and the targets of messages, signs event ids, for all instances that share the secret."""

    def __init__(self, states: Seal, event_ids: Seal, targets: Seal) -> None:
        self._states = states
        self._event_ids = event_ids
        self._targets = targets

    def seal_state(self, state: str, context: bytes, expires_at: float) -> str:
        """`expires_at`: seconds since the epoch."""
        text = f"{expires_at:.0f}:{state}".encode()
        return _encode(self._states.seal(text, context))

    def unseal_state(self, sealed: object, context: bytes, now: float) -> str:
        """The state as the upstream made it. Raises Refusal."""
        try:
            text = self._states.unseal(_decode(sealed), context).decode()
        except (SealError, ValueError) as error:
            raise refuse_state() from error
        expires_at, _, state = text.partition(":")
        if float(expires_at) <= now:
            raise refuse_state()
        return state

    def open_state(self, message: Message, upstream: str, holder: str, now: float, *, apart: bool = False) -> bytes:
        """The body that goes upstream: the message's own, its state as the upstream made it. `apart`: by HTTP+SSE,
        where results come by another way than requests go. Raises Refusal."""
        if message.method not in STATEFUL_METHODS or message.params.get("requestState") is None:
            return message.body
        context = form_travel_context(upstream, holder) if apart else form_context(message, upstream, holder)
        state = self.unseal_state(message.params["requestState"], context, now)
        parsed, _ = decode_json(message.body, max_depth=_MAX_ANSWER_DEPTH)
        parsed["params"]["requestState"] = state
        return orjson.dumps(parsed)

    def seal_target(self, target: str, upstream: str, holder: str) -> str:
        """Where the messages of a session of HTTP+SSE go upstream, for its key alone."""
        return _encode(self._targets.seal(target.encode(), form_travel_context(upstream, holder)))

    def unseal_target(self, sealed: str, upstream: str, holder: str) -> str:
        """The target as the upstream named it. Raises Refusal: like a session that never was."""
        try:
            target = self._targets.unseal(_decode(sealed), form_travel_context(upstream, holder)).decode()
        except (SealError, ValueError) as error:
            raise refuse_session() from error
        if self.seal_target(target, upstream, holder) != sealed:  # another spelling of the same bytes
            raise refuse_session()
        return target

    def sign_event_id(self, event_id: bytes, context: bytes) -> bytes | None:
        """The id as the client may see it; None when it is none that a header could carry back."""
        plain = event_id.isascii() and event_id.decode().isprintable() and event_id == event_id.strip()
        if not plain or len(event_id) > MAX_EVENT_ID_BYTES:
            return None
        return event_id + b"." + self._form_signature(event_id, context)

    def check_event_id(self, signed: str, context: bytes) -> str:
        """The id as the upstream made it. Raises Refusal: like a session that never was."""
        event_id, _, signature = signed.rpartition(".")
        try:
            genuine = hmac.compare_digest(signature.encode(), self._form_signature(event_id.encode(), context))
        except UnicodeEncodeError:
            genuine = False
        if not genuine:
            raise Refusal(Reason.SESSION_UNKNOWN, "There is no such event in this session.")
        return event_id

    def _form_signature(self, event_id: bytes, context: bytes) -> bytes:
        """Sealing nothing is signing what it belongs to."""
        return base64.urlsafe_b64encode(self._event_ids.seal(b"", context + b"\0" + event_id)).rstrip(b"=")


def _encode(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _decode(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a text")
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def form_context(message: Message, upstream: str, holder: str) -> bytes:
    """What a state belongs to: the key, and the request it is the state of."""
    params = {name: value for name, value in message.params.items() if name not in _OF_THE_ROUND}
    request = orjson.dumps([upstream, holder, message.method, params], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(request).digest()


def form_travel_context(upstream: str, holder: str) -> bytes:
    """What a handle of HTTP+SSE belongs to: there a result comes by another way than its request went, so that only the
    key and the transport are known of it."""
    return hashlib.sha256(orjson.dumps([upstream, holder, "mcp-sse"])).digest()


def form_event_context(upstream: str, holder: str, session_id: str | None) -> bytes:
    """What an event belongs to: some servers keep the events of all sessions in one store."""
    return hashlib.sha256(orjson.dumps([upstream, holder, session_id])).digest()


@dataclass(slots=True)
class Handles:
    """The handles in the answers of one exchange. `state_context`: None when its results carry no state; `expected`:
    states or tasks may come; `has_event_ids`: its events may bear ids, which are left out when `event_context` is None.
    `wall`: seconds since the epoch. `new_tasks` collects the ids of tasks that were made."""

    binder: Binder = field(repr=False)
    state_context: bytes | None
    event_context: bytes | None
    has_event_ids: bool
    expected: bool
    wall: Callable[[], float] = field(repr=False)
    new_tasks: list[str] = field(default_factory=list)

    def rewrite_answer(self, body: bytes) -> bytes:
        """One JSON-RPC message, its state sealed; the very same bytes if it holds none, or is not one."""
        if not any(trace in body for trace in _TRACES):
            return body
        try:
            answer, _ = decode_json(body, max_depth=_MAX_ANSWER_DEPTH)
        except RequestError:
            return body  # no client reads it as a result; and a state that was not sealed is of no use to anybody
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict):
            return body
        self.new_tasks.extend(find_made_task(result))
        state = result.get("requestState")
        if self.state_context is None or not isinstance(state, str):
            return body
        sealed = self.binder.seal_state(state, self.state_context, self.wall() + STATE_SECONDS)
        return orjson.dumps(answer | {"result": result | {"requestState": sealed}})

    def rewrite_event(self, event: bytes) -> bytes:
        """The same for an event of a stream."""
        if not any(trace in event for trace in _TRACES):
            return event
        data = b"\n".join(get_values(event, b"data"))
        rewritten = self.rewrite_answer(data)
        return event if rewritten == data else replace_field(event, b"data", rewritten)

    def sign_event_id(self, event_id: bytes) -> bytes | None:
        return None if self.event_context is None else self.binder.sign_event_id(event_id, self.event_context)


def find_made_task(result: Mapping[str, Any]) -> list[str]:
    """The task a result says was made: `task.taskId` in 2025-11-25, a flat result of type "task" in SEP-2663."""
    task = result if result.get("resultType") == "task" else result.get("task")
    task_id = task.get("taskId") if isinstance(task, dict) else None
    return [task_id] if isinstance(task_id, str) else []
