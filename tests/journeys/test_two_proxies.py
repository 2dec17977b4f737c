"""Two instances on one database: what is typed into psql ends on both, and a session belongs to its key on either."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from mcp import MCPError

from proxy.demo.sample_server import SampleServer
from proxy.embedded_postgres import find_binaries
from proxy.server import Proxy
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire, connect, get_mcp_url


@contextlib.asynccontextmanager
async def two_proxies(stage: Stage, sample: SampleServer) -> AsyncIterator[tuple[Proxy, Proxy]]:
    async with stage.proxy(sample.url) as one, stage.proxy(sample.url) as other:
        yield one, other


async def type_into_psql(url: str, statement: str) -> str:
    """What an operator does by hand; what psql said."""
    psql = await asyncio.create_subprocess_exec(
        find_binaries() / "psql", "--no-psqlrc", "--command", statement, url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await psql.communicate()
    return output.decode().strip()


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_a_revocation_typed_into_psql_ends_calls_streams_and_sessions_on_both(
    era: str, stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    sample.platform.run_seconds, sample.platform.steps = 600, 6000
    key = await stage.mint()
    async with two_proxies(stage, sample) as proxies, asyncio.timeout(GUARD_SECONDS):
        refusals = await asyncio.gather(
            *(run_until_refused(get_mcp_url(proxy), key.token, era) for proxy in proxies),
            revoke_when_running(stage, sample, key.summary.id),
        )
        assert refusals[:2] == ["key_revoked", "key_revoked"]
        await sample.platform.runs.wait_for(cancelled=2)
        assert [len(proxy.registry) for proxy in proxies] == [0, 0]
        for proxy in proxies:
            assert await Wire(http, get_mcp_url(proxy)).call(key.token, "aegis.runtime.list") == 401
        while await stage.database.fetch("SELECT 1 FROM mcp_sessions"):
            await asyncio.sleep(0.02)
    deletes = [method for method, _ in sample.platform.requests_seen if method == "DELETE"]
    assert len(deletes) == (2 if era == "legacy" else 0)  # each session once, not once per instance


async def run_until_refused(url: str, token: str, era: str) -> str:
    """Run a workflow until it is ended; the reason given."""
    async with connect(url, token, era) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"})
    return str(refused.value.error.data["reason"])


async def revoke_when_running(stage: Stage, sample: SampleServer, key_id: str) -> None:
    await sample.platform.runs.wait_for(started=2)
    said = await type_into_psql(stage.database_url, f"UPDATE api_keys SET status='revoked' WHERE id = '{key_id}'")
    assert said == "UPDATE 1"


async def test_any_instance_serves_any_session_of_its_key_and_of_no_other(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    mine, foreign = await stage.mint(), await stage.mint(owner="bob")
    async with two_proxies(stage, sample) as (one, other):
        opened = await Wire(http, get_mcp_url(one)).post(mine.token, INITIALIZE)
        await opened.read()
        session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
        elsewhere = Wire(http, get_mcp_url(other))
        message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await elsewhere.post(mine.token, message, **session)).status == 202
        before = len(sample.platform.requests_seen)
        for refused in (
            await elsewhere.post(foreign.token, message, **session),
            await elsewhere.request("GET", foreign.token, **session),
            await elsewhere.request("DELETE", foreign.token, **session),
        ):
            assert refused.status == 404
        assert len(sample.platform.requests_seen) == before
        assert (await elsewhere.request("DELETE", mine.token, **session)).status == 200
        assert not await stage.database.fetch("SELECT 1 FROM mcp_sessions")


async def test_a_session_made_under_rights_since_lost_is_gone(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("developer")
    async with stage.proxy(sample.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        opened = await wire.post(key.token, INITIALIZE)
        await opened.read()
        session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
        await stage.sql("UPDATE api_keys SET scopes = '{workflow:list}' WHERE id = $1", key.summary.id)
        async with asyncio.timeout(GUARD_SECONDS):
            while await wire.call(key.token, "aegis.workflow.export", {"name": "nightly-etl"}) != 200:
                pass
            message = {"jsonrpc": "2.0", "id": 3, "method": "ping"}
            assert (await wire.post(key.token, message, **session)).status == 404
