"""Keys as the database would have them, for tests that need no database."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.constraints import UNCONSTRAINED, Constraints
from proxy.keys.legacy import LEGACY_VERSION, LegacyToken, parse_legacy_token
from proxy.keys.record import Ancestor, KeyRecord, Secret
from proxy.keys.token import Token, fast_tag, form_token

ADA = OwnerId("00000000-0000-4000-8000-00000000000a")
BOB = OwnerId("00000000-0000-4000-8000-00000000000b")
UNCHECKED = "an argon2 string that no test looks at"


def form_key_id(number: int) -> KeyId:
    """The id of the n-th key of a test."""
    return KeyId(f"Key{number:09d}")


def form_secret_token(key_id: KeyId, seed: int = 0) -> Token:
    """A well-formed token of a key; another seed is another secret."""
    return form_token(key_id, f"{seed:043d}")


def make_secret(
    token: Token, argon2_string: str = UNCHECKED, *, version: int = 1, not_after: float | None = None
) -> Secret:
    """What is stored of a token."""
    return Secret(version, fast_tag(token.key_id, token.secret), argon2_string, not_after)


def form_legacy_token(seed: int = 0) -> LegacyToken:
    """A well-formed token of the older form."""
    return parse_legacy_token(f"aegis_{seed:040d}")


def make_legacy_secret(token: LegacyToken, *, not_after: float | None = None) -> Secret:
    """What is stored of a token of the older form."""
    return Secret(LEGACY_VERSION, b"", token.digest.hex(), not_after)


def make_ancestor(
    key_id: KeyId,
    *,
    status: str = "active",
    scopes: tuple[str, ...] = ("*",),
    expires_at: float | None = None,
    version: int = 1,
    constraints: Constraints = UNCONSTRAINED,
) -> Ancestor:
    return Ancestor(key_id, status, scopes, expires_at, version, constraints)


def make_record(
    key_id: KeyId,
    *,
    secrets: Iterable[Secret] | None = None,
    owner: OwnerId = ADA,
    tenant: str = "default",
    owner_disabled: bool = False,
    owner_version: int = 1,
    status: str = "active",
    scopes: tuple[str, ...] = ("*",),
    expires_at: float | None = None,
    version: int = 1,
    ancestors: tuple[Ancestor, ...] = (),
    tier: str = "free",
    constraints: Constraints = UNCONSTRAINED,
) -> KeyRecord:
    """A key that may be used, unless told otherwise."""
    held = [make_secret(form_secret_token(key_id))] if secrets is None else secrets
    return KeyRecord(
        id=key_id,
        owner=Owner(owner, tenant, "local", f"subject of {owner}", tier),
        owner_disabled=owner_disabled,
        owner_version=owner_version,
        status=status,
        scopes=scopes,
        expires_at=expires_at,
        version=version,
        secrets={secret.version: secret for secret in held},
        ancestors=ancestors,
        constraints=constraints,
    )


def find_rights(record: KeyRecord) -> frozenset[str]:
    """The key's own scopes: what owners and ancestors take away is the policy's affair."""
    return frozenset(record.scopes)
