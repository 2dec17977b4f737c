"""`policy test`, as a security team and its pipeline run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings import find_shipped
from tests.cli.command import Command

RULE = '      - { tool: "notes.*", require: note:list }\n'
UNTESTED = RULE + '      - { tool: notes.purge, require: "note:delete:{arguments.id}" }\n'
ASKED_LAST = '      - { prompt: summarise }\n      - { http: "*" }\n'


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The example for any server, with its tests beside it."""
    path = tmp_path / "p.yaml"
    path.write_text(find_shipped("policy.example.yaml").read_text())
    path.with_name("p.tests.yaml").write_text(find_shipped("policy.example.tests.yaml").read_text())
    return path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


async def test_it_is_a_success_only_when_every_rule_is_covered(aegis: Command, policy: Path) -> None:
    covered = await aegis.run("policy", "test", str(policy))
    assert (covered.code, "44 of 44 cases as expected; 100 % of 18 rules covered" in covered.told) == (0, True)
    edit(policy, RULE, UNTESTED)
    outcome = await aegis.run("policy", "test", str(policy))
    assert outcome.code == 1
    assert "not covered mcp/tool:notes.purge: no test is allowed by it" in outcome.told
    assert "94 % of 19 rules covered" in outcome.told


@pytest.mark.parametrize(("percent", "code"), [("94", 0), ("95", 1)])
async def test_a_lower_coverage_is_accepted_down_to_the_percentage_asked_for(
    percent: str, code: int, aegis: Command, policy: Path
) -> None:
    edit(policy, RULE, UNTESTED)
    outcome = await aegis.run("policy", "test", str(policy), "--min-coverage", percent, "--json")
    assert outcome.code == code
    assert (outcome.json["coverage_percent"], outcome.json["uncovered"]) == (94, ["mcp/tool:notes.purge"])


async def test_what_no_test_notices_fails_only_where_it_was_asked_for(aegis: Command, policy: Path) -> None:
    edit(policy.with_name("p.tests.yaml"), ASKED_LAST, '      - { http: "*" }\n')
    plain = await aegis.run("policy", "test", str(policy), "--json")
    assert (plain.code, plain.json["survivors"]) == (0, [])
    outcome = await aegis.run("policy", "test", str(policy), "--mutants", "--json")
    assert outcome.code == 1
    line = policy.read_text().splitlines().index("      - { prompt: summarise, require: note:list }") + 1
    survivor = {"rule": "mcp/prompt:summarise", "line": line, "what": "opened to any key"}
    assert outcome.json["survivors"] == [survivor]


async def test_other_tests_than_those_beside_the_policy_can_be_named(
    aegis: Command, policy: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(
        "version: 1\ntests:\n  - { name: t, given: { preset: reader }, allow: [{ tool: notes.delete }] }\n...\n"
    )
    outcome = await aegis.run("policy", "test", str(policy), "--cases", str(other), "--json")
    assert outcome.code == 1
    (failure,) = outcome.json["failures"]
    assert (failure["line"], failure["request"], failure["expected"]) == (3, "tools/call notes.delete", "allow")
    assert failure["got"].startswith("denied: ")


async def test_tests_that_test_nothing_are_no_success(aegis: Command, policy: Path) -> None:
    edit(policy.with_name("p.tests.yaml"), "- { tool: notes.list }", "- { tool: notes.l* }")
    outcome = await aegis.run("policy", "test", str(policy))
    assert outcome.code == 1
    assert "p.tests.yaml:35: notes.l* would be asked as it stands" in outcome.told
