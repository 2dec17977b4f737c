"""A row of the fault matrix: what breaks, how, and whether this machine can stage it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.world import World


def find_nothing() -> str | None:
    """Nothing is in the way."""
    return None


@dataclass(frozen=True, slots=True)
class Row:
    """`fault` breaks something and mends it again; loading, waiting and judging are the world's.

    `long`: not in the ordinary run. `slow`: it waits for what no setting scales down, and is run once. `own_world`:
    what is special about a world that no other row shares. `find_obstacle`: why it cannot be staged here, if so.
    """

    name: str
    what: str
    fault: Callable[[World], Awaitable[None]]
    long: bool = False
    own_world: Mapping[str, Any] | None = None
    find_obstacle: Callable[[], str | None] = field(default=find_nothing)
    slow: bool = False
