"""One table of what the suite came to in each language: `make suite`.

A language's runner is a command that starts a stage of its own, runs every scenario and writes one JSON object to
standard output: scenario → outcomes. Wherever they differ, or are not what the scenario says, the table says so and the
command fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from tests.sdk.runner import FACES, ROOT, list_outcomes, load_scenarios

Table = Mapping[str, list[str]]
RUNNERS = {
    **{f"python, {face}": [sys.executable, "-m", "tests.sdk.runner", face] for face in FACES},
    "typescript": [sys.executable, "-m", "tests.sdk.typescript"],
}


def run(command: list[str]) -> Table:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    table: Table = json.loads(done.stdout)
    return table


def form(tables: Mapping[str, Table], said: Table) -> tuple[str, bool]:
    """The table in Markdown, and whether all of it is as the scenarios say. One outcome is told where all are alike."""
    lines = [f"| scenario | {' | '.join(tables)} |", f"|---|{'---|' * len(tables)}"]
    right = True
    for scenario, outcomes in said.items():
        cells = []
        for table in tables.values():
            found = table.get(scenario, ["not run"])
            right = right and found == outcomes
            cells.append(tell(found) if found == outcomes else f"**{' · '.join(found)}**")
        lines.append(f"| {scenario} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n", right


def tell(outcomes: list[str]) -> str:
    """What was raised, and how often all went well."""
    raised = [outcome for outcome in outcomes if outcome != "ok"]
    return ", ".join([f"{len(outcomes) - len(raised)} ok", *raised])


def main() -> None:
    said = {name: list_outcomes(steps) for name, steps in load_scenarios().items()}
    text, right = form({name: run(command) for name, command in RUNNERS.items()}, said)
    sys.stdout.write(text)
    sys.exit(not right)


if __name__ == "__main__":
    main()
