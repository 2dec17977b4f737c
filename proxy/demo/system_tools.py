"""The tools of the sample server about the platform itself: schemas, runtimes, tools, system, edge nodes.  [io]

In: arguments as the platform names them. Out: JSON objects. `aegis.tools.*` answer with tools, which a proxy in front
filters like `tools/list`; `aegis.edge.fleet.invoke` names a tool inside its arguments, which it judges like a call.
Refuses to know: nodes; commands to the fleet are noted and go nowhere.
"""

from __future__ import annotations

import uuid
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool

from proxy.demo.sample_definition import parse_manifest
from proxy.demo.sample_platform import Platform
from proxy.demo.tool_table import DESTROYS, READS, WRITES, Answer, tool

NODES = ("edge-berlin-1", "edge-berlin-2", "edge-osaka-1")
RUNTIMES = ("python:3.13", "node:24", "rust:1.91", "go:1.25")
KINDS = ("agent", "workflow")


def schema_of(kind: str) -> Answer:
    metadata = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    properties = {"kind": {"const": kind.capitalize()}, "metadata": metadata, "spec": {"type": "object"}}
    return {"type": "object", "required": ["kind", "metadata", "spec"], "properties": properties}


class SchemaTools:
    @tool("aegis.schema.get", READS)
    async def get_schema(self, key: str) -> Answer:
        """Return the JSON Schema of a kind of manifest: agent or workflow."""
        kind = key.partition("/")[0]
        if kind not in KINDS:
            raise ToolError(f"there is no schema {key!r}; there are: {', '.join(KINDS)}")
        return {"key": key, "schema": schema_of(kind)}

    @tool("aegis.schema.validate", READS)
    async def validate_manifest(self, kind: str, manifest_yaml: str) -> Answer:
        """Check a manifest against the schema of its kind."""
        if kind.lower() not in KINDS:
            raise ToolError(f"there is no kind {kind!r}; there are: {', '.join(KINDS)}")
        return {"valid": True, "name": parse_manifest(kind.lower(), manifest_yaml)[0]}


class SystemTools:
    """`catalogue` is filled with every tool of the server once they are all known."""

    def __init__(self, platform: Platform, catalogue: list[Tool]) -> None:
        self.platform = platform
        self.catalogue = catalogue

    @tool("aegis.runtime.list", READS)
    async def list_runtimes(self) -> Answer:
        """List the runtimes an agent can be written for."""
        return {"runtimes": [{"name": name, "status": "available"} for name in RUNTIMES]}

    @tool("aegis.tools.list", READS)
    async def list_tools(self, limit: int = 200, offset: int = 0) -> Answer:
        """List the tools of the platform."""
        found = self.catalogue[offset : offset + limit]
        return {"tools": [self._describe(each) for each in found], "total": len(self.catalogue)}

    @tool("aegis.tools.search", READS)
    async def search_tools(self, query: str = "", limit: int = 20) -> Answer:
        """Find tools by words in their name or description."""
        words = query.lower().split()
        found = [each for each in self.catalogue if all(w in f"{each.name} {each.description}".lower() for w in words)]
        return {"tools": [self._describe(each) for each in found[:limit]], "total": len(found)}

    @tool("aegis.system.info", READS)
    async def get_info(self) -> Answer:
        """Say what this platform is and how it is doing."""
        return {
            "name": "aegis-sample",
            "version": "1.0.0",
            "status": "healthy",
            "agents": len(self.platform.list_definitions("agent")),
            "workflows": len(self.platform.list_definitions("workflow")),
            "executions": len(self.platform.executions),
        }

    @tool("aegis.system.config", READS)
    async def get_config(self) -> Answer:
        """Return the configuration of the node."""
        return {"node": {"id": "sample", "type": "orchestrator"}, "storage": {"backend": "memory"}, "edge": list(NODES)}

    def _describe(self, each: Tool) -> dict[str, Any]:
        return {"name": each.name, "description": each.description, "inputSchema": each.parameters}


class FleetTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.edge.fleet.list", READS)
    async def list_fleet(self, target: str) -> Answer:
        """List the edge nodes a target names: `all`, a node, or the beginning of their names."""
        return {"nodes": [{"name": name, "status": "online"} for name in self._find(target)]}

    @tool("aegis.edge.fleet.invoke", WRITES)
    async def invoke(self, target: str, tool_name: str, args: dict[str, Any] | None = None) -> Answer:
        """Call a tool on every edge node a target names."""
        command = {"tool_name": tool_name, "args": args or {}, "nodes": self._find(target), "status": "dispatched"}
        command_id = str(uuid.uuid4())
        self.platform.fleet_commands[command_id] = command
        return {"fleet_command_id": command_id} | command

    @tool("aegis.edge.fleet.cancel", DESTROYS)
    async def cancel(self, fleet_command_id: str) -> Answer:
        """Cancel a command to the fleet."""
        command = self.platform.fleet_commands.get(fleet_command_id)
        if command is None:
            raise ToolError(f"there is no fleet command {fleet_command_id!r}")
        command["status"] = "cancelled"
        return {"fleet_command_id": fleet_command_id} | command

    def _find(self, target: str) -> list[str]:
        nodes = [name for name in NODES if target == "all" or name.startswith(target)]
        if not nodes:
            raise ToolError(f"no edge node is named {target!r}; there are: {', '.join(NODES)}")
        return nodes
