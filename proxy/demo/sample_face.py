"""What MCP clients see of the sample platform: tools, files as resources, one prompt.  [io]

In: a platform. Out: a server of the official `mcp` package, for any transport. The low-level `Server` is used because
`MCPServer` sets up the logging of the whole process when it is made.
Refuses to know: transports, sockets, identities.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool, ToolManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError

from proxy.demo.sample_platform import Platform
from proxy.demo.storage_tools import FileTools, GitTools, ScriptTools, VolumeTools
from proxy.demo.system_tools import FleetTools, SchemaTools, SystemTools
from proxy.demo.tool_table import collect_tools
from proxy.demo.work_tools import AgentTools, PipelineTools, TaskTools, WorkflowTools

VOLUME_URI = "aegis://volumes/"
PROMPT = "explain-execution"

Asking = ServerRequestContext[Any]
Page = types.PaginatedRequestParams | None


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

    async def list_tools(self, _: Asking, page: Page) -> types.ListToolsResult:
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

    async def call_tool(self, asking: Asking, params: types.CallToolRequestParams) -> types.CallToolResult:
        context: Context[Any, Any] = Context(request_context=asking)
        try:
            result = await self.tools.call_tool(params.name, params.arguments or {}, context, convert_result=True)
        except ToolError as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
        assert isinstance(result, types.CallToolResult)
        return result

    async def list_resources(self, _: Asking, page: Page) -> types.ListResourcesResult:
        resources = [
            types.Resource(uri=f"{VOLUME_URI}{volume.id}/{quote(path)}", name=path, mime_type="text/plain")
            for volume in self.platform.volumes.values()
            for path in volume.files
        ]
        return types.ListResourcesResult(resources=resources)

    async def list_templates(self, _: Asking, page: Page) -> types.ListResourceTemplatesResult:
        uri_template = f"{VOLUME_URI}{{volume}}/{{+path}}"
        template = types.ResourceTemplate(uri_template=uri_template, name="file", description="A file on a volume.")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(self, _: Asking, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        volume_id, _slash, path = params.uri.removeprefix(VOLUME_URI).partition("/")
        try:
            text = self.platform.read_file(volume_id, unquote(path))
        except ToolError as error:
            raise MCPError(types.INVALID_PARAMS, str(error), {"uri": params.uri}) from error
        contents = types.TextResourceContents(uri=params.uri, text=text, mime_type="text/plain")
        return types.ReadResourceResult(contents=[contents])

    async def list_prompts(self, _: Asking, page: Page) -> types.ListPromptsResult:
        argument = types.PromptArgument(name="execution_id", description="Which execution.", required=True)
        prompt = types.Prompt(name=PROMPT, description="Explain what an execution did.", arguments=[argument])
        return types.ListPromptsResult(prompts=[prompt])

    async def get_prompt(self, _: Asking, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != PROMPT:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name!r}; there is: {PROMPT}")
        try:
            execution = self.platform.get_execution((params.arguments or {}).get("execution_id", ""))
        except ToolError as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
        text = "\n".join([f"Explain what this execution of {execution.subject} did:", *execution.log])
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(messages=[message])
