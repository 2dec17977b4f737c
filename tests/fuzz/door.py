"""One kept connection to the proxy, renewed whenever the proxy has ended it."""

from __future__ import annotations

import contextlib
from types import TracebackType

from proxy.settings import Address
from tests.raw_client import RawAnswer, RawClient, open_raw


class Door:
    """Use as an async context manager."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._stack = contextlib.AsyncExitStack()
        self._client: RawClient | None = None

    async def __aenter__(self) -> Door:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, request: bytes) -> RawAnswer:
        if self._client is None:
            self._client = await self._stack.enter_async_context(open_raw(self._address))
        await self._client.send(request)
        answer = await self._client.read_answer()
        if answer.headers.get("Connection") == "close" or answer.line.startswith("HTTP/1.0 "):
            await self._stack.aclose()
            self._client = None
        return answer
