"""A believable MCP server for the demo and the tests, written with the official `mcp` package.  [io]

In: a port. Out: streamable HTTP at `/mcp/v1`, in both eras (sessions up to 2025-11-25, stateless 2026-07-28), and
HTTP+SSE beside it, with every tool of the platform, its volumes as resources, one prompt, and `/health`. Each server
has its own platform.
Refuses to know: keys. It is what stands behind the proxy, and it lets in whoever reaches it, unless it was given an
`AssertionCheck`: then it wants to be told in whose name every request comes, `/health` excepted.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.demo.assertion_check import AssertionCheck, NotIdentified
from proxy.demo.sample_face import SampleFace
from proxy.demo.sample_platform import Platform
from proxy.demo.sample_streams import build_event_route, build_sse_routes

MCP_PATH = "/mcp/v1"
HEALTH_PATH = "/health"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STEPS = 30
GRACE_SECONDS = 5
SIGNAL_WATCHER = "_shutdown_watcher"


@dataclass(frozen=True, slots=True)
class SampleServer:
    """A running server. `platform` is its state, with counters."""

    url: str
    platform: Platform

    @property
    def mcp_url(self) -> str:
        return f"{self.url}{MCP_PATH}"


def build_application(platform: Platform, host: str, check: AssertionCheck | None) -> ASGIApp:
    """`host` decides which Host headers are answered: on loopback only loopback names (421), else any."""

    async def answer_health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    security = form_security(host)
    server = SampleFace(platform).build_server()
    routes = [Route(HEALTH_PATH, answer_health), *build_sse_routes(server, security), build_event_route(platform)]
    application = server.streamable_http_app(
        streamable_http_path=MCP_PATH, host=host, transport_security=security, custom_starlette_routes=routes
    )

    async def note_request(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = frozenset(name.decode("latin-1") for name, _ in scope["headers"])
            platform.requests_seen.append((scope["method"], names))
            if check is not None and scope["path"] != HEALTH_PATH:
                try:
                    platform.callers_seen.append(await check.check(Headers(scope=scope)))
                except NotIdentified as error:
                    refusal = JSONResponse({"error": str(error)}, HTTPStatus.UNAUTHORIZED)
                    await refusal(scope, receive, send)
                    return
        await application(scope, receive, send)

    return note_request


def form_security(host: str) -> TransportSecuritySettings | None:
    """A web page that has its own name point to the loopback must not get an answer there."""
    if host not in LOOPBACK:
        return None
    names = ["127.0.0.1:*", "localhost:*", "[::1]:*"]
    return TransportSecuritySettings(allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names])


@asynccontextmanager
async def run_sample_server(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    run_seconds: float = 30.0,
    steps: int = STEPS,
    check: AssertionCheck | None = None,
) -> AsyncIterator[SampleServer]:
    """Serve in the current event loop while the context lasts; port 0 picks a free one. Raises OSError."""
    with TemporaryDirectory(prefix="aegis-sample-") as directory:
        platform = Platform(Path(directory), run_seconds, steps)
        async with run_application(build_application(platform, host, check), host, port) as url:
            try:
                yield SampleServer(url, platform)
            finally:
                await platform.close()


@asynccontextmanager
async def run_application(application: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Its URL, while it is served in this event loop; port 0 picks a free one. Raises OSError.

    `Server.serve` is not used: it takes the signals of the process, and looks ten times a second whether to end.
    """
    config = uvicorn.Config(
        application,
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
        yield f"http://{name}:{listener.getsockname()[1]}"
    finally:
        await _shut_down(server, listener)


async def _shut_down(server: uvicorn.Server, listener: socket.socket) -> None:
    """End the sessions, then hang up on everyone: uvicorn would wait for open streams to end by themselves."""
    for accepting in server.servers:
        accepting.close()
    await server.lifespan.shutdown()
    for connection in list(server.server_state.connections):
        connection.transport.close()
    await asyncio.sleep(0)  # who was hung up on is forgotten in the next turn of the loop
    if server.server_state.connections or server.server_state.tasks:
        await server.shutdown(sockets=[listener])  # which would take a tenth of a second for nobody, too
    # sse-starlette looks out for signals in a task of its own, for as long as the event loop lives.
    watchers = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == SIGNAL_WATCHER]
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


async def serve(options: argparse.Namespace, tell: Callable[[str], None]) -> None:
    check = None
    if options.jwks_uri is not None:
        check = AssertionCheck(options.jwks_uri, options.audience, options.issuer)
    async with run_sample_server(options.host, options.port, run_seconds=options.run_seconds, check=check) as server:
        tell(server.mcp_url)
        await asyncio.Event().wait()


def main() -> None:
    """`python -m proxy.demo.sample_server --port N`: prints its URL, serves until interrupted."""
    parser = argparse.ArgumentParser(description="A sample MCP server, without any access control of its own.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--run-seconds", type=float, default=30.0, help="how long aegis.workflow.run takes")
    parser.add_argument("--jwks-uri", help="require assertions that are signed with a key published here")
    parser.add_argument("--audience", default="mcp", help="whom they must be made for")
    parser.add_argument("--issuer", default="aegis-proxy", help="who must have made them")
    try:
        asyncio.run(serve(parser.parse_args(), lambda url: print(url, flush=True)))  # noqa: T201
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
