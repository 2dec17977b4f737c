"""States, events and tasks through two proxies under two keys: whose they are holds on either, and only for them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client

from proxy.demo.sample_server import MCP_PATH
from proxy.policy import parse_policy
from proxy.settings import UpstreamSettings
from proxy.sse import get_values
from proxy.upstream_address import parse_upstream_address
from tests.canary_upstream import CanaryUpstream
from tests.raw_client import ask_raw, form_request
from tests.resumable_upstream import SURE, ResumableUpstream, form_state, run_resumable_upstream
from tests.staging import GUARD_SECONDS, INITIALIZE, MODERN, MODERN_META, Stage, Wire, connect, form_call, get_mcp_url
from tests.task_upstream import TaskDesk

Json = dict[str, Any]
RUN = "aegis.workflow.run"
NIGHTLY = {"name": "nightly-etl"}
VERSION = {"MCP-Protocol-Version": "2025-11-25"}
VOLUME = "aegis://volumes/v1/notes.txt"
POLICY_OF_ROUTES = """
version: 1
default_tier: pro
scopes: { workflow:run: { title: Run workflows, selector: workflow name } }
presets: { execution: { title: Execution, scopes: [workflow:run] } }
tiers: { pro: ["*"] }
routes:
  - { id: run, path: "/v1/workflows/{name}", methods: [GET], upstream: mcp, protocol: http,
      require: "workflow:run:{name}" }
