"""Patterns: the few wildcards a rule or a route may use.  [pure]

Names (tools, prompts, methods) know `*`: one whole segment between dots or slashes, or an open end
(`aegis.*.list`, `notifications/*`). Paths and URIs know `{variable}`: one whole segment, and a final `**`: the rest.
Text comes in, a `Pattern` goes out, or a ValueError that says what is wrong; of many patterns, a `PatternIndex` finds
the most specific one that matches. What a match means is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Generic, TypeVar

# What a wildcard in a name may stand for: MCP's recommended alphabet of tool names. Look-alikes and control characters
# can only ever be matched by an exact rule.
_NAME_SEGMENT = "[A-Za-z0-9_-]+"
_NAME_REST = "[A-Za-z0-9_./-]+"
_PATH_SEGMENT = "[^/?#]+"
_PATH_REST = "[^?#]+"
_NAME_LIMIT = 128  # characters; MCP 2025-11-25, server/tools: names are 1 to 128 characters long
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_]*)\}")

Value = TypeVar("Value")

# An upstream may decode or normalise a URI before it opens it, so that `a/../b` is another thing than it looks like.
_TRICKY_URI = re.compile(r"%2[ef5]|%5c|\\|[\x00-\x1f\x7f]|/\.\.?(?:/|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Segments and the separators between them, alternating; None stands for one segment, whatever it is.

    `tail` is the literal start of an open end ("" for `**` and for a final `*`), None when the pattern is closed.
    """

    text: str
    pieces: tuple[str | None, ...]
    tail: str | None
    expression: re.Pattern[str]
    splits_at_dots: bool  # names have segments between dots, too; paths and URIs only between slashes

    @property
    def is_exact(self) -> bool:
        return self.tail is None and None not in self.pieces

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(self.expression.groupindex)

    @property
    def rank(self) -> tuple[int, bool]:
        """More specific is greater: the longer literal, then the closed one."""
        return sum(len(piece) for piece in self.pieces if piece) + len(self.tail or ""), self.tail is None

    def find(self, text: str) -> Mapping[str, str] | None:
        """The variables' values, or None when the text does not match."""
        match = self.expression.fullmatch(text)
        return match.groupdict() if match else None


@dataclass(slots=True)
class _Node:
    """The patterns that begin with the same segments: by their next one, and the places of those that end here."""

    literals: dict[str, _Node] = field(default_factory=dict)
    wildcard: _Node | None = None
    closed: list[int] = field(default_factory=list)
    open_ended: list[int] = field(default_factory=list)  # an open end goes on from here, with any text

    def go(self, segment: str | None) -> _Node:
        if segment is not None:
            return self.literals.setdefault(segment, _Node())
        if self.wildcard is None:
            self.wildcard = _Node()
        return self.wildcard


class PatternIndex(Generic[Value]):
    """Patterns of one kind, the most specific first, and what each stands for.

    It finds what trying them one by one would find, at a cost that follows the segments of the text instead of their
    number: a tree by segments names the few that may match, and they alone are tried.
    """

    __slots__ = ("_entries", "_root", "_splits_at_dots")

    def __init__(self, entries: Iterable[tuple[Pattern, Value]] = ()) -> None:
        self._entries = tuple(sorted(entries, key=lambda entry: entry[0].rank, reverse=True))
        self._splits_at_dots = any(pattern.splits_at_dots for pattern, _ in self._entries)
        self._root = _Node()
        for place, (pattern, _) in enumerate(self._entries):
            node = self._root
            for segment in pattern.pieces[::2]:
                node = node.go(segment)
            (node.closed if pattern.tail is None else node.open_ended).append(place)

    def __iter__(self) -> Iterator[tuple[Pattern, Value]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, text: str) -> tuple[Value, Mapping[str, str]] | None:
        """What the most specific matching pattern stands for, and its variables' values."""
        for place in sorted(self._find_places(text)):
            pattern, value = self._entries[place]
            variables = pattern.find(text)
            if variables is not None:
                return value, variables
        return None

    def _find_places(self, text: str) -> list[int]:
        """Of every pattern that matches, and of few others."""
        places: list[int] = []
        nodes = [self._root]
        for segment in (text.replace(".", "/") if self._splits_at_dots else text).split("/"):
            following = []
            for node in nodes:
                places += node.open_ended
                if (literal := node.literals.get(segment)) is not None:
                    following.append(literal)
                if node.wildcard is not None:
                    following.append(node.wildcard)
            if not following:
                return places
            nodes = following
        for node in nodes:
            places += node.closed
        return places


def is_name_pattern(text: str) -> bool:
    return "*" in text


def is_path_pattern(text: str) -> bool:
    return "{" in text or "}" in text or "*" in text


