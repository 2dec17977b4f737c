"""What all resources have: a way to ask."""

from __future__ import annotations

from aegis_sdk._async.transport import AsyncTransport


class AsyncResource:
    """Some of the API's methods, by what they are about."""

    __slots__ = ("_transport",)

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
