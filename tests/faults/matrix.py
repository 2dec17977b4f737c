"""The fault matrix: every row there is, and how one is run."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from tests.faults import (
    rows_changes,
    rows_clients,
    rows_database,
    rows_network,
    rows_processes,
    rows_servers,
    rows_upstream,
)
from tests.faults.row import Row
from tests.faults.trial import Report, stage_fault
from tests.faults.world import Timing, World, run_world

ROWS: tuple[Row, ...] = (
    *rows_database.ROWS,
    *rows_network.ROWS,
    *rows_changes.ROWS,
    *rows_servers.ROWS,
    *rows_upstream.ROWS,
    *rows_clients.ROWS,
    *rows_processes.ROWS,
)


NOT_STAGED = {
    "pgbouncer in transaction mode": "it takes a pgbouncer; tests/test_listener.py has a listener that LISTENs in vain",
    "certificates rotated": "these upstreams speak plain HTTP; tests/upstream/test_upstream_tls.py has them with TLS",
}
"""Rows of the design that no row here is, and why."""


def draw_seed() -> int:
    """A new one each time, unless one is to be repeated: what fails names it."""
    return int(os.environ.get("FAULT_SEED") or secrets.randbelow(10**9))


def give_name(row: Row) -> str:
    return row.name


async def run_row(row: Row, world: World, *, seed: int) -> Report:
    """Run it in this world, or in one of its own that is like it."""
    if row.own_world is None:
        return await stage_fault(world, row.name, row.fault)
    return await run_row_alone(row, seed=seed, timing=world.timing, scale=world.scale)


async def run_row_alone(row: Row, *, seed: int, timing: Timing, scale: float) -> Report:
    """Run it in a world that is made for it."""
    async with run_world(random.Random(seed), timing=timing, scale=scale, **row.own_world or {}) as world:
        return await stage_fault(world, row.name, row.fault)


def describe(report: Report, seed: int) -> str:
    """What an assertion says."""
    return "\n".join([f"{report.name}, seed {seed}:", *(str(violation)[:2000] for violation in report.violations[:10])])


def print_reports(reports: Sequence[Report], rows: Iterable[Row]) -> None:
    """What was run and how far behind a commit something was still let in; what was not run, and why."""
    table = Table(box=None, header_style="bold")
    for column in ("row", "runs", "requests", "admitted", "503", "worst window ms", "of the bound", "longest s"):
        table.add_column(column, justify="left" if column == "row" else "right")
    unstaged = dict(NOT_STAGED)
    for row in rows:
        if ran := [report for report in reports if report.name == row.name]:
            _add_row(table, row, ran)
        else:
            unstaged[row.name] = row.find_obstacle() or "not asked for"
    console = Console(highlight=False, width=120)
    console.print(table)
    for name, why in unstaged.items():
        console.print(f"not run: {name}: {why}")


def _add_row(table: Table, row: Row, reports: Sequence[Report]) -> None:
    worst = max(reports, key=lambda report: report.window_seconds / report.bound_seconds)
    table.add_row(
        row.name,
        str(len(reports)),
        f"{sum(report.requests for report in reports):,}",
        f"{sum(report.admitted for report in reports):,}",
        f"{sum(report.unavailable for report in reports):,}",
        f"{worst.window_seconds * 1000:.0f}",
        f"{worst.window_seconds / worst.bound_seconds:.0%}",
        f"{max(report.lasted_seconds for report in reports):.1f}",
    )
