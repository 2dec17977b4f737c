"""`policy diff`, as a person and as a pipeline runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings import find_shipped
from tests.cli.command import Command

SHIPPED = find_shipped("policy.yaml")
RUN = '- { tool: aegis.workflow.run, require: "workflow:run:{arguments.name}" }'


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    path = tmp_path / "policy.candidate.yaml"
    rule = RUN.replace(" }", ", where: { arguments.force: { absent_or: false } } }")
    path.write_text(SHIPPED.read_text().replace(RUN, rule).replace("      - workflow:signal\n", "", 1))
    return path


async def test_those_for_whom_the_same_changes_stand_together(aegis: Command, edited: Path) -> None:
    outcome = await aegis.run("policy", "diff", str(SHIPPED), str(edited))
    assert outcome.code == 0
    headings = [line for line in outcome.stdout.splitlines() if line.startswith(("preset ", "tier "))]
    assert "preset execution, preset developer" in headings
    assert any(line.startswith("preset full-access, tier free, tier pro") for line in headings)
    assert "  - tool aegis.workflow.signal of /mcp/v1\n" in outcome.stdout
    assert "  v tool aegis.workflow.run of /mcp/v1: name given; " in outcome.stdout
    assert "closed" in outcome.told
    assert "narrowed" in outcome.told


async def test_what_is_told_fits_where_it_is_read(aegis: Command, edited: Path) -> None:
    """A line that wraps cannot be searched; colour is for terminals."""
    outcome = await aegis.run("policy", "diff", str(SHIPPED), str(edited), COLUMNS="40")
    assert "\x1b" not in outcome.stdout + outcome.stderr
    assert any(len(line) > 100 for line in outcome.stdout.splitlines())


async def test_one_preset_or_another_holder_is_picked(aegis: Command, edited: Path) -> None:
    preset = await aegis.run("policy", "diff", str(SHIPPED), str(edited), "--preset", "execution", "--json")
    assert list(preset.json["holders"]) == ["preset execution"]
    both = ("--preset", "read-only", "--for", "tier free")
    picked = await aegis.run("policy", "diff", str(SHIPPED), str(edited), *both, "--json")
    assert list(picked.json["holders"]) == ["tier free"]
    unknown = await aegis.run("policy", "diff", str(SHIPPED), str(edited), "--preset", "reader")
    assert (unknown.code, unknown.stdout) == (2, "")


@pytest.mark.parametrize(("same", "code"), [(False, 1), (True, 0)])
async def test_the_exit_code_tells_when_asked(same: bool, code: int, aegis: Command, edited: Path) -> None:
    outcome = await aegis.run("policy", "diff", str(SHIPPED), str(SHIPPED if same else edited), "--exit-code")
    assert outcome.code == code


async def test_a_policy_at_fault_is_not_compared(aegis: Command, edited: Path) -> None:
    edited.write_text(edited.read_text().replace("version: 1", "version: 2"))
    outcome = await aegis.run("policy", "diff", str(SHIPPED), str(edited), "--exit-code")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"{edited}:" in outcome.stderr
