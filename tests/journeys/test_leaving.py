"""Somebody leaves in the middle: the client, or the upstream."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from mcp import MCPError

from proxy.demo.sample_server import SampleServer, run_sample_server
from proxy.server import Proxy
from proxy.settings import AfterLeavingSettings
from tests.patient_upstream import RUN, PatientUpstream, form_initialize, form_result, run_patient_upstream
from tests.raw_client import RawClient, ask_raw, form_request, open_raw
from tests.staging import (
    GUARD_SECONDS,
    INITIALIZE,
    MODERN,
    MODERN_META,
    Stage,
    Wire,
    connect,
    form_call,
    get_mcp_url,
)

OLDER = ("2025-03-26", "2025-06-18", "2025-11-25")
LARGE_ANSWER_BYTES = 20_000_000  # more than is ever held: it flows through before it is whole


def run_workflow(modern: bool) -> tuple[dict[str, object], dict[str, str]]:
    """The message that starts a long run, and its headers."""
    message = form_call("aegis.workflow.run", {"name": "nightly-etl"})
    message["params"]["_meta"] = {"progressToken": 7} | (MODERN_META if modern else {})
    mirrored = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "aegis.workflow.run"}
    return message, mirrored if modern else {}


async def test_a_modern_client_that_leaves_cancels_its_call(stage: Stage, proxy: Proxy, sample: SampleServer) -> None:
    sample.platform.run_seconds, sample.platform.steps = 600, 6000
    key = await stage.mint()
    message, headers = run_workflow(modern=True)
    async with asyncio.timeout(GUARD_SECONDS), aiohttp.ClientSession() as http:
        answer = await Wire(http, get_mcp_url(proxy)).post(key.token, message, **headers)
        await answer.content.readany()
        answer.close()
        await sample.platform.runs.wait_for(cancelled=1)
        while len(proxy.registry):
            await asyncio.sleep(0.01)


async def test_a_modern_client_that_leaves_before_any_answer_cancels_its_call(stage: Stage) -> None:
    key = await stage.mint()
    async with silent_upstream() as upstream, stage.proxy(upstream.url) as proxy, aiohttp.ClientSession() as http:
        message, headers = run_workflow(modern=True)
        async with asyncio.timeout(GUARD_SECONDS):
            asking = asyncio.create_task(Wire(http, get_mcp_url(proxy)).post(key.token, message, **headers))
            await upstream.arrived.wait()
            asking.cancel()
            await upstream.left.wait()


async def test_a_legacy_client_that_leaves_does_not_cancel_its_call(stage: Stage) -> None:
    """Its answer is drained instead, and the upstream's connection serves the next request."""
    key = await stage.mint()
    async with silent_upstream() as upstream, stage.proxy(upstream.url) as proxy, asyncio.timeout(GUARD_SECONDS):
        await leave(proxy, key.token, upstream)
        upstream.answer.set()
        async with aiohttp.ClientSession() as http:
            assert await Wire(http, get_mcp_url(proxy)).call(key.token, "aegis.runtime.list") == 200
        assert upstream.connections == 1
        assert not upstream.left.is_set()


async def test_what_a_legacy_client_left_behind_is_drained_for_a_bounded_time(stage: Stage) -> None:
    key = await stage.mint()
    drain = {"after_leaving": AfterLeavingSettings(seconds=0.2, bytes=1_000_000)}
    async with silent_upstream() as upstream, stage.proxy(upstream.url, server=drain) as proxy:
        async with asyncio.timeout(GUARD_SECONDS):
            await leave(proxy, key.token, upstream)
            await upstream.left.wait()


