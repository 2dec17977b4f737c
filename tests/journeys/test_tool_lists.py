"""Tools whose results list tools: a key sees in them what it sees in `tools/list`, in whatever way they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client

from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream, Received, form_answer
from tests.ear import Ear
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire, connect, form_call, get_mcp_url

Json = dict[str, Any]
LIST, SEARCH = "aegis.tools.list", "aegis.tools.search"
ERAS = ["auto", "legacy", "2026-07-28"]
PRESETS = ["read-only", "execution", "full-access"]
SEEN, UNSEEN = {"name": "aegis.runtime.list"}, {"name": "aegis.workflow.delete"}
WHOLE: Json = {"tools": [UNSEEN, SEEN], "total": 2}
PART: Json = {"tools": [SEEN], "total": 2}


@contextlib.asynccontextmanager
async def connect_by(transport: str, proxy: Proxy, token: str, era: str) -> AsyncIterator[Client]:
    """The official client, by one of the two transports."""
    if transport == "streamable HTTP":
        async with connect(get_mcp_url(proxy), token, era) as client:
            yield client
        return
    headers = {"Authorization": f"Bearer {token}"}
    stream = sse_client(f"{get_mcp_url(proxy)}/sse", headers=headers, timeout=GUARD_SECONDS)
    async with Client(stream, mode=era) as client:
        yield client


def read_twice(result: types.CallToolResult) -> Json:
    """What it says, which must be the same in both places."""
    assert not result.is_error
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    said: Json = json.loads(block.text)
    assert result.structured_content == said
    return said


@pytest.mark.parametrize("transport", ["streamable HTTP", "HTTP+SSE"])
@pytest.mark.parametrize("era", ERAS)
async def test_a_key_finds_the_tools_that_it_may_use(transport: str, era: str, stage: Stage, proxy: Proxy) -> None:
    seen: dict[str, list[str]] = {}
    for preset in PRESETS:
        key = await stage.mint(preset)
        async with connect_by(transport, proxy, key.token, era) as client:
            listed = [tool.name for tool in (await client.list_tools()).tools]
            said = read_twice(await client.call_tool(LIST, {}))
            seen[preset] = [tool["name"] for tool in said["tools"]]
            assert seen[preset] == listed
            found = read_twice(await client.call_tool(SEARCH, {"query": "workflow"}))["tools"]
            assert {tool["name"] for tool in found} < set(listed)
            assert LIST in listed
    assert "aegis.workflow.delete" not in seen["execution"]
    assert "aegis.workflow.delete" in seen["full-access"]
    assert len(seen["read-only"]) < len(seen["execution"]) < len(seen["full-access"])


async def test_pages_are_those_of_the_platform_and_lead_to_every_tool(stage: Stage, proxy: Proxy) -> None:
    key = await stage.mint("read-only")
    async with connect(get_mcp_url(proxy), key.token) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        paged: list[str] = []
        total, offset = 1, 0
        while offset < total:
            page = read_twice(await client.call_tool(LIST, {"limit": 20, "offset": offset}))
            paged += [tool["name"] for tool in page["tools"]]
            total, offset = page["total"], offset + 20
    assert paged == listed
    assert total > len(listed)


def form_result(value: Json) -> Json:
    return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": value}


def answer_with(result: Json, *, in_events: bool = False) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    if in_events:
        progress = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}\n\n'
        return form_answer(progress + b"data: " + body + b"\n\n", content_type="text/event-stream")
    return form_answer(body)


def read_result(body: str) -> Json:
    """Of the last event, or the whole body."""
    answer: Json = json.loads(body.strip().rpartition("data: ")[2])
    return answer


@pytest.mark.parametrize("in_events", [False, True])
@pytest.mark.parametrize("tool", [LIST, SEARCH])
async def test_a_list_of_tools_is_filtered_as_json_and_as_events(
    tool: str, in_events: bool, stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    canned = answer_with(form_result(WHOLE), in_events=in_events)
    async with CanaryUpstream(lambda _: canned) as upstream, stage.proxy(upstream.url) as proxy:
        answer = await Wire(http, get_mcp_url(proxy)).post(key.token, form_call(tool))
        body = await answer.text()
    (block,) = read_result(body)["result"]["content"]
    assert json.loads(block["text"]) == read_result(body)["result"]["structuredContent"] == PART
    assert answer.headers.getall("Cache-Control") == ["no-store"]
    assert ("progress" in body) is in_events


@pytest.mark.parametrize("in_events", [False, True])
async def test_a_list_of_tools_that_cannot_be_found_is_withheld_and_counted(
    in_events: bool, stage: Stage, http: aiohttp.ClientSession, ear: Ear
) -> None:
    key = await stage.mint()
    prose = {"content": [{"type": "text", "text": "There is aegis.workflow.delete, and there is more."}]}
    canned = answer_with(prose, in_events=in_events)
    async with CanaryUpstream(lambda _: canned) as upstream, stage.proxy(upstream.url) as proxy:
        before = len(ear.heard.getvalue())
        answer = await Wire(http, get_mcp_url(proxy)).post(key.token, form_call(LIST))
        assert "delete" not in await answer.text()
        assert answer.status == (200 if in_events else 502)
        async with http.get(f"http://{proxy.ops_address}/metrics") as metrics:
            assert "aegis_list_events_dropped_total 1.0" in await metrics.text()
    assert (b"list_events_dropped" if in_events else b"list_answer_dropped") in ear.heard.getvalue()[before:]


async def test_what_another_tool_answers_in_words_is_handed_out_as_it_is(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    file = {"content": [{"type": "text", "text": json.dumps(WHOLE)}]}
    async with CanaryUpstream(lambda _: answer_with(file)) as upstream, stage.proxy(upstream.url) as proxy:
        answer = await Wire(http, get_mcp_url(proxy)).post(key.token, form_call("aegis.file.read", {"volume_id": "v"}))
        assert read_result(await answer.text())["result"] == file


async def test_a_list_of_tools_that_a_task_brings_later_is_filtered(stage: Stage, http: aiohttp.ClientSession) -> None:
    """2025-11-25 asks for the result by `tasks/result`; the extension of 2026-07-28 finds it in `tasks/get`."""
    task = {"taskId": "a-task", "status": "completed", "ttl": 60000}
    results = {
        "tools/call": {"task": task},
        "tasks/result": form_result(WHOLE),
        "tasks/get": {**task, "result": form_result(WHOLE)},
    }
    key = await stage.mint()

    def answer(received: Received) -> bytes:
        return answer_with(results[json.loads(received.body)["method"]])

    async with CanaryUpstream(answer) as upstream, stage.proxy(upstream.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        call = form_call(LIST)
        call["params"]["task"] = {"ttl": 60000}
        made = await (await wire.post(key.token, call)).text()
        assert read_result(made)["result"] == {"task": task}
        for method in ("tasks/result", "tasks/get"):
            asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"taskId": "a-task"}}
            brought = read_result(await (await wire.post(key.token, asked)).text())["result"]
            brought = brought if method == "tasks/result" else brought["result"]
            assert brought["structuredContent"] == json.loads(brought["content"][0]["text"]) == PART


async def test_a_list_of_tools_on_the_stream_of_a_session_is_filtered(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    """Where a server sends again what a client has missed."""
    key = await stage.mint()

    def answer(received: Received) -> bytes:
        if received.method == "GET":
            return answer_with(form_result(WHOLE), in_events=True)
        return form_answer(b'{"jsonrpc":"2.0","id":0,"result":{}}', "Mcp-Session-Id: a-session")

    async with CanaryUpstream(answer) as upstream, stage.proxy(upstream.url) as proxy, asyncio.timeout(GUARD_SECONDS):
        wire = Wire(http, get_mcp_url(proxy))
        session = (await wire.post(key.token, INITIALIZE)).headers["Mcp-Session-Id"]
        stream = await wire.request("GET", key.token, **{"Mcp-Session-Id": session})
        body = await stream.text()
    assert read_result(body)["result"]["structuredContent"] == PART
    assert "delete" not in body
