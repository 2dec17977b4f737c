"""Links that sign in once, for whoever started the proxy at this very machine.  [io: reads chance]

In goes a key whose holder is to be signed in, out comes a token, and for the token the key, once. They are in this
process's memory alone and last as long as it does, or an hour. Where a link is shown is not known here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

from proxy.console.cookies import hash_value
from proxy.identity import KeyId

LIFE_SECONDS: Final = 3600.0
MAX_LINKS: Final = 100


class Links:
    """`timer`: seconds of a clock that never runs backwards."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._keys: TTLCache[bytes, tuple[KeyId, int]] = TTLCache(MAX_LINKS, LIFE_SECONDS, timer)

    def make(self, key_id: KeyId, secret_version: int) -> str:
        """A token that stands for this key, and this secret of it, once."""
        token = secrets.token_urlsafe()
        self._keys[hash_value(token)] = key_id, secret_version
        return token

    def take(self, token: str) -> tuple[KeyId, int] | None:
        """The key and its secret's version; None: used already, too old, or never made."""
        return self._keys.pop(hash_value(token), None)
