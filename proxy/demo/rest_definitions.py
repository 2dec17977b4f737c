"""Agents and workflows over REST: made, read, changed, deleted, and set to work.  [io]

In: requests. Out: what the platform says. Manifests are taken as they are (`text/yaml`, as the SDKs send them) or as
`manifest_yaml` in JSON. Refuses to know: what becomes of an execution once it is started.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.rest_answers import Json, answer_page, read_json, read_text, stream_events, take_text
from proxy.demo.sample_definition import Definition, Kind, manifest_of, parse_manifest
from proxy.demo.sample_platform import Platform


class DefinitionRoutes:
    """What agents and workflows have in common; `key` is what a path names one by."""

    def __init__(self, platform: Platform, kind: Kind, key: str) -> None:
        self.platform = platform
        self.kind: Kind = kind
        self.key = key
        self.all = f"/v1/{kind}s"
        self.one = f"{self.all}/{{{key}}}"

    def list_routes(self) -> list[web.RouteDef]:
        return [
            web.get(self.all, self.list_definitions),
            web.post(self.all, self.create),
            web.get(self.one, self.get),
            web.delete(self.one, self.delete),
            web.get(f"{self.one}/versions", self.list_versions),
            web.patch(f"{self.one}/scope", self.set_scope),
            web.post(f"{self.one}/scope", self.set_scope),
        ]

    def find(self, request: web.Request) -> Definition:
        return self.platform.get_definition(self.kind, request.match_info[self.key])

    def describe(self, definition: Definition) -> Json:
        return definition.summarise() | {f"{self.kind}_id": definition.id, "manifest_yaml": definition.manifest_yaml}

    async def list_definitions(self, request: web.Request) -> web.StreamResponse:
        found = self.platform.list_definitions(self.kind, request.query.get("scope"))
        return answer_page(request, f"{self.kind}s", found, Definition.summarise)

    async def create(self, request: web.Request) -> web.StreamResponse:
        if request.content_type == "application/json":
            body = await read_json(request)
            manifest_yaml, replace = take_text(body, "manifest_yaml"), body.get("force") is True
        else:
            manifest_yaml, replace = await read_text(request), request.query.get("force") == "true"
        definition = self.platform.deploy(self.kind, manifest_yaml, replace=replace)
        return web.json_response(self.describe(definition), status=HTTPStatus.CREATED)

    async def get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.describe(self.find(request)))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"deleted": self.platform.delete_definition(self.kind, self.find(request).name).id})

    async def list_versions(self, request: web.Request) -> web.StreamResponse:
        found = list(enumerate(self.find(request).manifests, 1))
        return answer_page(request, "versions", found, lambda each: {"version": each[0], "manifest_yaml": each[1]})

    async def set_scope(self, request: web.Request) -> web.StreamResponse:
        scope = take_text(await read_json(request), "scope")
        return web.json_response(self.platform.set_scope(self.kind, self.find(request).name, scope).summarise())


class AgentRoutes(DefinitionRoutes):
    def __init__(self, platform: Platform) -> None:
        super().__init__(platform, "agent", "id")

    def list_routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{self.all}/lookup/{{{self.key}}}", self.get),
            *super().list_routes(),
            web.patch(self.one, self.update),
            web.post(f"{self.one}/execute", self.execute),
            web.get(f"{self.one}/events", self.follow),
        ]

    async def update(self, request: web.Request) -> web.StreamResponse:
        """A new revision, from a manifest of the same name or with another description."""
        agent, body = self.find(request), await read_json(request)
        if "manifest_yaml" in body:
            manifest_yaml = take_text(body, "manifest_yaml")
        else:
            manifest_yaml = manifest_of("agent", agent.name, take_text(body, "description"))
        if parse_manifest("agent", manifest_yaml)[0] != agent.name:
            raise ToolError(f"the manifest is of another agent: metadata.name must be {agent.name!r}")
        return web.json_response(self.describe(self.platform.deploy("agent", manifest_yaml, replace=True)))

    async def execute(self, request: web.Request) -> web.StreamResponse:
        agent, body = self.find(request), await read_json(request)
        given = {"intent": body.get("intent"), "input": body.get("input")}
        execution = self.platform.start("task", agent.name, given)
        return web.json_response(execution.describe(), status=HTTPStatus.ACCEPTED)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        return await stream_events(request, self.platform.follow_agent(self.find(request)))


class WorkflowRoutes(DefinitionRoutes):
    def __init__(self, platform: Platform) -> None:
        super().__init__(platform, "workflow", "name")

    def list_routes(self) -> list[web.RouteDef]:
        return [
            *super().list_routes(),
            web.get(f"{self.one}/yaml", self.get_yaml),
            web.post(f"{self.one}/run", self.run),
            web.post(f"{self.one}/execute", self.run),
        ]

    async def get_yaml(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self.find(request).manifest_yaml, content_type="text/yaml")

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Start it; it runs by itself."""
        workflow, body = self.find(request), await read_json(request)
        given = {"intent": body.get("intent"), "input": body.get("input")}
        execution = self.platform.launch_workflow(workflow.name, given)
        return web.json_response(execution.describe(), status=HTTPStatus.ACCEPTED)
