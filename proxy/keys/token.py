"""The form of a key: `aegis_<id>_<secret><checksum>`.  [pure]

In go strings and random bytes, out come parsed tokens; nothing here knows hashing or the database. The alphabet makes a
double click select the whole token; the checksum catches typos, truncation and garbage before any database work and is
not security.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.identity import KeyId

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "aegis_"
ID_LENGTH = 12  # 71 bits: public and unique
SECRET_LENGTH = 43  # 256 bits
CHECKSUM_LENGTH = 6  # CRC-32 in base62
TOKEN_LENGTH = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH
TAG_LENGTH = 4  # bytes of the fast tag

# For secret scanners: precise enough to have few false positives even without the checksum. Nothing is asked of what
# stands before: in JSON a key at the beginning of a line follows the n of an escape.
SCANNER_PATTERN = r"aegis_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b"
_FORM = re.compile(r"aegis_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed key. The secret and the whole text stay out of every repr."""

    key_id: KeyId
    secret: str = field(repr=False)
    text: str = field(repr=False)


def parse_token(text: str) -> Token:
    """Read a token. Raises ValueError, without quoting it, when its form or checksum is wrong."""
    if len(text) != TOKEN_LENGTH:
        raise ValueError(f"a key has {TOKEN_LENGTH} characters, this has {len(text)}")
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("not of the form aegis_<id>_<secret>")
    if match[3] != _checksum(text[:-CHECKSUM_LENGTH]):
        raise ValueError("the checksum does not match: the key was mistyped or cut off")
    return Token(KeyId(match[1]), match[2], text)


def form_token(key_id: KeyId, secret: str) -> Token:
    """The token of an id and a secret."""
    body = f"{PREFIX}{key_id}_{secret}"
    return Token(key_id, secret, body + _checksum(body))


def draw(length: int, choose: Callable[[str], str]) -> str:
    """`length` characters, each drawn by `choose` (`secrets.choice` outside tests: uniform, no modulo bias)."""
    return "".join(choose(ALPHABET) for _ in range(length))


def fast_tag(key_id: KeyId, secret: str) -> bytes:
    """The first bytes of a digest over id and secret, stored beside the argon2 string.

    A wrong secret fails here (all but one in 2^32), so nobody can burn argon2 time knowing only a public id. It gives
    away 32 of 256 bits of a secret that is always of our own drawing.
    """
    return hashlib.sha256(b"aegis fast tag" + key_id.encode() + secret.encode()).digest()[:TAG_LENGTH]


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode("ascii"))
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
