"""Agents and workflows by REST, and that they are the same as those of the tools."""

from __future__ import annotations

import asyncio

import pytest

from proxy.demo.sample_definition import manifest_of
from proxy.demo.sample_platform import Platform
from tests.demo.callers import GUARD_SECONDS, Rest


async def test_an_agent_is_made_found_by_name_and_by_id_and_deleted(rest: Rest) -> None:
    manifest = manifest_of("agent", "mine", "Counts sheep.")
    made = await rest.ask("POST", "/v1/agents", 201, json={"manifest_yaml": manifest})
    assert made["description"] == "Counts sheep."
    assert await rest.ask("GET", f"/v1/agents/{made['id']}") == made
    assert await rest.ask("GET", "/v1/agents/lookup/mine") == made
    assert made["agent_id"] in [each["id"] for each in (await rest.ask("GET", "/v1/agents"))["agents"]]
    assert await rest.ask("DELETE", f"/v1/agents/{made['id']}") == {"deleted": made["id"]}
    assert "there is no agent" in await rest.ask_in_vain("GET", f"/v1/agents/{made['id']}", 404)
    assert "there is no agent" in await rest.ask_in_vain("GET", "/v1/agents/lookup/mine", 404)


@pytest.mark.parametrize("kind", ["agent", "workflow"])
async def test_a_manifest_may_come_as_it_is(rest: Rest, kind: str) -> None:
    manifest = f"kind: {kind}\nmetadata: {{name: mine}}\n"
    options = {"data": manifest, "headers": {"Content-Type": "text/yaml"}}
    await rest.ask("POST", f"/v1/{kind}s", 201, **options)
    assert "exists" in await rest.ask_in_vain("POST", f"/v1/{kind}s", 409, **options)
    again = await rest.ask("POST", f"/v1/{kind}s?force=true", 201, **options)
    assert (again["revision"], again["manifest_yaml"]) == (2, manifest)
    assert "not YAML" in await rest.ask_in_vain("POST", f"/v1/{kind}s", 400, data="a: [")


async def test_an_agent_gets_new_revisions_and_keeps_the_old_ones(rest: Rest) -> None:
    path = "/v1/agents/release-notes"
    first = await rest.ask("GET", path)
    second = manifest_of("agent", "release-notes", "Second.")
    assert (await rest.ask("PATCH", path, json={"manifest_yaml": second}))["description"] == "Second."
    assert (await rest.ask("PATCH", path, json={"description": "Third."}))["revision"] == 3
    versions = (await rest.ask("GET", f"{path}/versions"))["versions"]
    assert [each["version"] for each in versions] == [1, 2, 3]
    assert [each["manifest_yaml"] for each in versions[:2]] == [first["manifest_yaml"], second]
    other = manifest_of("agent", "other", "Of another name.")
    assert "another agent" in await rest.ask_in_vain("PATCH", path, 400, json={"manifest_yaml": other})
    assert "'description' is needed" in await rest.ask_in_vain("PATCH", path, 400, json={})


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/agents", "support-triage"), ("/v1/workflows", "nightly-etl")], ids=["agent", "workflow"]
)
async def test_a_scope_is_set_and_lists_can_be_asked_for_it(rest: Rest, path: str, name: str) -> None:
    for method, scope in [("PATCH", "global"), ("POST", "user"), ("PATCH", "global")]:
        assert (await rest.ask(method, f"{path}/{name}/scope", json={"scope": scope}))["scope"] == scope
    found = await rest.ask("GET", f"{path}?scope=global")
    assert [each["name"] for each in next(iter(found.values()))] == [name]
    assert "there is no scope" in await rest.ask_in_vain("PATCH", f"{path}/{name}/scope", 400, json={"scope": "all"})


async def test_a_workflow_is_made_read_and_deleted(rest: Rest) -> None:
    manifest = manifest_of("workflow", "nightly backup", "Copies.")
    await rest.ask("POST", "/v1/workflows", 201, json={"manifest_yaml": manifest, "force": False})
    path = "/v1/workflows/nightly%20backup"
    assert (await rest.ask("GET", path))["manifest_yaml"] == manifest
    assert len((await rest.ask("GET", f"{path}/versions"))["versions"]) == 1
    async with rest.http.get(f"{rest.url}/v1/workflows/nightly%20backup/yaml") as answer:
        assert (answer.content_type, await answer.text()) == ("text/yaml", manifest)
    await rest.ask("DELETE", path)
    assert "there is no workflow" in await rest.ask_in_vain("GET", f"{path}/yaml", 404)


@pytest.mark.parametrize("verb", ["run", "execute"])
async def test_a_workflow_runs_by_itself(rest: Rest, platform: Platform, verb: str) -> None:
    options = {"json": {"intent": "now", "input": {"day": 1}}}
    async with asyncio.timeout(GUARD_SECONDS):
        started = await rest.ask("POST", f"/v1/workflows/nightly-etl/{verb}", 202, **options)
        assert (started["status"], started["input"]) == ("running", {"intent": "now", "input": {"day": 1}})
        await platform.runs.wait_for(finished=1)
    ended = await rest.ask("GET", f"/v1/executions/{started['execution_id']}")
    assert (ended["status"], ended["subject"]) == ("completed", "nightly-etl")
    assert "there is no workflow" in await rest.ask_in_vain("POST", f"/v1/workflows/nightly/{verb}", 404)


async def test_a_workflow_needs_no_body_to_run(rest: Rest) -> None:
    assert (await rest.ask("POST", "/v1/workflows/nightly-etl/run", 202))["input"] == {"intent": None, "input": None}


async def test_a_workflow_that_runs_by_itself_ends_with_the_platform(rest: Rest, platform: Platform) -> None:
    platform.run_seconds = 3000
    async with asyncio.timeout(GUARD_SECONDS):
        started = await rest.ask("POST", "/v1/workflows/nightly-etl/run", 202)
        await platform.runs.wait_for(started=1)
        await platform.close()
    assert platform.get_execution(started["execution_id"]).outcome == "cancelled"


async def test_what_the_executions_of_an_agent_write_is_told_until_there_is_no_such_agent(
    rest: Rest, platform: Platform
) -> None:
    platform.clock = lambda: 0.0
    await rest.ask("POST", "/v1/agents/release-notes/execute", 202)
    async with asyncio.timeout(GUARD_SECONDS):
        events = rest.follow("/v1/agents/release-notes/events")
        assert (await anext(events))[0] == "start"
        await rest.ask("POST", "/v1/agents/support-triage/execute", 202)
        started = await rest.ask("POST", "/v1/agents/release-notes/execute", 202, json={"intent": "for 2.0"})
        for line in ("task release-notes accepted", "started"):
            kind, data = await anext(events)
            assert (kind, data["line"], data["execution_id"]) == ("log", line, started["execution_id"])
        await rest.ask("POST", f"/v1/executions/{started['execution_id']}/cancel")
        assert (await anext(events))[1]["line"] == "cancelled"
        await rest.ask("DELETE", "/v1/agents/release-notes")
        assert [kind async for kind, _ in events] == ["end"]
