"""What a `subscriptions/listen` stream (MCP 2026-07-28) wants to hear of lists.  [pure]

In go the request, the stream's events and the rights of its key, out come notices that a list looks different now: what
a key sees in a list depends on its rights, of which the upstream knows nothing. No notice comes before the upstream's
acknowledgement, nor one that the request did not ask for or the acknowledgement left out.
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
    """One listen stream: `grants` are those under which it was opened."""

    def __init__(self, request: Message, grants: frozenset[str]) -> None:
        self._id = request.id
        self._wanted = _find_wanted(request.params)
        self._grants = grants
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

    def form_notices(self, grants: frozenset[str]) -> list[bytes]:
        """The events that are due now that the key has these rights."""
        if self._honoured is None or grants == self._grants:
            return []
        self._grants = grants
        tag = {"_meta": {SUBSCRIPTION_ID_KEY: self._id}}
        return [
            form_event(orjson.dumps({"jsonrpc": "2.0", "method": NOTICES[member], "params": tag}))
            for member in self._honoured
        ]


def find_subscription(message: Message | None, grants: frozenset[str]) -> Subscription | None:
    """The stream that a message opens, if it does."""
    if message is None or message.kind != "request" or message.method != "subscriptions/listen":
        return None
    return Subscription(message, grants)


def _find_wanted(params: object) -> list[str]:
    wanted = params.get("notifications") if isinstance(params, Mapping) else None
    return [member for member in NOTICES if isinstance(wanted, Mapping) and wanted.get(member) is True]
