"""Where a page ended, as an opaque word that the next request hands back.  [pure]

In goes a place, out comes a cursor, and the other way round. A cursor grants nothing: who may see what is asked anew on
every page.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta

from proxy.keys.record import Place

_PLACE = re.compile(r"k(-?\d{1,18})\.([0-9A-Za-z]{12})", re.ASCII)
_NUMBER = re.compile(r"e([1-9]\d{0,17})", re.ASCII)
_OWNER = re.compile(r"o([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class CursorError(ValueError):
    """Not a cursor that was given out here."""


def form_key_cursor(place: Place) -> str:
    """A page of keys ended here."""
    return _seal(f"k{(place.created_at - _EPOCH) // _MICROSECOND}.{place.key_id}")


def parse_key_cursor(text: str) -> Place:
    """Raises CursorError."""
    match = _PLACE.fullmatch(_open(text))
    if match is None:
        raise CursorError("not a cursor of this list")
    try:
        return Place(_EPOCH + int(match[1]) * _MICROSECOND, match[2])
    except OverflowError:
        raise CursorError("not a cursor of this list") from None


def form_number_cursor(number: int) -> str:
    """A page of events ended here."""
    return _seal(f"e{number}")


def parse_number_cursor(text: str) -> int:
    """Raises CursorError."""
    match = _NUMBER.fullmatch(_open(text))
    if match is None:
        raise CursorError("not a cursor of this list")
    return int(match[1])


def form_owner_cursor(owner_id: str) -> str:
    """A page of owners ended here."""
    return _seal(f"o{owner_id}")


def parse_owner_cursor(text: str) -> str:
    """Raises CursorError."""
    match = _OWNER.fullmatch(_open(text))
    if match is None:
        raise CursorError("not a cursor of this list")
    return match[1]


def _seal(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _open(text: str) -> str:
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
    except ValueError:
        raise CursorError("not a cursor of this list") from None
