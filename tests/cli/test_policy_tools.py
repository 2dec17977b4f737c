"""The policy's tools, as a security team runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings import find_shipped
from tests.cli.command import Command

SHIPPED = find_shipped("policy.yaml")
RUN = '- { tool: aegis.workflow.run, require: "workflow:run:{arguments.name}" }'


def copy_policy(directory: Path, before: str = "", after: str = "", *, cases: bool = True) -> Path:
    """The shipped policy, edited, with its tests beside it."""
    path = directory / "policy.yaml"
    path.write_text(SHIPPED.read_text().replace(before, after) if before else SHIPPED.read_text())
    if cases:
        (directory / "policy.tests.yaml").write_text(find_shipped("policy.tests.yaml").read_text())
    return path


async def test_the_shipped_policy_passes_its_tests(aegis: Command) -> None:
    outcome = await aegis.run("policy", "test")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "cases as expected; 100 % of" in outcome.told


async def test_a_failing_test_is_told_with_its_line_and_what_came_instead(aegis: Command, tmp_path: Path) -> None:
    path = copy_policy(tmp_path, RUN, "- { tool: aegis.workflow.run, require: team:manage }")
    plain = await aegis.run("policy", "test", str(path))
    assert plain.code == 1
    assert "failed" in plain.told
    assert "denied: tool aegis.workflow.run needs scope team:manage" in plain.told
    machine = await aegis.run("policy", "test", str(path), "--json")
    assert machine.code == 1
    failure = machine.json["failures"][0]
    assert (failure["request"], failure["expected"]) == ("tools/call aegis.workflow.run", "allow")
    assert f"policy.tests.yaml:{failure['line']}" in plain.told


async def test_a_rule_without_a_test_is_told_and_may_be_accepted(aegis: Command, tmp_path: Path) -> None:
    path = copy_policy(tmp_path, RUN, f"{RUN}\n      - {{ prompt: unasked, require: workflow:list }}")
    outcome = await aegis.run("policy", "test", str(path))
    assert outcome.code == 1
    assert "not covered mcp/prompt:unasked: no test is allowed by it" in outcome.told
    assert "failed" not in outcome.told
    assert (await aegis.run("policy", "test", str(path), "--min-coverage", "99")).code == 0


async def test_whatever_the_tests_would_not_notice_is_told(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(find_shipped("policy.example.yaml").read_text())
    cases = find_shipped("policy.example.tests.yaml").read_text()
    path.with_name("p.tests.yaml").write_text(cases)
    assert (await aegis.run("policy", "test", str(path), "--mutants")).code == 0
    unasked = '      - { uri: "note://todo" }\n      - { prompt: summarise }\n'
    assert cases.count(unasked) == 2  # allowed to readers, denied to those who hold nothing
    kept = unasked.join(cases.split(unasked)[:2]) + cases.split(unasked)[2]
    path.with_name("p.tests.yaml").write_text(kept.replace('      - { uri: "note://other" }\n', ""))
    outcome = await aegis.run("policy", "test", str(path), "--mutants")
    assert outcome.code == 1
    assert "not noticed mcp/uri:note://{id} opened to any key" in outcome.told


async def test_a_policy_without_tests_is_no_success(aegis: Command, tmp_path: Path) -> None:
    outcome = await aegis.run("policy", "test", str(copy_policy(tmp_path, cases=False)))
    assert outcome.code == 1
    assert "there are no tests of policy.yaml" in outcome.told


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--preset", "execution", "--tool", "aegis.workflow.run", "--arg", "name=x"), 0, "allowed by rule"),
        (("--preset", "read-only", "--tool", "aegis.workflow.run", "--arg", "name=x"), 4, "workflow:run:x"),
        (("--scopes", "workflow:run", "--path", "/v1/workflows/x/run", "--method", "post"), 0, "workflow:run:x"),
        (("--scopes", "", "--path", "/v1/agents?tenant_id=other"), 4, "own tenant"),
        (("--preset", "full-access", "--tier", "free", "--rpc", "tools/list"), 0, "any key may"),
        (("--scopes", "volume:read:v", "--uri", "aegis://volumes/v/a"), 0, "volume:read:v"),
        (("--scopes", "volume:read:v", "--uri", "aegis://volumes/w/a"), 4, "volume:read:w"),
        (("--scopes", "", "--prompt", "p"), 4, "no rule"),
        (("--scopes", "agent:list", "--tool", "aegis.agent.list", "--arg", "tenant_id=json:7"), 4, "own tenant"),
    ],
)
async def test_an_explanation_says_why_and_its_exit_code_the_verdict(
    arguments: tuple[str, ...], code: int, told: str, aegis: Command
) -> None:
    plain = await aegis.run("policy", "explain", *arguments)
    assert plain.code == code, plain.stderr
    assert plain.stdout.startswith("allowed" if code == 0 else "denied")
    assert told in plain.stdout
    assert "route " in plain.told
    machine = await aegis.run("policy", "explain", *arguments, "--json")
    assert (machine.code, machine.json["allowed"]) == (code, code == 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tool", "aegis.agent.list"),
        ("--preset", "read-only", "--scopes", "agent:list", "--tool", "aegis.agent.list"),
        ("--preset", "read-only"),
        ("--preset", "read-only", "--tool", "a", "--prompt", "b"),
        ("--preset", "reader", "--tool", "a"),
        ("--scopes", "agent:lst", "--tool", "a"),
        ("--preset", "read-only", "--tier", "gold", "--tool", "a"),
        ("--preset", "read-only", "--tool", "a", "--arg", "name"),
        ("--preset", "read-only", "--tool", "a", "--arg", "name=json:{"),
        ("--preset", "read-only", "--tool", "a", "--route", "agents"),
    ],
)
async def test_a_question_that_means_nothing_is_a_usage_error(arguments: tuple[str, ...], aegis: Command) -> None:
    outcome = await aegis.run("policy", "explain", *arguments)
    assert (outcome.code, outcome.stdout) == (2, "")


async def test_of_a_key_it_says_where_a_right_is_lost(aegis: Command) -> None:
    token = await aegis.mint("--name", "ci", "--owner", "ada", "--tier", "free", "--preset", "developer")
    asked = ("--tool", "aegis.workflow.create")
    outcome = await aegis.run("policy", "explain", "--key", token, *asked)
    assert outcome.code == 4
    assert "workflow:deploy is more than its owner's tier free allows" in outcome.told
    assert token[19:] not in outcome.stdout + outcome.stderr
    assert (await aegis.run("policy", "explain", "--key", token[6:18], "--tool", "aegis.agent.list")).code == 0
    await aegis.run("keys", "revoke", token[6:18])
    revoked = await aegis.run("policy", "explain", "--key", token[6:18], "--tool", "aegis.agent.list")
    assert "may not be used at all: key_revoked" in revoked.told
    unknown = await aegis.run("policy", "explain", "--key", "000000000000", *asked)
    assert (unknown.code, unknown.stdout) == (5, "")


async def test_a_difference_is_told_for_each_preset_and_by_the_exit_code_when_asked(
    aegis: Command, tmp_path: Path
) -> None:
    before = "      - execution:cancel\n\n"
    path = copy_policy(tmp_path, before, "      - execution:cancel\n      - workflow:delete\n\n")
    plain = await aegis.run("policy", "diff", str(SHIPPED), str(path))
    assert plain.code == 0
    assert "preset execution also holds workflow:delete" in plain.stdout
    assert "+ request DELETE /v1/workflows/{name}: name given" in plain.stdout
    assert "preset read-only" not in plain.stdout
    assert "6 opened" in plain.told
    machine = await aegis.run("policy", "diff", str(SHIPPED), str(path), "--json", "--exit-code")
    assert machine.code == 1
    assert set(machine.json["holders"]) == {"preset execution", "preset developer"}
    one = await aegis.run("policy", "diff", str(SHIPPED), str(path), "--for", "preset developer", "--json")
    assert set(one.json["holders"]) == {"preset developer"}


async def test_no_difference_is_said_so(aegis: Command) -> None:
    outcome = await aegis.run("policy", "diff", str(SHIPPED), str(SHIPPED), "--exit-code")
    assert (outcome.code, outcome.stdout, outcome.told) == (0, "", "The two policies decide alike.")
