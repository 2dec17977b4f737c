"""Revocation when the news cannot arrive: both proxies cut off from the database, and healed again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
from pydantic import SecretStr

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.faults.relay import Relay, run_relay
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire, get_mcp_url

BOUND_SECONDS = 0.75  # lease + grace of tests.staging


@contextlib.asynccontextmanager
async def two_proxies(stage: Stage, sample: SampleServer) -> AsyncIterator[tuple[Relay, list[Proxy]]]:
    """Two instances that reach the database only through a relay."""
    async with run_relay(stage.database_url) as relay:
        via = {"database_url": relay.url}
        async with stage.proxy(sample.url, via=via) as one, stage.proxy(sample.url, via=via) as other:
            yield relay, [one, other]


async def call(wire: Wire, token: str) -> int:
    """The status of one harmless call."""
    return await wire.call(token, "aegis.runtime.list")


async def wait_status(wire: Wire, token: str, status: int) -> None:
    """Return once a call is answered so."""
    async with asyncio.timeout(GUARD_SECONDS):
        while await call(wire, token) != status:
            await asyncio.sleep(0.02)


async def test_cut_off_proxies_admit_nothing_past_the_bound_close_and_heal_by_themselves(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    revoked, good = await stage.mint(name="to be revoked"), await stage.mint(name="good")
    async with two_proxies(stage, sample) as (relay, proxies):
        wires = [Wire(http, get_mcp_url(proxy)) for proxy in proxies]
        for wire in wires:
            assert await call(wire, revoked.token) == await call(wire, good.token) == 200
        relay.freeze()
        await stage.revoke_by_sql(revoked)
        committed = time.clock_gettime(time.CLOCK_BOOTTIME)
        for wire in wires:
            await wait_status(wire, good.token, 503)
        admitted_late = []
        async with asyncio.timeout(GUARD_SECONDS):
            while time.clock_gettime(time.CLOCK_BOOTTIME) < committed + 2 * BOUND_SECONDS:
                for wire in wires:
                    sent = time.clock_gettime(time.CLOCK_BOOTTIME)
                    if await call(wire, revoked.token) == 200 and sent > committed + BOUND_SECONDS:
                        admitted_late.append(sent - committed)
        assert not admitted_late
        for wire in wires:
            assert await call(wire, revoked.token) == await call(wire, good.token) == 503
            assert await call(wire, "not a key at all") == 401
        relay.heal()
        for wire in wires:
            await wait_status(wire, good.token, 200)
            assert await call(wire, revoked.token) == 401


async def test_streams_of_a_cut_off_proxy_end_when_it_closes(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    async with two_proxies(stage, sample) as (relay, proxies):
        wire = Wire(http, get_mcp_url(proxies[0]))
        opened = await wire.post(key.token, INITIALIZE)
        session = opened.headers["Mcp-Session-Id"]
        await opened.read()
        stream = await wire.request("GET", key.token, **{"Mcp-Session-Id": session})
        assert stream.status == 200
        relay.freeze()
        async with asyncio.timeout(GUARD_SECONDS):
            with contextlib.suppress(aiohttp.ClientError):
                await stream.read()
        assert len(proxies[0].registry) == 0
        assert proxies[0].judge_trust() == "closed"


async def test_a_silent_listener_alone_is_noticed_and_costs_nothing_but_reads(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    """The listener hangs behind a frozen relay, the pool does not: every request reads its row."""
    revoked, good = await stage.mint(name="to be revoked"), await stage.mint(name="good")
    async with run_relay(stage.database_url) as relay:
        listening = SecretStr(relay.url)
        async with stage.proxy(sample.url, database={"listener_url": listening}) as proxy:
            wire = Wire(http, get_mcp_url(proxy))
            assert await call(wire, revoked.token) == 200
            relay.freeze()
            await stage.revoke_by_sql(revoked)
            await wait_status(wire, revoked.token, 401)
            assert await call(wire, good.token) == 200
            async with asyncio.timeout(GUARD_SECONDS):
                while proxy.judge_trust() == "trusted":
                    await asyncio.sleep(0.02)
            assert await call(wire, good.token) == 200
            assert await call(wire, revoked.token) == 401
            relay.heal()
            async with asyncio.timeout(GUARD_SECONDS):
                await proxy.heart.listener.proven.wait()
            assert await call(wire, good.token) == 200


async def test_a_reset_listener_recovers_without_refusing_anybody(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    async with run_relay(stage.database_url) as relay:
        async with stage.proxy(sample.url, database={"listener_url": SecretStr(relay.url)}) as proxy:
            wire = Wire(http, get_mcp_url(proxy))
            assert await call(wire, key.token) == 200
            relay.cut()
            async with asyncio.timeout(GUARD_SECONDS):
                while proxy.heart.listener.proven.is_set():
                    assert await call(wire, key.token) == 200
                while not proxy.heart.listener.proven.is_set():
                    assert await call(wire, key.token) == 200
