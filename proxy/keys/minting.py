"""Minting: from what an operator asks for to a stored key and the one sight of its token.  [io]

In goes a request by name, preset or scopes, and expiry; out comes the token. The rules come from the policy; the
secret leaves here once, in the return value, and is kept nowhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from proxy.errors import ProxyError
from proxy.identity import KeyId
from proxy.keys.hashing import Hasher
from proxy.keys.store import KeyStore, KeySummary, NewKey
from proxy.keys.token import ID_LENGTH, SECRET_LENGTH, draw, fast_tag, form_token
from proxy.policy import Policy

EXPIRY_OPTIONS = {"7d": timedelta(days=7), "30d": timedelta(days=30), "90d": timedelta(days=90),
                  "1y": timedelta(days=365)}  # fmt: skip
LOCAL_ISSUER = "local"  # owners made on the command line; those of an identity provider carry its issuer
# What would act on a terminal, break or turn around a line, or cannot be stored: controls of both sets, line
# separators, bidirectional overrides, lone surrogates. Joiners stay: emoji and several scripts are written with them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class MintError(ProxyError):
    """What was asked for cannot be minted; the text says what to change."""


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key, with its token: shown once, then gone."""

    summary: KeySummary
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MintRequest:
    """What is asked for: exactly one of `preset` and `scopes`. `tenant` and `tier` None: the owner's own."""

    name: str
    owner: str
    actor: str
    tenant: str | None = None
    tier: str | None = None
    preset: str | None = None
    scopes: Sequence[str] = ()
    expires_at: datetime | None = None


def parse_expiry(text: str, now: datetime) -> datetime | None:
    """`7d|30d|90d|1y|never` or an ISO date or time (UTC unless it says otherwise). Raises MintError."""
    if text == "never":
        return None
    if text in EXPIRY_OPTIONS:
        return now + EXPIRY_OPTIONS[text]
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        choices = ", ".join([*EXPIRY_OPTIONS, "never"])
        raise MintError(f"expiry {text!r} is neither one of {choices} nor an ISO date such as 2027-01-31") from error
    if moment <= now:
        raise MintError(f"expiry {text!r} lies in the past")
    return moment


async def mint(request: MintRequest, *, policy: Policy, store: KeyStore, hasher: Hasher) -> MintedKey:
    """Draw, hash and store a key. Raises MintError, KeyConflictError, DatabaseError, UnavailableError."""
    scopes = _settle_scopes(request, policy)
    _check_names(request, policy)
    key_id = KeyId(draw(ID_LENGTH, secrets.choice))
    token = form_token(key_id, draw(SECRET_LENGTH, secrets.choice))
    key = NewKey(
        id=key_id,
        name=request.name,
        preset=request.preset,
        scopes=scopes,
        expires_at=request.expires_at,
        created_by=request.actor,
        tag=fast_tag(key_id, token.secret),
        argon2_string=await hasher.hash(token.secret),
    )
    summary = await store.insert_key(
        key, owner=request.owner, tenant=request.tenant, tier=request.tier, default_tier=policy.default_tier,
        issuer=LOCAL_ISSUER,
    )  # fmt: skip
    return MintedKey(summary, token.text)


def _settle_scopes(request: MintRequest, policy: Policy) -> tuple[str, ...]:
    """Presets expand to a list at creation: later additions to a preset do not widen old keys."""
    if (request.preset is not None) == bool(request.scopes):
        raise MintError("give either a preset or scopes: --preset P, or --scope S (repeatable)")
    if request.preset is not None:
        if request.preset not in policy.presets:
            raise MintError(f"unknown preset {request.preset!r}: choose one of {', '.join(policy.presets)}")
        return tuple(policy.presets[request.preset].scopes)
    for scope in request.scopes:
        try:
            policy.check_scope(scope)
        except ValueError as error:
            raise MintError(str(error)) from error
    return tuple(dict.fromkeys(request.scopes))


def _check_names(request: MintRequest, policy: Policy) -> None:
    if not 1 <= len(request.name) <= 64 or _UNPRINTABLE.search(request.name) or request.name.strip() != request.name:
        raise MintError("a key's name has 1 to 64 printable characters and no space at its ends")
    for word, value in (("owner", request.owner), ("tenant", request.tenant)):
        if value is not None and (not 1 <= len(value) <= 255 or _UNPRINTABLE.search(value)):
            raise MintError(f"the {word} has 1 to 255 printable characters")
    if request.tier is not None and request.tier not in policy.tiers:
        raise MintError(f"unknown tier {request.tier!r}: choose one of {', '.join(policy.tiers)}")
