"""The TypeScript SDK as it was built, run by the Node.js beside our Python.

`python -m tests.sdk.typescript` starts a stage, has the SDK run the suite of `sdk/suite` and prints the table,
scenario → outcomes, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.sdk.runner import ROOT, Json, Place, list_outcomes, load_scenarios, run_stage

SDK = ROOT / "sdk" / "typescript"
BUILT = SDK / "dist" / "esm" / "index.js"
NODE = Path(sys.executable).with_name("node")
RUNNER = SDK / "tests" / "runner.ts"


def check_built() -> None:
    """Nothing is tried that is older than its source."""
    changed = max(path.stat().st_mtime for path in (SDK / "src").glob("*.ts"))
    built = BUILT.stat().st_mtime if BUILT.exists() else 0.0
    assert built >= changed, "make .venv/.stamps/typescript"


def run_scenarios(
    place: Place, scenarios: dict[str, list[Json]], node: Path = NODE, runner: Path = RUNNER
) -> dict[str, list[str]]:
    """The outcomes of each."""
    check_built()
    command: list[str | Path] = [node, runner, place.base_url, place.control_url]
    done = subprocess.run(command, input=json.dumps(scenarios), stdout=subprocess.PIPE, text=True, check=True)
    table: dict[str, list[str]] = json.loads(done.stdout)
    return table


def main() -> None:
    scenarios = load_scenarios()
    with run_stage() as place:
        table = run_scenarios(place, scenarios)
    sys.stdout.write(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(outcomes != list_outcomes(scenarios[name]) for name, outcomes in table.items()))


if __name__ == "__main__":
    main()
