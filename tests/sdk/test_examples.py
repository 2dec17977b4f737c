"""The examples do what they show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sdk.runner import ROOT, Place

EXAMPLES = ROOT / "sdk" / "python" / "examples"
SHOWN = {
    "run_and_follow.py": ["started ", "log workflow nightly-etl accepted", "end", "cancelled"],
    "mint_use_rotate.py": [
        "minted nightly ['workflow:run:nightly-etl']",
        "runs nightly-etl",
        "may not: ['agent:read:invoice-reader']",
        "explained: False",
        "the old secret is over",
        "the new one is nightly",
        "revoked, on every instance: True",
        "ended: key_revoked",
    ],
    "revoke_while_streaming.py": ["log\nlog\n", "the key was revoked: key_revoked"],
    "many_at_once.py": ["invoice-reader - Reads", "release-notes - Writes", "support-triage - Sorts", "2 volumes, "],
    "tools_over_mcp.py": ["aegis.workflow.run", "ok"],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_it_says(name: str, place: Place) -> None:
    place.ask("begin")
    key = place.ask("key", {"preset": "full-access"})["key"]
    environ = {**os.environ, "AEGIS_API_KEY": key, "AEGIS_BASE_URL": place.base_url}
    environ["PYTHONPATH"] = str(ROOT / "sdk" / "python" / "src")
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    at = 0
    for line in SHOWN[name]:
        at = done.stdout.index(line, at)
    assert key[19:] not in done.stdout
