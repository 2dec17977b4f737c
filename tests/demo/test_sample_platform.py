"""The state behind both faces, asked directly."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.sample_definition import manifest_of
from proxy.demo.sample_faults import InTheWay
from proxy.demo.sample_platform import Platform
from tests.demo.callers import GUARD_SECONDS


async def test_what_is_written_while_a_slow_listener_is_told_is_told_too(platform: Platform) -> None:
    execution = platform.start("task", "release-notes", None, seconds=None)
    async with asyncio.timeout(GUARD_SECONDS), aclosing(platform.follow(execution)) as events:
        assert (await anext(events)).data["line"] == "task release-notes accepted"
        execution.write("more")
        execution.end("completed")
        rest = [event.data.get("line", event.type) async for event in events]
    assert rest == ["started", "more", "completed", "end"]


async def test_an_agent_is_followed_from_now_on_and_one_of_the_same_name_is_another(platform: Platform) -> None:
    before = platform.start("task", "release-notes", None, seconds=None)
    agent = platform.get_definition("agent", "release-notes")
    async with asyncio.timeout(GUARD_SECONDS), aclosing(platform.follow_agent(agent)) as events:
        assert (await anext(events)).type == "start"
        before.write("more")
        assert (await anext(events)).data["line"] == "more"
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        platform.delete_definition("agent", agent.id)
        platform.deploy("agent", manifest_of("agent", agent.name, "Another."), replace=False)
        assert (await waiting).type == "end"


async def test_nothing_is_launched_removed_or_cancelled_twice(platform: Platform) -> None:
    run = platform.launch_workflow("nightly-etl", None)
    with pytest.raises(InTheWay, match="cancel it first"):
        platform.remove(run.id)
    async with asyncio.timeout(GUARD_SECONDS):
        await run.ended.wait()
    with pytest.raises(InTheWay, match="has ended: completed"):
        platform.cancel(run.id)
    assert platform.remove(run.id) is run
    with pytest.raises(ToolError, match="there is no execution"):
        platform.remove(run.id)


def test_a_volume_is_renamed_to_a_label_of_its_own(platform: Platform) -> None:
    volume = platform.create_volume("notes", 10)
    platform.rename_volume(volume.id, "notes")
    platform.rename_volume(volume.id, "papers")
    with pytest.raises(InTheWay, match="already"):
        platform.rename_volume(volume.id, "reports")
    assert platform.get_volume(volume.id).label == "papers"
