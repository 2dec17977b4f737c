"""A believable MCP server for the demo and the tests, written with the official `mcp` package.  [io]

In: a port. Out: streamable HTTP at `/mcp/v1`, in both eras (sessions up to 2025-11-25, stateless 2026-07-28), with
every tool of the platform, its volumes as resources, one prompt, and `/health`. Each server has its own platform.
Refuses to know: keys and identities. It is what stands behind the proxy, and it lets in whoever reaches it.

The low-level `Server` is used because `MCPServer` sets up the logging of the whole process when it is made.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool, ToolManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.demo.sample_platform import Platform
from proxy.demo.storage_tools import FileTools, GitTools, ScriptTools, VolumeTools
from proxy.demo.system_tools import FleetTools, SchemaTools, SystemTools
from proxy.demo.tool_table import collect_tools
from proxy.demo.work_tools import AgentTools, PipelineTools, TaskTools, WorkflowTools

MCP_PATH = "/mcp/v1"
VOLUME_URI = "aegis://volumes/"
PROMPT = "explain-execution"
STEPS = 30
GRACE_SECONDS = 5
SIGNAL_WATCHER = "_shutdown_watcher"

Caller = ServerRequestContext[Any]
Page = types.PaginatedRequestParams | None


@dataclass(frozen=True, slots=True)
class SampleServer:
    """A running server. `platform` is its state, with counters."""

    url: str
    platform: Platform

    @property
    def mcp_url(self) -> str:
        return f"{self.url}{MCP_PATH}"


def build_tools(platform: Platform) -> list[Tool]:
    catalogue: list[Tool] = []
    catalogue += collect_tools(
        AgentTools(platform),
        TaskTools(platform),
        WorkflowTools(platform),
        PipelineTools(platform),
        VolumeTools(platform),
        FileTools(platform),
        GitTools(platform),
        ScriptTools(platform),
        SchemaTools(),
        SystemTools(platform, catalogue),
        FleetTools(platform),
    )
    return catalogue


class SampleFace:
    """What MCP clients see of a platform: its tools, its files as resources, and one prompt."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.tools = ToolManager(tools=build_tools(platform))

    def build_server(self) -> Server[Any]:
        return Server(
            "aegis-sample",
            version="1.0.0",
            title="AEGIS sample server",
            instructions="A small AEGIS platform in memory. Workflows report progress while they run.",
            get_tool_input_schema=self.get_input_schema,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
            on_subscriptions_listen=ListenHandler(InMemorySubscriptionBus()),
        )

    def get_input_schema(self, name: str) -> dict[str, Any] | None:
        tool = self.tools.get_tool(name)
        return None if tool is None else tool.parameters

    async def list_tools(self, _: Caller, page: Page) -> types.ListToolsResult:
        tools = [
            types.Tool(
                name=tool.name,
                description=tool.description,
                input_schema=tool.parameters,
                output_schema=tool.output_schema,
                annotations=tool.annotations,
            )
            for tool in self.tools.list_tools()
        ]
        return types.ListToolsResult(tools=tools)

    async def call_tool(self, caller: Caller, params: types.CallToolRequestParams) -> types.CallToolResult:
        context: Context[Any, Any] = Context(request_context=caller)
        try:
            result = await self.tools.call_tool(params.name, params.arguments or {}, context, convert_result=True)
        except ToolError as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
        assert isinstance(result, types.CallToolResult)
        return result

    async def list_resources(self, _: Caller, page: Page) -> types.ListResourcesResult:
        resources = [
            types.Resource(uri=f"{VOLUME_URI}{volume.id}/{quote(path)}", name=path, mime_type="text/plain")
            for volume in self.platform.volumes.values()
            for path in volume.files
        ]
        return types.ListResourcesResult(resources=resources)

    async def list_templates(self, _: Caller, page: Page) -> types.ListResourceTemplatesResult:
        uri_template = f"{VOLUME_URI}{{volume}}/{{+path}}"
        template = types.ResourceTemplate(uri_template=uri_template, name="file", description="A file on a volume.")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(self, _: Caller, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        volume_id, _slash, path = params.uri.removeprefix(VOLUME_URI).partition("/")
        try:
            text = self.platform.read_file(volume_id, unquote(path))
        except ToolError as error:
            raise MCPError(types.INVALID_PARAMS, str(error), {"uri": params.uri}) from error
        contents = types.TextResourceContents(uri=params.uri, text=text, mime_type="text/plain")
        return types.ReadResourceResult(contents=[contents])

    async def list_prompts(self, _: Caller, page: Page) -> types.ListPromptsResult:
        argument = types.PromptArgument(name="execution_id", description="Which execution.", required=True)
        prompt = types.Prompt(name=PROMPT, description="Explain what an execution did.", arguments=[argument])
        return types.ListPromptsResult(prompts=[prompt])

    async def get_prompt(self, _: Caller, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != PROMPT:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name!r}; there is: {PROMPT}")
        try:
            execution = self.platform.get_execution((params.arguments or {}).get("execution_id", ""))
        except ToolError as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
        text = "\n".join([f"Explain what this execution of {execution.subject} did:", *execution.log])
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(messages=[message])


def build_application(platform: Platform, host: str) -> ASGIApp:
    """`host` decides which Host headers are answered: on loopback only loopback names (421), else any."""

    async def answer_health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    application = (
        SampleFace(platform)
        .build_server()
        .streamable_http_app(
            streamable_http_path=MCP_PATH, host=host, custom_starlette_routes=[Route("/health", answer_health)]
        )
    )

    async def note_request(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = frozenset(name.decode("latin-1") for name, _ in scope["headers"])
            platform.requests_seen.append((scope["method"], names))
        await application(scope, receive, send)

    return note_request


@asynccontextmanager
async def run_sample_server(
    host: str = "127.0.0.1", port: int = 0, *, run_seconds: float = 30.0, steps: int = STEPS
) -> AsyncIterator[SampleServer]:
    """Serve in the current event loop while the context lasts; port 0 picks a free one. Raises OSError.

    `Server.serve` is not used: it takes the signals of the process, and looks ten times a second whether to end.
    """
    platform = Platform(run_seconds, steps)
    config = uvicorn.Config(
        build_application(platform, host),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    await server.startup(sockets=[listener])
    name = f"[{host}]" if family == socket.AF_INET6 else host
    try:
        yield SampleServer(f"http://{name}:{listener.getsockname()[1]}", platform)
    finally:
        await _shut_down(server, listener)


async def _shut_down(server: uvicorn.Server, listener: socket.socket) -> None:
    """End the sessions, then hang up on everyone: uvicorn would wait for open streams to end by themselves."""
    for accepting in server.servers:
        accepting.close()
    await server.lifespan.shutdown()
    for connection in list(server.server_state.connections):
        connection.transport.close()
    await server.shutdown(sockets=[listener])
    # sse-starlette looks out for signals in a task of its own, for as long as the event loop lives.
    watchers = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == SIGNAL_WATCHER]
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


async def serve(host: str, port: int, run_seconds: float, tell: Callable[[str], None]) -> None:
    async with run_sample_server(host, port, run_seconds=run_seconds) as server:
        tell(server.mcp_url)
        await asyncio.Event().wait()


def main() -> None:
    """`python -m proxy.demo.sample_server --port N`: prints its URL, serves until interrupted."""
    parser = argparse.ArgumentParser(description="A sample MCP server, without any access control.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--run-seconds", type=float, default=30.0, help="how long aegis.workflow.run takes")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.host, options.port, options.run_seconds, lambda url: print(url, flush=True)))  # noqa: T201
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
