"""What the tests of the upstream pool share: origins and pools of one test, and short words for what they do."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import uvloop

from proxy.errors import Reason, UpstreamError
from proxy.upstream import Upload, Upstream, UpstreamCall, UpstreamResponse, parse_upstream_address
from tests.hostile_origin import HostileOrigin, Script

LOOP_POLICIES = [
    pytest.param(asyncio.DefaultEventLoopPolicy, id="asyncio"),
    pytest.param(uvloop.EventLoopPolicy, id="uvloop"),
]

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HEADERS = [("Content-Type", "application/json"), ("X-Nonce", "n1")]


class UpstreamStage:
    """Starts origins and makes pools of one kind; takes both down at the end. No wait for an answer is endless."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        self._kind = kind
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> UpstreamStage:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, script: Script, tls: ssl.SSLContext | None = None) -> HostileOrigin:
        return await self._stack.enter_async_context(HostileOrigin(script, tls))

    def make(self, port: int, **settings: Any) -> Upstream:
        scheme = "https" if "ssl_context" in settings else "http"
        address = parse_upstream_address(f"{scheme}://127.0.0.1:{port}")
        upstream: Upstream = self._kind(
            address, **{"headers_timeout_seconds": 10, "idle_timeout_seconds": 10} | settings
        )
        self._stack.push_async_callback(_expect_nothing_left, upstream)
        return upstream


async def _expect_nothing_left(upstream: Upstream) -> None:
    await upstream.aclose()
    assert (upstream.active_connections, upstream.idle_connections) == (0, 0)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def pass_ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def post(upstream: Upstream, body: bytes = b"{}") -> UpstreamResponse:
    return await upstream.open().send("POST", "/mcp", HEADERS, body)


def begin(upstream: Upstream, upload: Upload) -> tuple[UpstreamCall, asyncio.Task[UpstreamResponse]]:
    """Start to send an upload; the call, and the task that waits for its answer."""
    call = upstream.open()

    async def send() -> UpstreamResponse:
        async with asyncio.timeout(60):
            return await call.send("POST", "/mcp", HEADERS, upload)

    return call, asyncio.create_task(send())


async def fetch(upstream: Upstream) -> bytes:
    response = await post(upstream)
    try:
        return await response.read_all(1 << 20)
    finally:
        response.release()


async def refusal(upstream: Upstream) -> Reason:
    """Why a request failed; the reason given to the client tells nothing of the origin."""
    with pytest.raises(UpstreamError) as error:
        await fetch(upstream)
    assert "127.0.0.1" not in error.value.detail
    return error.value.reason


def count_open_sockets() -> int:
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing itself was one
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    return count


# Behind the interface, for what has no other witness.


def get_transport(call: UpstreamCall) -> Any:
    connection: Any = call._connection
    return connection._transport


def get_outflow(call: UpstreamCall) -> Any:
    """What carries the upload of a call; None before it begins and after it has ended."""
    connection: Any = call._connection
    return connection and connection._outflow


def is_crowded(call: UpstreamCall) -> bool:
    """The upload waits until the upstream takes more."""
    outflow = get_outflow(call)
    return outflow is not None and bool(outflow._crowded)
