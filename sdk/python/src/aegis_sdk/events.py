"""What is told on a stream, read.  [pure]

In: server-sent events, split by httpx2. Out: `StreamEvent`s; the proxy's last word is raised as the error it tells of.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from aegis_sdk.errors import find_stream_error


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """`type` is the event's name, or the member `type` of its data. `data` is JSON read; other text, itself."""

    type: str
    data: Any
    id: str | None = None


def read_event(event: httpx2.ServerSentEvent) -> StreamEvent:
    """Raises ApiError if it is the proxy's, ending the stream."""
    data: Any = event.data
    with suppress(ValueError, RecursionError):
        data = json.loads(event.data)
    ended = find_stream_error(data) if event.event == "error" else None
    if ended is not None:
        raise ended
    named = data.get("type") if isinstance(data, dict) and event.event == "message" else None
    return StreamEvent(named if isinstance(named, str) else event.event, data, event.id or None)