...
"""
# What a client says with every request that it speaks the tasks extension.
CAPABLE: Json = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
AGREED = types.ElicitResult(action="accept", content={})


@dataclass(frozen=True, slots=True)
class Scene:
    """Two keys, and two instances of the proxy."""

    ada: str
    bob: str
    one: Wire
    other: Wire
    ada_id: str

    @property
    def wires(self) -> tuple[Wire, Wire]:
        return self.one, self.other


@contextlib.asynccontextmanager
async def open_scene(stage: Stage, http: aiohttp.ClientSession, url: str) -> AsyncIterator[Scene]:
    ada, bob = await stage.mint(owner="ada"), await stage.mint(owner="bob")
    upstreams = {"mcp": UpstreamSettings(url=parse_upstream_address(url), resumable=True)}
    async with (
        asyncio.timeout(GUARD_SECONDS),
        stage.proxy(url, upstreams=upstreams) as one,
        stage.proxy(url, upstreams=upstreams) as other,
    ):
        wires = Wire(http, get_mcp_url(one)), Wire(http, get_mcp_url(other))
        yield Scene(ada.token, bob.token, *wires, ada.summary.id)


@pytest.fixture
async def upstream() -> AsyncIterator[ResumableUpstream]:
    async with run_resumable_upstream() as upstream:
        yield upstream


@pytest.fixture
async def scene(stage: Stage, http: aiohttp.ClientSession, upstream: ResumableUpstream) -> AsyncIterator[Scene]:
    async with open_scene(stage, http, upstream.url) as scene:
        yield scene


def form_modern(method: str, params: Json, **meta: Any) -> tuple[Json, dict[str, str]]:
    """A request of revision 2026-07-28 and the headers that mirror it."""
    name = next((params[member] for member in ("name", "uri", "taskId") if member in params), None)
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": MODERN_META | CAPABLE | meta}}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    return message, headers | ({"Mcp-Name": name} if name else {})


async def ask(wire: Wire, token: str, method: str, params: Json, **meta: Any) -> tuple[int, Json]:
    """One request of revision 2026-07-28; status and message of its answer."""
    message, headers = form_modern(method, params, **meta)
    return await read_answer(await wire.post(token, message, **headers))


async def ask_legacy(wire: Wire, token: str, method: str, params: Json) -> tuple[int, Json]:
    """One request of revision 2025-11-25, without a session."""
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return await read_answer(await wire.post(token, message, **VERSION))


async def read_answer(answer: aiohttp.ClientResponse) -> tuple[int, Json]:
    body = await answer.read()
    if answer.content_type == "text/event-stream":
        body = get_values(body, b"data")[-1]
    message: Json = json.loads(body)
    return answer.status, message


def find_reason(message: Json) -> str | None:
    reason: str | None = message.get("error", {}).get("data", {}).get("reason")
    return reason


def hide_request_id(message: Json) -> Json:
    del message["error"]["data"]["request_id"]
    return message


# States of revision 2026-07-28

STATEFUL: dict[str, Json] = {"tools/call": {"name": RUN, "arguments": NIGHTLY}, "resources/read": {"uri": VOLUME}}
ABOUT = {"tools/call": "nightly-etl", "resources/read": VOLUME}
ANSWERED = {SURE: AGREED.model_dump(mode="json", by_alias=True, exclude_none=True)}


@pytest.mark.parametrize("instance", [0, 1])
async def test_the_official_client_is_asked_and_goes_on(
    instance: int, stage: Stage, scene: Scene, upstream: ResumableUpstream
) -> None:
    asked: list[str] = []

    async def agree(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return AGREED

    headers = {"Authorization": f"Bearer {scene.ada}"}
    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(scene.wires[instance].url, http_client=http)
        async with Client(transport, mode=MODERN, elicitation_callback=agree) as client:
            result = await client.call_tool(RUN, NIGHTLY)
    assert result.content == [types.TextContent(text="nightly-etl has run")]
    assert asked == ["Sure?"]
    assert upstream.states == [form_state("nightly-etl")]


async def go_on(client: Client, first: types.InputRequiredResult) -> types.CallToolResult | types.InputRequiredResult:
    return await client.session.call_tool(
        RUN,
        NIGHTLY,
        input_responses={SURE: AGREED},
        request_state=first.request_state,
        allow_input_required=True,
    )


async def test_a_state_taken_by_another_key_is_refused_to_its_client(scene: Scene, upstream: ResumableUpstream) -> None:
    async with connect(scene.one.url, scene.ada, MODERN) as ada, connect(scene.other.url, scene.bob, MODERN) as bob:
        first = await ada.session.call_tool(RUN, NIGHTLY, allow_input_required=True)
        assert isinstance(first, types.InputRequiredResult)
        with pytest.raises(MCPError) as refused:
            await go_on(bob, first)
        assert refused.value.error.code == types.INVALID_PARAMS
        assert refused.value.error.data["reason"] == "handle_unknown"
        assert upstream.states == []
        assert isinstance(await go_on(ada, first), types.CallToolResult)
    assert upstream.states == [form_state("nightly-etl")]


@pytest.mark.parametrize("meta", [{}, {"progressToken": 1}], ids=["in JSON", "in events"])
@pytest.mark.parametrize("method", STATEFUL)
async def test_a_state_opens_on_every_instance_for_its_key_and_request_alone(
    method: str, meta: Json, scene: Scene, upstream: ResumableUpstream
) -> None:
    params = STATEFUL[method]
    _, first = await ask(scene.one, scene.ada, method, params, **meta)
    state = first["result"]["requestState"]
    assert form_state(ABOUT[method]) not in state
    retry = {**params, "inputResponses": ANSWERED, "requestState": state}
    received = len(upstream.headers)
    for wire in scene.wires:
        for token, changed in (
            (scene.bob, retry),
            (scene.ada, {**retry, "requestState": form_state(ABOUT[method])}),
            (scene.ada, {**retry, "requestState": state[:-2]}),
            (scene.ada, {**retry, "arguments": {"name": "other"}}),
        ):
            status, refused = await ask(wire, token, method, changed)
            assert (status, refused["error"]["code"], refused["id"]) == (400, -32602, 7)
            assert find_reason(refused) == "handle_unknown"
    assert len(upstream.headers) == received
    for wire in scene.wires:
        status, result = await ask(wire, scene.ada, method, retry, **meta)
        assert status == 200
        assert f"{ABOUT[method]} has run" in json.dumps(result["result"])
    assert upstream.states == [form_state(ABOUT[method])] * 2


async def test_a_retry_is_judged_like_a_first_call(stage: Stage, scene: Scene, upstream: ResumableUpstream) -> None:
    params = STATEFUL["tools/call"]
    _, first = await ask(scene.one, scene.ada, "tools/call", params)
    retry = {**params, "inputResponses": ANSWERED, "requestState": first["result"]["requestState"]}
    await stage.sql("UPDATE api_keys SET scopes = '{workflow:list}' WHERE id = $1", scene.ada_id)
    while find_reason((await ask(scene.one, scene.ada, "tools/call", params))[1]) is None:
        pass
    _, refused = await ask(scene.one, scene.ada, "tools/call", retry)
    assert find_reason(refused) == "message_denied"
    assert upstream.states == []


# Events of revision 2025-11-25


async def begin_session(wire: Wire, token: str) -> dict[str, str]:
    """A session; the headers that name it."""
    opened = await wire.post(token, INITIALIZE)
    await opened.read()
    session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]} | VERSION
    assert (await wire.post(token, {"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)).status == 202
    return session


async def begin_run(wire: Wire, token: str, session: dict[str, str], rpc_id: int) -> str:
    """A run whose client hangs up once it has begun; the id of the last event it saw."""
    message = form_call(RUN, NIGHTLY, rpc_id)
    message["params"]["_meta"] = {"progressToken": rpc_id}
    async with await wire.post(token, message, **session) as answer:
        heard = await read_until(answer, b"begun")
    return get_values(heard, b"id")[-1].decode()


async def read_until(answer: aiohttp.ClientResponse, words: bytes) -> bytes:
    """Whole events, up to the one that holds the words."""
    heard = b""
    while words not in heard or not heard.endswith(b"\r\n\r\n"):
        chunk = await answer.content.readany()
        assert chunk, f"it ended after {heard!r}"
        heard += chunk
    return heard


async def test_a_stream_that_its_client_broke_goes_on_after_the_last_event_on_either_instance(
    scene: Scene, upstream: ResumableUpstream
) -> None:
    session = await begin_session(scene.one, scene.ada)
    last = await begin_run(scene.one, scene.ada, session, 7)
    upstream.released.set()
    while not upstream.finished:
        await asyncio.sleep(0.01)
    for wire in scene.wires:
        async with await wire.request("GET", scene.ada, **session, **{"Last-Event-ID": last}) as resumed:
            assert resumed.status == 200
            missed = await read_until(resumed, b"has run")
        assert b"went on" in missed
        assert b"begun" not in missed
        assert upstream.headers[-1]["last-event-id"] == last.rpartition(".")[0]


async def test_an_event_id_is_signed_wherever_it_appears(scene: Scene, upstream: ResumableUpstream) -> None:
    session = await begin_session(scene.one, scene.ada)
    last = await begin_run(scene.one, scene.ada, session, 7)
    upstream.released.set()
    while not upstream.finished:
        await asyncio.sleep(0.01)
    async with await scene.one.request("GET", scene.ada, **session, **{"Last-Event-ID": last}) as resumed:
        missed = await read_until(resumed, b"has run")
    seen = [last, *(event_id.decode() for event_id in get_values(missed, b"id"))]
    for signed in seen:
        event_id, _, signature = signed.rpartition(".")
        assert event_id.isdigit()
        assert len(signature) == 38
    assert len(seen) == len(set(seen)) >= 3


async def test_the_event_of_another_session_or_key_is_unknown_and_reaches_nothing(
    scene: Scene, upstream: ResumableUpstream, http: aiohttp.ClientSession
) -> None:
    mine = await begin_session(scene.one, scene.ada)
    also_mine = await begin_session(scene.one, scene.ada)
    his = await begin_session(scene.one, scene.bob)
    last = await begin_run(scene.one, scene.ada, mine, 7)
    raw, _, signature = last.rpartition(".")
    received = len(upstream.headers)
    for wire in scene.wires:
        for token, session, event_id in (
            (scene.bob, his, last),
            (scene.bob, mine, last),
            (scene.ada, also_mine, last),
            (scene.ada, mine, raw),
            (scene.ada, mine, f"{int(raw) - 1}.{signature}"),
            (scene.ada, mine, ""),
        ):
            refused = await wire.request("GET", token, **session, **{"Last-Event-ID": event_id})
            assert refused.status == 404
            assert find_reason(await refused.json()) == "session_unknown"
    assert len(upstream.headers) == received
    # What all this is for: the upstream itself would give it away.
    upstream.released.set()
    while not upstream.finished:
        await asyncio.sleep(0.01)
    direct = Wire(http, upstream.url + MCP_PATH)
    async with await direct.request("GET", None, **his, **{"Last-Event-ID": raw}) as leaked:
        assert b"nightly-etl" in await read_until(leaked, b"has run")


async def test_the_official_client_polls_a_stream_that_the_server_ended_early(
    scene: Scene, upstream: ResumableUpstream
) -> None:
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with connect(scene.one.url, scene.ada, "legacy") as client:
        result = await client.call_tool(RUN, {"name": "polled"}, progress_callback=hear)
    assert result.content == [types.TextContent(text="polled has run")]
    assert heard == ["begun", "went on"]
    resumed = [headers["last-event-id"] for headers in upstream.headers if "last-event-id" in headers]
    assert resumed
    assert all(event_id.isdigit() for event_id in resumed)


async def test_an_event_id_on_a_plain_route_is_not_ours_to_judge(stage: Stage, http: aiohttp.ClientSession) -> None:
    """The path says whose events they are, and the path has been judged: its streams are resumed as they were."""
    stage = dataclasses.replace(stage, policy=parse_policy(POLICY_OF_ROUTES, "policy of routes"))
    key = await stage.mint(scopes=("workflow:run:nightly",))
    request = form_request("GET", "/v1/workflows/nightly", "Last-Event-ID: 5", token=key.token)
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        assert (await ask_raw(proxy.data_address, request)).status == 200
        assert canary.requests[-1].fold()["LAST_EVENT_ID"] == ["5"]


# Tasks

TASK_CALL = {"name": RUN, "arguments": NIGHTLY}
LEGACY_CALL = {**TASK_CALL, "task": {"ttl": 60000}}


@pytest.fixture(params=[False, True], ids=["in JSON", "in events"])
def desk(request: pytest.FixtureRequest) -> TaskDesk:
    return TaskDesk(in_events=request.param)


@pytest.fixture
async def canary(desk: TaskDesk) -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream(desk) as canary:
        yield canary


@pytest.fixture
async def tasks(stage: Stage, http: aiohttp.ClientSession, canary: CanaryUpstream) -> AsyncIterator[Scene]:
    async with open_scene(stage, http, canary.url) as scene:
        yield scene


async def make_task(wire: Wire, token: str) -> str:
    """As 2026-07-28 makes one; its id."""
    _, made = await ask(wire, token, "tools/call", TASK_CALL)
    task_id: str = made["result"]["taskId"]
    return task_id


async def test_a_task_of_2025_is_its_keys_on_every_instance_and_unknown_to_others(
    tasks: Scene, canary: CanaryUpstream
) -> None:
    _, made = await ask_legacy(tasks.one, tasks.ada, "tools/call", LEGACY_CALL)
    task = {"taskId": made["result"]["task"]["taskId"]}
    received = bytes(canary.received)
    for wire in tasks.wires:
        for method in ("tasks/get", "tasks/result", "tasks/cancel"):
            status, refused = await ask_legacy(wire, tasks.bob, method, task)
            assert (status, refused["error"]["code"], find_reason(refused)) == (200, -32602, "handle_unknown")
            _, unknown = await ask_legacy(wire, tasks.bob, method, {"taskId": "nobody's"})
            assert hide_request_id(refused) == hide_request_id(unknown)
    assert bytes(canary.received) == received
    for wire in tasks.wires:
        assert (await ask_legacy(wire, tasks.ada, "tasks/get", task))[1]["result"]["taskId"] == task["taskId"]
        _, fetched = await ask_legacy(wire, tasks.ada, "tasks/result", task)
        assert fetched["result"]["content"][0]["text"] == f"result of {task['taskId']}"
    _, cancelled = await ask_legacy(tasks.other, tasks.ada, "tasks/cancel", task)
    assert cancelled["result"]["status"] == "cancelled"


async def test_a_task_of_the_extension_is_its_keys_on_every_instance_and_unknown_to_others(
    tasks: Scene, canary: CanaryUpstream
) -> None:
    task = {"taskId": await make_task(tasks.one, tasks.ada)}
    received = bytes(canary.received)
    for wire in tasks.wires:
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            status, refused = await ask(wire, tasks.bob, method, task)
            assert (status, refused["error"]["code"], find_reason(refused)) == (400, -32602, "handle_unknown")
            _, unknown = await ask(wire, tasks.bob, method, {"taskId": "nobody's"})
            assert hide_request_id(refused) == hide_request_id(unknown)
    assert bytes(canary.received) == received
    for wire in tasks.wires:
        assert (await ask(wire, tasks.ada, "tasks/get", task))[1]["result"]["status"] == "working"
        assert (await ask(wire, tasks.ada, "tasks/update", {**task, "inputResponses": {}}))[1]["result"] == {}
    assert (await ask(tasks.other, tasks.ada, "tasks/cancel", task))[1]["result"]["status"] == "cancelled"


async def test_a_list_of_tasks_shows_the_keys_own(tasks: Scene) -> None:
    made: dict[str, list[str]] = {tasks.ada: [], tasks.bob: []}
    for token in (tasks.ada, tasks.bob, tasks.ada):
        made[token].append(
            (await ask_legacy(tasks.one, token, "tools/call", LEGACY_CALL))[1]["result"]["task"]["taskId"]
        )
    for wire in tasks.wires:
        for token in (tasks.ada, tasks.bob):
            _, listed = await ask_legacy(wire, token, "tasks/list", {})
            assert [task["taskId"] for task in listed["result"]["tasks"]] == made[token]
            assert listed["result"]["nextCursor"] == "a-cursor"


async def test_a_key_listens_to_its_own_tasks_and_to_no_others(tasks: Scene, canary: CanaryUpstream) -> None:
    mine, also_mine, his = [await make_task(tasks.one, token) for token in (tasks.ada, tasks.ada, tasks.bob)]
    received = bytes(canary.received)
    for task_ids in ([his], [mine, his], [mine, "nobody's"]):
        status, refused = await ask(
            tasks.other, tasks.ada, "subscriptions/listen", {"notifications": {"taskIds": task_ids}}
        )
        assert (status, find_reason(refused)) == (400, "handle_unknown")
    assert bytes(canary.received) == received
    message, headers = form_modern("subscriptions/listen", {"notifications": {"taskIds": [mine, also_mine]}})
    async with await tasks.other.post(tasks.ada, message, **headers) as listening:
        assert listening.status == 200
        heard = b""
        while f'"taskId": "{also_mine}"'.encode() not in heard:
            heard += await listening.content.readany()
    assert f'"taskId": "{mine}"'.encode() in heard


async def narrow(stage: Stage, tasks: Scene, *scopes: str) -> None:
    """Return once both instances know that these are all the scopes the key has, and that running is none of them."""
    await stage.sql("UPDATE api_keys SET scopes = $2 WHERE id = $1", tasks.ada_id, list(scopes))
    for wire in tasks.wires:
        while find_reason((await ask(wire, tasks.ada, "tools/call", TASK_CALL))[1]) != "message_denied":
            pass


async def test_a_task_is_lost_with_the_scope_that_made_it(stage: Stage, tasks: Scene, canary: CanaryUpstream) -> None:
    task = {"taskId": await make_task(tasks.one, tasks.ada)}
    assert (await ask(tasks.one, tasks.ada, "tasks/get", task))[0] == 200
    await narrow(stage, tasks, "workflow:list", "workflow:run:another")
    received = bytes(canary.received)
    for wire in tasks.wires:
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            assert find_reason((await ask(wire, tasks.ada, method, task))[1]) == "handle_unknown"
        assert find_reason((await ask_legacy(wire, tasks.ada, "tasks/result", task))[1]) == "handle_unknown"
    assert bytes(canary.received) == received


async def test_whoever_listens_to_a_task_stops_when_its_scope_is_lost(stage: Stage, tasks: Scene) -> None:
    task_id = await make_task(tasks.one, tasks.ada)
    message, headers = form_modern("subscriptions/listen", {"notifications": {"taskIds": [task_id]}})
    async with await tasks.other.post(tasks.ada, message, **headers) as listening:
        assert listening.status == 200
        await stage.sql("UPDATE api_keys SET scopes = '{workflow:list}' WHERE id = $1", tasks.ada_id)
        _, last = await read_answer(listening)
    assert find_reason(last) == "rights_changed"


async def test_a_task_that_is_anothers_already_is_told_to_nobody_else(tasks: Scene, desk: TaskDesk) -> None:
    desk.next_id = "the-same-for-all"
    assert await make_task(tasks.one, tasks.ada) == "the-same-for-all"
    status, refused = await ask(tasks.other, tasks.bob, "tools/call", TASK_CALL)
    assert status == (200 if desk.in_events else 502)
    assert find_reason(refused) == "upstream_session_conflict"
    assert "the-same-for-all" not in json.dumps(refused)
    assert (
        find_reason((await ask(tasks.other, tasks.bob, "tasks/get", {"taskId": desk.next_id}))[1]) == "handle_unknown"
    )
    assert await make_task(tasks.other, tasks.ada) == "the-same-for-all"


async def test_a_task_that_cannot_be_bound_is_not_told(stage: Stage, tasks: Scene, desk: TaskDesk) -> None:
    await stage.sql("ALTER TABLE mcp_tasks RENAME TO elsewhere")
    message, headers = form_modern("tools/call", TASK_CALL)
    answer = await tasks.one.post(tasks.ada, message, **headers)
    assert answer.status == (200 if desk.in_events else 503)
    (task_id,) = desk.tasks
    assert task_id not in await answer.text()
    assert find_reason((await read_answer(answer))[1]) == "state_unknown"
