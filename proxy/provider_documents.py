"""What does the identity provider say about itself?  [pure]

In go the documents it publishes (OpenID Connect Discovery 1.0 section 3, RFC 7517), out come addresses and the public
keys that may prove its tokens, or a ProviderError in words that repeat nothing of them. Who fetched them, and how old
they are, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from proxy.errors import ProxyError

# Asymmetric ones alone: whoever verifies with a secret can sign with it, and a public key must never be taken for one
# (RFC 8725 section 2.1).
Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
# What a key of each kind can prove. An elliptic curve belongs to one algorithm (RFC 7518 section 3.4).
PROVES: Final[dict[tuple[str, str | None], frozenset[str]]] = {
    ("RSA", None): frozenset(name for name in get_args(Algorithm) if name[0] in "RP"),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
MIN_RSA_BITS, MAX_RSA_BITS = (
    2048,
    8192,
)  # RFC 7518 section 3.3; beyond, a proof holds the event loop up for more than 1 ms
_URL = re.compile(r"https?://[^\s\x00-\x20\x7f-\uffff\\@#]+")


class ProviderError(ProxyError):
    """The provider cannot be reached, keeps silent, or says what makes no sense. Its text may be logged."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, and the algorithms it may prove: those of its kind, if it names one itself that one alone."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The provider's keys as they were when they were read."""

    keys: tuple[VerificationKey, ...]

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The one key that this id and algorithm mean. A ValueError: they mean several."""
        fitting = [key for key in self.keys if algorithm in key.algorithms and kid in (None, key.kid)]
        if len(fitting) > 1:
            raise ValueError("several keys would fit")
        return fitting[0] if fitting else None


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """Where things are at the provider. None: it has no such thing. `posts_secret`: a client's secret goes into the
    form, for want of a header."""

    jwks_url: str
    authorization_url: str | None = None
    token_url: str | None = None
    posts_secret: bool = False


def check_provider_url(text: str) -> str:
    """The address itself, where nobody in between can answer in its place. Raises ValueError with the mend."""
    if _URL.fullmatch(text) is None:
        raise ValueError("write https://host/path, without a password, blanks or #")
    parts = urlsplit(text)
    host = parts.hostname
    _ = parts.port  # raises ValueError
    if not host or (parts.scheme != "https" and not _is_loopback(host)):
        raise ValueError(
            "write https://: without TLS anybody on the way could hand us keys (on the loopback http will do)"
        )
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_metadata(body: bytes, issuer: str) -> ProviderMetadata:
    """The metadata of exactly this issuer. Raises ProviderError."""
    document = _read_object(body, "its metadata")
    if document.get("issuer") != issuer:  # Discovery section 4.3: another's metadata leads to another's keys
        raise ProviderError("its metadata is another issuer's: the setting must repeat `issuer` letter for letter")
    jwks_url = _find_url(document, "jwks_uri")
    if jwks_url is None:
        raise ProviderError("its metadata has no usable jwks_uri")
    methods = document.get("token_endpoint_auth_methods_supported")
    return ProviderMetadata(
        jwks_url,
        _find_url(document, "authorization_endpoint"),
        _find_url(document, "token_endpoint"),
        isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods,
    )


def _find_url(document: dict[str, Any], member: str) -> str | None:
    """None: not there, or nobody should go there."""
    try:
        return check_provider_url(document[member])
    except (KeyError, TypeError, ValueError):
        return None


def parse_keys(body: bytes, algorithms: Iterable[str]) -> KeySet:
    """The keys that may prove a token by one of `algorithms`. Whatever else is in the set is passed over, as RFC 7517
    section 5 wants it. Raises ProviderError."""
    members = _read_object(body, "its key set").get("keys")
    if not isinstance(members, list):
        raise ProviderError("its key set holds no list of keys")
    pinned = frozenset(algorithms)
    keys = KeySet(tuple(key for member in members for key in _find_key(member, pinned)))
    if not keys.keys:
        raise ProviderError(f"its key set holds no key for {', '.join(sorted(pinned))}")
    return keys


def _find_key(member: object, pinned: frozenset[str]) -> Iterator[VerificationKey]:
    """The key, if it is public, for signatures, and strong."""
    if not isinstance(member, dict) or "d" in member or member.get("use", "sig") != "sig":
        return  # a private half that everybody can read proves nothing
    kid, kty, curve, uses = (member.get(name) for name in ("kid", "kty", "crv", "key_ops"))
    if not isinstance(kty, str) or not isinstance(kid, str | None) or not isinstance(curve, str | None):
        return
    if isinstance(uses, list) and "verify" not in uses:
        return
    proves = PROVES.get((kty, curve), frozenset()) & pinned
    if "alg" in member:
        proves &= {str(member["alg"])}
    public = _load(member, kty, min(proves)) if proves else None
    if public is not None:
        yield VerificationKey(kid, proves, public)


def _load(member: dict[str, Any], kty: str, algorithm: str) -> PublicKey | None:
    try:
        written = {name: member[name] for name in PUBLIC_MEMBERS[kty]}
        key = jwt.PyJWK({"kty": kty, **written}, algorithm).key
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return None
    if isinstance(key, RSAPublicKey):
        return key if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else None
    return key if isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) else None


def _read_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ProviderError(f"{what} is not a JSON object")
    return document
