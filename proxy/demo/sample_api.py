"""The REST face of the sample platform: what SDKs reach, on a port of its own.  [io]

In: a platform, which an MCP server may show from its other side. Out: its agents, workflows, executions and volumes
below `/v1`, and `/health`. Given an `AssertionCheck` it wants to be told in whose name it is asked, `/health` excepted.
Refuses to know: keys and scopes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.demo.assertion_check import AssertionCheck
from proxy.demo.rest_answers import HEALTH_PATH, answer_errors, build_note
from proxy.demo.rest_definitions import AgentRoutes, WorkflowRoutes
from proxy.demo.rest_executions import ExecutionRoutes, WorkflowExecutionRoutes
from proxy.demo.rest_volumes import VolumeRoutes
from proxy.demo.sample_platform import Platform

MAX_JSON_BYTES = 4 << 20
# For connections to close, once nothing is answered any more.
GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SampleApi:
    """A running REST API."""

    url: str
    platform: Platform


class Answers:
    """The requests being answered, so that streams without an end do not hold up the server's."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def build_middleware(self) -> Middleware:
        @web.middleware
        async def note_task(request: web.Request, handler: Handler) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None
            self._running.add(task)
            try:
                return await handler(request)
            finally:
                self._running.discard(task)

        return note_task

    async def cut(self, _: web.Application) -> None:
        """End them all, now."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def answer_health(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


def build_api(platform: Platform, check: AssertionCheck | None) -> web.Application:
    answers = Answers()
    middlewares = [answers.build_middleware(), answer_errors, build_note(platform, check)]
    api = web.Application(middlewares=middlewares, client_max_size=MAX_JSON_BYTES)
    api.on_shutdown.append(answers.cut)
    api.router.add_get(HEALTH_PATH, answer_health)
    # The executions of workflows come first: their path could also be that of a workflow.
    for group in (
        AgentRoutes(platform),
        WorkflowExecutionRoutes(platform),
        WorkflowRoutes(platform),
        ExecutionRoutes(platform),
        VolumeRoutes(platform),
    ):
        api.router.add_routes(group.list_routes())
    return api


@asynccontextmanager
async def run_sample_api(
    platform: Platform, host: str = "127.0.0.1", port: int = 0, check: AssertionCheck | None = None
) -> AsyncIterator[SampleApi]:
    """Serve in the current event loop while the context lasts; port 0 picks a free one. Raises OSError."""
    # A stream whose client has left would otherwise wait for its next event before it noticed.
    runner = web.AppRunner(
        build_api(platform, check), access_log=None, handler_cancellation=True, shutdown_timeout=GRACE_SECONDS
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_host, bound_port = runner.addresses[0][:2]
        name = f"[{bound_host}]" if ":" in bound_host else bound_host
        yield SampleApi(f"http://{name}:{bound_port}", platform)
    finally:
        await runner.cleanup()
