"""Texts that stand for all that patterns can match.  [pure]

Patterns come in, of one policy or of several; out go a few texts, so that whichever pattern decides about some text
also decides about one of these. That is enough to compare what two policies do, or to see that a pattern never decides,
without trying every text there is. Which rule a pattern belongs to is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from proxy.policy.patterns import Pattern, overlaps

# Stands for a segment that no pattern spells out; its place makes it one of its kind.
_SAMPLE: Final = "-any-"


@dataclass(frozen=True, slots=True)
class Region:
    """`words`: the name or pattern as it is written; `probe`: one text of it."""

    words: str
    probe: str


def is_sample(text: str) -> bool:
    """Whether it stands for whatever a pattern leaves open."""
    return text.startswith(_SAMPLE)


def list_regions(names: Collection[str], patterns: Collection[Pattern]) -> Iterator[Region]:
    """Exact names, then patterns, the most specific first, then where two of them cross."""
    yield from (Region(name, name) for name in dict.fromkeys(names))
    distinct = {pattern.text: pattern for pattern in patterns}.values()
    ordered = sorted(distinct, key=lambda pattern: pattern.rank, reverse=True)
    depth = max((len(pattern.pieces) for pattern in ordered), default=0) // 2 + 1
    for pattern in ordered:
        yield from (Region(pattern.text, probe) for probe in _list_probes(pattern, pattern, depth))
    for one, other in combinations(ordered, 2):
        if overlaps(one, other) and not (_is_inside(one, other, depth) or _is_inside(other, one, depth)):
            words = f"{one.text} and {other.text}"
            yield from (Region(words, probe) for probe in _list_probes(one, other, depth))


def list_probes(pattern: Pattern, patterns: Collection[Pattern]) -> list[str]:
    """Texts of one pattern among others: if it decides about any text at all, it does about one of them."""
    depth = max(len(one.pieces) for one in (pattern, *patterns)) // 2 + 1
    return list(_list_probes(pattern, pattern, depth))


def _is_inside(inner: Pattern, outer: Pattern, depth: int) -> bool:
    return all(outer.find(probe) is not None for probe in _list_probes(inner, inner, depth))


def _list_probes(one: Pattern, other: Pattern, depth: int) -> Iterator[str]:
    """Of what both match: an open end is tried with one segment, and with up to `depth` more."""
    shorter, longer = sorted((one, other), key=lambda pattern: len(pattern.pieces))
    pieces = [mine if mine is not None else theirs for mine, theirs in zip(shorter.pieces, longer.pieces, strict=False)]
    rest = list(longer.pieces[len(shorter.pieces) :])
    tail = longer.tail
    if not rest and shorter.tail is not None and longer.tail is not None:
        tail = max(shorter.tail, longer.tail, key=len)
    start = "".join(_SAMPLE + str(index) if piece is None else piece for index, piece in enumerate(pieces))
    if rest:
        begin = (shorter.tail or "") + _SAMPLE if rest[0] is None else rest[0]
        start += begin + "".join(
            _SAMPLE + str(index) if piece is None else piece for index, piece in enumerate(rest[1:])
        )
    if tail is None:
        yield start
        return
    yield start + tail + _SAMPLE
    for separator in "./" if one.splits_at_dots else "/":
        yield from (start + tail + _SAMPLE + f"{separator}{_SAMPLE}" * more for more in range(1, depth + 1))
