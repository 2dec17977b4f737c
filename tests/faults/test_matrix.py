"""Faults on two real proxies, one real PostgreSQL and one upstream, under load: no invariant breaks, and all heals.

A few rows belong to every run. All of them, with more chance and more time, are in `long_matrix.py`: `make faults`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest
import pytest_asyncio

from tests.faults.matrix import ROWS, describe, draw_seed, give_name, run_row
from tests.faults.row import Row
from tests.faults.world import World, run_world

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """Shared by all rows that leave it as they found it."""
    async with run_world(Random(draw_seed())) as world:
        yield world


@pytest.mark.parametrize("row", [row for row in ROWS if not row.long], ids=give_name)
async def test_no_invariant_breaks(row: Row, world: World) -> None:
    if (obstacle := row.find_obstacle()) is not None:
        pytest.skip(obstacle)
    seed = draw_seed()
    world.dice.seed(seed)
    report = await run_row(row, world, seed=seed)
    assert not report.violations, describe(report, seed)
