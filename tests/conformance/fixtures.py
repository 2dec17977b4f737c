"""What the conformance suite wants of a server: tools that answer by themselves, resources and prompts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

if TYPE_CHECKING:
    from tests.conformance.tasks import Task

ToolAnswer = types.CallToolResult | types.InputRequiredResult | dict[str, Any]
"""A dict is an answer of an extension's own shape."""
PromptAnswer = types.GetPromptResult | types.InputRequiredResult

# The smallest PNG and WAV there are: one pixel, and silence of no length.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
RESOURCE_NOT_FOUND = -32002  # until 2025-11-25
STEP_SECONDS = 0.05  # between the notifications of one call, as the suite asks


@dataclass(frozen=True, slots=True)
class State:
    """What outlives a call: the bus by which list changes reach `subscriptions/listen`, and the tasks by their id."""

    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    tasks: dict[str, Task] = field(default_factory=dict)


Caller = ServerRequestContext[State]


@dataclass(frozen=True, slots=True)
class ToolFixture:
    """A tool the suite knows by name."""

    name: str
    run: Callable[[Caller, types.CallToolRequestParams], Awaitable[ToolAnswer]]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def describe(self) -> types.Tool:
        description = self.name.replace("_", " ").capitalize()
        return types.Tool(name=self.name, description=description, input_schema=dict(self.schema))


@dataclass(frozen=True, slots=True)
class PromptFixture:
    """A prompt the suite knows by name, and its arguments, all of them required."""

    name: str
    run: Callable[[types.GetPromptRequestParams], PromptAnswer]
    arguments: tuple[str, ...] = ()

    def describe(self) -> types.Prompt:
        description = self.name.replace("_", " ").capitalize()
        arguments = [types.PromptArgument(name=name, description=name, required=True) for name in self.arguments]
        return types.Prompt(name=self.name, description=description, arguments=arguments)


def say(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)])


def embed(uri: str, text: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def always(*content: types.ContentBlock) -> Callable[[Caller, types.CallToolRequestParams], Awaitable[ToolAnswer]]:
    """A tool that gives the same answer whatever it is asked."""

    async def run(_caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
        return types.CallToolResult(content=list(content))

    return run


async def fail(_caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    answer = say("This tool intentionally returns an error for testing")
    return answer.model_copy(update={"is_error": True})


async def log(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await caller.session.send_log_message("info", text, related_request_id=caller.request_id)
        await asyncio.sleep(STEP_SECONDS)
    return say("Logged.")


async def progress(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    for done in (0, 50, 100):
        await caller.session.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(STEP_SECONDS)
    return say("Progressed.")


async def disconnect(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    """Close the stream in the middle of the call: the answer is for whoever comes back with `Last-Event-ID`."""
    await asyncio.sleep(2 * STEP_SECONDS)  # closed at once, it would never have named an event to come back with
    if caller.close_sse_stream is not None:
        await caller.close_sse_stream()
    await asyncio.sleep(2 * STEP_SECONDS)
    return say("Reconnection test completed")


async def need_sampling(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    declared = caller.session.client_capabilities
    if declared is None or declared.sampling is None:
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs a client that samples.",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return say("The client samples.")


async def change_tools(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    await caller.lifespan_context.bus.publish(ToolsListChanged())
    return say("Changed.")


async def change_prompts(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
    await caller.lifespan_context.bus.publish(PromptsListChanged())
    return say("Changed.")


# Scenario json-schema-2020-12: every keyword of it must arrive.
SCHEMA_2020_12: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
MIRRORED: Mapping[str, Any] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
}
IMAGE = types.ImageContent(data=PNG, mime_type="image/png")
JSON_RESOURCE = embed("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")

TOOLS = (
    # The first one is called without arguments by http-header-validation.
    ToolFixture("test_simple_text", always(types.TextContent(text="This is a simple text response for testing."))),
    ToolFixture("test_image_content", always(IMAGE)),
    ToolFixture("test_audio_content", always(types.AudioContent(data=WAV, mime_type="audio/wav"))),
    ToolFixture(
        "test_embedded_resource", always(embed("test://embedded-resource", "This is an embedded resource content."))
    ),
    ToolFixture(
        "test_multiple_content_types",
        always(types.TextContent(text="Multiple content types test:"), IMAGE, JSON_RESOURCE),
    ),
    ToolFixture("test_error_handling", fail),
    ToolFixture("test_tool_with_logging", log),
    ToolFixture("test_logging_tool", log),
    ToolFixture("test_tool_with_progress", progress),
    ToolFixture("test_reconnection", disconnect),
    ToolFixture("test_missing_capability", need_sampling),
    ToolFixture("test_trigger_tool_change", change_tools),
    ToolFixture("test_trigger_prompt_change", change_prompts),
    ToolFixture("json_schema_2020_12_tool", always(types.TextContent(text="Validated.")), SCHEMA_2020_12),
    ToolFixture("test_x_mcp_header", always(types.TextContent(text="Mirrored.")), MIRRORED),
)


def prompt(*content: types.ContentBlock) -> types.GetPromptResult:
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=part) for part in content])


def prompt_with_arguments(params: types.GetPromptRequestParams) -> PromptAnswer:
    given = params.arguments or {}
    text = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
    return prompt(types.TextContent(text=text))


def prompt_with_resource(params: types.GetPromptRequestParams) -> PromptAnswer:
    uri = (params.arguments or {}).get("resourceUri", "test://example-resource")
    resource = embed(uri, "Embedded resource content for testing.")
    return prompt(resource, types.TextContent(text="Please process the embedded resource above."))


PROMPTS = (
    PromptFixture(
        "test_simple_prompt", lambda _: prompt(types.TextContent(text="This is a simple prompt for testing."))
    ),
    PromptFixture("test_prompt_with_arguments", prompt_with_arguments, ("arg1", "arg2")),
    PromptFixture("test_prompt_with_embedded_resource", prompt_with_resource, ("resourceUri",)),
    PromptFixture(
        "test_prompt_with_image",
        lambda _: prompt(IMAGE, types.TextContent(text="Please analyze the image above.")),
    ),
)

RESOURCES: tuple[types.TextResourceContents | types.BlobResourceContents, ...] = (
    types.TextResourceContents(
        uri="test://static-text", mime_type="text/plain", text="This is the content of the static text resource."
    ),
    types.BlobResourceContents(uri="test://static-binary", mime_type="image/png", blob=PNG),
    types.TextResourceContents(uri="test://watched-resource", mime_type="text/plain", text="Watched resource content"),
)
TEMPLATE = types.ResourceTemplate(
    uri_template="test://template/{id}/data",
    name="template",
    description="One resource for every id.",
    mime_type="application/json",
)


def read_resource(uri: str, protocol_version: str) -> types.ReadResourceResult:
    """Raises MCPError for a resource there is not, with the code that revision has for it."""
    found = next((resource for resource in RESOURCES if resource.uri == uri), None) or _fill_template(uri)
    if found is None:
        code = types.INVALID_PARAMS if protocol_version >= "2026-07-28" else RESOURCE_NOT_FOUND
        raise MCPError(code, "There is no such resource.", {"uri": uri})
    return types.ReadResourceResult(contents=[found])


def _fill_template(uri: str) -> types.TextResourceContents | None:
    head, tail = TEMPLATE.uri_template.split("{id}")
    name = uri.removeprefix(head).removesuffix(tail)
    if uri != f"{head}{name}{tail}" or not name or "/" in name:
        return None
    text = json.dumps({"id": name, "templateTest": True, "data": f"Data for ID: {name}"})
    return types.TextResourceContents(uri=uri, mime_type="application/json", text=text)
