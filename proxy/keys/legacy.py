"""Keys of the platform's older form, `aegis_` and 40 alphanumerics: stored as SHA-256, and never minted here.  [pure]

In go such tokens, out come their digests, and which secret of a key one is. No slow hash: 40 characters drawn at random
are 238 bits, and nobody goes back from the digest. The token holds no id, so that its key is found by digest
(`digests`); from there on it is a key like any other, and this token its secret of version 0.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from proxy.keys.record import KeyRecord, Secret

LEGACY_VERSION = 0  # before the first that is ours
LEGACY_LENGTH = 46
LEGACY_PATTERN = r"aegis_[0-9A-Za-z]{40}\b"
_FORM = re.compile(r"aegis_[0-9A-Za-z]{40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LegacyToken:
    """A well-formed token of the older form. Token and digest stay out of every repr."""

    digest: bytes = field(repr=False)
    text: str = field(repr=False)


def parse_legacy_token(text: str) -> LegacyToken:
    """Read a token. Raises ValueError, without quoting it."""
    if not looks_legacy(text):
        raise ValueError("not of the older form, aegis_ and 40 letters and digits")
    return LegacyToken(hashlib.sha256(text.encode("ascii")).digest(), text)


def looks_legacy(text: str) -> bool:
    """True when this is a token of the older form."""
    return _FORM.fullmatch(text) is not None


def find_legacy_secret(token: LegacyToken, record: KeyRecord) -> Secret | None:
    """The key's secret of version 0, if the token is that. Nobody can choose digests, so that time tells nothing."""
    secret = record.secrets.get(LEGACY_VERSION)
    return secret if secret is not None and secret.hash == token.digest.hex() else None
