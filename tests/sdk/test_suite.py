"""The suite that every SDK runs, run by both clients of the Python one and by the TypeScript one: the same table."""

from __future__ import annotations

import pytest

from tests.sdk.runner import FACES, Place, list_outcomes, load_scenarios, run_scenario
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
