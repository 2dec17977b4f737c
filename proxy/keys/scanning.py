"""Keys where none should be: found in any bytes by their form, and by their checksum where they have one.  [pure]

In go chunks of a file, out come tokens with their lines. It never holds more than a chunk, and does not care where one
ends; text in UTF-16, as some shells write it, is read past its zero bytes. Whose a key is, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.keys.legacy import LEGACY_LENGTH, LEGACY_PATTERN, LegacyToken, parse_legacy_token
from proxy.keys.token import SCANNER_PATTERN, TOKEN_LENGTH, Token, parse_token

# What is published for other scanners (docs/keys.md).
PATTERN: Final = f"{SCANNER_PATTERN}|{LEGACY_PATTERN}"
_FORM = re.compile(PATTERN.encode("ascii"))
_LOOK_AHEAD: Final = TOKEN_LENGTH + 1  # what it takes to tell that a key ends


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key in a file; lines count from 1."""

    line: int
    token: Token | LegacyToken


def find_keys(chunks: Iterable[bytes]) -> Iterator[FoundKey]:
    """Each key once for each line it stands in."""
    plain, wide = _Search(), _Search()
    seen: set[tuple[int, str]] = set()
    has_zeros = False
    for chunk in chunks:
        has_zeros = has_zeros or b"\0" in chunk
        yield from _keep_new(plain.feed(chunk), seen)
        if has_zeros:
            yield from _keep_new(wide.feed(chunk.replace(b"\0", b"")), seen)
        else:
            wide.pass_by(chunk)
    for search in (plain, wide):
        yield from _keep_new(search.finish(), seen)


def _keep_new(found: Iterable[FoundKey], seen: set[tuple[int, str]]) -> Iterator[FoundKey]:
    for key in found:
        place = (key.line, key.token.text)
        if place not in seen:
            seen.add(place)
            yield key


class _Search:
    """One pass over one stream of bytes."""

    def __init__(self) -> None:
        self._line = 1
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[FoundKey]:
        """The keys that begin where their end can be told."""
        text = self._rest + chunk
        return self._search(text, max(0, len(text) - _LOOK_AHEAD))

    def finish(self) -> Iterator[FoundKey]:
        return self._search(self._rest, len(self._rest))

    def pass_by(self, chunk: bytes) -> None:
        """Only count the lines."""
        self._line += chunk.count(b"\n")

    def _search(self, text: bytes, end: int) -> Iterator[FoundKey]:
        counted = 0
        for match in _FORM.finditer(text):
            if match.start() >= end:
                break
            token = _parse(match[0].decode("ascii"))
            if token is not None:
                self._line += text.count(b"\n", counted, match.start())
                counted = match.start()
                yield FoundKey(self._line, token)
        self._line += text.count(b"\n", counted, end)
        self._rest = text[end:]


def _parse(text: str) -> Token | LegacyToken | None:
    if len(text) == LEGACY_LENGTH:
        return parse_legacy_token(text)
    try:
        return parse_token(text)
    except ValueError:  # of the form, and none of ours: the checksum says so
        return None
