"""`policy replay`: the log of a real proxy, decided again."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.settings import find_shipped
from tests.cli.command import Command
from tests.ear import Ear
from tests.staging import Stage, Wire, get_mcp_url

SHIPPED = find_shipped("policy.yaml")
RUN = '- { tool: aegis.workflow.run, require: "workflow:run:{arguments.name}" }'


@pytest.fixture
async def log(stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, tmp_path: Path, ear: Ear) -> Path:
    """What a proxy said while a key listed, ran one workflow twice, and was denied another."""
    begun = len(ear.heard.getvalue())
    key = await stage.mint(scopes=("workflow:list", "workflow:run:nightly-etl"), tier="enterprise")
    async with stage.proxy(sample.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        await wire.call(key.token, "aegis.workflow.list")
        for name in ("nightly-etl", "nightly-etl", "hourly-etl"):
            await wire.call(key.token, "aegis.workflow.run", {"name": name, "input": "hunter2"})
        await wire.call("aegis_nobody", "aegis.workflow.list")
    path = tmp_path / "proxy.log"
    path.write_bytes(ear.heard.getvalue()[begun:])
    return path


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """Whoever may list workflows may run them."""
    path = tmp_path / "edited.yaml"
    path.write_text(SHIPPED.read_text().replace(RUN, "- { tool: aegis.workflow.run, require: workflow:list }"))
    return path


async def test_the_policy_that_decided_flips_nothing(aegis: Command, log: Path) -> None:
    outcome = await aegis.run("policy", "replay", str(log), "--policy", str(SHIPPED), "--exit-code", "--json")
    assert outcome.code == 0
    found = outcome.json
    assert (found["same"], found["opens"], found["closes"], found["other_rule"]) == (4, 0, 0, 0)
    assert (found["flips"], found["not_told"], found["undecided"]) == ([], {}, 1)


async def test_what_opens_is_told_with_key_subject_rule_and_count(aegis: Command, log: Path, edited: Path) -> None:
    outcome = await aegis.run("policy", "replay", str(log), "--policy", str(edited), "--exit-code", "--json")
    assert (outcome.code, outcome.json["opens"], outcome.json["same"]) == (1, 1, 3)
    (flip,) = outcome.json["flips"]
    assert (flip["verdict"], flip["subject"], flip["count"]) == ("opens", "tools/call aegis.workflow.run", 1)
    assert flip["rule_before"] == flip["rule_after"] == "mcp/tool:aegis.workflow.run"
    told = await aegis.run("policy", "replay", str(log), "--policy", str(edited))
    assert told.code == 0
    assert "opens" in told.stdout
    assert "4 decisions under" in told.stderr
    assert "3 the same, 1 open, 0 close, 0 not told" in told.stderr
    assert "1 requests without a decision" in told.stderr


async def test_the_log_holds_what_was_read_and_nothing_else(log: Path) -> None:
    text = log.read_text()
    assert '"arguments.name":"hourly-etl"' in text
    assert "hunter2" not in text


async def test_several_logs_are_one_and_older_lines_are_left_out(aegis: Command, log: Path, edited: Path) -> None:
    both = await aegis.run("policy", "replay", str(log), str(log), "--policy", str(edited), "--json")
    assert both.json["flips"][0]["count"] == 2
    later = await aegis.run("policy", "replay", str(log), "--policy", str(edited), "--since", "2999-01-01", "--json")
    assert (later.json["older"], later.json["flips"]) == (4, [])


async def test_the_candidate_beside_the_configured_policy_is_tried(aegis: Command, log: Path, edited: Path) -> None:
    configured = edited.with_name("policy.yaml")
    configured.write_text(SHIPPED.read_text())
    without = await aegis.run("policy", "replay", str(log), "--json", AEGIS_POLICY=str(configured))
    assert (without.json["policy"], without.json["opens"]) == (str(configured), 0)
    edited.rename(edited.with_name("policy.candidate.yaml"))
    found = await aegis.run("policy", "replay", str(log), "--json", AEGIS_POLICY=str(configured))
    assert (Path(found.json["policy"]).name, found.json["opens"]) == ("policy.candidate.yaml", 1)


@pytest.mark.parametrize("arguments", [("missing.log",), (), ("-", "--since", "yesterday")])
async def test_what_cannot_be_asked_is_a_usage_error(aegis: Command, arguments: tuple[str, ...]) -> None:
    outcome = await aegis.run("policy", "replay", *arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
