"""What the suite found of one scenario, and what of it is lost on the other side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The better comes first. INFO is what the suite says when it could not look.
RANKS: Final = ("SUCCESS", "INFO", "SKIPPED", "WARNING", "FAILURE", "absent")
SHOWN: Final = {"SUCCESS": "passed", "WARNING": "warned", "FAILURE": "failed", "SKIPPED": "skipped"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the suite's: what was looked at, how it was, and why."""

    name: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All checks of one scenario on one side."""

    checks: Sequence[Check]

    @property
    def summary(self) -> str:
        counts = Counter(check.status for check in self.checks)
        return ", ".join(f"{counts[status]} {word}" for status, word in SHOWN.items() if counts[status]) or "no result"

    @property
    def passed(self) -> bool:
        """Whether there is something to lose: checks were made, and none failed."""
        return bool(self.checks) and all(check.status != "FAILURE" for check in self.checks)

    def find_losses(self, direct: Outcome) -> list[str]:
        """The checks that are worse here than there, a line each. A note that was not made again is none."""
        mine, absent = self._find_worst(), Check("", "absent")
        pairs = [(check, mine.get(name, absent)) for name, check in direct._find_worst().items()]
        return [
            f"{theirs.name}: {ours.status} {ours.reason}".rstrip()
            for theirs, ours in pairs
            if RANKS.index(ours.status) > RANKS.index(theirs.status)
            and (theirs.status, ours.status) != ("INFO", "absent")
        ]

    def _find_worst(self) -> dict[str, Check]:
        """One check for each name, the worst of its occurrences."""
        return {check.name: check for check in sorted(self.checks, key=lambda check: RANKS.index(check.status))}


def read_outcome(results: Path, name: str) -> Outcome:
    """What a run has left in the directory of that name, which the date follows; nothing when it broke down."""
    files = results.glob(f"{name}-2[0-9][0-9][0-9]-*/checks.json")
    found = [check for file in files for check in json.loads(file.read_text())]
    return Outcome(
        [Check(f"{check['id']} {check['name']}", check["status"], check.get("errorMessage") or "") for check in found]
    )
