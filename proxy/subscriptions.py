"""What a `subscriptions/listen` stream (MCP 2026-07-28) wants to hear of lists.  [pure]

In go the request, the stream's events and what the key may see, out come notices that a list looks different now: that
depends on the key's rights and on the policy, of which the upstream knows nothing. No notice comes before the
upstream's acknowledgement, nor one that the request did not ask for or the acknowledgement left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from proxy.errors import RequestError
from proxy.messages import Message, decode_json
from proxy.sse import form_event, get_values

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIPTION_ID_KEY = "io.modelcontextprotocol/subscriptionId"
NOTICES: Mapping[str, str] = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
_MAX_DEPTH = 64


class Subscription:
    """One listen stream. `view` is what the lists its client sees follow from: another one, other lists."""

    def __init__(self, request: Message, view: object) -> None:
        self._id = request.id
        self._wanted = _find_wanted(request.params)
        self._view = view
        self._agreed: list[str] | None = None
        self._honoured: list[str] | None = None

    def read_event(self, event: bytes) -> bytes:
        """The event, as it came; the acknowledgement says which notices may follow it."""
        if self._agreed is None and b"acknowledged" in event:
            try:
                message, _ = decode_json(b"\n".join(get_values(event, b"data")), max_depth=_MAX_DEPTH)
            except RequestError:
                return event
            if isinstance(message, dict) and message.get("method") == ACKNOWLEDGED:
                agreed = _find_wanted(message.get("params"))
                self._agreed = [member for member in self._wanted if member in agreed]
        return event

    def note_sent(self) -> None:
        """All events read so far have passed."""
        self._honoured = self._agreed

    def form_notices(self, view: object) -> list[bytes]:
        """The events that are due now that this is the view."""
        if self._honoured is None or view == self._view:
            return []
        self._view = view
        tag = {"_meta": {SUBSCRIPTION_ID_KEY: self._id}}
        return [
            form_event(orjson.dumps({"jsonrpc": "2.0", "method": NOTICES[member], "params": tag}))
            for member in self._honoured
        ]


def is_listening(message: Message | None) -> bool:
    """Whether the message opens such a stream."""
    return message is not None and message.kind == "request" and message.method == "subscriptions/listen"


def find_subscription(message: Message | None, view: object) -> Subscription | None:
    """The stream that a message opens, if it does."""
    return Subscription(message, view) if message is not None and is_listening(message) else None


def _find_wanted(params: object) -> list[str]:
    wanted = params.get("notifications") if isinstance(params, Mapping) else None
    return [member for member in NOTICES if isinstance(wanted, Mapping) and wanted.get(member) is True]
