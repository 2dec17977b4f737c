"""HTTP+SSE, the transport of 2024-11-05: one stream to hear on, one address to speak to, and both are one key's."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.sse import sse_client

from proxy.errors import Reason
from proxy.server import Proxy
from proxy.sse import get_values
from tests.canary_upstream import CanaryUpstream, Received, form_answer
from tests.ear import Ear
from tests.raw_client import RawAnswer, ask_raw, form_request
from tests.refusal_tables import Row, check_refusal, post
from tests.sse_sessions import connect_sse, get_stream_url, open_session, open_stream
from tests.sse_upstream import MESSAGES_PATH, STREAM_PATH, SURE, SseUpstream, form_state, run_sse_upstream
from tests.staging import GUARD_SECONDS, MODERN, MODERN_META, Stage, form_call

Json = dict[str, Any]
RUN, DELETE_AGENT = "aegis.workflow.run", "aegis.agent.delete"
NIGHTLY = {"name": "nightly-etl"}
AGREED = types.ElicitResult(action="accept", content={})
NARROW = "UPDATE api_keys SET scopes = '{workflow:list}' WHERE id = $1"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def form_modern(method: str, params: Json, rpc_id: int = 7) -> Json:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": {**params, "_meta": MODERN_META}}


@pytest.fixture(autouse=True)
async def _guard() -> AsyncIterator[None]:
    """None of these tests waits for long."""
    async with asyncio.timeout(2 * GUARD_SECONDS):
        yield


@pytest.fixture
async def upstream() -> AsyncIterator[SseUpstream]:
    async with run_sse_upstream() as upstream:
        yield upstream


@pytest.fixture
async def door(stage: Stage, upstream: SseUpstream) -> AsyncIterator[Proxy]:
    async with stage.proxy(upstream.url) as proxy:
        yield proxy


# The official client


@pytest.mark.parametrize("prefix", ["", "/behind/a/prefix"])
@pytest.mark.parametrize(("mode", "revision"), [("legacy", "2025-11-25"), ("auto", MODERN)])
async def test_the_official_client_lists_what_it_may_use_and_uses_it(
    mode: str, revision: str, prefix: str, stage: Stage
) -> None:
    key = await stage.mint()
    async with run_sse_upstream(prefix) as upstream, stage.proxy(upstream.url) as proxy:
        async with connect_sse(get_stream_url(proxy), key.token, mode) as client:
            assert client.protocol_version == revision
            assert [tool.name for tool in (await client.list_tools()).tools] == [RUN, "aegis.workflow.list"]
            result = await client.call_tool(RUN, NIGHTLY)
        await upstream.wait_open(0)
    assert result.content == [types.TextContent(text="nightly-etl has run")]
    assert {asked.path for asked in upstream.messages} == {prefix + MESSAGES_PATH}
    assert {asked.path for asked in upstream.asked if asked.method == "GET"} == {prefix + STREAM_PATH}


async def test_a_prefix_in_front_of_the_proxy_stays_in_front_of_the_address_of_messages(
    stage: Stage, upstream: SseUpstream, door: Proxy
) -> None:
    """As behind an ingress that strips it: the client alone knows under which path it reached us."""
    key = await stage.mint()
    stripped: list[str] = []

    async def strip(request: httpx2.Request) -> None:
        assert request.url.path.startswith("/outside/")
        stripped.append(request.url.path)
        request.url = request.url.copy_with(path=request.url.path.removeprefix("/outside"))

    def make_client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(event_hooks={"request": [strip]}, headers=headers, timeout=timeout, auth=auth)

    transport = sse_client(
        f"http://{door.data_address}/outside/mcp/v1/sse",
        headers={"Authorization": f"Bearer {key.token}"},
        httpx_client_factory=make_client,
    )
    async with Client(transport, mode="legacy") as client:
        assert not (await client.call_tool(RUN, NIGHTLY)).is_error
    assert set(stripped) == {"/outside/mcp/v1/sse", "/outside/mcp/v1/messages"}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_denial_reaches_the_official_client_at_once_and_the_session_goes_on(
    mode: str, stage: Stage, upstream: SseUpstream, door: Proxy
) -> None:
    key = await stage.mint()
    async with connect_sse(get_stream_url(door), key.token, mode) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool(DELETE_AGENT, {"agent_id": "a"})
        assert refused.value.error.data["reason"] == "message_denied"
        assert refused.value.error.data["missing"] == ["agent:delete:a"]
        assert not (await client.call_tool(RUN, NIGHTLY)).is_error
    assert upstream.called == [RUN]


async def test_the_official_client_is_asked_and_its_answer_finds_the_state_it_belongs_to(
    stage: Stage, upstream: SseUpstream, door: Proxy
) -> None:
    key = await stage.mint()

    async def agree(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        return AGREED

    async with connect_sse(get_stream_url(door), key.token, "auto", elicitation_callback=agree) as client:
        result = await client.call_tool(RUN, {"name": "asks"})
    assert result.content == [types.TextContent(text="asks has run")]
    assert upstream.states == [form_state("asks")]


# Whose session it is


async def test_nothing_of_the_upstreams_session_reaches_the_client_or_the_log(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession, ear: Ear
) -> None:
    session = await open_session(http, door, (await stage.mint()).token)
    (event,) = session.events
    assert re.fullmatch(rb"messages\?session_id=[\w-]+", get_values(event, b"data")[0])
    assert (await session.post(PING))[0] == 202
    assert (await session.next_message())["result"] == {}
    (session_id,) = upstream.session_ids
    said = b"".join(session.events) + str(session.stream.headers).encode()
    # The upstream lives in this process, and says a lot.
    logged = [line for line in ear.heard.getvalue().splitlines() if not re.match(rb'{"room":"(mcp|sse_s|root)', line)]
    assert any(b'"outcome":"forwarded"' in line for line in logged)
    for secret in (session_id.encode(), MESSAGES_PATH.encode()):
        assert secret not in said
        assert secret not in b"".join(logged)
    assert session.url.rpartition("=")[2].encode() not in b"".join(logged)


async def test_a_session_of_another_key_changed_or_never_told_is_unknown_and_reaches_nothing(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    ada, bob = (await stage.mint(owner="ada")).token, (await stage.mint(owner="bob")).token
    mine, his = await open_session(http, door, ada), await open_session(http, door, bob)
    sealed = mine.url.rpartition("=")[2]
    answers = []
    for url in (
        his.url,
        mine.url[:-1],
        mine.url[:-1] + ("A" if sealed[-1] != "A" else "B"),
        mine.url.replace(sealed, sealed[1:]),
        mine.url.replace(sealed, "0" * len(sealed)),
        mine.url.replace(sealed, "a1b2c3d4e5f60718293a4b5c6d7e8f90"),
        mine.url.replace(sealed, ""),
        mine.url + "=",
        mine.url.replace(sealed, f"%{ord(sealed[0]):02X}{sealed[1:]}"),
    ):
        target = url.removeprefix(f"http://{door.data_address}")
        answers.append(await ask_raw(door.data_address, post(target=target)(ada)))
    for answer in answers:
        assert (answer.status, answer.reason) == (404, Reason.SESSION_UNKNOWN)
        assert answer.anonymous_body == answers[0].anonymous_body
    assert upstream.messages == []
    assert (await mine.post(PING))[0] == 202


@pytest.mark.parametrize("query", ["", "?", "?session=x", "?session_id", "?a=b&session_id=x", "?Session_Id=x"])
async def test_a_message_that_does_not_name_its_session_in_one_member_is_refused(
    query: str, stage: Stage, upstream: SseUpstream, door: Proxy
) -> None:
    token = (await stage.mint()).token
    answer = await ask_raw(door.data_address, post(target=f"/mcp/v1/messages{query}")(token))
    assert answer.status in (400, 404)
    assert answer.reason in (Reason.QUERY_NOT_ALLOWED, Reason.SESSION_UNKNOWN)
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "sse", "GET"), ("DELETE", "sse", "GET"), ("GET", "messages", "POST"), ("DELETE", "messages", "POST")],
)
async def test_each_path_takes_its_own_method(
    method: str, path: str, allowed: str, door: Proxy, upstream: SseUpstream
) -> None:
    answer = await ask_raw(door.data_address, form_request(method, f"/mcp/v1/{path}"))
    check_refusal(answer, Row(Reason.METHOD_NOT_ALLOWED, 405, post(), headers={"Allow": allowed}))
    assert upstream.asked == []


async def test_no_header_names_a_session_or_an_event_here(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    session = await open_session(http, door, (await stage.mint()).token)
    again = await open_stream(http, door, session.token, **{"Last-Event-ID": "5", "Mcp-Session-Id": "somebody's"})
    assert (await session.post(PING, **{"Mcp-Session-Id": "somebody's"}))[0] == 202
    await again.next_event()
    assert len(upstream.asked) == 3
    for asked in upstream.asked:
        assert not {"last-event-id", "mcp-session-id", "authorization"} & asked.headers.keys()


# Saying no on the stream

DENIED = form_call(DELETE_AGENT, {"agent_id": "a"}, rpc_id=5)
REFUSED = {
    "message_denied": DENIED,
    "method_unknown": {**PING, "id": 5, "method": "no/such"},
    "handle_unknown": {**PING, "id": 5, "method": "tasks/get", "params": {"taskId": "nobody's"}},
    "params_invalid": {**PING, "id": 5, "method": "resources/read", "params": {}},
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_what_is_refused_of_a_message_is_told_on_its_own_stream(
    reason: str, stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession, ear: Ear
) -> None:
    token = (await stage.mint()).token
    session, another = await open_session(http, door, token), await open_session(http, door, token)
    assert await session.post(REFUSED[reason]) == (202, b"")
    told = await session.next_message()
    assert (told["id"], told["error"]["data"]["reason"]) == (5, reason)
    assert upstream.messages == []
    for one in (another, session):  # the next that either hears is the answer to what it asks next
        assert (await one.post({**PING, "id": 6}))[0] == 202
        assert (await one.next_message()) == {"jsonrpc": "2.0", "id": 6, "result": {}}
    lines = [json.loads(line) for line in ear.heard.getvalue().splitlines() if b'"outcome"' in line]
    assert [(line["outcome"], line["status"]) for line in lines if line["outcome"] == reason][-1] == (reason, 202)


async def test_many_refusals_are_told_in_their_order_among_the_answers(
    stage: Stage, door: Proxy, http: aiohttp.ClientSession, upstream: SseUpstream
) -> None:
    session = await open_session(http, door, (await stage.mint()).token)
    for rpc_id in range(20):
        assert (await session.post({**DENIED, "id": rpc_id}))[0] == 202
    assert [(await session.next_message())["id"] for _ in range(20)] == list(range(20))


async def test_a_stream_on_another_instance_gets_answers_and_what_is_refused_there_is_a_403(
    stage: Stage, upstream: SseUpstream, http: aiohttp.ClientSession
) -> None:
    token = (await stage.mint()).token
    async with stage.proxy(upstream.url) as one, stage.proxy(upstream.url) as other:
        session = await open_session(http, one, token)
        url = session.url.replace(str(one.data_address), str(other.data_address))
        assert (await session.post(form_call(RUN, NIGHTLY, rpc_id=4), url))[0] == 202
        assert (await session.next_message())["error"]["message"], "the session was not initialized"
        for reason in ("message_denied", "method_unknown", "handle_unknown"):
            status, body = await session.post(REFUSED[reason], url)
            message = json.loads(body)
            assert (status, message["id"], message["error"]["data"]["reason"]) == (403, 5, reason)
        assert (await session.post(REFUSED["params_invalid"], url))[0] == 400
        assert len(upstream.messages) == 1
        assert (await session.post({**PING, "id": 6}, url))[0] == 202
        assert (await session.next_message())["id"] == 6


async def test_a_refused_notification_has_no_answer_and_is_a_403(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    session = await open_session(http, door, (await stage.mint()).token)
    assert (await session.post({"jsonrpc": "2.0", "method": "no/such"}))[0] == 403
    assert (await session.post(PING))[0] == 202
    assert (await session.next_message())["result"] == {}


# States


async def test_a_state_is_its_keys_and_leaves_sealed(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    ada, bob = [
        await open_session(http, door, (await stage.mint(owner=owner)).token) for owner in ("ada", "bob")
    ]  # fmt: skip
    call = {"name": RUN, "arguments": {"name": "asks"}}
    assert (await ada.post(form_modern("tools/call", call)))[0] == 202
    state = (await ada.next_message())["result"]["requestState"]
    assert form_state("asks") not in state
    answered = {SURE: AGREED.model_dump(mode="json", by_alias=True, exclude_none=True)}
    for session, sealed in ((bob, state), (ada, form_state("asks")), (ada, state[:-2])):
        retry = form_modern("tools/call", {**call, "inputResponses": answered, "requestState": sealed})
        assert (await session.post(retry))[0] == 202
        assert (await session.next_message())["error"]["data"]["reason"] == "handle_unknown"
    assert upstream.states == []
    retry = form_modern("tools/call", {**call, "inputResponses": answered, "requestState": state})
    assert (await ada.post(retry))[0] == 202
    assert "asks has run" in json.dumps(await ada.next_message())
    assert upstream.states == [form_state("asks")]


# Endings


async def test_revocation_ends_the_stream_and_its_messages_are_unauthorised(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    key, other = await stage.mint(owner="ada"), await stage.mint(owner="bob")
    session, his = await open_session(http, door, key.token), await open_session(http, door, other.token)
    await stage.revoke_by_sql(key)
    assert await session.wait_ended() == b""
    await upstream.wait_open(1)
    status, body = await session.post(PING)
    assert (status, json.loads(body)["error"]["data"]["reason"]) == (401, "key_revoked")
    assert upstream.messages == []
    assert (await his.post(PING))[0] == 202
    assert (await his.next_message())["result"] == {}


async def test_a_key_that_loses_any_right_loses_its_session(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    session = await open_session(http, door, key.token)
    await stage.sql(NARROW, key.summary.id)
    await session.wait_ended()
    await upstream.wait_open(0)
    assert (await session.post(PING))[0] == 404
    again = await open_session(http, door, key.token)
    assert (await again.post({**form_call(RUN, NIGHTLY), "id": 2}))[0] == 202
    assert (await again.next_message())["error"]["data"]["reason"] == "message_denied"


async def test_a_key_that_gains_a_right_keeps_its_session_and_uses_it_there(
    stage: Stage, door: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    session = await open_session(http, door, key.token)
    await stage.sql("UPDATE api_keys SET scopes = scopes || '{agent:delete}'::text[] WHERE id = $1", key.summary.id)
    answer: Json = {"error": {"data": {"reason": "message_denied"}}}
    while answer.get("error", {}).get("data", {}).get("reason") == "message_denied":
        assert (await session.post(form_modern("tools/call", DENIED["params"])))[0] == 202
        answer = await session.next_message()
    assert "has run" in json.dumps(answer["result"])


async def test_when_the_client_leaves_so_does_the_stream(
    stage: Stage, upstream: SseUpstream, door: Proxy, http: aiohttp.ClientSession
) -> None:
    session = await open_session(http, door, (await stage.mint()).token)
    assert door.registry.count_kinds() == {"call": 0, "stream": 1}
    session.stream.close()
    await upstream.wait_open(0)
    assert (await session.post(PING))[0] == 404


# What the upstream says


class EventSpeaker:
    """Begins its streams with these bytes, acknowledges every message with a body of its own, and says no more."""

    def __init__(self, first: bytes) -> None:
        self.first = first

    def __call__(self, received: Received) -> bytes:
        if received.method == "GET":
            return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + self.first
        return form_answer(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"secret"}]}}', status="202 Accepted")


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/m?session_id=abc", "/m?session_id=abc"),
        ("m?a=b&c=%20", "/base/mcp/v1/m?a=b&c=%20"),
        ("../m", "/base/mcp/m"),
        ("?s=1", "/base/mcp/v1/sse?s=1"),
        ("{origin}/m/?s=1#fragment", "/m/?s=1"),
        ("{origin}", "/"),
        ("//{authority}/m", "/m"),
    ],
)
async def test_an_endpoint_is_resolved_as_a_client_of_the_upstream_would(
    reference: str, target: str, stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    async with CanaryUpstream() as canary:
        data = reference.format(origin=canary.url, authority=canary.url.removeprefix("http://"))
        canary.answer = EventSpeaker(f"id: abc\nevent: endpoint\ndata: {data}\n\n".encode())
        async with stage.proxy(f"{canary.url}/base") as proxy:
            session = await open_session(http, proxy, key.token)
            assert b"abc" not in session.events[0]
            # Lists come on the stream and are filtered there: what an acknowledgement holds is nobody's answer.
            assert await session.post({**PING, "method": "tools/list"}) == (202, b"")
            assert canary.requests[-1].target == target


@pytest.mark.parametrize(
    "event",
    [
        b"event: endpoint\ndata: https://evil.example/m\n\n",
        b"event: endpoint\ndata: //evil.example/m\n\n",
        b"event: endpoint\ndata: http://localhost:1/m\n\n",
        b"event: endpoint\ndata: http://user@127.0.0.1/m\n\n",
        b"event: endpoint\ndata: http://[crooked/m\n\n",
        b"event: endpoint\ndata: /m\\x\n\n",
        b"event: endpoint\ndata: /a b\n\n",
        b"event: endpoint\ndata: /\xc3\xa9\n\n",
        b"event: endpoint\ndata: /m\ndata: /n\n\n",
        b"event: endpoint\n\n",
        b"event: endpoint\ndata: /" + b"m" * 3000 + b"\n\n",
        b"event: message\nevent:  Endpoint \ndata: https://evil.example/m\n\n",
    ],
)
async def test_an_endpoint_of_another_origin_or_none_at_all_ends_the_stream(
    event: bytes, stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    async with CanaryUpstream(EventSpeaker(event)) as canary, stage.proxy(canary.url) as proxy:
        session = await open_stream(http, proxy, key.token)
        assert await session.wait_ended() == b""
        assert len(proxy.registry) == 0


async def test_a_list_on_the_stream_is_filtered_and_an_event_id_is_left_out(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    tools = [{"name": name} for name in (RUN, DELETE_AGENT)]
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "nextCursor": "n"}}
    first = b"event: endpoint\ndata: /m\n\nid: 7\ndata: " + json.dumps(answer).encode() + b"\n\n"
    async with CanaryUpstream(EventSpeaker(first)) as canary, stage.proxy(canary.url) as proxy:
        session = await open_session(http, proxy, key.token)
        assert (await session.next_message())["result"] == {"tools": [{"name": RUN}], "nextCursor": "n"}
        assert b"id: 7" not in session.events[-1]
        assert session.stream.headers["Cache-Control"] == "no-store"


async def test_an_upstream_without_this_transport_says_so_itself(stage: Stage) -> None:
    key = await stage.mint()
    async with CanaryUpstream(lambda _: form_answer(b"no such path", status="404 Not Found")) as canary:
        async with stage.proxy(canary.url) as proxy:
            answer: RawAnswer = await ask_raw(proxy.data_address, form_request("GET", "/mcp/v1/sse", token=key.token))
    assert (answer.status, answer.body) == (404, b"")
