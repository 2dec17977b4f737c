"""A stream of events, iterated as they come.

In: a `Call`. Out: `StreamEvent`s, until the server ends the stream; or the reason why it ended early, raised.
Refuses to know: what is told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from types import TracebackType
from typing import Self

import httpx2

from aegis_sdk._async.transport import AsyncTransport
from aegis_sdk.calls import Call, form_path
from aegis_sdk.errors import AegisError, AuthenticationError, StreamInterruptedError, UnexpectedAnswerError
from aegis_sdk.events import StreamEvent, read_event

WHO_AM_I = Call("POST", form_path("api-keys", "validate"), repeatable=True)


class AsyncEventStream:
    """`async for event in stream`. Connects when it is entered, or first iterated; can be iterated once.

    Raises, while iterated: `KeyRevokedError` when the key is revoked, as `ApiError` in general when the proxy ends the
    stream and says why; `StreamInterruptedError` when it broke off and nobody knows why. Leave early with
    `async with stream as events:`, which closes it.
    """

    def __init__(self, transport: AsyncTransport, call: Call) -> None:
        self._transport = transport
        self._call = replace(call, headers={**call.headers, "Accept": "text/event-stream", "Cache-Control": "no-store"})
        self._answer: httpx2.Response | None = None
        self._events = self._iterate()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._call.method} {self._call.path})"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        return await self._events.__anext__()

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of it. Iterating further ends at once."""
        await self._events.aclose()
        if self._answer is not None:
            await self._answer.aclose()

    async def _connect(self) -> httpx2.Response:
        if self._answer is None:
            self._answer = await self._transport.stream(self._call)
        return self._answer

    async def _iterate(self) -> AsyncGenerator[StreamEvent, None]:
        answer = await self._connect()
        unreadable: str | None = None
        try:
            async for event in httpx2.EventSource(answer):
                if event.data:  # without any it is none (HTML, section 9.2.6)
                    yield read_event(event)
            return
        except httpx2.SSEError as error:
            unreadable = str(error)
        except httpx2.RequestError:
            pass
        finally:
            await answer.aclose()
        if unreadable is not None:
            raise UnexpectedAnswerError(f"the answer is no stream of events: {unreadable}", answer.status_code)
        raise await self._find_why()

    async def _find_why(self) -> AegisError:
        """Of a stream that broke: a revocation that the proxy could not say cleanly looks just like that."""
        try:
            await self._transport.ask(WHO_AM_I)
        except AuthenticationError as error:
            return error
        except AegisError:
            pass
        return StreamInterruptedError(f"{self._call.method} {self._call.path}: the stream broke off")
