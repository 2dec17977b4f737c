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
from proxy.identity import LOCAL_ISSUER, KeyId
from proxy.keys.constraints import UNCONSTRAINED, Constraints
from proxy.keys.hashing import Hasher
from proxy.keys.store import KeyStore, KeySummary, NewKey
from proxy.keys.token import ID_LENGTH, SECRET_LENGTH, Token, draw, fast_tag, form_token
from proxy.policy import Policy
from proxy.policy.model import describe_lifetime

EXPIRY_OPTIONS = {"7d": timedelta(days=7), "30d": timedelta(days=30), "90d": timedelta(days=90),
                  "1y": timedelta(days=365)}  # fmt: skip
DEFAULT_LIFETIME = EXPIRY_OPTIONS["90d"]
CLOCK_SLACK = timedelta(minutes=5)  # whoever adds a lifetime to now does so by another clock than the database's
# As much of a key as helps to guess the rest, of either form.
_KEY_LIKE = re.compile(r"aegis_(?:[0-9A-Za-z]{12}_[0-9A-Za-z]{20}|[0-9A-Za-z]{40})")
# What would act on a terminal, break or turn around a line, or cannot be stored: controls of both sets, line
# separators, bidirectional overrides, lone surrogates. Joiners stay: emoji and several scripts are written with them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class MintError(ProxyError):
    """What was asked for cannot be minted; the text says what to change, and `field` where, if it is at one place."""

    def __init__(self, text: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key, with its token: shown once, then gone."""

    summary: KeySummary
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MintRequest:
    """What an operator asks for: exactly one of `preset` and `scopes`. `tenant` and `tier` None: the owner's own."""

    name: str
    owner: str
    actor: str
    tenant: str | None = None
    tier: str | None = None
    preset: str | None = None
    scopes: Sequence[str] = ()
    expires_at: datetime | None = None
    constraints: Constraints = UNCONSTRAINED
    issuer: str = LOCAL_ISSUER
    role: str | None = None


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


def settle_expiry(text: str | None, policy: Policy, now: datetime) -> datetime | None:
    """What was asked for, if the policy lets keys live that long; None: a while. Raises MintError."""
    if text is None:
        return get_default_expiry(policy, now)
    expires_at = parse_expiry(text, now)
    check_longest(expires_at, policy, now.timestamp())
    return expires_at


def get_default_expiry(policy: Policy, now: datetime, ends: float | None = None) -> datetime:
    """For whoever did not say: a while, within the policy and the life of the key that makes it, which `ends` then."""
    expires_at = now + min(DEFAULT_LIFETIME, policy.longest_expiry or DEFAULT_LIFETIME)
    return expires_at if ends is None else min(expires_at, datetime.fromtimestamp(ends, UTC))


def check_longest(expires_at: datetime | None, policy: Policy, now: float) -> None:
    """Raises MintError when a key would live longer than the policy lets any. `now`: seconds since the epoch."""
    longest = policy.longest_expiry
    if longest is None:
        return
    if expires_at is None or expires_at.timestamp() > now + (longest + CLOCK_SLACK).total_seconds():
        asked = "to never expire" if expires_at is None else f"{expires_at.isoformat()}"
        raise MintError(
            f"the policy lets keys live for {describe_lifetime(longest)} at most (longest_expiry), and not {asked}",
            "expires_at",
        )


def check_end(expires_at: datetime | None, policy: Policy, now: float) -> None:
    """Raises MintError when a key would have ended already, or would live too long."""
    check_longest(expires_at, policy, now)
    if expires_at is not None and expires_at.timestamp() <= now:
        raise MintError(f"expiry {expires_at.isoformat()} lies in the past", "expires_at")


def list_expiries(policy: Policy, now: datetime, ends: float | None = None) -> tuple[str, ...]:
    """Those of `7d|30d|90d|1y|never` that a key may have now; `ends`: when the key that makes it expires."""
    longest, left = policy.longest_expiry, None if ends is None else datetime.fromtimestamp(ends, UTC) - now
    bounds = [bound for bound in (longest, left) if bound is not None]
    options = [name for name, lifetime in EXPIRY_OPTIONS.items() if all(lifetime <= bound for bound in bounds)]
    return (*options, *(() if bounds else ("never",)))


async def mint(request: MintRequest, *, policy: Policy, store: KeyStore, hasher: Hasher) -> MintedKey:
    """Draw, hash and store a key. Raises MintError, KeyConflictError, DatabaseError, UnavailableError."""
    scopes = settle_scopes(request.preset, request.scopes, policy)
    check_request(request, policy, datetime.now(UTC).timestamp())
    token = draw_token()
    key = NewKey(
        id=token.key_id,
        name=request.name,
        preset=request.preset,
        scopes=scopes,
        expires_at=request.expires_at,
        created_by=request.actor,
        tag=fast_tag(token.key_id, token.secret),
        argon2_string=await hasher.hash(token.secret),
        constraints=request.constraints,
        aegis_role=request.role,
    )
    summary = await store.insert_key(
        key, owner=request.owner, tenant=request.tenant, tier=request.tier, default_tier=policy.default_tier,
        issuer=request.issuer,
    )  # fmt: skip
    return MintedKey(summary, token.text)


def draw_token(key_id: KeyId | None = None) -> Token:
    """A new secret, of a key that exists or of a new one."""
    return form_token(key_id or KeyId(draw(ID_LENGTH, secrets.choice)), draw(SECRET_LENGTH, secrets.choice))


def settle_scopes(preset: str | None, scopes: Sequence[str], policy: Policy) -> tuple[str, ...]:
    """Presets expand to a list at creation: later additions to a preset do not widen old keys. Raises MintError."""
    if (preset is not None) == bool(scopes):
        raise MintError("give either a preset or at least one scope, and not both", "scopes")
    if preset is not None:
        if preset not in policy.presets:
            raise MintError(f"unknown preset {preset!r}: choose one of {', '.join(policy.presets)}", "preset")
        return tuple(policy.presets[preset].scopes)
    for scope in scopes:
        try:
            policy.check_scope(scope)
        except ValueError as error:
            raise MintError(str(error), "scopes") from error
    return tuple(dict.fromkeys(scopes))


def check_name(name: str) -> None:
    """Raises MintError unless a key may be called so: its name is shown to whoever sees the key, and told in errors."""
    if _KEY_LIKE.search(name):
        raise MintError("that looks like an API key, not like a name: revoke it if it is one", "name")
    if not 1 <= len(name) <= 64 or _UNPRINTABLE.search(name) or name.strip() != name:
        raise MintError("a key's name has 1 to 64 printable characters and no space at its ends", "name")


def check_role(role: str) -> None:
    """Raises MintError unless a key may say that its owner has it."""
    if not 1 <= len(role) <= 64 or _UNPRINTABLE.search(role):
        raise MintError("a role has 1 to 64 printable characters", "role")


def check_identifier(word: str, value: str) -> None:
    """Raises MintError unless an owner, tenant or issuer may be called so."""
    if not 1 <= len(value) <= 255 or _UNPRINTABLE.search(value):
        raise MintError(f"the {word} has 1 to 255 printable characters", word)


def check_tier(tier: str, policy: Policy) -> None:
    """Raises MintError unless the policy knows the tier."""
    if tier not in policy.tiers:
        raise MintError(f"unknown tier {tier!r}: choose one of {', '.join(policy.tiers)}", "tier")


def check_request(request: MintRequest, policy: Policy, now: float) -> None:
    """Raises MintError unless a key may be called, belong and live so; its scopes are `settle_scopes`'."""
    check_longest(request.expires_at, policy, now)
    check_name(request.name)
    for word, value in (("owner", request.owner), ("tenant", request.tenant), ("issuer", request.issuer)):
        if value is not None:
            check_identifier(word, value)
    if request.tier is not None:
        check_tier(request.tier, policy)
    if request.role is not None:
        check_role(request.role)
