"""`policy check`, as a person and as a pipeline runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.policy import Policy
from proxy.settings import find_shipped
from tests.cli.command import Command

SHIPPED = find_shipped("policy.yaml")
EXAMPLE = find_shipped("policy.example.yaml")


async def test_notes_are_told_and_are_no_failure_unless_asked(aegis: Command) -> None:
    plain, strict, machine = await asyncio.gather(
        aegis.run("policy", "check", str(EXAMPLE)),
        aegis.run("policy", "check", str(EXAMPLE), "--strict"),
        aegis.run("policy", "check", str(EXAMPLE), "--json"),
    )
    assert (plain.code, strict.code, machine.code) == (0, 1, 0)
    assert plain.stdout == strict.stdout
    first, second = plain.stdout.splitlines()
    assert first.startswith(f"no-preset {EXAMPLE}:")
    assert second.startswith(f"open-pattern {EXAMPLE}:")
    assert ", 2 notes, " in plain.told
    assert [note["kind"] for note in machine.json["notes"]] == ["no-preset", "open-pattern"]
    assert machine.json["faults"] == []


async def test_notes_that_are_meant_can_be_left_out(aegis: Command) -> None:
    without = ("--without", "no-preset", "--without", "open-pattern")
    outcome = await aegis.run("policy", "check", str(EXAMPLE), "--strict", *without)
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "notes" not in outcome.told
    unknown = await aegis.run("policy", "check", str(EXAMPLE), "--without", "everything")
    assert (unknown.code, unknown.stdout) == (2, "")


async def test_faults_come_as_json_when_asked(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(SHIPPED.read_text().replace("require: team:manage }", "require: team:manages }", 1))
    outcome = await aegis.run("policy", "check", str(path), "--json")
    assert (outcome.code, outcome.stderr) == (1, "")
    (fault,) = outcome.json["faults"]
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "team:manages" in text)
    assert fault == {
        "file": str(path),
        "line": line,
        "message": "unknown scope team:manages",
        "mend": "did you mean team:manage?",
    }
    assert (outcome.json["revision"], outcome.json["notes"]) == (None, [])


async def test_a_file_that_is_not_there_is_a_fault_as_json_too(aegis: Command, tmp_path: Path) -> None:
    outcome = await aegis.run("policy", "check", str(tmp_path / "absent.yaml"), "--json")
    assert outcome.code == 1
    assert outcome.json["faults"][0]["line"] is None


@pytest.mark.parametrize("named", [False, True])
async def test_upstreams_are_only_missed_where_it_is_known_which_there_are(
    named: bool, aegis: Command, policy: Policy
) -> None:
    arguments = () if named else (str(SHIPPED),)
    machine = await aegis.run("policy", "check", *arguments, "--json")
    missing = [note for note in machine.json["notes"] if note["kind"] == "unknown-upstream"]
    routes = [route for route in policy.routes if route.upstream == "api"]
    assert [f"upstream api is not configured: {len(routes)} routes" in one["message"] for one in missing] == [
        True
    ] * named
    served = await aegis.run("policy", "check", *arguments, "--json", AEGIS_UPSTREAM_API="http://127.0.0.1:1")
    assert "unknown-upstream" not in {note["kind"] for note in served.json["notes"]}
