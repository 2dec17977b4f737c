"""Where a key may be used from, how fast and how much at once: over real sockets, and nothing of what is refused
reaches the upstream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from mcp import MCPError
from mcp.client import Client

from proxy.demo.sample_server import run_sample_server
from tests.canary_upstream import CanaryUpstream
from tests.constrained_keys import BEHIND_A_PROXY, check_limited, constrain, constrain_and_wait_heard, mint_child
from tests.platform_stage import form_upstreams
from tests.raw_client import ask_raw, form_request, open_raw
from tests.refusal_tables import PING
from tests.sse_sessions import connect_sse, get_stream_url
from tests.sse_upstream import run_sse_upstream
from tests.staging import GUARD_SECONDS, MODERN, Stage, connect, get_mcp_url

NIGHTLY = {"name": "nightly-etl"}
SLOW = {"requests_per_second": 0.001}


@pytest.fixture
async def canary() -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream() as canary:
        yield canary


@pytest.fixture(autouse=True)
async def _no_waiting_for_long() -> AsyncIterator[None]:
    async with asyncio.timeout(GUARD_SECONDS):
        yield


# From where.


@pytest.mark.parametrize(
    ("sources", "chain", "allowed"),
    [
        (["192.0.2.0/24"], "192.0.2.7", True),
        (["192.0.2.0/24"], "192.0.3.7", False),
        (["2001:db8::/32"], "2001:db8:1::7", True),
        (["2001:db8::/32"], "2001:db9::7", False),
        (["192.0.2.0/24"], "::ffff:192.0.2.7", True),
        (["::ffff:192.0.2.0/120"], "192.0.2.7", True),
        (["::/0"], "192.0.2.7", False),
        (["192.0.2.0/24"], "192.0.2.7, 127.0.0.9", True),  # by way of two proxies
        (["192.0.2.0/24"], "192.0.2.7, 198.51.100.1", False),  # forged: the proxy has added where it came from
        (["127.0.0.0/8"], "127.0.0.1, 198.51.100.1", False),
        (["127.0.0.0/8"], None, True),  # the proxy asks for itself
    ],
)
async def test_a_key_is_used_from_its_sources_and_from_nowhere_else(
    sources: list[str], chain: str | None, allowed: bool, stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint(constraints={"sources": sources})
    forwarded = {"x_forwarded_for": chain} if chain is not None else {}
    async with stage.proxy(canary.url, server=BEHIND_A_PROXY) as proxy:
        answer = await ask_raw(proxy.data_address, form_request(token=key.token, body=PING, **forwarded))
    if allowed:
        assert (answer.status, len(canary.requests)) == (200, 1)
        return
    assert (answer.status, answer.reason, canary.connections) == (403, "address_not_allowed", 0)
    assert "WWW-Authenticate" not in answer.headers, "no other credential is asked for"
    assert "Retry-After" not in answer.headers


async def test_without_a_trusted_proxy_the_peer_is_who_asks_whatever_is_said(
    stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint(constraints={"sources": ["127.0.0.2"]})
    asked = form_request(token=key.token, body=PING, x_forwarded_for="127.0.0.2", forwarded="for=127.0.0.2")
    async with stage.proxy(canary.url) as proxy:
        assert (await ask_raw(proxy.data_address, asked)).reason == "address_not_allowed"
        assert canary.connections == 0
        async with open_raw(proxy.data_address, local="127.0.0.2") as client:
            await client.send(asked)
            assert (await client.read_answer()).status == 200


async def test_a_chain_that_a_trusted_proxy_vouches_for_and_nobody_can_read_is_refused(
    stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint()
    asked = form_request(token=key.token, body=PING, x_forwarded_for="unknown")
    async with stage.proxy(canary.url, server=BEHIND_A_PROXY) as proxy:
        answer = await ask_raw(proxy.data_address, asked)
        assert (answer.status, answer.reason) == (400, "header_invalid")
        assert canary.connections == 0
    async with stage.proxy(canary.url) as proxy:
        assert (await ask_raw(proxy.data_address, asked)).status == 200  # nobody is trusted: it is not even read
    assert len(canary.requests) == 1
    assert "X_FORWARDED_FOR" not in canary.requests[0].fold()


async def test_from_the_wrong_place_not_even_the_body_is_read(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint(constraints={"sources": ["192.0.2.1"]})
    async with stage.proxy(canary.url) as proxy, open_raw(proxy.data_address) as client:
        await client.send(form_request(token=key.token, body=PING, content_length="1000"))  # most of it never comes
        assert (await client.read_answer()).reason == "address_not_allowed"
    assert canary.connections == 0


async def test_only_who_proves_the_key_learns_that_it_is_bound_to_a_place(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint(constraints={"sources": ["192.0.2.1"]})
    async with stage.proxy(canary.url) as proxy:
        wrong = await ask_raw(proxy.data_address, form_request(token=key.token[:-7] + "0000000", body=PING))
        assert wrong.status == 401
        await stage.revoke_by_sql(key)
        while (answer := await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))).status != 401:
            assert answer.reason == "address_not_allowed"
        assert answer.reason == "key_revoked"


async def test_a_key_whose_sources_change_while_its_body_comes_is_judged_by_the_new_ones(
    stage: Stage, canary: CanaryUpstream
) -> None:
    """`100 Continue` is the barrier: it is sent once the key was verified, before the body is read."""
    key = await stage.mint()
    head, _, body = form_request("POST", "/mcp/v1", "Expect: 100-continue", token=key.token, body=PING).partition(
        b"\r\n\r\n"
    )
    async with stage.proxy(canary.url) as proxy, open_raw(proxy.data_address) as client:
        await client.send(head + b"\r\n\r\n")
        assert (await client.read_head())[0] == "HTTP/1.1 100 Continue"
        await constrain_and_wait_heard(stage, proxy, key, sources=["192.0.2.1"])
        await client.send(body)
        answer = await client.read_answer()
    assert (answer.status, answer.reason, answer.json["id"]) == (403, "address_not_allowed", PING["id"])
    assert canary.connections == 0


# How fast.


async def test_a_burst_passes_and_the_next_one_is_told_when_to_come_back(
    stage: Stage, canary: CanaryUpstream, http: aiohttp.ClientSession
) -> None:
    key, other = await stage.mint(constraints={**SLOW, "burst": 3}), await stage.mint()
    async with stage.proxy(canary.url) as proxy:
        for _ in range(3):
            assert (await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))).status == 200
        for _ in range(3):
            check_limited(
                await ask_raw(proxy.data_address, form_request(token=key.token, body=PING)), "rate_exceeded", 1000
            )
        assert len(canary.requests) == 3
        assert (await ask_raw(proxy.data_address, form_request(token=other.token, body=PING))).status == 200
        async with http.get(f"http://{proxy.ops_address}/metrics") as metrics:
            shown = await metrics.text()
    assert 'aegis_requests_total{outcome="rate_exceeded",route="mcp"} 3.0' in shown
    assert "aegis_rate_buckets 1.0" in shown


async def test_over_rest_the_refusal_is_a_problem(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint(constraints=SLOW)
    asked = form_request("GET", "/v1/agents", token=key.token)
    async with stage.proxy(canary.url, upstreams=form_upstreams(canary.url, canary.url, {"profile": "none"})) as proxy:
        assert (await ask_raw(proxy.data_address, asked)).status == 200
        answer = await ask_raw(proxy.data_address, asked)
    assert (answer.status, answer.reason, len(canary.requests)) == (429, "rate_exceeded", 1)
    assert answer.json["type"] == "urn:aegis-proxy:problem:rate_exceeded"
    assert (answer.json["requests_per_second"], answer.json["burst"]) == (0.001, 1)
    assert str(answer.json["retry_after_seconds"]) == answer.headers["Retry-After"]


async def test_a_child_spends_what_its_parent_may(stage: Stage, canary: CanaryUpstream) -> None:
    parent = await stage.mint("full-access", tier="enterprise", constraints={**SLOW, "burst": 2})
    child, sibling = await mint_child(stage, parent), await mint_child(stage, parent, "sibling")
    async with stage.proxy(canary.url) as proxy:
        answers = [
            await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))
            for key in (child, sibling, child, parent)
        ]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert "descends from" in answers[2].json["error"]["message"]
    assert len(canary.requests) == 2


async def test_each_instance_counts_its_own(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint(constraints=SLOW)
    async with stage.proxy(canary.url) as one, stage.proxy(canary.url) as other:
        answers = [
            (await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))).status
            for proxy in (one, other, one, other)
        ]
    assert answers == [200, 200, 429, 429]


@contextlib.asynccontextmanager
async def connect_by(transport: str, stage: Stage, token: str) -> AsyncIterator[Client]:
    """The official client, through a proxy to an official server."""
    if transport == "http+sse":
        async with (
            run_sse_upstream() as upstream,
            stage.proxy(upstream.url) as proxy,
            connect_sse(get_stream_url(proxy), token, "legacy") as client,
        ):
            yield client
        return
    async with (
        run_sample_server(run_seconds=0.0, steps=1) as sample,
        stage.proxy(sample.url) as proxy,
        connect(get_mcp_url(proxy), token, transport) as client,
    ):
        yield client


@pytest.mark.parametrize("transport", ["legacy", MODERN, "http+sse"])
async def test_the_official_client_is_told_and_its_session_goes_on_afterwards(transport: str, stage: Stage) -> None:
    key = await stage.mint()

    async def call_until(limited: bool) -> dict[str, Any]:
        """Until the change has been heard; what the last call was told."""
        while True:
            try:
                assert not (await client.call_tool("aegis.workflow.run", NIGHTLY)).is_error
                told: dict[str, Any] = {}
            except MCPError as error:
                told = {"code": error.error.code, **error.error.data}
            if bool(told) is limited:
                return told
            await asyncio.sleep(0.01)

    async with connect_by(transport, stage, key.token) as client:
        await call_until(limited=False)
        await constrain(stage, key, **SLOW)
        told = await call_until(limited=True)
        assert (told["code"], told["reason"], told["burst"]) == (-31429, "rate_exceeded", 1)
        assert 0 < told["retry_after_seconds"] <= 1000
        await constrain(stage, key)
        await call_until(limited=False)
