"""How a method of a group of tools becomes an MCP tool.  [pure]

In: objects whose methods carry `@tool(name, …)`. Out: the tools, in the order they are written down. The arguments
with their types and required flags are those of the method, the description is its docstring.
Refuses to know: what any tool does.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any, TypeVar

from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations

Answer = dict[str, Any]
Method = TypeVar("Method", bound=Callable[..., Awaitable[Answer]])

READS = ToolAnnotations(read_only_hint=True)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False)
DESTROYS = ToolAnnotations(read_only_hint=False, destructive_hint=True)


def tool(name: str, effect: ToolAnnotations) -> Callable[[Method], Method]:
    """Mark a method as the tool of this name."""

    def mark(method: Method) -> Method:
        setattr(method, "tool", (name, effect))  # noqa: B010 - a plain assignment is none of the type's business
        return method

    return mark


def collect_tools(*groups: object) -> list[Tool]:
    return [
        describe(function).model_copy(update={"fn": MethodType(function, group)})
        for group in groups
        for function in vars(type(group)).values()
        if hasattr(function, "tool")
    ]


@cache  # a model of its arguments is built, which takes two milliseconds for each of seventy
def describe(function: FunctionType) -> Tool:
    """A tool that belongs to nobody yet."""
    name, effect = vars(function)["tool"]
    description = inspect.getdoc(function)
    return Tool.from_function(MethodType(function, object()), name=name, description=description, annotations=effect)
