"""What the browser keeps for us, and what its own pages hand back with every change.  [pure]

In go headers, out come the values of our cookies, or the headers that set and clear them. A value is random: nothing
is in it, nothing can be guessed of it, and what must be bound to it is derived from it. That of a sign-in is marked
with the instances' secret, so that a made-up one is told apart before the database is asked. Where the page is served
over TLS, names begin with `__Host-`: no sister domain and no unencrypted answer can write such a cookie (RFC 6265bis
section 4.1.3.2).
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from multidict import CIMultiDict, CIMultiDictProxy

SIGN_IN: Final = "aegis-sign-in"
FORM: Final = "aegis-sign-in-form"  # of whoever is not signed in yet
FLOW: Final = "aegis-sign-in-flow"  # on the way to the identity provider and back
RANDOM_BYTES: Final = 32
MARKED_BYTES: Final = 16
BRIEF_SECONDS: Final = 600  # of the latter two: long enough to type a password and find a second factor
_VALUE = re.compile(r"[\w-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cookies:
    """`secure`: the page is served over TLS."""

    secure: bool

    def name(self, cookie: str) -> str:
        """As it stands on the wire."""
        return f"__Host-{cookie}" if self.secure else cookie

    def find(self, headers: CIMultiDict[str] | CIMultiDictProxy[str], cookie: str) -> str | None:
        """Its value. One that stands twice is none: somebody else has written the other."""
        wanted = self.name(cookie)
        # HTTP's blanks alone: behind a Unicode one browsers see no `__Host-`, and let sister domains write it.
        lines = headers.getall("Cookie", ())
        pairs = (pair.strip(" \t").partition("=") for line in lines for pair in line.split(";"))
        values = [value for name, _, value in pairs if name == wanted]
        return values[0] if len(values) == 1 and _VALUE.fullmatch(values[0]) else None

    def write(
        self, cookie: str, value: str, *, seconds: int | None = None, same_site: Literal["Strict", "Lax"] = "Strict"
    ) -> str:
        """The value of Set-Cookie. `seconds`: how long the browser keeps it; None: until it is closed."""
        parts = [f"{self.name(cookie)}={value}", "Path=/", "HttpOnly", f"SameSite={same_site}"]
        if self.secure:
            parts.append("Secure")
        if seconds is not None:
            parts.append(f"Max-Age={seconds}")
        return "; ".join(parts)

    def clear(self, cookie: str) -> str:
        """The value of Set-Cookie that makes the browser forget it."""
        return self.write(cookie, "", seconds=0)


class Mark:
    """`key`: the instances' own. Behind 22 random characters stand 21 that nobody else can put there."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def put_on(self, text: str) -> str:
        """A value of ours. `text`: MARKED_BYTES random ones, as 22 characters."""
        return text + self._form(text)

    def is_on(self, value: str) -> bool:
        """Whether we have made it, at any time."""
        return hmac.compare_digest(self._form(value[:22]).encode(), value[22:].encode())

    def _form(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), "sha256")
        return urlsafe_b64encode(digest).decode()[:21]


def derive(value: str, purpose: str) -> str:
    """What is bound to a cookie's value and tells nothing of it: another for each purpose, 43 characters."""
    digest = hmac.digest(value.encode(), f"aegis {purpose}".encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def derive_csrf(value: str) -> str:
    """What the pages of a sign-in hand back with every change: other sites can send the cookie, but not read this."""
    return derive(value, "csrf")


def is_csrf(value: str, token: str) -> bool:
    """Whether a token came from a page of this sign-in."""
    return hmac.compare_digest(derive_csrf(value).encode(), token.encode())


def hash_value(value: str) -> bytes:
    """What the database knows of a sign-in."""
    return sha256(b"aegis sign-in " + value.encode()).digest()
