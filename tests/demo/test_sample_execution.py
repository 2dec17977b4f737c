"""Executions by themselves: events, bells, counts."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.sample_execution import Bell, Event, Execution, Runs
from proxy.demo.sample_faults import Missing
from tests.demo.callers import GUARD_SECONDS


@given(st.text())
def test_an_event_is_two_lines_whatever_is_in_it(text: str) -> None:
    encoded = Event("log", {"line": text}).encode().decode()
    kind, data, *rest = encoded.split("\n")
    assert (kind, rest) == ("event: log", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"type": "log", "line": text}


async def test_a_bell_wakes_everybody_who_waits_and_rings_its_parent_and_nobody_who_comes_later() -> None:
    parent = Bell()
    bell = Bell(parent)
    waiting = [asyncio.create_task(each.wait()) for each in (bell, bell, parent)]
    await asyncio.sleep(0)
    bell.ring()
    async with asyncio.timeout(GUARD_SECONDS):
        await asyncio.gather(*waiting)
    late = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    parent.ring()
    await asyncio.sleep(0)
    assert not late.done()
    late.cancel()


def test_an_execution_tells_from_where_it_is_asked_and_describes_how_it_ended() -> None:
    execution = Execution("task", "x", None, None)
    execution.write("one")
    assert execution.describe()["status"] == "running"
    execution.end("completed")
    assert [(event.data["number"], event.data["line"]) for event in execution.tell(1)] == [(1, "completed")]
    assert execution.describe()["status"] == "completed"
    assert execution.ended.is_set()
    assert execution.read_file("/log.txt") == "one\ncompleted"
    with pytest.raises(Missing, match=r"there is: log\.txt"):
        execution.read_file("log")


async def test_runs_are_waited_for_by_their_number() -> None:
    runs = Runs()
    waiting = asyncio.create_task(runs.wait_for(started=2, finished=1))
    for what in ("started", "finished"):
        runs.count(what)
        await asyncio.sleep(0)
        assert not waiting.done()
    runs.count("started")
    async with asyncio.timeout(GUARD_SECONDS):
        await waiting
