"""What a proxy decides leaves counts and, where it denied, audit rows: neither more nor fewer than there were."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import aiohttp

from proxy.demo.sample_server import SampleServer
from proxy.identity import KeyId
from proxy.policy.suggestions import suggest
from proxy.usage import read_usage
from tests.staging import Stage, Wire, get_mcp_url

LIST, DELETE = "mcp/tool:aegis.workflow.list", "mcp/tool:aegis.workflow.delete"
NIGHTLY = {"name": "nightly-etl"}
MISSING = "workflow:delete:nightly-etl"


async def test_a_proxy_that_has_shut_down_has_written_all_that_it_decided(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key, other = await stage.mint("execution", tier="enterprise"), await stage.mint("read-only", owner="bob")
    async with stage.proxy(sample.url, usage={"flush_seconds": 0.1}) as one, stage.proxy(sample.url) as two:
        for proxy in (one, two):
            wire = Wire(http, get_mcp_url(proxy))
            calls = [wire.call(key.token, "aegis.workflow.list") for _ in range(30)]
            calls += [wire.call(key.token, "aegis.workflow.delete", NIGHTLY) for _ in range(7)]
            calls += [wire.call(other.token, "aegis.workflow.list") for _ in range(5)]
            await asyncio.gather(*calls)
    counts = Counter[tuple[str, str, tuple[str, ...], bool]]()
    for minted in (key, other):
        usage = await read_usage(stage.database, KeyId(minted.summary.id), 2)
        for use in usage.uses:
            counts[minted.summary.id, use.rule, use.scopes, use.allowed] += use.count
    assert counts == {
        (key.summary.id, LIST, ("workflow:list",), True): 60,
        (key.summary.id, DELETE, (MISSING,), False): 14,
        (other.summary.id, LIST, ("workflow:list",), True): 10,
    }
    rows = await stage.database.fetch(
        "SELECT actor, key_id, after FROM audit_events WHERE action = 'request.denied' ORDER BY id"
    )
    said = [json.loads(row["after"]) for row in rows]
    assert {row["key_id"] for row in rows} == {key.summary.id}
    assert sum(one["count"] for one in said) == 14
    assert {(one["rule"], one["reason"], one["smallest_sufficient"]) for one in said} == {
        (DELETE, "message_denied", MISSING)
    }
    assert len({row["actor"] for row in rows}) == 2, "each instance says what it refused"


async def test_what_a_key_did_narrows_it_to_just_that(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("execution", tier="enterprise")
    async with stage.proxy(sample.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        assert await wire.call(key.token, "aegis.workflow.run", NIGHTLY) == 200
    usage = await read_usage(stage.database, KeyId(key.summary.id), 2)
    scopes = key.summary.scopes
    suggestion = suggest(stage.policy, usage.uses, scopes, stage.policy.effective_scopes(scopes, (), "enterprise"))
    assert suggestion.scopes == ("workflow:run:nightly-etl",)
    narrow = await stage.mint(scopes=suggestion.scopes)
    async with stage.proxy(sample.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        assert await wire.call(narrow.token, "aegis.workflow.run", NIGHTLY) == 200
        assert await wire.call(narrow.token, "aegis.workflow.run", {"name": "hourly-etl"}) == 200  # said in the answer
    usage = await read_usage(stage.database, KeyId(narrow.summary.id), 2)
    assert {(use.scopes, use.allowed, use.count) for use in usage.uses} == {
        (("workflow:run:nightly-etl",), True, 1),
        (("workflow:run:hourly-etl",), False, 1),
    }
