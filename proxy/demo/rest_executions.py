"""Executions over REST: of agents, workflows and pipelines alike, and those of workflows in a place of their own.  [io]

In: requests. Out: what the platform says, and streams of events that end with the execution.
Refuses to know: what is executed.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from proxy.demo.rest_answers import (
    LARGEST_PAGE,
    PAGE,
    answer_page,
    read_json,
    stream_events,
    take_number,
    take_text,
)
from proxy.demo.sample_execution import Event, Execution
from proxy.demo.sample_faults import InTheWay
from proxy.demo.sample_platform import Platform


class ExecutionRoutes:
    """`kind` is the only one that is found here; None: all of them are."""

    def __init__(self, platform: Platform, path: str = "/v1/executions", kind: str | None = None) -> None:
        self.platform = platform
        self.kind = kind
        self.all = path
        self.one = f"{path}/{{id}}"

    def list_routes(self) -> list[web.RouteDef]:
        return [
            web.get(self.all, self.list_executions),
            web.post(self.all, self.start),
            web.get(self.one, self.get),
            web.delete(self.one, self.delete),
            web.post(f"{self.one}/cancel", self.cancel),
            web.get(f"{self.one}/stream", self.follow),
            web.get(f"{self.one}/events", self.follow),
            web.get(f"{self.one}/files/{{path:.+}}", self.get_file),
        ]

    def find(self, request: web.Request) -> Execution:
        return self.platform.get_execution(request.match_info["id"], self.kind)

    async def list_executions(self, request: web.Request) -> web.StreamResponse:
        """The latest first; of one agent or workflow, or of one status, if the query says so."""
        kind, subject, query = self.kind, None, request.query
        if "agent_id" in query:
            kind, subject = "task", self.platform.get_definition("agent", query["agent_id"]).name
        elif "workflow_name" in query:
            kind, subject = "workflow", self.platform.get_definition("workflow", query["workflow_name"]).name
        found = self.platform.list_executions(kind, subject)
        wanted = [each for each in reversed(found) if query.get("status") in (None, each.status)]
        return answer_page(request, "executions", wanted, Execution.describe)

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Set an agent to work."""
        body = await read_json(request)
        agent = self.platform.get_definition("agent", take_text(body, "agent_id"))
        given = {"intent": body.get("intent"), "input": body.get("input")}
        execution = self.platform.start("task", agent.name, given)
        return web.json_response(execution.describe(), status=HTTPStatus.ACCEPTED)

    async def get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.find(request).describe())

    async def delete(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"deleted": self.platform.remove(request.match_info["id"], self.kind).id})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.platform.cancel(request.match_info["id"], self.kind).describe())

    async def follow(self, request: web.Request) -> web.StreamResponse:
        return await stream_events(request, self.platform.follow(self.find(request)))

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self.find(request).read_file(request.match_info["path"]))


class WorkflowExecutionRoutes(ExecutionRoutes):
    def __init__(self, platform: Platform) -> None:
        super().__init__(platform, "/v1/workflows/executions", "workflow")

    def list_routes(self) -> list[web.RouteDef]:
        return [
            web.get(self.all, self.list_executions),
            web.get(self.one, self.get),
            web.delete(self.one, self.delete),
            web.post(f"{self.one}/cancel", self.cancel),
            web.post(f"{self.one}/signal", self.signal),
            web.get(f"{self.one}/logs", self.read_log),
            web.get(f"{self.one}/logs/stream", self.follow),
        ]

    async def signal(self, request: web.Request) -> web.StreamResponse:
        """Answer a run that waits for a person."""
        execution = self.find(request)
        signal = take_text(await read_json(request), "signal_name")
        if execution.outcome is not None:
            raise InTheWay(f"execution {execution.id!r} has ended: {execution.outcome}")
        execution.signals.append(signal)
        return web.json_response(execution.describe() | {"signals": len(execution.signals)})

    async def read_log(self, request: web.Request) -> web.StreamResponse:
        execution = self.find(request)
        limit = take_number(request, "limit", PAGE, least=1, most=LARGEST_PAGE)
        offset = take_number(request, "offset", 0, least=0)
        events = [encode(event) for event in execution.tell(offset)[:limit]]
        page = {"events": events, "count": len(events), "limit": limit, "offset": offset}
        return web.json_response({"execution_id": execution.id, **page})


def encode(event: Event) -> dict[str, object]:
    return {"type": event.type, **event.data}
