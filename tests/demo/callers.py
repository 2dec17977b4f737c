"""How tests ask the sample platform: by MCP, as the official client does, and by REST."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from proxy.demo.sample_server import SampleServer

ERAS = ["legacy", "auto", "2026-07-28"]
GUARD_SECONDS = 20
"""How long a test waits for something that should come at once, on a busy machine, before it fails."""

Told = tuple[str, dict[str, Any]]


def connect(server: SampleServer, mode: str = "auto") -> Client:
    return Client(streamable_http_client(server.mcp_url), mode=mode)


async def call(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def call_in_vain(client: Client, tool: str, /, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@dataclass(frozen=True, slots=True)
class Rest:
    """A client of the REST API."""

    http: aiohttp.ClientSession
    url: str

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of an answer of that status."""
        async with self.http.request(method, f"{self.url}{path}", **options) as answer:
            assert (answer.status, answer.content_type) == (status, "application/json"), await answer.text()
            return await answer.json()

    async def ask_in_vain(self, method: str, path: str, status: int, **options: Any) -> str:
        refusal = await self.ask(method, path, status, **options)
        assert [*refusal] == ["error"]
        return str(refusal["error"])

    async def follow(self, path: str) -> AsyncIterator[Told]:
        """Every event of a stream, until it ends."""
        async with self.http.get(f"{self.url}{path}") as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream"), await answer.text()
            async for told in read_events(answer):
                yield told


async def read_events(answer: aiohttp.ClientResponse) -> AsyncIterator[Told]:
    """Events as their type and their data; anything else in the stream is a fault."""
    text = b""
    async for chunk in answer.content.iter_any():
        text += chunk
        while b"\n\n" in text:
            event, text = text.split(b"\n\n", 1)
            kind, data = event.decode().split("\n")
            assert kind.startswith("event: ")
            assert data.startswith("data: ")
            yield kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))
    assert text == b""
