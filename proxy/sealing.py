"""Things only the instances themselves may read back.  [pure]

In go bytes and what they belong to, out come sealed bytes. All keys are derived from the one secret that the instances
share, a different one for each purpose, so that nothing sealed for one use opens in another.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy.errors import ProxyError


class SealError(ProxyError):
    """The bytes were not sealed here, for this, or were changed."""


def derive_key(secret_key: bytes, purpose: str) -> bytes:
    """The instances' key for one purpose, 32 bytes."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=f"aegis {purpose}".encode()).derive(secret_key)


class Seal:
    """Authenticated encryption for one purpose. AES-GCM-SIV (RFC 8452): the nonce comes from the text itself."""

    def __init__(self, secret_key: bytes, purpose: str) -> None:
        key = derive_key(secret_key, purpose)
        self._cipher = AESGCMSIV(key)
        self._nonce_key = hashlib.sha256(b"nonce" + key).digest()

    def seal(self, text: bytes, belongs_to: bytes) -> bytes:
        """Seal `text` so that it opens only together with `belongs_to`. Equal input gives equal output."""
        nonce = hashlib.blake2b(belongs_to + b"\0" + text, key=self._nonce_key, digest_size=12).digest()
        return nonce + self._cipher.encrypt(nonce, text, belongs_to)

    def unseal(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """Raises SealError."""
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], belongs_to)
        except (InvalidTag, ValueError) as error:
            raise SealError("sealed under another secret, for another purpose, or changed") from error
