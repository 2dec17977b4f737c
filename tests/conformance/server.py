"""The server the conformance suite is run against: every fixture it wants, on the official `mcp` package.

`python -m tests.conformance.server` prints its URL and serves until it is told to stop. Anybody is let in.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import warnings
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from tests.conformance import fixtures, questions, tasks
from tests.conformance.fixtures import Caller, PromptAnswer, State, ToolAnswer
from tests.shared_events import SharedEvents

PATH = "/mcp"
NAME = "aegis-conformance"
RETRY_MILLISECONDS = 200
HINT = CacheHint(ttl_ms=60_000, scope="public")

TOOLS = {tool.name: tool for tool in (*fixtures.TOOLS, *questions.TOOLS, *tasks.TOOLS)}
PROMPTS = {prompt.name: prompt for prompt in (*fixtures.PROMPTS, *questions.PROMPTS)}
Page = types.PaginatedRequestParams | None


async def list_tools(_: Caller, _page: Page) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[tool.describe() for tool in TOOLS.values()])


async def call_tool(caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await TOOLS[params.name].run(caller, params)


async def list_prompts(_: Caller, _page: Page) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=[prompt.describe() for prompt in PROMPTS.values()])


async def get_prompt(_: Caller, params: types.GetPromptRequestParams) -> PromptAnswer:
    if params.name not in PROMPTS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return PROMPTS[params.name].run(params)


async def list_resources(_: Caller, _page: Page) -> types.ListResourcesResult:
    resources = [
        types.Resource(uri=found.uri, name=found.uri, description="A fixture.", mime_type=found.mime_type)
        for found in fixtures.RESOURCES
    ]
    return types.ListResourcesResult(resources=resources)


async def list_templates(_: Caller, _page: Page) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(resource_templates=[fixtures.TEMPLATE])


async def read_resource(caller: Caller, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    return fixtures.read_resource(params.uri, caller.protocol_version)


async def acknowledge(_: Caller, _params: Any) -> types.EmptyResult:
    return types.EmptyResult()


async def complete(_: Caller, _params: types.CompleteRequestParams) -> types.CompleteResult:
    return types.CompleteResult(completion=types.Completion(values=["paris", "park"], total=2, has_more=False))


def build_server() -> Server[State]:
    state = State()

    @contextlib.asynccontextmanager
    async def lifespan(_: Server[State]) -> AsyncIterator[State]:
        yield state

    server = Server(
        NAME,
        version="1.0.0",
        lifespan=lifespan,
        cache_hints=dict.fromkeys(
            ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"), HINT
        ),
        get_tool_input_schema=lambda name: TOOLS[name].schema if name in TOOLS else None,
        on_list_tools=list_tools,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=acknowledge,
        on_unsubscribe_resource=acknowledge,
        on_subscriptions_listen=ListenHandler(state.bus),
        on_completion=complete,
    )
    # By its parameters the constructor knows no answers of an extension's shape, and warns of logging as deprecated.
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, acknowledge)
    tasks.add_tasks(server)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


def main() -> None:
    """Serve on a free port of the loopback."""
    logging.getLogger("mcp").setLevel(logging.ERROR)  # it warns of the refusals that the suite provokes
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # half of the fixtures are about what is deprecated
    application = build_server().streamable_http_app(
        streamable_http_path=PATH, event_store=SharedEvents(), retry_interval=RETRY_MILLISECONDS
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}", flush=True)  # noqa: T201
    config = uvicorn.Config(application, log_level="warning", access_log=False, http="h11", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
