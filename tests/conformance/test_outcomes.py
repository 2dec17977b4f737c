"""What counts as a loss: the comparison decides whether a conformance run fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.outcomes import Check, Outcome, read_outcome


def outcome(**statuses: str) -> Outcome:
    return Outcome([Check(name, status, "because") for name, status in statuses.items()])


@pytest.mark.parametrize("status", ["INFO", "SKIPPED", "WARNING", "FAILURE"])
def test_a_check_that_passed_directly_and_does_not_through_the_proxy_is_a_loss(status: str) -> None:
    [loss] = outcome(a="SUCCESS", b=status).find_losses(outcome(a="SUCCESS", b="SUCCESS"))
    assert loss.startswith("b")


def test_a_check_that_never_came_through_the_proxy_is_a_loss() -> None:
    assert outcome(a="SUCCESS").find_losses(outcome(a="SUCCESS", b="SUCCESS")) == ["b: absent"]


def test_what_failed_directly_is_no_loss() -> None:
    assert outcome(a="FAILURE").find_losses(outcome(a="FAILURE")) == []
    assert outcome(a="SUCCESS").find_losses(outcome(a="FAILURE")) == []


def test_what_the_suite_only_noted_is_no_loss() -> None:
    assert outcome(a="SUCCESS").find_losses(outcome(a="SUCCESS", seen="INFO")) == []


def test_a_check_made_several_times_counts_by_its_worst() -> None:
    often = Outcome([Check("a", "SUCCESS"), Check("a", "FAILURE"), Check("a", "INFO")])
    assert often.find_losses(outcome(a="SUCCESS")) == ["a: FAILURE"]


def test_an_outcome_is_read_from_the_directory_of_its_scenario_alone(tmp_path: Path) -> None:
    for directory, status in (("tools-2026-11-23T00", "SUCCESS"), ("tools-list-2026-11-23T00", "FAILURE")):
        (tmp_path / directory).mkdir()
        check = {"id": "x", "name": "X", "status": status}
        (tmp_path / directory / "checks.json").write_text(json.dumps([check]))
    assert read_outcome(tmp_path, "tools").summary == "1 passed"


def test_a_run_that_broke_down_has_no_result(tmp_path: Path) -> None:
    broken = read_outcome(tmp_path, "tools")
    assert broken.summary == "no result"
    assert not broken.passed
    assert broken.find_losses(outcome(a="SUCCESS")) == ["a: absent"]


def test_a_warning_is_passed_and_a_failure_is_not() -> None:
    assert outcome(a="SUCCESS", b="WARNING").passed
    assert not outcome(a="SUCCESS", b="FAILURE").passed
