"""What all resources have: a way to ask."""

from __future__ import annotations

from aegis_sdk._sync.transport import Transport


class Resource:
    """Some of the API's methods, by what they are about."""

    __slots__ = ("_transport",)

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
