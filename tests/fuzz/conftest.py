"""Says, at the end of a run, what the fuzzing was done with."""

from __future__ import annotations

import pytest

from tests.fuzz.node_reader import NODE
from tests.fuzz.scale import BODIES, SEED, TARGETS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    node = (
        f"Node's JSON.parse was among the parsers ({NODE})" if NODE else "Node is not here: its JSON.parse was left out"
    )
    terminalreporter.write_line(f"fuzz: {BODIES:,} bodies and {TARGETS:,} targets from seed {SEED}; {node}")
