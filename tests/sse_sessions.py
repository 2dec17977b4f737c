"""Clients of HTTP+SSE: the official one, and one by hand."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import aiohttp
from mcp.client import Client
from mcp.client.sse import sse_client

from proxy.server import Proxy
from proxy.sse import get_values
from tests.staging import GUARD_SECONDS

Json = dict[str, Any]


def get_stream_url(proxy: Proxy) -> str:
    return f"http://{proxy.data_address}/mcp/v1/sse"


@contextlib.asynccontextmanager
async def connect_sse(url: str, token: str, mode: str, **callbacks: Any) -> AsyncIterator[Client]:
    """The official client, with a key as any user configures it."""
    headers = {"Authorization": f"Bearer {token}"}
    async with Client(sse_client(url, headers=headers, timeout=GUARD_SECONDS), mode=mode, **callbacks) as client:
        yield client


@dataclass
class Session:
    """A client by hand: its stream, and where it was told to speak."""

    http: aiohttp.ClientSession
    stream: aiohttp.ClientResponse
    token: str
    url: str = ""
    heard: bytes = b""
    events: list[bytes] = field(default_factory=list)

    async def next_event(self) -> bytes:
        while b"\n\n" not in self.heard.replace(b"\r\n", b"\n"):
            chunk = await self.stream.content.readany()
            assert chunk, f"it ended after {self.heard!r}"
            self.heard += chunk
        event, _, self.heard = self.heard.replace(b"\r\n", b"\n").partition(b"\n\n")
        self.events.append(event)
        return event

    async def next_message(self) -> Json:
        message: Json = json.loads(b"\n".join(get_values(await self.next_event(), b"data")))
        return message

    async def post(self, message: object, url: str | None = None, **headers: str) -> tuple[int, bytes]:
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        async with self.http.post(url or self.url, json=message, headers=sent) as answer:
            return answer.status, await answer.read()

    async def wait_ended(self) -> bytes:
        """What was still said."""
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            return self.heard + await self.stream.read()
        return self.heard


async def open_stream(http: aiohttp.ClientSession, proxy: Proxy, token: str, **headers: str) -> Session:
    sent = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", **headers}
    stream = await http.get(get_stream_url(proxy), headers=sent)
    assert (stream.status, stream.content_type) == (200, "text/event-stream"), await stream.text()
    return Session(http, stream, token)


async def open_session(http: aiohttp.ClientSession, proxy: Proxy, token: str) -> Session:
    session = await open_stream(http, proxy, token)
    event = await session.next_event()
    assert get_values(event, b"event") == [b"endpoint"]
    session.url = urljoin(get_stream_url(proxy), get_values(event, b"data")[0].decode())
    return session
