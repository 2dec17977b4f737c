"""Edits of the policy's file under live traffic: a good one holds at once, a bad one changes only what is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.policy_files import PolicyFiles, find_candidate_path
from proxy.server import Proxy
from proxy.settings import find_shipped
from tests.ear import Ear
from tests.staging import GUARD_SECONDS, MODERN, MODERN_META, Stage, Wire, form_call, get_mcp_url

RUN = '- { tool: aegis.workflow.run, require: "workflow:run:{arguments.name}" }'
RUN_BY_TEAMS = "- { tool: aegis.workflow.run, require: team:manage }"
LIST = "- { tool: [aegis.workflow.list, aegis.workflow.search], require: workflow:list }"
DELETE = '- { tool: aegis.workflow.delete, require: "workflow:delete:{arguments.name}" }'
SHIPPED = find_shipped("policy.yaml").read_text()
NIGHTLY = {"name": "nightly-etl"}


def edit(before: str, after: str) -> str:
    assert SHIPPED.count(before) == 1
    return SHIPPED.replace(before, after)


@dataclass(frozen=True, slots=True)
class Edited:
    """A proxy whose policy is a file that may be edited."""

    proxy: Proxy
    wire: Wire
    files: PolicyFiles
    path: Path
    ear: Ear
    begun: int

    def write(self, text: str, path: Path | None = None) -> None:
        """As an editor does, and with SIGHUP's impatience."""
        (path or self.path).write_text(text)
        self.files.wake()

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    async def edit(self, text: str) -> None:
        before = self.proxy.live.enforced.revision
        self.write(text)
        await self.wait(lambda: self.proxy.live.enforced.revision != before)

    def read_log(self, event: str) -> list[dict[str, Any]]:
        lines = self.ear.heard.getvalue()[self.begun :].splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    async def read_metric(self, name: str) -> float:
        async with self.wire.http.get(f"http://{self.proxy.ops_address}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        (value,) = (line.removeprefix(name) for line in lines if line.startswith(f"{name} "))
        return float(value)

    async def call(self, token: str, tool: str, arguments: dict[str, Any] | None = None) -> str:
        """ "allowed", or the reason of the refusal."""
        answer = await self.open_call(token, tool, arguments)
        text = await answer.text()
        found = json.loads(text.rpartition("data: ")[2])
        return str(found["error"]["data"]["reason"]) if "error" in found else "allowed"

    async def open_call(self, token: str, tool: str, arguments: dict[str, Any] | None = None) -> aiohttp.ClientResponse:
        message = form_call(tool, arguments)
        message["params"]["_meta"] = {**MODERN_META, "progressToken": 1}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        return await self.wire.post(token, message, **headers)

    async def listen(self, token: str) -> aiohttp.ClientResponse:
        """A stream that wants to hear of other tools, and has been acknowledged."""
        params = {"_meta": MODERN_META, "notifications": {"toolsListChanged": True}}
        message = {"jsonrpc": "2.0", "id": 9, "method": "subscriptions/listen", "params": params}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
        stream = await self.wire.post(token, message, **headers)
        await stream.content.readuntil(b"acknowledged")
        return stream


@asynccontextmanager
async def serve_edited(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, ear: Ear, path: Path
) -> AsyncIterator[Edited]:
    files = PolicyFiles(path)
    async with stage.proxy(sample.url, files) as proxy:
        yield Edited(proxy, Wire(http, get_mcp_url(proxy)), files, path, ear, len(ear.heard.getvalue()))


@pytest.fixture
async def edited(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, ear: Ear, tmp_path: Path
) -> AsyncIterator[Edited]:
    path = tmp_path / "policy.yaml"
    path.write_text(SHIPPED)
    async with serve_edited(stage, sample, http, ear, path) as edited:
        yield edited


async def test_an_edit_holds_for_the_next_message_and_ends_just_what_it_no_longer_allows(
    edited: Edited, stage: Stage, sample: SampleServer
) -> None:
    key = await stage.mint("execution")
    sample.platform.run_seconds = 60.0
    running = await edited.open_call(key.token, "aegis.workflow.run", NIGHTLY)
    await running.content.readany()  # it runs, and tells how far it is
    listening = await edited.listen(key.token)
    async with asyncio.timeout(GUARD_SECONDS):
        await edited.edit(edit(RUN, RUN_BY_TEAMS))
        assert await edited.call(key.token, "aegis.workflow.run", NIGHTLY) == "message_denied"
        assert "rights_changed" in await running.text()
        assert await edited.call(key.token, "aegis.workflow.list") == "allowed"
        await listening.content.readuntil(b"notifications/tools/list_changed")
    assert edited.proxy.registry.count_kinds() == {"call": 0, "stream": 1}
    (line,) = edited.read_log("policy_enforced")
    revision = edited.proxy.live.enforced.revision
    assert (line["policy"], line["replaced"]) == (revision, stage.policy.revision)
    assert await edited.read_metric(f'aegis_policy_info{{revision="{revision}"}}') == 1
    assert edited.read_log("request")[-1]["policy"] == revision
    listening.close()


async def test_an_edit_widens_as_well_and_what_rests_on_it_goes_with_it(edited: Edited, stage: Stage) -> None:
    key = await stage.mint("execution")
    assert await edited.call(key.token, "aegis.workflow.delete", NIGHTLY) == "message_denied"
    await edited.edit(edit(DELETE, "- { tool: aegis.workflow.delete, require: workflow:list }"))
    assert await edited.call(key.token, "aegis.workflow.delete", NIGHTLY) == "allowed"


async def test_a_tier_that_is_lowered_in_the_file_narrows_every_key_of_it(edited: Edited, stage: Stage) -> None:
    key = await stage.mint("execution")
    assert await edited.call(key.token, "aegis.workflow.run", NIGHTLY) == "allowed"
    await edited.edit(edit("    - workflow:run\n    - workflow:signal\n", "    - workflow:signal\n"))
    assert await edited.call(key.token, "aegis.workflow.run", NIGHTLY) == "message_denied"


async def test_a_call_that_is_still_allowed_by_another_rule_runs_to_its_end(
    edited: Edited, stage: Stage, sample: SampleServer
) -> None:
    key = await stage.mint("execution")
    sample.platform.run_seconds = 2.0
    running = await edited.open_call(key.token, "aegis.workflow.run", NIGHTLY)
    await running.content.readany()
    await edited.edit(edit(RUN, "- { tool: aegis.workflow.run, require: workflow:list }"))
    async with asyncio.timeout(GUARD_SECONDS):
        assert '"result"' in await running.text()


CASES = """\
version: 1
tests:
  - name: whoever may run workflows may run this one
    given: { preset: execution }
    allow: [{ tool: aegis.workflow.run, arguments: { name: nightly-etl } }]
...
"""

BAD_EDITS = {
    "no YAML": "routes: [",
    "half written": SHIPPED.removesuffix("...\n"),
    "empty": "",
    "an unknown scope": edit(LIST, "- { tool: [aegis.workflow.list, aegis.workflow.search], require: workflow:lst }"),
    "two rules that tie": edit(LIST, f"{LIST}\n      {LIST}"),
    "no routes at all": SHIPPED.partition("routes:")[0] + "...\n",
}


@pytest.mark.parametrize("name", BAD_EDITS)
async def test_a_bad_edit_changes_nothing_under_live_traffic_but_a_line_and_a_metric(
    name: str, edited: Edited, stage: Stage
) -> None:
    key = await stage.mint("execution")
    outcomes: list[str] = []

    async def work() -> None:
        while True:
            outcomes.append(await edited.call(key.token, "aegis.workflow.list"))

    working = asyncio.create_task(work())
    edited.write(BAD_EDITS[name])
    await edited.wait(lambda: bool(edited.read_log("policy_refused")))
    seen = len(outcomes)
    await edited.wait(lambda: len(outcomes) > seen + 5)
    working.cancel()
    await asyncio.wait({working})
    assert set(outcomes) == {"allowed"}
    (line,) = edited.read_log("policy_refused")
    assert line["faults"]
    assert line["in_force"] == edited.proxy.live.enforced.revision == stage.policy.revision
    assert await edited.read_metric('aegis_policy_file_faulty{policy="enforced"}') == 1
    async with edited.wire.http.get(f"http://{edited.proxy.ops_address}/readyz") as answer:
        state = await answer.json()
    assert (answer.status, state["policy"], state["policy_fault"] is None) == (200, stage.policy.revision, False)
    edited.write(edit(RUN, RUN_BY_TEAMS))
    await edited.wait(lambda: edited.proxy.live.enforced.revision != stage.policy.revision)
    assert await edited.read_metric('aegis_policy_file_faulty{policy="enforced"}') == 0


async def test_an_edit_that_fails_the_tests_beside_it_is_refused(edited: Edited, stage: Stage) -> None:
    edited.path.with_name("policy.tests.yaml").write_text(CASES)
    edited.write(edit(RUN, RUN_BY_TEAMS))
    await edited.wait(lambda: bool(edited.read_log("policy_refused")))
    (line,) = edited.read_log("policy_refused")
    assert any("aegis.workflow.run" in fault for fault in line["faults"])
    assert edited.proxy.live.enforced.revision == stage.policy.revision


async def test_a_file_that_is_gone_leaves_the_policy_in_force(edited: Edited, stage: Stage) -> None:
    edited.path.unlink()
    await edited.wait(lambda: bool(edited.read_log("policy_refused")))
    assert edited.proxy.live.enforced.revision == stage.policy.revision


async def test_a_link_that_is_swapped_is_an_edit(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, ear: Ear, tmp_path: Path
) -> None:
    """As Kubernetes publishes a ConfigMap."""
    for name, text in (("one", SHIPPED), ("two", edit(RUN, RUN_BY_TEAMS))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "policy.yaml").symlink_to("data/policy.yaml")
    async with serve_edited(stage, sample, http, ear, tmp_path / "policy.yaml") as edited:
        (tmp_path / "swapped").symlink_to("two")
        (tmp_path / "swapped").rename(tmp_path / "data")
        await edited.wait(lambda: edited.proxy.live.enforced.revision != stage.policy.revision)


async def test_a_candidate_is_heard_counted_and_never_followed(edited: Edited, stage: Stage) -> None:
    key = await stage.mint("execution")
    text = edit(RUN, RUN_BY_TEAMS).replace(DELETE, "- { tool: aegis.workflow.delete, require: workflow:list }")
    candidate = find_candidate_path(edited.path)
    edited.write(text, candidate)
    await edited.wait(lambda: edited.proxy.live.candidate is not None)
    assert await edited.call(key.token, "aegis.workflow.run", NIGHTLY) == "allowed"
    assert await edited.call(key.token, "aegis.workflow.delete", NIGHTLY) == "message_denied"
    assert await edited.call(key.token, "aegis.workflow.list") == "allowed"
    closes, opens = edited.read_log("policy_flip")
    assert (closes["verdict"], closes["name"], closes["key_id"]) == ("closes", "aegis.workflow.run", key.summary.id)
    assert closes["why"] == "the key lacks team:manage"
    assert (opens["verdict"], opens["name"]) == ("opens", "aegis.workflow.delete")
    revision = edited.proxy.live.candidate.policy.revision  # type: ignore[union-attr]
    assert closes["candidate"] == opens["candidate"] == revision
    for verdict in ("opens", "closes"):
        assert await edited.read_metric(f'aegis_policy_flips_total{{candidate="{verdict}"}}') == 1
    assert await edited.read_metric(f'aegis_policy_candidate_info{{revision="{revision}"}}') == 1
    candidate.unlink()
    await edited.wait(lambda: edited.proxy.live.candidate is None)
    assert await edited.read_metric('aegis_policy_candidate_info{revision=""}') == 1


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ('require: "workflow:read:{arguments.input}"', "the key lacks workflow:read:…"),
        ("require: workflow:run, where: { arguments.input: { equals: x } }", "it is not what the rule takes"),
        (
            "require: workflow:run, also_tool: { name: arguments.input, arguments: arguments.args }",
            "no rule would allow it",
        ),
    ],
)
async def test_a_flip_tells_nothing_that_only_the_candidate_has_read(
    edited: Edited, stage: Stage, asked: str, why: str
) -> None:
    key = await stage.mint(scopes=("workflow:run",))
    edited.write(edit(RUN, f"- {{ tool: aegis.workflow.run, {asked} }}"), find_candidate_path(edited.path))
    await edited.wait(lambda: edited.proxy.live.candidate is not None)
    arguments = {"name": "nightly-etl", "input": "nobody-logs-this"}
    assert await edited.call(key.token, "aegis.workflow.run", arguments) == "allowed"
    (flip,) = edited.read_log("policy_flip")
    assert (flip["verdict"], flip["why"]) == ("closes", why)
    assert b"nobody-logs-this" not in edited.ear.heard.getvalue()


