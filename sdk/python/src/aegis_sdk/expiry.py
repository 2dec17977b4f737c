"""Telling that a key is about to expire, once.

In: the header the proxy sends in a key's last days. Out: a call of the user's, or a warning. Refuses to know: the key.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from aegis_sdk.configuration import OnKeyExpiry

HEADER = "API-Key-Expires-At"


class KeyExpiryWarning(UserWarning):
    """The API key in use expires soon."""


class ExpiryNotice:
    """What one client says of its key's end."""

    __slots__ = ("_on_key_expiry", "_told")

    def __init__(self, on_key_expiry: OnKeyExpiry | None) -> None:
        self._on_key_expiry = on_key_expiry
        self._told = False

    def hear(self, value: str | None) -> None:
        """The header of one answer. Raises what the user's own callback raises."""
        expires_at = None if value is None or self._told else parse_moment(value)
        if expires_at is None:
            return
        self._told = True
        if self._on_key_expiry is not None:
            self._on_key_expiry(expires_at)
        else:
            warnings.warn(f"the API key expires at {expires_at.isoformat()}", KeyExpiryWarning, stacklevel=2)


def parse_moment(value: str) -> datetime | None:
    """An ISO or an HTTP date; None: neither."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
