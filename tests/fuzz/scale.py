"""How much is tried, and from which seed.

`make test` tries little, and the same every time. `AEGIS_FUZZ=full` tries all of it, from a seed of its own unless
`AEGIS_FUZZ_SEED` names one; a failure names seed and number, and `AEGIS_FUZZ_SEED` brings it back.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from random import Random

FULL = os.environ.get("AEGIS_FUZZ") == "full"
SEED = int(os.environ.get("AEGIS_FUZZ_SEED") or (secrets.randbelow(10**6) if FULL else 1))

# As `make test` has them, and all of them.
BODIES = 1_000_000 if FULL else 9_700
SHRINKABLE_BODIES = 5_000 if FULL else 300  # some 20 ms each
SENT_BODIES = 50_000 if FULL else 1_500
TARGETS = 100_000 if FULL else 3_000
MANAGED = 150 if FULL else 12  # requests for each endpoint, as many again that break its document
PAIRS = 100_000 if FULL else 20_000  # of a key and a request; some 0.3 ms each


def draw(count: int) -> Iterator[tuple[str, Random]]:
    """As many sources of chance, each by the name under which it comes again."""
    rng = Random()
    for number in range(count):
        rng.seed(f"{SEED}/{number}")
        yield f"number {number} of seed {SEED}", rng
