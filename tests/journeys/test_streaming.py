"""Streams through the proxy: as they come, for as long as they may, and no longer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from mcp import MCPError

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.staging import GUARD_SECONDS, Stage, connect, get_mcp_url

ERAS = ["legacy", "2026-07-28"]


def run_for_ever(sample: SampleServer) -> None:
    """Workflows that only end when somebody ends them, with ten steps a second."""
    sample.platform.run_seconds, sample.platform.steps = 600, 6000


@pytest.mark.parametrize("era", ERAS)
async def test_progress_arrives_while_the_call_runs(era: str, stage: Stage, proxy: Proxy, sample: SampleServer) -> None:
    key = await stage.mint()
    finished_when_heard = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        finished_when_heard.append(sample.platform.runs.finished)

    async with connect(get_mcp_url(proxy), key.token, era) as client:
        await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}, progress_callback=hear)
    assert finished_when_heard[:3] == [0, 0, 0]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("end", ["revoked by sql", "owner disabled", "deleted"])
async def test_a_running_call_ends_when_its_key_does(
    era: str, end: str, stage: Stage, proxy: Proxy, sample: SampleServer
) -> None:
    run_for_ever(sample)
    key = await stage.mint()
    running = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        running.set()

    async with asyncio.timeout(GUARD_SECONDS), connect(get_mcp_url(proxy), key.token, era) as client:
        call = asyncio.create_task(
            client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}, progress_callback=hear)
        )
        await running.wait()
        if end == "revoked by sql":
            await stage.revoke_by_sql(key)
        elif end == "owner disabled":
            await stage.sql("UPDATE owners SET disabled_at = now() WHERE subject = 'ada'")
        else:
            await stage.sql("DELETE FROM api_keys WHERE id = $1", key.summary.id)
        with pytest.raises(MCPError) as refused:
            await call
        assert refused.value.error.data["reason"] in ("key_revoked", "owner_disabled", "credential_invalid")
        with pytest.raises(MCPError):
            await client.call_tool("aegis.runtime.list", {})
        await sample.platform.runs.wait_for(cancelled=1)
    assert len(proxy.registry) == 0


@pytest.mark.parametrize("era", ERAS)
async def test_a_running_call_ends_the_instant_its_key_expires(
    era: str, stage: Stage, proxy: Proxy, sample: SampleServer
) -> None:
    run_for_ever(sample)
    key = await stage.mint(lifetime=timedelta(seconds=2))
    async with asyncio.timeout(GUARD_SECONDS), connect(get_mcp_url(proxy), key.token, era) as client:
        with pytest.raises(MCPError, match="expired"):
            await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"})
        await sample.platform.runs.wait_for(cancelled=1)