def is_tricky_uri(uri: str) -> bool:
    """Whether an upstream could read another resource out of this URI than its segments say."""
    return _TRICKY_URI.search(uri) is not None


def parse_name_pattern(text: str) -> Pattern:
    """Raises ValueError."""
    segments = re.split(r"([./])", text)
    *inner, last = segments
    if any("*" in piece and piece != "*" for piece in inner) or "*" in last[:-1]:
        raise ValueError("* stands for one whole segment between dots or slashes, or for an open end")
    pieces = tuple(None if piece == "*" else piece for piece in inner)
    tail = last[:-1] if last.endswith("*") else None
    return _build(text, pieces if tail is not None else (*pieces, last), tail, _NAME_SEGMENT, _NAME_REST)


def parse_path_pattern(text: str) -> Pattern:
    """Raises ValueError."""
    pieces: list[str | None] = []
    variables: list[str] = []
    segments = re.split("(/)", text)
    tail = "" if segments[-1] == "**" else None
    for segment in segments[:-1] if tail is not None else segments:
        variable = _VARIABLE.fullmatch(segment)
        if variable is None and any(mark in segment for mark in "{}*"):
            raise ValueError("{variable} stands for one whole segment between slashes, ** for all the rest at the end")
        pieces.append(None if variable else segment)
        variables += [variable[1]] if variable else []
    if len(set(variables)) < len(variables):
        raise ValueError("a variable is named twice")
    return _build(text, tuple(pieces), tail, _PATH_SEGMENT, _PATH_REST, variables)


def parse_uri_template(template: str) -> Pattern:
    """What an RFC 6570 template can become, or a little more: it only decides whether the template is listed."""
    pieces: list[str | None] = []
    for segment in re.split("(/)", template):
        if "{" not in segment:
            pieces.append(segment)
        elif re.fullmatch(r"\{[A-Za-z0-9_]+\}", segment):  # simple expansion never writes a slash (RFC 6570, 3.2.2)
            pieces.append(None)
        else:
            return _build(template, tuple(pieces), segment.partition("{")[0], _PATH_SEGMENT, _PATH_REST)
    return _build(template, tuple(pieces), None, _PATH_SEGMENT, _PATH_REST)


def overlaps(one: Pattern, other: Pattern) -> bool:
    """Whether some text matches both."""
    for mine, theirs in zip(one.pieces, other.pieces, strict=False):
        if "" in (mine, theirs) and mine != theirs:  # a wildcard never stands for nothing
            return False
        if mine is not None and theirs is not None and mine != theirs:
            return False
    shorter, longer = sorted((one, other), key=lambda pattern: len(pattern.pieces))
    if shorter.tail is None:
        return len(shorter.pieces) == len(longer.pieces) and longer.tail is None
    return _open_end_meets(shorter.tail, longer, len(shorter.pieces))


def contains(outer: Pattern, inner: Pattern) -> bool:
    """Whether everything `inner` matches is matched by `outer`; for paths and URIs."""
    sample = "".join("\0" if piece is None else piece for piece in inner.pieces)  # \0: in no literal
    ends = ("",) if inner.tail is None else (f"{inner.tail}\0", f"{inner.tail}\0/\0")  # open: one segment, or more
    return all(outer.expression.fullmatch(sample + end) is not None for end in ends)


def get_shared(one: Pattern, other: Pattern) -> tuple[tuple[str | None, ...], str | None]:
    """The pieces and tail of what two overlapping path patterns have in common."""
    pieces = tuple(mine or theirs for mine, theirs in zip_longest(one.pieces, other.pieces))
    return pieces, "" if one.tail is not None and other.tail is not None else None


def _open_end_meets(tail: str, other: Pattern, position: int) -> bool:
    """Whether `other`, from the given segment on, can be an open end that starts with `tail` and goes on."""
    if len(other.pieces) == position:
        return other.tail is not None and (other.tail.startswith(tail) or tail.startswith(other.tail))
    piece = other.pieces[position]
    goes_on = len(other.pieces) > position + 1 or other.tail is not None
    return piece is None or (piece.startswith(tail) and (piece != tail or goes_on))


def _build(
    text: str,
    pieces: tuple[str | None, ...],
    tail: str | None,
    segment: str,
    rest: str,
    variables: Sequence[str] = (),
) -> Pattern:
    names = iter(variables)
    source = ""
    for piece in pieces:
        name = next(names, None) if piece is None else None
        wildcard = f"(?P<{name}>{segment})" if name else segment
        source += wildcard if piece is None else re.escape(piece)
    if tail is not None:
        source += re.escape(tail) + rest
    limit = f"(?=.{{1,{_NAME_LIMIT}}}\\Z)" if segment is _NAME_SEGMENT else ""
    return Pattern(text, pieces, tail, re.compile(limit + source, re.DOTALL), segment is _NAME_SEGMENT)
