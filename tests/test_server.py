"""The composition root: what stops a start, what a failing room means, and how it all ends."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.errors import ConfigError, DatabaseError
from proxy.server import ListenError, Proxy, run_proxy
from proxy.settings import Address
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire, connect, form_settings, get_mcp_url

NOWHERE = "postgresql://aegis:hunter2@127.0.0.1:1/nothing"


async def test_without_a_database_it_does_not_start(stage: Stage) -> None:
    settings = form_settings(stage.database_url, "http://127.0.0.1:1", database={"url": None})
    with pytest.raises(ConfigError, match=r"AEGIS_DATABASE_URL.*--embedded"):
        async with run_proxy(settings, stage.policy):
            pass


async def test_a_database_that_is_not_there_is_named_without_its_password(stage: Stage) -> None:
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/nothing") as refused:
        async with run_proxy(form_settings(NOWHERE, "http://127.0.0.1:1"), stage.policy):
            pass
    assert "hunter2" not in str(refused.value)


async def test_a_port_that_is_taken_is_named(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = form_settings(stage.database_url, "http://127.0.0.1:1")
        settings = settings.model_copy(update={"listen": Address("127.0.0.1", port)})
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}.*in use"):
            async with run_proxy(settings, stage.policy):
                pass


async def test_rows_that_cannot_be_read_close_everything_until_they_can(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    """The listener is well all the while: its nonces alone prove too little."""
    key = await stage.mint()
    async with stage.proxy(sample.url, revocation={"revalidate_seconds": 0.5}) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        opened = await wire.post(key.token, INITIALIZE)
        await opened.read()
        stream = await wire.request("GET", key.token, **{"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]})
        assert stream.status == 200
        async with asyncio.timeout(GUARD_SECONDS):
            await stage.sql("ALTER TABLE api_keys RENAME COLUMN scopes TO lost")
            await stream.read()
            assert await wire.call(key.token, "aegis.runtime.list") == 503
            await stage.sql("ALTER TABLE api_keys RENAME COLUMN lost TO scopes")
            while await wire.call(key.token, "aegis.runtime.list") != 200:
                await asyncio.sleep(0.02)


async def test_draining_ends_streams_lets_calls_finish_and_refuses_what_is_new(
    stage: Stage, proxy: Proxy, sample: SampleServer, wire: Wire
) -> None:
    key = await stage.mint()
    sample.platform.run_seconds, sample.platform.steps = 1.0, 10
    opened = await wire.post(key.token, INITIALIZE)
    await opened.read()
    stream = await wire.request("GET", key.token, **{"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]})
    async with asyncio.timeout(GUARD_SECONDS), connect(get_mcp_url(proxy), key.token, "2026-07-28") as client:
        await client.list_tools()  # or the client would ask for it after the call, to validate the result
        call = asyncio.create_task(client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}))
        await sample.platform.runs.wait_for(started=1)
        draining = asyncio.create_task(proxy.drain())
        await stream.read()
        assert await wire.call(key.token, "aegis.runtime.list") == 503
        assert sample.platform.runs.finished == 0
        assert not (await call).is_error
        await draining


async def test_draining_ends_what_does_not_finish_within_the_budget(stage: Stage, sample: SampleServer) -> None:
    key = await stage.mint()
    sample.platform.run_seconds, sample.platform.steps = 600, 6000
    async with stage.proxy(sample.url, server={"drain_seconds": 0.2}) as proxy, asyncio.timeout(GUARD_SECONDS):
        async with connect(get_mcp_url(proxy), key.token, "2026-07-28") as client:
            call = asyncio.create_task(client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}))
            await sample.platform.runs.wait_for(started=1)
            await proxy.drain()
            with pytest.raises(Exception, match="shutting down"):
                await call


async def test_an_operator_sees_whether_it_is_ready_and_why_not(
    proxy: Proxy, http: aiohttp.ClientSession, stage: Stage
) -> None:
    ops = f"http://{proxy.ops_address}"
    ready = await (await http.get(f"{ops}/readyz")).json()
    assert (ready["ready"], ready["trust"], ready["policy"]) == (True, "trusted", stage.policy.revision)
    await proxy.drain()
    drained = await http.get(f"{ops}/readyz")
    assert drained.status == 503
    assert (await drained.json())["faults"] == {"draining": "shutting down"}
    metrics = await (await http.get(f"{ops}/metrics")).text()
    assert 'aegis_lease_state{state="trusted"} 1.0' in metrics
