"""Assertions: what an upstream is told about who is asking, signed, and good for a minute.  [io: reads chance]

In go whoever was found to ask and the name of an upstream, out comes a JWT (RFC 7519) that anybody can verify with the
public half of a `SigningKey`. How that half is published, and which header carries the assertion, is not known here.

An assertion lives out its time whatever becomes of its key: that is the remaining seconds it can outlive a revocation
by. Times are this machine's; a principal's own end is the database's, so an upstream may see an end early or late by
the skew of the two clocks. The proxy itself asks the database's clock and lets nothing pass after it.

Signing happens where it is asked for, on the event loop: RS256 takes 0.36 ms, EdDSA 0.08 ms, one that is remembered
2 µs (2026-11-23, 50 scopes). 1,000 busy keys cost 0.8 % of a core in RS256, 10,000 cost 8 %: EdDSA is for those. What
is remembered takes about 2 kB.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import jwt
from cachetools import LRUCache
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from proxy.identity import Asker, KeyId, Owner, OwnerId

Algorithm: TypeAlias = Literal["RS256", "EdDSA"]
TYPE: Final = (
    "aegis-identity+jwt"  # no other token of ours or of the platform's is taken for one (RFC 8725 section 3.11)
)
MIN_RSA_BITS: Final = 2048  # RFC 7518 section 3.3
MAX_RSA_BITS: Final = 4096  # beyond, a signature holds the event loop up for more than 5 ms
# What makes up the public half of a key, in the order of its thumbprint (RFC 7638 section 3.2, RFC 8037 section 2).
PUBLIC_MEMBERS: Final = {"RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
OWN_TIER: Final = "free"  # the least the platform knows: the proxy asks for nothing but the end of sessions


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair. Its id is the thumbprint of the public half; the private half shows nowhere, and only signs."""

    kid: str
    algorithm: Algorithm
    public_jwk: Mapping[str, str]
    _private: RSAPrivateKey | Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, claims: Mapping[str, Any]) -> str:
        return jwt.encode(dict(claims), self._private, self.algorithm, {"typ": TYPE, "kid": self.kid})


def make_signing_key(algorithm: Algorithm) -> SigningKey:
    """A new one. For RS256 that takes 60 to 200 ms, without holding other threads up."""
    if algorithm == "RS256":
        return _form_signing_key(generate_private_key(public_exponent=65537, key_size=MIN_RSA_BITS), algorithm)
    return _form_signing_key(Ed25519PrivateKey.generate(), algorithm)


def read_signing_key(pem: bytes, algorithm: Algorithm) -> SigningKey:
    """The private key of a PEM file. Raises ValueError, in words for whoever wrote the settings."""
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError:  # thus cryptography says that it wants a password
        raise ValueError("the key is encrypted, and there is nobody to ask for its password: decrypt it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no private key in PEM form in it") from None
    if algorithm == "RS256" and isinstance(private, RSAPrivateKey):
        if not MIN_RSA_BITS <= private.key_size <= MAX_RSA_BITS:
            raise ValueError(f"its RSA key has {private.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}")
        return _form_signing_key(private, algorithm)
    if algorithm == "EdDSA" and isinstance(private, Ed25519PrivateKey):
        return _form_signing_key(private, algorithm)
    wanted = "an RSA key" if algorithm == "RS256" else "an Ed25519 key"
    raise ValueError(f"its key is of another kind: {algorithm} needs {wanted}")


def _form_signing_key(private: RSAPrivateKey | Ed25519PrivateKey, algorithm: Algorithm) -> SigningKey:
    jwk = _form_public_jwk(private.public_key())
    return SigningKey(jwk["kid"], algorithm, jwk, private)


def _form_public_jwk(key: RSAPublicKey | Ed25519PublicKey) -> dict[str, str]:
    """Made from the public numbers member by member: nothing private can be in it."""
    if isinstance(key, RSAPublicKey):
        algorithm, written = "RS256", RSAAlgorithm.to_jwk(key, as_dict=True)
    else:
        algorithm, written = "EdDSA", OKPAlgorithm.to_jwk(key, as_dict=True)
    public = {name: str(written[name]) for name in PUBLIC_MEMBERS[written["kty"]]}
    digest = hashlib.sha256(json.dumps(public, separators=(",", ":")).encode()).digest()
    return {**public, "kid": urlsafe_b64encode(digest).rstrip(b"=").decode(), "use": "sig", "alg": algorithm}


