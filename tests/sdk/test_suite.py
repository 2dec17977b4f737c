"""The suite that every SDK runs, run by both clients of the Python one and by the TypeScript one: the same table."""

from __future__ import annotations

import pytest

from tests.sdk.runner import FACES, Json, Place, list_outcomes, load_scenarios, run_scenario
from tests.sdk.table import Table
from tests.sdk.typescript import run_scenarios

SCENARIOS = load_scenarios()


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_goes_as_it_says(place: Place, face: str, scenario: str) -> None:
    steps = SCENARIOS[scenario]
    assert run_scenario(place, face, steps) == list_outcomes(steps)


@pytest.fixture(scope="module")
def typescript(place: Place) -> Table:
    return run_scenarios(place, SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_goes_as_it_says_in_typescript(typescript: Table, scenario: str) -> None:
    assert typescript[scenario] == list_outcomes(SCENARIOS[scenario])


def test_the_runner_in_typescript_tells_what_goes_otherwise(place: Place) -> None:
    wrong: dict[str, list[Json]] = {
        "raises another": [{"call": "whoami", "key": "none", "raises": "KeyRevokedError"}],
        "raises nothing": [{"stage": "count", "raises": "InputError"}],
        "is otherwise": [
            {"call": "whoami", "key": "none", "raises": "InvalidKeyError"},
            {"call": "whoami", "key": "none", "raises": "InvalidKeyError", "expect": {"status": 403}},
        ],
    }
    table = run_scenarios(place, wrong)
    assert table.pop("raises another")[0].startswith("wrong: call whoami raised InvalidKeyError: ")
    assert table == {
        "raises nothing": ['wrong: stage count did not raise InputError, but gave {"requests":0}'],
        "is otherwise": ["InvalidKeyError", "wrong: call whoami.status: 401 is not 403"],
    }
