"""What the sample MCP server streams beside streamable HTTP: the transport of 2024-11-05, and events of executions."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp_types import TextContent

from proxy.demo.sample_server import SampleServer, run_sample_server
from tests.demo.callers import GUARD_SECONDS, Rest, call, connect


async def test_the_same_tools_are_there_over_http_with_sse() -> None:
    async with run_sample_server(run_seconds=0) as server, asyncio.timeout(GUARD_SECONDS):
        async with sse_client(f"{server.url}/mcp/v1/sse") as (reading, writing):
            async with ClientSession(reading, writing) as session:
                await session.initialize()
                assert len((await session.list_tools()).tools) == 72
                result = await session.call_tool("aegis.workflow.run", {"name": "nightly-etl"})
                assert isinstance(result.content[0], TextContent)
                assert '"completed"' in result.content[0].text
        async with connect(server) as client:
            (run,) = (await call(client, "aegis.workflow.executions.list"))["executions"]
    assert run["status"] == "completed"


async def test_the_first_event_names_the_address_for_messages_which_needs_nothing_else() -> None:
    async with run_sample_server() as server, aiohttp.ClientSession() as http, asyncio.timeout(GUARD_SECONDS):
        async with http.get(f"{server.url}/mcp/v1/sse") as stream:
            assert (stream.status, stream.content_type) == (200, "text/event-stream")
            assert (await stream.content.readline()).strip() == b"event: endpoint"
            address = (await stream.content.readline()).decode().strip().removeprefix("data: ")
            assert address.startswith("/mcp/v1/messages?session_id=")
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            async with http.post(f"{server.url}{address}", json=ping) as answer:
                assert answer.status == 202
            async with http.post(f"{server.url}{address[:-4]}0000", json=ping) as answer:
                assert answer.status == 404
        async with http.get(f"{server.url}{address}") as answer:
            assert answer.status == 405


@pytest.mark.parametrize(("method", "path"), [("GET", "/mcp/v1/sse"), ("POST", "/mcp/v1/messages?session_id=x")])
async def test_a_foreign_host_is_misdirected(method: str, path: str) -> None:
    headers = {"Host": "evil.example", "Content-Type": "application/json"}
    async with run_sample_server() as server, aiohttp.ClientSession() as http:
        async with http.request(method, f"{server.url}{path}", headers=headers) as answer:
            assert answer.status == 421


async def test_the_events_of_an_execution_are_told_until_it_ends() -> None:
    async with (
        run_sample_server(run_seconds=3000) as server,
        connect(server) as client,
        aiohttp.ClientSession() as http,
        asyncio.timeout(GUARD_SECONDS),
    ):
        rest = Rest(http, server.url)
        run = asyncio.create_task(call(client, "aegis.workflow.run", name="nightly-etl"))
        await server.platform.runs.wait_for(started=1)
        (execution_id,) = server.platform.executions
        events = rest.follow(f"/proxy/v1/executions/{execution_id}/stream")
        assert [(await anext(events))[1]["line"] for _ in range(2)] == ["workflow nightly-etl accepted", "started"]
        await call(client, "aegis.workflow.cancel", execution_id=execution_id)
        assert [kind async for kind, _ in events] == ["log", "end"]
        await run
        assert "there is no execution" in await rest.ask_in_vain("GET", "/proxy/v1/executions/x/stream", 404)


async def test_the_server_ends_with_streams_open_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http, asyncio.timeout(GUARD_SECONDS):
        async with run_sample_server() as server:
            execution = server.platform.start("task", "release-notes", None, seconds=None)
            streams = [
                await http.get(f"{server.url}{path}")
                for path in ("/mcp/v1/sse", f"/proxy/v1/executions/{execution.id}/stream")
            ]
            for stream in streams:
                assert (await stream.content.readline()).startswith(b"event: ")
        for stream in streams:
            with contextlib.suppress(aiohttp.ClientPayloadError):  # ended or cut: the point is that it is over
                await stream.read()
    assert asyncio.all_tasks() == before


async def test_a_launched_workflow_ends_with_its_server() -> None:
    async with run_sample_server(run_seconds=3000) as server, asyncio.timeout(GUARD_SECONDS):
        execution = server.platform.launch_workflow("nightly-etl", None)
        await server.platform.runs.wait_for(started=1)
    assert execution.outcome == "cancelled"


def test_the_directory_of_a_server_goes_with_it() -> None:
    async def run() -> SampleServer:
        async with run_sample_server() as server:
            assert server.platform.directory.is_dir()
            return server

    assert not asyncio.run(run()).platform.directory.exists()
