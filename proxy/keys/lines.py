"""Whoever asks for much at once waits for themselves, and for nobody else.  [io]

In goes the name of who asks, out comes the place to wait at: a semaphore of their own, which is forgotten as soon as
nobody waits there. A request holds a connection of the pool only once it is its turn, so that none of those who manage
keys can take all of them from the verification of others' keys.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Lines:
    """`at_once`: how many of one name are let through together; the others are, in order, as these are done."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._lines: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, name: str) -> asyncio.Semaphore:
        """The line of a name, to be entered at once: `async with lines.find(name):`."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = asyncio.Semaphore(self._at_once)
        return line
