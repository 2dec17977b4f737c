"""The examples do what they show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sdk.runner import ROOT, Place
from tests.sdk.typescript import NODE, check_built

EXAMPLES = {name: ROOT / "sdk" / name / "examples" for name in ("python", "typescript")}
COMMANDS = {"python": [sys.executable, "-W", "error"], "typescript": [str(NODE)]}
RUN_AND_FOLLOW = ["started ", "log workflow nightly-etl accepted", "end", "cancelled"]
MANY_AT_ONCE = ["invoice-reader - Reads", "release-notes - Writes", "support-triage - Sorts", "2 volumes, "]
ROTATED = ["the old secret is over", "the new one is nightly", "revoked, on every instance: ", "ended: key_revoked"]
REVOKED = ["log\nlog\n", "the key was revoked: key_revoked"]
TOOLS = ["aegis.workflow.run", "ok"]
SHOWN = {
    "python/run_and_follow.py": RUN_AND_FOLLOW,
    "python/mint_use_rotate.py": [
        "minted nightly ['workflow:run:nightly-etl']",
        "runs nightly-etl",
        "may not: ['agent:read:invoice-reader']",
        "explained: False",
        *ROTATED,
    ],
    "python/revoke_while_streaming.py": REVOKED,
    "python/many_at_once.py": MANY_AT_ONCE,
    "python/tools_over_mcp.py": TOOLS,
    "typescript/run-and-follow.ts": RUN_AND_FOLLOW,
    "typescript/mint-use-rotate.ts": [
        "minted nightly [ 'workflow:run:nightly-etl' ]",
        "runs nightly-etl",
        "may not: [ 'agent:read:invoice-reader' ]",
        "explained: false",
        *ROTATED,
    ],
    "typescript/revoke-while-streaming.ts": REVOKED,
    "typescript/many-at-once.ts": MANY_AT_ONCE,
    "typescript/tools-over-mcp.ts": TOOLS,
}


def test_every_example_is_run() -> None:
    found = {f"{name}/{path.name}" for name, folder in EXAMPLES.items() for path in folder.iterdir() if path.is_file()}
    assert found == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_it_says(name: str, place: Place) -> None:
    language, _, file = name.partition("/")
    if language == "typescript":
        check_built()
    place.ask("begin")
    key = place.ask("key", {"preset": "full-access"})["key"]
    environ = {**os.environ, "AEGIS_API_KEY": key, "AEGIS_BASE_URL": place.base_url}
    environ["PYTHONPATH"] = str(ROOT / "sdk" / "python" / "src")
    command = [*COMMANDS[language], str(EXAMPLES[language] / file)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    at = 0
    for line in SHOWN[name]:
        at = done.stdout.index(line, at)
    assert key[19:] not in done.stdout
