"""How much a key may have open at once: calls and streams of every kind, their places given back whatever ends them,
and what happens to those that are open when a key is narrowed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.keys.minting import MintedKey
from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream
from tests.constrained_keys import BEHIND_A_PROXY, check_limited, constrain, mint_child
from tests.journeys.test_narrowing import open_listen
from tests.patient_upstream import (
    PatientUpstream,
    begin_call,
    form_result,
    open_all,
    read_error,
    read_last_event,
    read_until,
    run_patient_upstream,
)
from tests.platform_stage import form_upstreams
from tests.raw_client import ask_raw, form_request, open_raw
from tests.refusal_tables import PING
from tests.sse_sessions import open_session, open_stream
from tests.sse_upstream import run_sse_upstream
from tests.staging import GUARD_SECONDS, Stage, Wire, get_mcp_url

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: begun\n\n"


@pytest.fixture(autouse=True)
async def _no_waiting_for_long() -> AsyncIterator[None]:
    async with asyncio.timeout(GUARD_SECONDS):
        yield


@pytest.fixture
async def patient() -> AsyncIterator[PatientUpstream]:
    async with run_patient_upstream() as upstream:
        yield upstream


@pytest.fixture
async def front(stage: Stage, patient: PatientUpstream) -> AsyncIterator[Proxy]:
    async with stage.proxy(patient.url, server=BEHIND_A_PROXY) as proxy:
        yield proxy
        proxy.end_all()  # or it waits for what is still open


@pytest.fixture
def calls(front: Proxy, http: aiohttp.ClientSession) -> Wire:
    """Through the proxy in front of the patient upstream."""
    return Wire(http, get_mcp_url(front))


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def begin(
    calls: Wire, key: MintedKey, name: str, patient: PatientUpstream
) -> asyncio.Task[aiohttp.ClientResponse]:
    """A call under way: the upstream has it."""
    call = asyncio.create_task(begin_call(calls, key.token, name))
    await wait_for(lambda: name in patient.open)
    return call


# One too many.


async def test_calls_and_streams_are_counted_apart_and_their_places_are_given_back(
    stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream
) -> None:
    key = await stage.mint(constraints={"max_calls": 2, "max_streams": 1})
    held = await open_all("held", key.token, calls, patient)
    seen = set(patient.open)
    asked = form_request(token=key.token, body=PING)
    check_limited(await ask_raw(front.data_address, asked), "calls_exceeded", 1)
    again = await calls.request("GET", key.token, **held.session)
    assert (again.status, (await again.json(content_type=None))["error"]["data"]["max_streams"]) == (429, 1)
    assert set(patient.open) == seen
    assert front.registry.count_kinds() == {"call": 2, "stream": 1}
    await held.check_flowing("stream", "events", "silence")
    held.stream.close()
    held.events.close()
    await wait_for(lambda: not len(front.registry))
    assert (await ask_raw(front.data_address, asked)).status == 200
    await (await open_all("again", key.token, calls, patient)).check_flowing("stream", "events", "silence")


async def test_a_listen_stream_takes_the_place_of_a_stream(
    stage: Stage, proxy: Proxy, sample: SampleServer, wire: Wire
) -> None:
    key = await stage.mint(constraints={"max_calls": 1, "max_streams": 1})
    listening = await open_listen(wire, key.token, [])
    seen = len(sample.platform.requests_seen)
    with pytest.raises(AssertionError, match="streams_exceeded"):
        await open_listen(wire, key.token, [])
    assert len(sample.platform.requests_seen) == seen
    assert await wire.call(key.token, "aegis.runtime.list") == 200
    listening.close()
    await wait_for(lambda: not len(proxy.registry))
    await open_listen(wire, key.token, [])


async def test_the_stream_of_http_sse_takes_the_place_of_a_stream(stage: Stage, http: aiohttp.ClientSession) -> None:
    key = await stage.mint(constraints={"max_streams": 1})
    async with run_sse_upstream() as upstream, stage.proxy(upstream.url) as proxy:
        session = await open_session(http, proxy, key.token)
        with pytest.raises(AssertionError, match="streams_exceeded"):
            await open_stream(http, proxy, key.token)
        assert upstream.open == 1
        session.stream.close()
        await upstream.wait_open(0)
        await wait_for(lambda: not len(proxy.registry))
        (await open_stream(http, proxy, key.token)).stream.close()
        proxy.end_all()


async def test_an_answer_that_turns_out_to_be_one_stream_too_many_is_not_begun(stage: Stage) -> None:
    key = await stage.mint(constraints={"max_streams": 1, "max_calls": 1})
    asked = form_request("GET", "/v1/executions/e-1/events", token=key.token)
    async with (
        CanaryUpstream(lambda _: EVENTS) as platform,
        stage.proxy(platform.url, upstreams=form_upstreams(platform.url, platform.url, {"profile": "none"})) as proxy,
        open_raw(proxy.data_address) as one,
    ):
        await one.send(asked)
        assert (await one.read_head())[0] == "HTTP/1.1 200 OK"
        refused = await ask_raw(proxy.data_address, asked)
        assert (refused.status, refused.reason, b"begun" in refused.body) == (429, "streams_exceeded", False)
        assert proxy.registry.count_kinds() == {"call": 0, "stream": 1}
        one.reset()
        await wait_for(lambda: not len(proxy.registry))
        async with open_raw(proxy.data_address) as other:
            await other.send(asked)
            assert (await other.read_head())[0] == "HTTP/1.1 200 OK"
        proxy.end_all()


@pytest.mark.parametrize("way", ["answered", "client left", "upstream died", "refused later", "ended"])
async def test_however_a_call_ends_its_place_is_free_again(
    way: str, stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream
) -> None:
    key = await stage.mint(constraints={"max_calls": 1})
    call = await begin(calls, key, "a silence", patient)
    check_limited(await ask_raw(front.data_address, form_request(token=key.token, body=PING)), "calls_exceeded", 1)
    if way == "client left":
        call.cancel()
    elif way == "upstream died":
        patient.open["a silence"].transport.abort()
        assert (await call).status == 502
    elif way == "ended":
        await constrain(stage, key, max_calls=1, sources=["192.0.2.1"])
        assert read_error(await (await call).json(content_type=None)) == "address_not_allowed"
        await constrain(stage, key, max_calls=1)
    else:
        patient.reply(patient.open["a silence"], form_result(1))
        assert (await call).status == 200
    if way == "refused later":
        unknown = await calls.post(key.token, PING, **{"Mcp-Session-Id": "of nobody"})
        assert unknown.status == 404
    await wait_for(lambda: not len(front.registry))
    answer = await ask_raw(front.data_address, form_request(token=key.token, body=PING))
    while answer.reason == "address_not_allowed":  # that it is allowed again has not been heard yet
        answer = await ask_raw(front.data_address, form_request(token=key.token, body=PING))
    assert answer.status == 200


async def test_what_a_constraint_refused_is_no_use_but_the_last_refusal(
    stage: Stage, patient: PatientUpstream, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint(constraints={"max_calls": 1})
    async with stage.proxy(patient.url) as proxy:
        call = await begin(Wire(http, get_mcp_url(proxy)), key, "a silence", patient)
        for _ in range(3):
            refused = await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))
            check_limited(refused, "calls_exceeded", 1)
        patient.reply(patient.open["a silence"], form_result(1))
        assert (await call).status == 200
    assert [row["count"] for row in await stage.database.fetch("SELECT count FROM key_usage")] == [1]
    refusals = await stage.database.fetch("SELECT what, count FROM key_last_uses WHERE secret_version = -1")
    assert [tuple(row) for row in refusals] == [("calls_exceeded", 3)]


async def test_a_tree_of_keys_has_no_more_open_than_its_root_may(
    stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream
) -> None:
    root = await stage.mint("full-access", tier="enterprise", constraints={"max_calls": 2})
    child = await mint_child(stage, root)
    grandchild, sibling = await mint_child(stage, child, "grandchild"), await mint_child(stage, root, "sibling")
    one = await begin(calls, grandchild, "one silence", patient)
    other = await begin(calls, sibling, "other silence", patient)
    for key in (root, child, grandchild, sibling):
        answer = await ask_raw(front.data_address, form_request(token=key.token, body=PING))
        check_limited(answer, "calls_exceeded", 1)
        assert ("descends from" in answer.json["error"]["message"]) is (key is not root)
    await stage.revoke_by_sql(child)
    assert read_error(await (await one).json(content_type=None)) == "key_revoked"
    await wait_for(lambda: len(front.registry) == 1)
    assert (await ask_raw(front.data_address, form_request(token=root.token, body=PING))).status == 200
    patient.reply(patient.open["other silence"], form_result(1))
    assert (await other).status == 200


async def test_each_instance_has_as_much_open(
    stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint(constraints={"max_calls": 1})
    async with stage.proxy(patient.url) as second:
        held = {
            name: await begin(wire, key, name, patient)
            for name, wire in (("one silence", calls), ("other silence", Wire(http, get_mcp_url(second))))
        }
        for proxy in (front, second):
            answer = await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))
            check_limited(answer, "calls_exceeded", 1)
        for name, call in held.items():
            patient.reply(patient.open[name], form_result(1))
            assert (await call).status == 200


# A key is narrowed while it has something open.


async def test_below_a_lowered_limit_the_oldest_go_on_and_the_newest_end_and_say_why(
    stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream
) -> None:
    key = await stage.mint()
    old, new = [await open_all(name, key.token, calls, patient) for name in ("old", "new")]
    await constrain(stage, key, max_calls=2, max_streams=1)
    assert read_error(read_last_event(await new.events.read())) == "calls_exceeded"
    refused = await new.silence
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert read_error(await refused.json(content_type=None)) == "calls_exceeded"
    await new.check_stream_ended(429, "streams_exceeded")
    await new.wait_upstream()
    await old.check_flowing("stream", "events", "silence")


async def test_where_a_key_may_no_longer_be_used_nothing_of_it_goes_on(
    stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    here = await open_all("here", key.token, calls, patient)
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(open_raw(front.data_address))
        await there.send(
            form_request("GET", "/mcp/v1", token=key.token, mcp_session_id="here", x_forwarded_for="192.0.2.7")
        )
        assert (await there.read_head())[0] == "HTTP/1.1 200 OK"
        await constrain(stage, key, sources=["192.0.2.0/24"])
        assert read_error(read_last_event(await here.events.read())) == "address_not_allowed"
        refused = await here.silence
        assert refused.status == 403
        assert read_error(await refused.json(content_type=None)) == "address_not_allowed"
        await here.check_stream_ended(403, "address_not_allowed")
        await wait_for(lambda: front.registry.count_kinds() == {"call": 0, "stream": 1})


async def test_a_lowered_limit_of_the_parent_ends_the_newest_of_its_children(
    stage: Stage, front: Proxy, calls: Wire, patient: PatientUpstream
) -> None:
    parent = await stage.mint("full-access", tier="enterprise")
    children = [await mint_child(stage, parent, name) for name in ("one", "other")]
    old, new = [await open_all(key.summary.name, key.token, calls, patient) for key in children]
    await constrain(stage, parent, max_streams=1, max_calls=2)
    await new.check_stream_ended(429, "streams_exceeded")
    await new.wait_upstream()
    await old.check_flowing("stream", "events", "silence")


async def test_the_stream_of_http_sse_ends_when_its_key_is_narrowed(stage: Stage, http: aiohttp.ClientSession) -> None:
    key = await stage.mint()
    async with run_sse_upstream() as upstream, stage.proxy(upstream.url) as proxy:
        old, new = [await open_session(http, proxy, key.token) for _ in range(2)]
        await constrain(stage, key, max_streams=1)
        await new.wait_ended()
        await upstream.wait_open(1)
        await constrain(stage, key, sources=["192.0.2.1"])
        await old.wait_ended()
        await upstream.wait_open(0)
        await wait_for(lambda: not len(proxy.registry))


async def test_a_listen_stream_ends_when_its_key_is_narrowed(stage: Stage, proxy: Proxy, wire: Wire) -> None:
    key = await stage.mint()
    old, new = [await open_listen(wire, key.token, []) for _ in range(2)]
    await constrain(stage, key, max_streams=1)
    assert "streams_exceeded" in await new.text()
    await constrain(stage, key, sources=["192.0.2.1"])
    assert "address_not_allowed" in await old.text()


async def test_a_stream_over_rest_ends_when_its_key_is_narrowed_and_says_why(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    async with (
        CanaryUpstream(lambda _: EVENTS) as platform,
        stage.proxy(platform.url, upstreams=form_upstreams(platform.url, platform.url, {"profile": "none"})) as proxy,
    ):
        url = f"http://{proxy.data_address}/v1/executions/e-1/events"
        old, new = [await http.get(url, headers={"Authorization": f"Bearer {key.token}"}) for _ in range(2)]
        for answer in (old, new):
            await read_until(answer, "begun")
        for answer, constraints, status, reason in (
            (new, {"max_streams": 1}, 429, "streams_exceeded"),
            (old, {"sources": ["192.0.2.1"]}, 403, "address_not_allowed"),
        ):
            await constrain(stage, key, **constraints)
            event, _, data = (await answer.text()).strip().partition("\ndata: ")
            problem = json.loads(data)
            assert (event, problem["code"], problem["status"]) == ("event: error", reason, status)
