"""The whole fault matrix: `make faults`. Hours, not seconds; no part of the ordinary run, which is why its name is not
one that is collected.

Many seeds, each a world through which all rows pass that can be scaled down; then every row once with ten times as much
of everything, and once at the timing that is shipped. FAULT_SEEDS says how many seeds, FAULT_SEED repeats one,
FAULT_TIMING=tenth shortens lease and grace further; `-k` with a row's name takes that row alone. A table is printed at
the end.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.faults.matrix import ROWS, describe, draw_seed, give_name, print_reports, run_row, run_row_alone
from tests.faults.row import Row
from tests.faults.trial import Report
from tests.faults.world import REAL, SHORT, TENTH, Timing, run_world

SEEDS = int(os.environ.get("FAULT_SEEDS", "20"))
SCALED = {"short": SHORT, "tenth": TENTH}[os.environ.get("FAULT_TIMING", "short")]
MUCH = 10.0

every_row = pytest.mark.parametrize("row", ROWS, ids=give_name)


@pytest.fixture(scope="module")
def reports() -> Iterator[list[Report]]:
    """What was measured, printed at the end."""
    reports: list[Report] = []
    yield reports
    print_reports(reports, ROWS)


@pytest.mark.parametrize("number", range(SEEDS))
async def test_no_invariant_breaks_whatever_the_dice_say(number: int, reports: list[Report]) -> None:
    seed = draw_seed()
    dice = random.Random(seed)
    rows = [row for row in ROWS if not row.slow and row.find_obstacle() is None]
    dice.shuffle(rows)
    say(f"seed {number + 1} of {SEEDS}: FAULT_SEED={seed}")  # before anything can hang
    broken: list[str] = []
    async with run_world(dice, timing=SCALED) as world:
        for row in rows:
            report = await run_row(row, world, seed=seed)
            say(f"  {row.name}: {len(report.violations)} violations, {report.lasted_seconds:.1f} s")
            reports.append(report)
            broken += [describe(report, seed)] if report.violations else []
    assert not broken, "\n".join(broken)


@every_row
async def test_no_invariant_breaks_when_there_is_ten_times_as_much_of_it(row: Row, reports: list[Report]) -> None:
    await check_row(row, reports, timing=SCALED, scale=MUCH)


@every_row
async def test_no_invariant_breaks_at_the_timing_that_is_shipped(row: Row, reports: list[Report]) -> None:
    await check_row(row, reports, timing=REAL, scale=1.0)


async def check_row(row: Row, reports: list[Report], *, timing: Timing, scale: float) -> None:
    if (obstacle := row.find_obstacle()) is not None:
        pytest.skip(obstacle)
    seed = draw_seed()
    say(f"{row.name}: FAULT_SEED={seed}")
    report = await run_row_alone(row, seed=seed, timing=timing, scale=scale)
    reports.append(report)
    assert not report.violations, describe(report, seed)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - progress, for whoever watches for hours
