"""What comes back from an upstream that is not as polite as it should be."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket

import aiohttp
import pytest

from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream, Received, answer_politely, form_answer
from tests.ear import Ear
from tests.raw_client import ask_raw, form_request, open_raw
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire, form_call, get_mcp_url

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "404 Not Found"])
async def test_an_error_page_of_the_upstream_keeps_its_status(
    status: str, stage: Stage, http: aiohttp.ClientSession
) -> None:
    """A client reads from 405 that there is no standalone stream; the session lives on."""

    def answer(received: Received) -> bytes:
        if received.method == "GET":
            return form_answer(b"no such thing", status=status, content_type="text/plain")
        return answer_politely(received)

    key = await stage.mint()
    async with CanaryUpstream(answer) as upstream, stage.proxy(upstream.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        opened = await wire.post(key.token, INITIALIZE)
        session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
        refused = await wire.request("GET", key.token, **session)
        assert refused.status == int(status[:3])
        assert await refused.read() == b""
        assert (await wire.post(key.token, PING, **session)).status == 200


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_an_answer_that_is_compressed_all_the_same_is_not_relayed(
    content_type: str, stage: Stage, http: aiohttp.ClientSession
) -> None:
    hidden = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "aegis.secret.tool"}]}}).encode()
    body = gzip.compress(b"data: " + hidden + b"\n\n" if content_type == "text/event-stream" else hidden)

    key = await stage.mint()
    answer = form_answer(body, "Content-Encoding: gzip", content_type=content_type)
    async with CanaryUpstream(lambda _: answer) as upstream, stage.proxy(upstream.url) as proxy:
        refused = await Wire(http, get_mcp_url(proxy)).post(key.token, LIST)
        assert refused.status == 502
        assert (await refused.json())["error"]["data"]["reason"] == "upstream_protocol"


@pytest.mark.parametrize("name", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
async def test_a_list_is_filtered_however_its_event_stream_is_spelt(
    name: str, stage: Stage, http: aiohttp.ClientSession
) -> None:
    tools = [{"name": "aegis.workflow.delete"}, {"name": "aegis.runtime.list"}]
    event = b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode() + b"\n\n"
    key = await stage.mint()
    async with CanaryUpstream(lambda _: form_answer(event, content_type=name)) as upstream:
        async with stage.proxy(upstream.url) as proxy:
            text = await (await Wire(http, get_mcp_url(proxy)).post(key.token, LIST)).text()
    assert "aegis.runtime.list" in text
    assert "delete" not in text


async def ask_for_much(stage: Stage, proxy: Proxy, token: str) -> socket.socket:
    """A client that asks for a list of many megabytes and takes nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (proxy.data_address.host, proxy.data_address.port))
    await loop.sock_sendall(client, form_request("POST", "/mcp/v1", token=token, body=LIST))
    return client


def form_long_list() -> bytes:
    tools = [{"name": "aegis.runtime.list", "description": "x" * 60_000} for _ in range(120)]
    return form_answer(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode())


async def read_rest(client: socket.socket) -> int:
    """Read until the connection ends; how much came."""
    size = 0
    try:
        while chunk := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            size += len(chunk)
    except ConnectionError:
        pass
    client.close()
    return size


async def test_a_large_answer_ends_with_its_key_while_a_slow_client_reads_it(stage: Stage) -> None:
    key = await stage.mint()
    answer = form_long_list()
    async with CanaryUpstream(lambda _: answer) as upstream, stage.proxy(upstream.url) as proxy:
        async with asyncio.timeout(GUARD_SECONDS):
            client = await ask_for_much(stage, proxy, key.token)
            assert await asyncio.get_running_loop().sock_recv(client, 1)
            assert len(proxy.registry) == 1
            await stage.revoke_by_sql(key)
            while len(proxy.registry):
                await asyncio.sleep(0.01)
            assert await read_rest(client) < len(answer)


async def test_a_client_that_takes_nothing_is_let_go(stage: Stage) -> None:
    key = await stage.mint()
    answer = form_long_list()
    async with CanaryUpstream(lambda _: answer) as upstream:
        async with stage.proxy(upstream.url, server={"slow_reader_seconds": 0.3}) as proxy:
            async with asyncio.timeout(GUARD_SECONDS):
                client = await ask_for_much(stage, proxy, key.token)
                while not upstream.requests:
                    await asyncio.sleep(0.01)
                while len(proxy.registry):
                    await asyncio.sleep(0.01)
                assert await read_rest(client) < len(answer)


async def test_a_large_answer_arrives_whole_at_a_client_that_reads(stage: Stage, http: aiohttp.ClientSession) -> None:
    key = await stage.mint()
    answer = form_long_list()
    async with CanaryUpstream(lambda _: answer) as upstream, stage.proxy(upstream.url) as proxy:
        listed = await (await Wire(http, get_mcp_url(proxy)).post(key.token, LIST)).json()
    assert len(listed["result"]["tools"]) == 120


async def test_a_name_of_any_length_costs_a_short_log_line(stage: Stage, ear: Ear) -> None:
    """Methods that name nothing do not bound what stands under `name`."""
    key = await stage.mint()
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"name": "eyJ-" * 500_000}}
    async with CanaryUpstream() as upstream, stage.proxy(upstream.url) as proxy:
        before = len(ear.heard.getvalue())
        answer = await ask_raw(proxy.data_address, form_request("POST", "/mcp/v1", token=key.token, body=message))
        assert answer.status == 200
    lines = ear.heard.getvalue()[before:].splitlines()
    (line,) = [line for line in lines if answer.headers["X-Request-Id"].encode() in line]
    assert len(line) < 1000


async def test_a_denied_notification_with_a_crooked_selector_gets_an_answer(stage: Stage) -> None:
    key = await stage.mint(scopes=("agent:list",))
    message = form_call("aegis.workflow.run", {"name": "a\r\nX-Evil: 1"})
    del message["id"]
    async with CanaryUpstream() as upstream, stage.proxy(upstream.url) as proxy:
        answer = await ask_raw(proxy.data_address, form_request("POST", "/mcp/v1", token=key.token, body=message))
        assert answer.status == 403
        assert "X-Evil" not in answer.headers
        assert not upstream.received


async def test_a_body_that_breaks_its_framing_is_refused_at_once(stage: Stage) -> None:
    key = await stage.mint()
    head = form_request(
        "POST", "/mcp/v1", "Transfer-Encoding: chunked", token=key.token, content_type="application/json"
    )
    async with CanaryUpstream() as upstream, stage.proxy(upstream.url) as proxy, asyncio.timeout(5):
        async with open_raw(proxy.data_address) as client:
            await client.send(head + b"5\r\nhello\r\n")
            await client.send(b"zz\r\n")
            answer = await client.read_answer()
            assert (answer.status, answer.reason) == (400, "request_unreadable")
        assert not upstream.received
