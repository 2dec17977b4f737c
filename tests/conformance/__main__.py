"""`python -m tests.conformance`: the official suite, directly and through the proxy, scenario by scenario.

Exit code 1 when a scenario comes off worse through the proxy, or does not even pass without it. `npm ci` in this
directory comes first (`make conformance` sees to it).
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from tests.conformance.outcomes import Outcome, read_outcome
from tests.conformance.stage import HERE, Stage, run_fixture_server, run_suite, set_stage

REVISIONS = ("2025-11-25", "2026-07-28")
MODES = ("server", "client")
REQUIREMENTS = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "requirements"
# OAuth is between a client and the server that answers it, which is the proxy: it has keys, takes `Authorization` for
# itself and relays no upstream's challenge or metadata. Nothing of those scenarios could or should get through.
NOT_OURS = "auth/"

WORSE, HOLLOW = BAD = ("worse", "proves nothing")

Row = tuple[str, Outcome, Outcome]
"""The scenario, directly and through the proxy."""


def list_scenarios(revision: str, mode: str) -> list[str]:
    """What a revision requires, and what the suite runs for it without scoring it."""
    wanted = YAML(typ="safe").load(REQUIREMENTS / f"{revision}.yaml")
    unscored = [entry["scenario"] for entry in wanted["not_scored"] if entry["leg"] == mode]
    return [name for name in (*wanted[mode], *unscored) if not name.startswith(NOT_OURS)]


async def compare_servers(stage: Stage, revision: str, scenarios: list[str], results: Path) -> list[Row]:
    """The fixture server, and the proxy in front of it, in one run of the suite each."""
    with run_fixture_server() as url:
        await _run(stage, results / "direct", "server", "--url", url, "--requirements", revision)
        async with stage.run_proxy(url) as proxied_url:
            await _run(stage, results / "proxied", "server", "--url", proxied_url, "--requirements", revision)
    return [
        (
            name,
            read_outcome(results / "direct", f"server-{name}"),
            read_outcome(results / "proxied", f"server-{name}"),
        )
        for name in scenarios
    ]


async def compare_clients(stage: Stage, revision: str, scenarios: list[str], results: Path) -> list[Row]:
    """The official client, and the same one with a proxy between it and the suite's server."""
    return [await _compare_client(stage, revision, name, results / name) for name in scenarios]


async def _compare_client(stage: Stage, revision: str, scenario: str, results: Path) -> Row:
    """One scenario alone: the suite would start all its clients at once, and time is part of what it looks at."""
    for side, module in (("direct", "client"), ("proxied", "proxied_client")):
        command = shlex.join([sys.executable, "-m", f"tests.conformance.{module}"])
        wanted = ("--scenario", scenario, "--spec-version", revision)
        await _run(stage, results / side, "client", "--command", command, *wanted)
    return scenario, read_outcome(results / "direct", scenario), read_outcome(results / "proxied", scenario)


async def _run(stage: Stage, results: Path, *arguments: str) -> None:
    results.mkdir(parents=True)
    log = results / "log.txt"
    await run_suite(*arguments, "--output-dir", str(results), environ=stage.form_environ(), log=log)


COMPARISONS: dict[str, Callable[[Stage, str, list[str], Path], Awaitable[list[Row]]]] = {
    "server": compare_servers,
    "client": compare_clients,
}


def print_rows(console: Console, title: str, rows: list[Row]) -> None:
    """The table, and beneath it what is worse through the proxy."""
    table = Table("scenario", "direct", "through the proxy", "equal?", title=title, box=None, title_justify="left")
    losses: list[str] = []
    for scenario, direct, proxied in rows:
        lost = proxied.find_losses(direct)
        table.add_row(scenario, direct.summary, proxied.summary, get_verdict(direct, proxied))
        losses += [f"{scenario}: {loss}" for loss in lost]
    console.print(table)
    for loss in losses:
        console.print(f"  - {loss}", soft_wrap=True, markup=False)
    console.print()


def get_verdict(direct: Outcome, proxied: Outcome) -> str:
    """What did not pass directly proves nothing: then it is the fixtures that want mending."""
    if not direct.passed:
        return HOLLOW
    if proxied.find_losses(direct):
        return WORSE
    return "better" if direct.find_losses(proxied) else "yes"


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--revision", choices=REVISIONS, action="append", help="only this one")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one")
    parser.add_argument("--scenario", action="append", help="only this one")
    parser.add_argument("--results", type=Path, help="keep what the suite wrote in this new directory")
    options = parser.parse_args()
    if not REQUIREMENTS.is_dir():
        parser.error(f"the suite is not installed: run npm ci in {HERE}")
    console = Console(highlight=False, width=max(100, Console().width))
    verdicts: list[str] = []
    async with set_stage() as stage:
        with tempfile.TemporaryDirectory() as scratch:
            results = options.results or Path(scratch)
            for revision in options.revision or REVISIONS:
                for mode in options.mode or MODES:
                    scenarios = list_scenarios(revision, mode)
                    wanted = [name for name in scenarios if name in (options.scenario or scenarios)]
                    rows = await COMPARISONS[mode](stage, revision, wanted, results / revision / mode)
                    print_rows(console, f"{mode} mode, revision {revision}", rows)
                    verdicts += [get_verdict(direct, proxied) for _, direct, proxied in rows]
    bad = sum(verdict in BAD for verdict in verdicts)
    console.print(f"{bad} scenarios do not pass as they should." if bad else f"{len(verdicts)} scenarios compared.")
    return 1 if bad or not verdicts else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
