"""What the TypeScript SDK does where no suite reaches: its own tests, in Node.js, against servers that misbehave."""

from __future__ import annotations

import subprocess

import pytest

from tests.sdk.typescript import NODE, SDK, check_built

FILES = sorted((SDK / "tests").glob("*.test.ts"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_its_own_tests_passes(path: object) -> None:
    check_built()
    command = [str(NODE), "--test", "--test-reporter=spec", str(path)]
    done = subprocess.run(command, cwd=SDK, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nℹ skipped 0\n" in done.stdout
    assert "\nℹ pass 0\n" not in done.stdout
