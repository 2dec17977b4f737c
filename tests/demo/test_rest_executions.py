"""Executions by REST: they start, tell what they do, end, and are forgotten."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo.sample_platform import Platform
from tests.demo.callers import GUARD_SECONDS, Rest

DUE = float("inf")


async def start_task(rest: Rest, agent: str = "invoice-reader") -> str:
    started = await rest.ask("POST", "/v1/executions", 202, json={"agent_id": agent, "input": "one.pdf"})
    return str(started["execution_id"])


async def start_run(rest: Rest) -> str:
    return str((await rest.ask("POST", "/v1/workflows/nightly-etl/run", 202))["execution_id"])


async def test_an_agent_is_set_to_work_and_is_done_when_its_time_has_come(rest: Rest, platform: Platform) -> None:
    platform.clock = lambda: 0.0
    path = f"/v1/executions/{await start_task(rest)}"
    assert (await rest.ask("GET", path))["status"] == "running"
    assert "cancel it first" in await rest.ask_in_vain("DELETE", path, 409)
    platform.clock = lambda: DUE
    assert (await rest.ask("GET", path))["status"] == "completed"
    assert "has ended" in await rest.ask_in_vain("POST", f"{path}/cancel", 409)
    async with rest.http.get(f"{rest.url}{path}/files/log.txt") as answer:
        assert (await answer.text()).endswith("completed")
    assert "left no file" in await rest.ask_in_vain("GET", f"{path}/files/sub/other.txt", 404)
    await rest.ask("DELETE", path)
    assert "there is no execution" in await rest.ask_in_vain("GET", path, 404)
    assert "there is no agent" in await rest.ask_in_vain("POST", "/v1/executions", 404, json={"agent_id": "nobody"})


async def test_executions_are_listed_by_agent_workflow_and_status(rest: Rest, platform: Platform) -> None:
    platform.clock = lambda: 0.0
    first, second = await start_task(rest), await start_task(rest, "release-notes")
    async with asyncio.timeout(GUARD_SECONDS):
        run = await start_run(rest)
        await platform.runs.wait_for(finished=1)
    await rest.ask("POST", f"/v1/executions/{first}/cancel", json={"reason": "none"})
    for query, expected in {
        "": [run, second, first],
        "?agent_id=release-notes": [second],
        "?workflow_name=nightly-etl": [run],
        "?status=cancelled": [first],
        "?agent_id=release-notes&status=cancelled": [],
    }.items():
        page = await rest.ask("GET", f"/v1/executions{query}")
        assert [each["execution_id"] for each in page["executions"]] == expected, query
    assert "there is no workflow" in await rest.ask_in_vain("GET", "/v1/executions?workflow_name=x", 404)


@pytest.mark.parametrize(
    "name", ["executions/{}/stream", "executions/{}/events", "workflows/executions/{}/logs/stream"]
)
async def test_the_events_of_a_run_are_told_as_they_come_until_its_end(
    rest: Rest, platform: Platform, name: str
) -> None:
    platform.run_seconds = 3000
    async with asyncio.timeout(GUARD_SECONDS):
        run = await start_run(rest)
        await platform.runs.wait_for(started=1)
        events = rest.follow(f"/v1/{name.format(run)}")
        assert [(await anext(events))[1]["number"] for _ in range(2)] == [0, 1]
        platform.executions[run].write("half of it is done")
        assert (await anext(events))[1]["line"] == "half of it is done"
        await rest.ask("POST", f"/v1/workflows/executions/{run}/cancel")
        kinds = [(kind, data["type"], data.get("line"), data.get("status")) async for kind, data in events]
    assert kinds == [("log", "log", "cancelled", None), ("end", "end", None, "cancelled")]


async def test_a_run_that_has_ended_is_told_from_its_beginning(rest: Rest, platform: Platform) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        run = await start_run(rest)
        await platform.runs.wait_for(finished=1)
        lines = [data.get("line") async for _, data in rest.follow(f"/v1/executions/{run}/stream")]
    assert lines[1:] == ["started", *(f"step {step} of 3 done" for step in (1, 2, 3)), "completed", None]


async def test_a_stream_ends_when_the_time_of_a_task_has_come(rest: Rest, platform: Platform) -> None:
    task = platform.start("task", "invoice-reader", None, seconds=0.05)
    async with asyncio.timeout(GUARD_SECONDS):
        events = [kind async for kind, _ in rest.follow(f"/v1/executions/{task.id}/stream")]
    assert events == ["log", "log", "log", "end"]


async def test_many_follow_one_run_and_all_are_told_everything(rest: Rest, platform: Platform) -> None:
    platform.run_seconds = 3000

    async def follow(run: str) -> list[str]:
        return [kind async for kind, _ in rest.follow(f"/v1/executions/{run}/stream")]

    async with asyncio.timeout(GUARD_SECONDS):
        run = await start_run(rest)
        followers = [asyncio.create_task(follow(run)) for _ in range(20)]
        await rest.ask("POST", f"/v1/executions/{run}/cancel")
        assert await asyncio.gather(*followers) == [["log", "log", "log", "end"]] * 20


async def test_a_stream_of_nothing_is_refused_before_it_begins(rest: Rest) -> None:
    for path in ("/v1/executions/x/stream", "/v1/executions/x/events", "/v1/workflows/executions/x/logs/stream"):
        assert "there is no execution 'x'" in await rest.ask_in_vain("GET", path, 404)


async def test_runs_of_workflows_have_a_place_of_their_own(rest: Rest, platform: Platform) -> None:
    platform.run_seconds, platform.clock = 3000, lambda: 0.0
    task = await start_task(rest)
    async with asyncio.timeout(GUARD_SECONDS):
        run = await start_run(rest)
        path = f"/v1/workflows/executions/{run}"
        await platform.runs.wait_for(started=1)
        found = (await rest.ask("GET", "/v1/workflows/executions"))["executions"]
        assert [each["execution_id"] for each in found] == [run]
        for method, rest_of_path in [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/logs")]:
            await rest.ask_in_vain(method, f"/v1/workflows/executions/{task}{rest_of_path}", 404)
        signal = {"signal_name": "approved", "payload": {}}
        assert (await rest.ask("POST", f"{path}/signal", json=signal))["signals"] == 1
        assert platform.executions[run].signals == ["approved"]
        assert "'signal_name' is needed" in await rest.ask_in_vain("POST", f"{path}/signal", 400)
        await rest.ask("POST", f"{path}/cancel")
        assert "has ended" in await rest.ask_in_vain("POST", f"{path}/signal", 409, json=signal)
    page = await rest.ask("GET", f"{path}/logs?limit=1&offset=1")
    assert [event["line"] for event in page.pop("events")] == ["started"]
    assert page == {"execution_id": run, "count": 1, "limit": 1, "offset": 1}
    await rest.ask("DELETE", path)
    await rest.ask_in_vain("GET", path, 404)