async def test_a_route_that_only_the_candidate_has_is_told_and_stays_closed(edited: Edited, stage: Stage) -> None:
    key = await stage.mint("execution")
    route = "  - { id: extra, path: /v1/extra, methods: [GET], upstream: api, require: workflow:list }\n"
    edited.write(SHIPPED.replace("routes:\n", f"routes:\n{route}"), find_candidate_path(edited.path))
    await edited.wait(lambda: edited.proxy.live.candidate is not None)
    url = f"http://{edited.proxy.data_address}/v1/extra"
    async with edited.wire.http.get(url, headers={"Authorization": f"Bearer {key.token}"}) as answer:
        assert answer.status == 404
    (flip,) = edited.read_log("policy_flip")
    assert (flip["verdict"], flip["why"]) == ("opens", "route extra would serve it")


async def test_a_bad_candidate_is_told_and_the_one_before_stays_on_trial(edited: Edited) -> None:
    candidate = find_candidate_path(edited.path)
    edited.write(edit(RUN, RUN_BY_TEAMS), candidate)
    await edited.wait(lambda: edited.proxy.live.candidate is not None)
    before = edited.proxy.live.candidate
    edited.write("routes: [", candidate)
    await edited.wait(lambda: bool(edited.read_log("candidate_refused")))
    assert edited.proxy.live.candidate is before
    assert await edited.read_metric('aegis_policy_file_faulty{policy="candidate"}') == 1