async def begin_run(client: RawClient, token: str, revision: str, how_far: str, upstream: PatientUpstream) -> None:
    """Call, and return when the answer has come this far."""
    message, mirrored = run_workflow(modern=revision == MODERN)
    name = f"{revision} {'events' if how_far == 'events' else 'silence'}"
    message["params"] = {**form_call(RUN, {"name": name})["params"], "_meta": MODERN_META if mirrored else {}}
    headers = mirrored or {"MCP-Protocol-Version": revision, "Mcp-Session-Id": revision}
    if revision == OLDER[0]:
        del headers["MCP-Protocol-Version"]
    lines = [f"{header}: {value}" for header, value in headers.items()]
    await client.send(form_request("POST", "/mcp/v1", *lines, token=token, body=message))
    while name not in upstream.open:
        await asyncio.sleep(0.01)
    if how_far == "half of a large answer":
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {LARGE_ANSWER_BYTES}\r\n\r\n"
        upstream.open[name].write(head.encode() + b" " * (LARGE_ANSWER_BYTES // 2))
    if how_far != "silence":
        assert (await client.read_head())[0] == "HTTP/1.1 200 OK"


def finish_run(writer: asyncio.StreamWriter, how_far: str, upstream: PatientUpstream) -> None:
    if how_far == "silence":
        upstream.reply(writer, form_result(1))
    elif how_far == "events":
        writer.close()
    else:
        writer.write(b" " * (LARGE_ANSWER_BYTES // 2))


def find_open(upstream: PatientUpstream) -> dict[str, asyncio.StreamWriter]:
    """What is under way, by revision. A connection that was reset is not taken out of `open`."""
    return {name.split()[0]: writer for name, writer in upstream.open.items() if not writer.is_closing()}


@pytest.mark.parametrize("how_far", ["silence", "events", "half of a large answer"])
async def test_leaving_cancels_in_the_modern_revision_alone_however_far_the_answer_has_come(
    how_far: str, stage: Stage
) -> None:
    token = (await stage.mint()).token
    patient = {"after_leaving": AfterLeavingSettings(seconds=600, bytes=4 * LARGE_ANSWER_BYTES)}
    async with run_patient_upstream() as upstream, stage.proxy(upstream.url, server=patient) as proxy:
        async with asyncio.timeout(GUARD_SECONDS), contextlib.AsyncExitStack() as stack:
            for revision in OLDER:
                begun = await ask_raw(proxy.data_address, form_request(token=token, body=form_initialize(revision)))
                assert begun.headers["Mcp-Session-Id"] == revision
            clients = [await stack.enter_async_context(open_raw(proxy.data_address)) for _ in (*OLDER, MODERN)]
            for revision, client in zip((*OLDER, MODERN), clients, strict=True):
                await begin_run(client, token, revision, how_far, upstream)
            *older, modern = clients
            for client in older:
                client.reset()
            # Whatever their leaving does, it has done before the next request is answered, and that before MODERN's.
            assert (await ask_raw(proxy.data_address, form_request(body=INITIALIZE))).status == 401
            modern.reset()
            while MODERN in find_open(upstream):
                await asyncio.sleep(0.01)
            assert find_open(upstream).keys() == set(OLDER)
            while len(proxy.registry) > len(OLDER):
                await asyncio.sleep(0.01)
            for writer in find_open(upstream).values():
                finish_run(writer, how_far, upstream)
            while len(proxy.registry):
                await asyncio.sleep(0.01)


async def leave(proxy: Proxy, token: str, upstream: SilentUpstream) -> None:
    """Call as a legacy client and leave before any answer; return when the proxy has noticed."""
    message, headers = run_workflow(modern=False)
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(Wire(http, get_mcp_url(proxy)).post(token, message, **headers))
        await upstream.arrived.wait()
        asking.cancel()
        await asyncio.wait({asking})
    async with aiohttp.ClientSession() as http:
        # A request sent after the leaving is answered after the leaving was seen: one event loop serves both.
        assert await Wire(http, get_mcp_url(proxy)).call(None, "aegis.runtime.list") == 401
    assert len(proxy.registry) == 1


@dataclass(slots=True)
class SilentUpstream:
    """Accepts requests and keeps silent until told to answer; says what it saw."""

    url: str = ""
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answering = asyncio.create_task(self._answer(reader, writer))
        while not reader.at_eof() and reader.exception() is None and not answering.done():
            await asyncio.sleep(0.01)
        if not answering.done():
            answering.cancel()
        self.left.set()
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.arrived.set()
                await self.answer.wait()
                body = b'{"jsonrpc":"2.0","id":1,"result":{}}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                             b"Content-Length: %d\r\n\r\n%b" % (len(body), body))  # fmt: skip


@contextlib.asynccontextmanager
async def silent_upstream() -> AsyncIterator[SilentUpstream]:
    upstream = SilentUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("events", [1, 3])
async def test_an_upstream_that_dies_in_the_middle_ends_the_call_with_a_reason(events: int, stage: Stage) -> None:
    async def die_after(request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405)
        body = await request.json()
        if body["method"] == "server/discover":
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32601, "message": "no"}})
        if body["method"] == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                      "serverInfo": {"name": "dies", "version": "1"}}  # fmt: skip
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": result})
        if "id" not in body:
            return web.Response(status=202)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for _ in range(events):
            await answer.write(b": still working\n\n")
        assert request.transport is not None
        request.transport.abort()
        return answer

    key = await stage.mint()
    runner = web.ServerRunner(web.Server(die_after))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with asyncio.timeout(GUARD_SECONDS), stage.proxy(f"http://{host}:{port}") as proxy:
            async with connect(get_mcp_url(proxy), key.token, "legacy") as client:
                with pytest.raises(MCPError) as ended:
                    await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"})
            assert ended.value.error.data["reason"] == "upstream_protocol"
            assert len(proxy.registry) == 0
    finally:
        await runner.cleanup()


async def test_an_upstream_that_comes_up_later_is_simply_used(stage: Stage, http: aiohttp.ClientSession) -> None:
    key = await stage.mint()
    reserved = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = reserved.sockets[0].getsockname()[1]
    reserved.close()
    await reserved.wait_closed()
    async with stage.proxy(f"http://127.0.0.1:{port}") as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        assert await wire.call(key.token, "aegis.runtime.list") == 502
        async with run_sample_server(port=port):
            assert await wire.call(key.token, "aegis.runtime.list") == 200
