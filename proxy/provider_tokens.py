"""What does a token of the identity provider say, and is it the provider's?  [pure]

In go a JWT (RFC 7519) that nobody has trusted yet, a public key of the provider's and the time; out come its claims,
or a CredentialError whose text never quotes the token. Three steps, each by a type of its own: parsed → proven →
judged. PyJWT proves the signature; the claims are judged here, where time comes in as an argument. Where keys come
from, and what an owner may do, is not known here.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final, NewType

import jwt

from proxy.errors import CredentialError, Reason, RequestError, UnprovenError
from proxy.messages import decode_json
from proxy.provider_documents import VerificationKey

ProvenPayload = NewType("ProvenPayload", bytes)

MAX_TOKEN_BYTES: Final = 8 * 1024  # as much as a header field may have by default
MAX_DEPTH: Final = 16  # providers nest roles three deep
MAX_TEXT: Final = 255  # of a claim that names somebody (OpenID Connect Core section 2, for `sub`)
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_TEXT = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{1,{MAX_TEXT}}}")
# RFC 8725 section 3.11: what another kind of token means, it must not mean here, our own assertions first of all. These
# are access tokens (RFC 9068), ID tokens, and those of providers that do not say.
_TYPES: Final = frozenset({"jwt", "application/jwt", "at+jwt", "application/at+jwt"})
# A token does not get to say by which key it is to be proven (RFC 8725 section 3.10).
_OWN_KEYS: Final = frozenset({"jwk", "jku", "x5u", "x5c"})


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A well-formed token, of an algorithm that the operator allows; nothing is proven."""

    text: str = field(repr=False)
    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """Whose tokens, and for whom. `leeway_seconds`: how far the provider's clock may be ahead of ours."""

    issuer: str
    audience: str
    leeway_seconds: float


@dataclass(frozen=True, slots=True)
class ProviderClaims:
    """What the provider vouches for. `ends`: seconds since the epoch. None: the token does not say."""

    issuer: str
    subject: str
    tenant_id: str | None
    tier: str | None
    role: str | None
    ends: float
    nonce: str | None = field(default=None, repr=False)
    party: str | None = None  # for whom it was made, among several


def parse_token(text: str, algorithms: Collection[str]) -> PresentedToken:
    """Read the head of a token. Raises UnprovenError."""
    if len(text) > MAX_TOKEN_BYTES:
        raise refuse("it is too long")
    if _COMPACT.fullmatch(text) is None:
        raise refuse("it is not three parts in base64url, with dots between")
    header = _find_object(_decode(text.partition(".")[0]))
    if header is None:
        raise refuse("its head is not one strict JSON object that names each member once")
    kind, kid, algorithm = (header.get(name) for name in ("typ", "kid", "alg"))
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
        raise refuse("it is of a type (`typ`) that signs nobody in")
    if "crit" in header or "b64" in header:
        raise refuse("it makes demands (`crit`) that are not known here")
    if not _OWN_KEYS.isdisjoint(header):
        raise refuse("it brings a key of its own")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise refuse("it is not signed by an algorithm that is allowed here")
    if kid is not None and (not isinstance(kid, str) or _TEXT.fullmatch(kid) is None):
        raise refuse("its `kid` is not the id of a key")
    return PresentedToken(text, algorithm, kid)


def prove(token: PresentedToken, key: VerificationKey) -> ProvenPayload:
    """What the holder of the key's private half signed. Raises UnprovenError."""
    try:
        # Its own `algorithm` is one that both the operator and the key allow.
        proven = jwt.PyJWS().decode_complete(token.text, key.public, algorithms=[token.algorithm])
    except jwt.PyJWTError:
        raise refuse("its signature is not the provider's") from None
    return ProvenPayload(proven["payload"])


def judge_claims(payload: ProvenPayload, expected: Expected, now: float) -> ProviderClaims:
    """The claims, if they are made by the expected issuer, for the expected audience, and for now (by our wall clock).

    The leeway forgives a provider whose clock is ahead; it never prolongs a token. Raises CredentialError.
    """
    claims = _find_object(payload)
    if claims is None:
        raise _disbelieve("its claims are not one strict JSON object that names each member once")
    if claims.get("iss") != expected.issuer:
        raise _disbelieve("it is another issuer's")
    audience = claims.get("aud")
    if expected.audience not in ([audience] if isinstance(audience, str) else _list(audience)):
        raise _disbelieve("it is meant for somebody else (`aud`)")
    ends = _get_time(claims, "exp")
    if ends is None:
        raise _disbelieve("it has no end (`exp`)")
    if any((_get_time(claims, name) or 0) > now + expected.leeway_seconds for name in ("nbf", "iat")):
        raise _disbelieve("it is not valid yet")
    if now >= ends:
        raise CredentialError(Reason.TOKEN_EXPIRED, "This token has expired. Sign in again.")
    subject = _find_text(claims, "sub")
    if subject is None:
        raise _disbelieve("it names nobody (`sub`)")
    names = ("tenant_id", "zaru_tier", "aegis_role", "nonce", "azp")
    tenant_id, tier, role, nonce, party = (_find_text(claims, name) for name in names)
    return ProviderClaims(expected.issuer, subject, tenant_id, tier, role, ends, nonce, party)


def refuse(why: str) -> UnprovenError:
    """For what nobody has proven. `why` is of our own words: nothing of the token is repeated."""
    return UnprovenError(Reason.TOKEN_INVALID, _complain(why))


def _disbelieve(why: str) -> CredentialError:
    """For what the provider did sign."""
    return CredentialError(Reason.TOKEN_INVALID, _complain(why))


def _complain(why: str) -> str:
    return f"This token is not accepted: {why}."


def _find_object(body: bytes) -> dict[str, Any] | None:
    try:
        value, _ = decode_json(body, max_depth=MAX_DEPTH)
    except RequestError:
        return None
    return value if isinstance(value, dict) else None


def _decode(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise refuse("it is not base64url") from None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _get_time(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate; None: not there."""
    value = claims.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _disbelieve(f"its claim `{name}` is not a time")
    return value


def _find_text(claims: dict[str, Any], name: str) -> str | None:
    """Postgres takes no NUL, and logs should take no control characters."""
    value = claims.get(name)
    if value is not None and (not isinstance(value, str) or _TEXT.fullmatch(value) is None):
        raise _disbelieve(f"its claim `{name}` is not a text of up to {MAX_TEXT} characters")
    return value