def parse_public_jwk(text: str) -> dict[str, str]:
    """The public half of a key of ours, as it was written down; rebuilt, so that nothing else comes with it.

    Raises ValueError for whatever proves nothing: no key, one too short, one under another's id, one whose private
    half stands beside it.
    """
    try:
        written = json.loads(text)
        key = _load_public(written)
    except (jwt.InvalidKeyError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("not a key") from error
    public = _form_public_jwk(key)
    if PRIVATE_MEMBERS & written.keys() or not public.items() <= written.items():
        raise ValueError("not the public half of a key, under its own id")
    return public


def _load_public(written: dict[str, Any]) -> RSAPublicKey | Ed25519PublicKey:
    public = {name: written[name] for name in PUBLIC_MEMBERS[written["kty"]]}
    key = (RSAAlgorithm if written["kty"] == "RSA" else OKPAlgorithm).from_jwk(public)
    if isinstance(key, RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return key
    if isinstance(key, Ed25519PublicKey):
        return key
    raise ValueError("not a key that we would sign with")


@dataclass(frozen=True, slots=True)
class _Made:
    """An assertion, and what it rests on. Times in seconds since the epoch, by this machine's clock."""

    token: str = field(repr=False)
    kid: str
    owner: Owner
    grants: frozenset[str]
    made_at: float
    expires_at: int

    def still_says(self, asker: Asker, key: SigningKey) -> bool:
        return self.kid == key.kid and self.owner == asker.owner and self.grants == asker.grants


class Assertions:
    """Makes assertions, and remembers them for a while.

    `wall`: seconds since the epoch. `renew_seconds`: the age at which a remembered one is made anew, so that it is
    never handed out with less than the difference to `lifetime_seconds` left.
    """

    def __init__(
        self,
        current: Callable[[], SigningKey],
        *,
        issuer: str,
        lifetime_seconds: int = 60,
        renew_seconds: int = 45,
        wall: Callable[[], float],
        max_remembered: int,
    ) -> None:
        self._current = current
        self._issuer = issuer
        self._lifetime_seconds = lifetime_seconds
        self._renew_seconds = renew_seconds
        self._wall = wall
        # By secret, too: while a key is rotated its two secrets end at different times.
        self._made: LRUCache[tuple[KeyId | OwnerId, int | None, str], _Made] = LRUCache(max_remembered)

    def get(self, asker: Asker, audience: str) -> str:
        """What is said about `asker` to the upstream called `audience`; never valid beyond the asker's end."""
        now, key = self._wall(), self._current()
        ends_at = math.inf if asker.ends_at is None else asker.ends_at
        expires_at = math.floor(min(now + self._lifetime_seconds, ends_at))
        place = (asker.key_id or asker.owner.id, asker.secret_version, audience)
        made = self._made.get(place)
        if made is None or not (made.still_says(asker, key) and self._is_fresh(made, now, expires_at)):
            token = key.sign(self._form_claims(asker, audience, now, expires_at))
            made = _Made(token, key.kid, asker.owner, asker.grants, now, expires_at)
            self._made[place] = made
        return made.token

    def get_own(self, audience: str) -> str:
        """What the proxy says about itself when no key stands behind a request: no scopes, no tenant. Made anew each
        time: that is once for a dead session."""
        now = self._wall()
        expires_at = math.floor(now + self._lifetime_seconds)
        about = {"sub": self._issuer, "zaru_tier": OWN_TIER, "scopes": []}
        return self._current().sign(about | self._form_frame(audience, now, expires_at))

    def _is_fresh(self, made: _Made, now: float, expires_at: int) -> bool:
        """Whether it is young, or a new one would not last longer; and not from a time that this clock says is yet to
        come, nor to last beyond an end that was moved forward."""
        if now < made.made_at or made.expires_at > expires_at:
            return False
        return now < made.made_at + self._renew_seconds or made.expires_at == expires_at

    def _form_claims(self, asker: Asker, audience: str, now: float, expires_at: int) -> dict[str, Any]:
        owner = asker.owner
        about: dict[str, Any] = {
            "sub": owner.subject,
            "tenant_id": owner.tenant_id,
            "zaru_tier": owner.tier,
            "scopes": sorted(asker.grants),
        }
        if asker.key_id is not None:
            about["key_id"] = asker.key_id
        return about | self._form_frame(audience, now, expires_at)

    def _form_frame(self, audience: str, now: float, expires_at: int) -> dict[str, Any]:
        jti = secrets.token_urlsafe(16)
        return {"iss": self._issuer, "aud": audience, "iat": math.floor(now), "exp": expires_at, "jti": jti}
