"""The client the conformance suite watches: the official one, doing what each scenario of client mode wants to see.

`python -m tests.conformance.client URL`, with the scenario's revision and data in the environment, as the suite leaves
them there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client

TIMEOUT_SECONDS = 15.0
ECHO = "json_schema_echo"  # of scenario json-schema-2020-12-preservation
# An input for whatever a tool insists on.
SAMPLES: dict[str, Any] = {"string": "us-west1", "number": 5, "integer": 5, "boolean": True}


async def fill_in(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Accept every form: with its defaults, and with a sample where it has none."""
    schema = params.requested_schema if isinstance(params, types.ElicitRequestFormParams) else {}
    properties: dict[str, Any] = schema.get("properties", {})
    content = {name: field.get("default", SAMPLES.get(field.get("type"))) for name, field in properties.items()}
    return types.ElicitResult(action="accept", content=content)


async def sample(context: ClientRequestContext, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="Sampled."), model="none")


async def list_roots(context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[])


@contextlib.asynccontextmanager
async def connect(url: str, token: str | None, *, legacy: bool) -> AsyncIterator[Client]:
    """A client that grants whatever the server asks of it; `legacy`: of a revision with sessions."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(TIMEOUT_SECONDS)) as http,
        Client(
            streamable_http_client(url, http_client=http),
            mode="legacy" if legacy else "auto",
            elicitation_callback=fill_in,
            sampling_callback=sample,
            list_roots_callback=list_roots,
        ) as client,
    ):
        yield client


async def play(url: str, token: str | None) -> None:
    """The scenario: use everything the server has, unless the suite says what to call and with what."""
    legacy = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"] < "2026-07-28"
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    async with connect(url, token, legacy=legacy) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        calls = [(call["name"], call["arguments"]) for call in context.get("toolCalls", ())]
        for name, arguments in calls or form_calls(tools):
            await client.call_tool(name, arguments)
        if client.server_capabilities.resources is not None:
            for resource in (await client.list_resources()).resources:
                await client.read_resource(resource.uri)
        if client.server_capabilities.prompts is not None:
            for prompt in (await client.list_prompts()).prompts:
                await client.get_prompt(prompt.name)


def form_calls(tools: dict[str, types.Tool]) -> list[tuple[str, dict[str, Any]]]:
    """Each tool once; the one that echoes a schema is shown the other's, as it was received."""
    if ECHO in tools:
        return [(ECHO, {"schema": tool.input_schema}) for name, tool in tools.items() if name != ECHO]
    return [(name, form_arguments(tool.input_schema)) for name, tool in tools.items()]


def form_arguments(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: SAMPLES.get(schema["properties"][name].get("type"), "a") for name in schema.get("required", ())}


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], None))
