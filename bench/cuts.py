"""Three ways to lose the database without being told: each a context, healed at its end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.relay import Relay


@dataclass(frozen=True, slots=True)
class Cut:
    """`closes`: nothing can be read any more, so everything has to end. `commits`: a key can still be revoked."""

    name: str
    begin: Callable[[], AbstractContextManager[None]]
    closes: bool
    commits: bool


@contextlib.contextmanager
def freeze_relays(*relays: Relay) -> Iterator[None]:
    """Their connections stay open and carry nothing."""
    for relay in relays:
        relay.freeze()
    try:
        yield
    finally:
        for relay in relays:
            relay.heal()


@contextlib.contextmanager
def freeze_server(pid: int) -> Iterator[None]:
    """The server and its backends stand still: they neither answer nor hang up."""
    os.kill(pid, signal.SIGSTOP)  # first, so that it makes no more processes
    processes = list_processes(pid)
    try:
        for process in processes[1:]:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def list_processes(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in list_processes(int(child)))]
