"""A server built on the official package that asks before it runs anything, and whose streams can be resumed.

In revision 2026-07-28 its tool and its resources ask for input first and keep a state of their own at the client; in
2025-11-25 its tool reports, waits, and may end its stream early. One event log for all sessions, as simple servers have
it: whoever knows the id of an event gets those that came after it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.demo.sample_server import MCP_PATH, run_application
from tests.shared_events import SharedEvents
from tests.staging import MODERN

Caller = ServerRequestContext[Any]
RETRY_MILLISECONDS = 20
SURE = "sure"


@dataclass
class ResumableUpstream:
    """`states`: those that came back, as they came; `headers` of each request; `released`: the runs may finish."""

    url: str = ""
    states: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    finished: int = 0

    async def call_tool(
        self, caller: Caller, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        workflow = (params.arguments or {})["name"]
        await caller.session.report_progress(1, message="begun")
        if caller.protocol_version == MODERN:
            return self._ask(workflow, params) or _say(f"{workflow} has run")
        if workflow == "polled":
            assert caller.close_sse_stream is not None
            await caller.close_sse_stream()
        else:
            await self.released.wait()
        await caller.session.report_progress(2, message="went on")
        self.finished += 1
        return _say(f"{workflow} has run")

    async def read_resource(
        self, caller: Caller, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        contents = types.TextResourceContents(uri=params.uri, text=f"{params.uri} has run")
        return self._ask(params.uri, params) or types.ReadResourceResult(contents=[contents])

    def _ask(self, about: str, params: types.InputResponseRequestParams) -> types.InputRequiredResult | None:
        if params.input_responses is not None:
            self.states.append(params.request_state)
            return None
        form = types.ElicitRequestFormParams(message="Sure?", requested_schema={"type": "object", "properties": {}})
        return types.InputRequiredResult(
            input_requests={SURE: types.ElicitRequest(params=form)}, request_state=form_state(about)
        )

    async def list_tools(self, _: Caller, page: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        return types.ListToolsResult(tools=[types.Tool(name="aegis.workflow.run", input_schema=schema)])

    def build_application(self) -> ASGIApp:
        server = Server(
            "resumable", on_call_tool=self.call_tool, on_read_resource=self.read_resource, on_list_tools=self.list_tools
        )
        application = server.streamable_http_app(
            streamable_http_path=MCP_PATH, event_store=SharedEvents(), retry_interval=RETRY_MILLISECONDS
        )

        async def note_headers(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self.headers.append({name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]})
            await application(scope, receive, send)

        return note_headers


def form_state(about: str) -> str:
    """What the server keeps at the client: anybody could write it."""
    return f"not a secret: {about}"


def _say(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)])


@contextlib.asynccontextmanager
async def run_resumable_upstream() -> AsyncIterator[ResumableUpstream]:
    upstream = ResumableUpstream()
    async with run_application(upstream.build_application(), "127.0.0.1", 0) as upstream.url:
        try:
            yield upstream
        finally:
            upstream.released.set()
