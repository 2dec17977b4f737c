"""How the platform's REST API is asked and how it answers, whatever it is asked for.  [io]

In: requests, and what the platform says. Out: bodies and numbers that were checked; JSON, pages of lists, streams of
events; errors as `{"error": "…"}`. Refuses to know: agents, workflows, executions, volumes.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.assertion_check import AssertionCheck, NotIdentified
from proxy.demo.sample_execution import Event
from proxy.demo.sample_faults import InTheWay, Missing
from proxy.demo.sample_platform import Platform

Item = TypeVar("Item")
Json = dict[str, Any]

HEALTH_PATH = "/health"
PAGE = 100
LARGEST_PAGE = 1000
LARGEST = 10**9 - 1


# Asked


async def read_text(request: web.Request) -> str:
    """The body. Raises ToolError."""
    try:
        return await request.text()
    except (ValueError, LookupError) as error:
        raise ToolError("the body is not a text") from error


async def read_json(request: web.Request) -> Json:
    """The body, which is an object; none is an empty one. Raises ToolError."""
    text = await read_text(request)
    try:
        body = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ToolError("the body must be a JSON object")
    return body


def take_text(body: Json, name: str) -> str:
    """A member that has to be there. Raises ToolError."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ToolError(f"{name!r} is needed: a text")
    return value


def take_size(body: Json, name: str, otherwise: int) -> int:
    """A number of bytes. Raises ToolError."""
    value = body.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ToolError(f"{name!r} must be a number of bytes")
    return value


def take_number(request: web.Request, name: str, otherwise: int, *, least: int, most: int = LARGEST) -> int:
    """A number in the query. Raises ToolError."""
    text = request.query.get(name, str(otherwise))
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ToolError(f"{name!r} must be a number from {least} to {most}")
    return int(text)


# Answered


def answer_page(
    request: web.Request, name: str, items: Sequence[Item], describe: Callable[[Item], object]
) -> web.Response:
    """One page of a list. Raises ToolError."""
    limit = take_number(request, "limit", PAGE, least=1, most=LARGEST_PAGE)
    offset = take_number(request, "offset", 0, least=0)
    found = [describe(item) for item in items[offset : offset + limit]]
    return web.json_response({name: found, "total": len(items), "limit": limit, "offset": offset})


async def stream_events(request: web.Request, events: AsyncGenerator[Event, None]) -> web.StreamResponse:
    """Tell each as it comes, to the last."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    async with aclosing(events):
        async for event in events:
            await response.write(event.encode())
    await response.write_eof()
    return response


def refuse(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def find_status(error: ToolError) -> HTTPStatus:
    if isinstance(error, Missing):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.CONFLICT if isinstance(error, InTheWay) else HTTPStatus.BAD_REQUEST


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ToolError as error:
        return refuse(find_status(error), str(error))
    except web.HTTPException as error:  # no such route, no such method, a body that is too large
        refusal = refuse(error.status, error.reason)
        if isinstance(error, web.HTTPMethodNotAllowed):
            refusal.headers["Allow"] = error.headers["Allow"]
        return refusal


def build_note(platform: Platform, check: AssertionCheck | None) -> Middleware:
    """Notes what arrives, and in whose name, which has to be said where there is a check; refuses when told to."""

    @web.middleware
    async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        platform.requests_seen.append((request.method, frozenset(name.lower() for name in request.headers)))
        if check is not None and request.path != HEALTH_PATH:
            try:
                platform.callers_seen.append(await check.check(request.headers))
            except NotIdentified as error:
                return refuse(HTTPStatus.UNAUTHORIZED, str(error))
        if platform.refusals:
            return refuse(platform.refusals.popleft(), "the platform was told to refuse this")
        return await handler(request)

    return note_request
