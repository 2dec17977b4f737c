"""A server built on the official package that speaks HTTP+SSE, the transport of 2024-11-05, under any prefix.

It offers more tools than most keys may use. In revision 2026-07-28 it asks before it runs anything, and keeps a state
of its own at the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.demo.sample_server import run_application

Caller = ServerRequestContext[Any]
STREAM_PATH, MESSAGES_PATH = "/mcp/v1/sse", "/elsewhere/messages/"
SURE = "sure"
TOOLS = ("aegis.workflow.run", "aegis.workflow.list", "aegis.agent.delete")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)


@dataclass
class SseUpstream:
    """`asked`: its requests; `called`: its tools; `states`: those that came back, as they came; `open`: how many
    streams there are, and `changed` is set whenever one ends."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    states: list[str | None] = field(default_factory=list)
    open: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def messages(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "POST"]

    @property
    def session_ids(self) -> set[str]:
        """As the server named them."""
        return {found[1] for asked in self.messages if (found := re.search("session_id=([^&]*)", asked.query))}

    async def wait_open(self, streams: int) -> None:
        """Return once no more than these are open."""
        while self.open > streams:
            self.changed.clear()
            await self.changed.wait()

    async def call_tool(
        self, caller: Caller, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        self.called.append(params.name)
        workflow = (params.arguments or {}).get("name", "nothing")
        if params.input_responses is not None:
            self.states.append(params.request_state)
        elif workflow == "asks":
            form = types.ElicitRequestFormParams(message="Sure?", requested_schema={"type": "object", "properties": {}})
            return types.InputRequiredResult(
                input_requests={SURE: types.ElicitRequest(params=form)}, request_state=form_state(workflow)
            )
        return types.CallToolResult(content=[types.TextContent(text=f"{workflow} has run")])

    async def list_tools(self, _: Caller, page: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=schema) for name in TOOLS])

    def build_application(self, prefix: str) -> ASGIApp:
        server = Server("by events", on_call_tool=self.call_tool, on_list_tools=self.list_tools)
        transport = SseServerTransport(MESSAGES_PATH)

        async def serve_stream(scope: Scope, receive: Receive, send: Send) -> None:
            self.open += 1
            try:
                async with transport.connect_sse(scope, receive, send) as (reading, writing):
                    await server.run(reading, writing, server.create_initialization_options())
            finally:
                self.open -= 1
                self.changed.set()

        routes: list[BaseRoute] = [
            Route(STREAM_PATH, endpoint=_Application(serve_stream), methods=["GET"]),
            Mount(MESSAGES_PATH, app=transport.handle_post_message),
        ]
        application = Starlette(routes=[Mount(prefix, routes=routes)] if prefix else routes)

        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
                self.asked.append(Asked(scope["method"], scope["path"], scope["query_string"].decode(), headers))
            await application(scope, receive, send)

        return note


class _Application:
    """Starlette takes a function for a handler of its own, and an object for an application."""

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


def form_state(about: str) -> str:
    """What the server keeps at the client: anybody could write it."""
    return f"not a secret: {about}"


@contextlib.asynccontextmanager
async def run_sse_upstream(prefix: str = "") -> AsyncIterator[SseUpstream]:
    upstream = SseUpstream()
    async with run_application(upstream.build_application(prefix), "127.0.0.1", 0) as url:
        upstream.url = url + prefix
        yield upstream
