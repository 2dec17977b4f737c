"""What the sample MCP server serves beside streamable HTTP, for clients of old and for pages that watch.  [io]

In: its MCP server and its platform. Out: routes for HTTP+SSE of 2024-11-05 (a stream at `/mcp/v1/sse`, messages at
`/mcp/v1/messages`) and for the events of an execution. Like the platform's, the address for messages asks for nothing
but the id of a stream. Refuses to know: tools, keys, identities.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.demo.sample_faults import Missing
from proxy.demo.sample_platform import Platform

STREAM_PATH = "/mcp/v1/sse"
MESSAGES_PATH = "/mcp/v1/messages"
EVENTS_PATH = "/proxy/v1/executions/{id}/stream"


class _Application:
    """Starlette takes a function for a handler of its own, and an object for an application."""

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


def build_sse_routes(server: Server[Any], security: TransportSecuritySettings | None) -> list[Route]:
    """HTTP+SSE of 2024-11-05. `security` decides which Host headers are answered, as on the other transport."""
    transport, guard = SseServerTransport(MESSAGES_PATH), TransportSecurityMiddleware(security)

    async def serve_stream(scope: Scope, receive: Receive, send: Send) -> None:
        # The transport's own guard raises after it has answered, which would be logged as a failure.
        refusal = await guard.validate_request(Request(scope, receive), is_post=False)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        async with transport.connect_sse(scope, receive, send) as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    async def serve_message(scope: Scope, receive: Receive, send: Send) -> None:
        refusal = await guard.validate_request(Request(scope, receive), is_post=True)
        await (refusal or transport.handle_post_message)(scope, receive, send)

    return [
        Route(STREAM_PATH, _Application(serve_stream), methods=["GET"]),
        Route(MESSAGES_PATH, _Application(serve_message), methods=["POST"]),
    ]


def build_event_route(platform: Platform) -> Route:
    """The events of an execution, until it has ended."""

    async def stream_events(request: Request) -> Response:
        try:
            execution = platform.get_execution(request.path_params["id"])
        except Missing as error:
            return JSONResponse({"error": str(error)}, HTTPStatus.NOT_FOUND)

        async def encode() -> AsyncIterator[bytes]:
            async with aclosing(platform.follow(execution)) as events:
                async for event in events:
                    yield event.encode()

        return StreamingResponse(encode(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return Route(EVENTS_PATH, stream_events, methods=["GET"])
