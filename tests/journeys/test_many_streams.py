"""Many idle streams, and nothing left of them."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import aiohttp

from proxy.server import Proxy
from tests.staging import GUARD_SECONDS, Stage, Wire, get_mcp_url

STREAMS = 500


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that answers a GET with an event stream on which nothing is ever said, and a POST with a result."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"GET"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n")
    else:
        body = b'{"jsonrpc":"2.0","id":1,"result":{}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n%b" % (len(body), body))  # fmt: skip
    await writer.drain()
    while await reader.read(65_536):
        pass
    writer.close()


async def test_five_hundred_idle_streams_disturb_nobody_and_leave_nothing(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    upstream = await asyncio.start_server(endless, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
    patience = {"lease_seconds": GUARD_SECONDS, "grace_seconds": GUARD_SECONDS}  # five hundred at once hold up any loop
    async with upstream, stage.proxy(url, revocation=patience) as proxy, asyncio.timeout(3 * GUARD_SECONDS):
        wire = Wire(http, get_mcp_url(proxy))
        assert await wire.call(key.token, "aegis.runtime.list") == 200
        descriptors, tasks = count_descriptors(), len(asyncio.all_tasks())
        streams = await asyncio.gather(*(wire.request("GET", key.token) for _ in range(STREAMS)))
        assert {stream.status for stream in streams} == {200}
        await asyncio.gather(*(stream.content.readany() for stream in streams))
        assert len(proxy.registry) == STREAMS
        for _ in range(20):
            assert await wire.call(key.token, "aegis.runtime.list") == 200
        for stream in streams:
            stream.close()
        await settle(proxy, descriptors, tasks)


async def settle(proxy: Proxy, descriptors: int, tasks: int) -> None:
    """Return once everything is back to where it was; the guard around it fails the test otherwise."""
    while len(proxy.registry) or count_descriptors() > descriptors or len(asyncio.all_tasks()) > tasks:
        gc.collect()
        await asyncio.sleep(0.05)
