"""An event store as the official package's examples have it: one for all sessions of a server."""

from __future__ import annotations

import mcp_types as types
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore


class SharedEvents(EventStore):
    """What a client that reconnects is told: everything since the event it names, of that event's stream.

    One store for all sessions, as the SDK has it: an id tells nothing of whose it is.
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        known = int(last_event_id) if last_event_id.isdecimal() else 0
        if not 0 < known <= len(self._events):
            return None
        wanted = self._events[known - 1][0]
        for number, (stream_id, message) in enumerate(self._events[known:], known + 1):
            if stream_id == wanted and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return wanted
