"""The sample MCP server, met by the official client over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from proxy.demo.assertion_check import AssertionCheck
from proxy.demo.sample_definition import manifest_of
from proxy.demo.sample_server import SampleServer, run_sample_server
from tests.demo.callers import ERAS, GUARD_SECONDS, Rest, call, call_in_vain, connect
from tests.demo.identities import ADA, ISSUER, Issuer, present, run_issuer

ROOT = Path(__file__).parent.parent.parent
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
async def server() -> AsyncIterator[SampleServer]:
    async with run_sample_server(run_seconds=0) as running:
        yield running


async def initialize(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str] = ACCEPT) -> str:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    async with http.post(url, json=message, headers=headers) as response:
        assert response.status == 200
        await response.read()
        return response.headers["Mcp-Session-Id"]


def run_message(**params: Any) -> dict[str, Any]:
    call = {"name": "aegis.workflow.run", "arguments": {"name": "nightly-etl"}, **params}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}


@pytest.mark.parametrize("mode", ERAS)
async def test_a_workflow_runs_to_its_end_and_tells_every_step(server: SampleServer, mode: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    server.platform.steps = 3
    async with connect(server, mode) as client:
        result = await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}, progress_callback=note)
    assert result.structured_content is not None
    assert result.structured_content["status"] == "completed"
    assert told == [(step, 3, f"nightly-etl: step {step} of 3") for step in (1, 2, 3)]
    assert (server.platform.runs.started, server.platform.runs.finished, server.platform.runs.cancelled) == (1, 1, 0)


@pytest.mark.parametrize("mode", ERAS)
async def test_progress_arrives_while_a_workflow_runs_and_cancelling_the_call_stops_it(
    server: SampleServer, mode: str
) -> None:
    arrived = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        arrived.set()

    server.platform.run_seconds, server.platform.steps = 3000, 100_000
    async with connect(server, mode) as client, asyncio.timeout(GUARD_SECONDS):
        run = asyncio.create_task(
            client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}, progress_callback=note)
        )
        await arrived.wait()
        assert not run.done()
        assert server.platform.runs.finished == 0
        run.cancel()
        await server.platform.runs.wait_for(cancelled=1)
        with pytest.raises(asyncio.CancelledError):
            await run
        (execution,) = (await call(client, "aegis.workflow.executions.list"))["executions"]
    assert execution["status"] == "cancelled"


async def test_a_workflow_is_cancelled_by_its_tool_from_another_connection(server: SampleServer) -> None:
    server.platform.run_seconds = 3000
    async with connect(server) as one, connect(server) as other, asyncio.timeout(GUARD_SECONDS):
        run = asyncio.create_task(call(one, "aegis.workflow.run", name="report-weekly"))
        await server.platform.runs.wait_for(started=1)
        (execution,) = (await call(other, "aegis.workflow.executions.list", workflow_id="report-weekly"))["executions"]
        assert "cancel it first" in await call_in_vain(
            other, "aegis.workflow.remove", execution_id=execution["execution_id"]
        )
        await call(other, "aegis.workflow.cancel", execution_id=execution["execution_id"])
        assert (await run)["status"] == "cancelled"


async def test_a_task_is_done_when_its_time_has_come(server: SampleServer) -> None:
    now = 0.0
    server.platform.clock = lambda: now
    async with connect(server) as client:
        task = await call(client, "aegis.task.execute", agent_id="release-notes", intent="for 2.0")
        given = {"execution_id": task["execution_id"]}
        assert (await call(client, "aegis.task.status", **given))["status"] == "running"
        assert (await call(client, "aegis.task.wait", **given, timeout_seconds=0))["status"] == "running"
        now = 60.0
        assert (await call(client, "aegis.task.wait", **given))["status"] == "completed"
        assert (await call(client, "aegis.task.logs", **given))["lines"][-1] == "completed"
        assert "has ended" in await call_in_vain(client, "aegis.task.cancel", **given)
        await call(client, "aegis.task.remove", **given)
        assert "there is no execution" in await call_in_vain(client, "aegis.task.status", **given)


async def test_definitions_are_really_created_updated_moved_and_deleted(server: SampleServer) -> None:
    manifest = manifest_of("workflow", "mine", "Counts sheep.")
    async with connect(server) as client:
        assert "there is no workflow 'mine'" in await call_in_vain(
            client, "aegis.workflow.update", manifest_yaml=manifest
        )
        await call(client, "aegis.workflow.create", manifest_yaml=manifest)
        assert "exists" in await call_in_vain(client, "aegis.workflow.create", manifest_yaml=manifest)
        assert (await call(client, "aegis.workflow.update", manifest_yaml=manifest))["revision"] == 2
        await call(client, "aegis.workflow.promote", name="mine", target_scope="global")
        found = (await call(client, "aegis.workflow.list", scope="global"))["workflows"]
        assert [each["name"] for each in found] == ["mine"]
        assert (await call(client, "aegis.workflow.search", query="SHEEP"))["workflows"] == found
        assert (await call(client, "aegis.workflow.export", name="mine"))["manifest_yaml"] == manifest
        await call(client, "aegis.workflow.delete", name="mine")
        assert "there is no workflow 'mine'" in await call_in_vain(client, "aegis.workflow.export", name="mine")
        generated = await call(client, "aegis.agent.generate", input="Sort my mail")
        created = await call(client, "aegis.agent.create", manifest_yaml=generated["manifest_yaml"])
        await call(client, "aegis.agent.delete", agent_id=created["id"])
        assert "sort-mail" not in str(await call(client, "aegis.agent.list"))


async def test_repositories_and_scripts_are_really_kept(server: SampleServer) -> None:
    async with connect(server) as client:
        clone = await call(client, "aegis.git.clone", repo_url="https://git.example/shop.git", label="shop")
        given = {"binding_id": clone["binding_id"]}
        assert "nothing to commit" in await call_in_vain(client, "aegis.git.commit", **given, message="none")
        await call(client, "aegis.git.refresh", **given)
        assert "README.md" in (await call(client, "aegis.git.diff", **given))["diff"]
        commit = await call(client, "aegis.git.commit", **given, message="update")
        assert (await call(client, "aegis.git.push", **given))["pushed_commits"] == 1
        assert (await call(client, "aegis.git.status", **given))["commit"] == commit["commit"]
        await call(client, "aegis.git.delete", **given)
        assert (await call(client, "aegis.git.list"))["repositories"] == []
        script = await call(client, "aegis.script.save", name="sum", code="1 + 1", tags=["math"])
        assert "already" in await call_in_vain(client, "aegis.script.save", name="sum", code="2")
        await call(client, "aegis.script.update", id=script["id"], name="sum", code="1 + 2", tags=["math"])
        assert (await call(client, "aegis.script.get", id=script["id"]))["versions"] == ["1 + 1", "1 + 2"]
        assert len((await call(client, "aegis.script.list", tag="math"))["scripts"]) == 1
        await call(client, "aegis.script.delete", id=script["id"])
        assert (await call(client, "aegis.script.list"))["scripts"] == []


async def test_the_platform_describes_itself(server: SampleServer) -> None:
    async with connect(server) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert [each["name"] for each in (await call(client, "aegis.tools.list"))["tools"]] == names
        found = (await call(client, "aegis.tools.search", query="fleet invoke"))["tools"]
        assert [each["name"] for each in found] == ["aegis.edge.fleet.invoke"]
        assert (await call(client, "aegis.system.info"))["workflows"] == 3
        assert (await call(client, "aegis.system.config"))["node"]["id"] == "sample"
        assert (await call(client, "aegis.runtime.list"))["runtimes"]
        schema = (await call(client, "aegis.schema.get", key="workflow/manifest"))["schema"]
        assert schema["properties"]["kind"] == {"const": "Workflow"}
        manifest = manifest_of("agent", "some", "")
        assert (await call(client, "aegis.schema.validate", kind="agent", manifest_yaml=manifest))["valid"]
        assert "not YAML" in await call_in_vain(client, "aegis.workflow.validate", manifest_yaml="{")
        assert "kind: Workflow" in await call_in_vain(client, "aegis.workflow.validate", manifest_yaml=manifest)


async def test_commands_to_the_fleet_are_noted_and_can_be_cancelled(server: SampleServer) -> None:
    async with connect(server) as client:
        invoked = await call(client, "aegis.edge.fleet.invoke", target="edge-berlin", tool_name="aegis.system.info")
        assert invoked["nodes"] == ["edge-berlin-1", "edge-berlin-2"]
        cancelled = await call(client, "aegis.edge.fleet.cancel", fleet_command_id=invoked["fleet_command_id"])
        assert cancelled["status"] == "cancelled"
        assert "there are: edge-berlin-1" in await call_in_vain(client, "aegis.edge.fleet.list", target="edge-paris")


async def test_a_pipeline_leaves_its_log_as_a_file(server: SampleServer) -> None:
    async with connect(server) as client:
        started = await call(client, "aegis.execute.intent", volume_id="reports", intent="count the orders")
        given = {"pipeline_execution_id": started["pipeline_execution_id"]}
        server.platform.clock = lambda: float("inf")
        assert (await call(client, "aegis.execute.wait", **given))["status"] == "completed"
        kept = await call(client, "aegis.execution.file", execution_id=started["execution_id"], path="log.txt")
        assert kept["content"].endswith("completed")


async def test_a_deleted_session_is_gone(server: SampleServer) -> None:
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with aiohttp.ClientSession() as http:
        headers = {**ACCEPT, "Mcp-Session-Id": await initialize(http, server.mcp_url)}
        async with http.post(server.mcp_url, json=ping, headers=headers) as response:
            assert response.status == 200
            await response.read()
        async with http.delete(server.mcp_url, headers=headers) as response:
            assert response.status == 200
        async with http.post(server.mcp_url, json=ping, headers=headers) as response:
            assert response.status == 404


async def test_only_names_of_headers_are_remembered(server: SampleServer) -> None:
    url, headers = f"{server.url}/health", {"X-Canary": "sings"}
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        assert await response.json() == {"status": "ok"}
    (method, names) = server.platform.requests_seen[-1]
    assert method == "GET"
    assert "x-canary" in names
    assert "sings" not in repr(server.platform)


async def test_a_foreign_host_is_misdirected(server: SampleServer) -> None:
    headers = {**ACCEPT, "Host": "evil.example"}
    async with aiohttp.ClientSession() as http, http.post(server.mcp_url, json={}, headers=headers) as response:
        assert response.status == 421


async def test_two_servers_have_two_platforms(server: SampleServer) -> None:
    async with run_sample_server() as second, connect(server) as one, connect(second) as other:
        await call(one, "aegis.workflow.delete", name="nightly-etl")
        assert (await call(other, "aegis.workflow.export", name="nightly-etl"))["name"] == "nightly-etl"
        assert "there is no workflow" in await call_in_vain(one, "aegis.workflow.export", name="nightly-etl")


async def test_it_ends_with_open_streams_of_both_eras_and_leaves_no_task_and_no_socket() -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http, asyncio.timeout(GUARD_SECONDS):
        async with run_sample_server(run_seconds=3000, steps=100_000) as server:
            legacy = {**ACCEPT, "Mcp-Session-Id": await initialize(http, server.mcp_url)}
            listening = await http.get(server.mcp_url, headers=legacy)
            running = await http.post(server.mcp_url, json=run_message(), headers=legacy)
            modern = {
                **ACCEPT,
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "tools/call",
                "Mcp-Name": "aegis.workflow.run",
            }
            meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "progressToken": 1,
            }
            running_too = await http.post(server.mcp_url, json=run_message(_meta=meta), headers=modern)
            await server.platform.runs.wait_for(started=2)
        assert server.platform.runs.cancelled == 2
        for response in (listening, running, running_too):
            assert response.status == 200
            with contextlib.suppress(aiohttp.ClientPayloadError):  # ended or cut: the point is that it is over
                await response.read()
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(server.url)
    assert asyncio.all_tasks() == before


async def test_a_port_in_use_is_an_error_not_an_exit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with run_sample_server(port=taken.getsockname()[1]):
            pytest.fail("it started")


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with run_issuer({"ed": Ed25519PrivateKey.generate()}) as issuer:
        yield issuer


async def test_with_a_check_it_answers_nobody_but_whom_an_assertion_names(issuer: Issuer) -> None:
    check = AssertionCheck(issuer.jwks_uri, "mcp", ISSUER)
    async with run_sample_server(run_seconds=0, check=check) as server, aiohttp.ClientSession() as http:
        rest = Rest(http, server.url)
        assert await rest.ask("GET", "/health") == {"status": "ok"}
        paths = ("/mcp/v1", "/mcp/v1/sse", "/mcp/v1/messages", "/proxy/v1/executions/x/stream", "/nothing", "/health/x")
        for method in ("GET", "POST", "DELETE"):
            for path in paths:
                assert "a token is needed" in await rest.ask_in_vain(method, path, 401)
        stale = present(issuer.sign("ed", exp=1))
        assert "expired" in await rest.ask_in_vain("POST", "/mcp/v1", 401, headers=stale)
        assert [*server.platform.callers_seen] == []
        async with (
            httpx2.AsyncClient(headers=dict(present(issuer.sign("ed")))) as authenticated,
            Client(streamable_http_client(server.mcp_url, http_client=authenticated)) as client,
        ):
            assert (await call(client, "aegis.workflow.run", name="nightly-etl"))["status"] == "completed"
        assert {*server.platform.callers_seen} == {ADA}


async def test_as_a_command_it_requires_assertions_when_it_is_told_where_their_keys_are(issuer: Issuer) -> None:
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.demo.sample_server", "--jwks-uri", issuer.jwks_uri, "--audience", "here",
        "--issuer", "there", cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert command.stdout is not None
    url = (await command.stdout.readline()).decode().strip()
    async with aiohttp.ClientSession() as http:
        rest = Rest(http, url)
        assert "a token is needed" in await rest.ask_in_vain("POST", "", 401, json={})
        for why, claims in {"Audience": {"iss": "there"}, "Invalid issuer": {"aud": "here"}}.items():
            headers = present(issuer.sign("ed", None, **claims))
            assert why in await rest.ask_in_vain("POST", "", 401, headers=headers)
        assert await initialize(http, url, {**ACCEPT, **present(issuer.sign("ed", aud="here", iss="there"))})
    command.send_signal(signal.SIGINT)
    assert await command.wait() == 0


async def test_it_runs_as_a_command_and_ends_at_an_interrupt() -> None:
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.demo.sample_server", "--port", "0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert command.stdout is not None
    url = (await command.stdout.readline()).decode().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/mcp/v1", url)
    async with Client(streamable_http_client(url)) as client:
        assert len((await client.list_tools()).tools) == 72
    command.send_signal(signal.SIGINT)
    assert await command.wait() == 0
