"""Keys declared in a file, held against keys that are there: what has to be done to make them the same.  [io]

In go the file's values, the policy and the keys as the store shows them; out come steps, each idempotent, or every
fault at once. A key is known by issuer, owner and name. What the file does not name is left alone, and so is the expiry
of a key that is there already, where the file gives a lifetime rather than a date. Nothing in here changes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from proxy.errors import ProxyError
from proxy.keys.changes import Patch
from proxy.keys.constraints import UNCONSTRAINED, Constraints, parse_constraints
from proxy.keys.minting import (
    EXPIRY_OPTIONS,
    LOCAL_ISSUER,
    MintError,
    MintRequest,
    check_longest,
    check_name,
    parse_expiry,
    settle_expiry,
    settle_scopes,
)
from proxy.keys.store import KeySummary
from proxy.policy import Policy

MAX_KEYS: Final = 10_000


class DeclarationError(ProxyError):
    """The file cannot be applied: every fault, a line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))


def _write_date(value: object) -> object:
    """YAML reads 2027-01-31 as a date."""
    return value if value is None or isinstance(value, str) else str(value)


class DeclaredKey(BaseModel):
    """One key, as it should be."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    owner: str
    issuer: str = LOCAL_ISSUER
    tenant: str | None = None
    tier: str | None = None
    preset: str | None = None
    scopes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    expires: Annotated[str | None, BeforeValidator(_write_date)] = None
    constraints: Annotated[Constraints, BeforeValidator(parse_constraints)] = UNCONSTRAINED
    disabled: bool = False

    @property
    def label(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.issuer, self.owner, self.name


class _Declaration(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    keys: Annotated[tuple[DeclaredKey, ...], Field(strict=False, max_length=MAX_KEYS)]


@dataclass(frozen=True, slots=True)
class Step:
    """What has to be done about one key: `mint` it, or change the one of this `id`. Nothing, if it is as declared."""

    declared: DeclaredKey
    id: str | None = None
    mint: MintRequest | None = None
    patch: Patch | None = None
    status: Literal["disable", "enable"] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """In a word for each thing that is done."""
        minted = ("mint",) if self.mint is not None else ()
        fields = ("scopes", "expires_at", "constraints")
        patched = tuple(name for name in fields if self.patch and getattr(self.patch, name) is not None)
        if self.patch is not None and self.patch.preset is not None:
            patched = ("scopes", *patched)
        return (*minted, *patched, *((self.status,) if self.status else ()))


def parse_declaration(value: object) -> tuple[DeclaredKey, ...]:
    """Raises DeclarationError."""
    if not isinstance(value, Mapping):
        raise DeclarationError(["the file has two members: `version: 1` and `keys:`, a list"])
    try:
        declared = _Declaration.model_validate(dict(value)).keys
    except ValidationError as error:
        raise DeclarationError([_describe(one) for one in error.errors()]) from None
    often = [identity for identity, count in Counter(key.identity for key in declared).items() if count > 1]
    if often:
        raise DeclarationError([f"{owner}/{name} is declared more than once" for _, owner, name in often])
    return declared


def plan_steps(
    declared: Sequence[DeclaredKey], present: Sequence[KeySummary], policy: Policy, actor: str, now: datetime
) -> list[Step]:
    """A step for each declared key, in the file's order. Raises DeclarationError."""
    found: dict[tuple[str, str, str], KeySummary] = {}
    for summary in sorted(present, key=lambda one: (one.status != "disabled", one.created_at)):  # the active one wins
        if summary.status != "revoked":
            found[summary.issuer, summary.owner, summary.name] = summary
    steps, faults = [], []
    for key in declared:
        try:
            steps.append(_plan(key, found.get(key.identity), policy, actor, now))
        except MintError as error:
            faults.append(f"{key.label}: {error}")
    if faults:
        raise DeclarationError(faults)
    return steps


def _plan(key: DeclaredKey, present: KeySummary | None, policy: Policy, actor: str, now: datetime) -> Step:
    check_name(key.name)
    scopes = settle_scopes(key.preset, key.scopes, policy)
    if present is None:
        request = MintRequest(
            name=key.name, owner=key.owner, actor=actor, tenant=key.tenant, tier=key.tier, preset=key.preset,
            scopes=key.scopes, expires_at=settle_expiry(key.expires, policy, now),
            constraints=key.constraints, issuer=key.issuer,
        )  # fmt: skip
        return Step(key, mint=request, status="disable" if key.disabled else None)
    if present.status == "expired":
        raise MintError(f"key {present.id} has expired: revoke it, and apply again to have a new one minted")
    for word, wanted, stored in (("tenant", key.tenant, present.tenant), ("tier", key.tier, present.tier)):
        if wanted is not None and wanted != stored:
            raise MintError(f"the owner has {word} {stored!r}, not {wanted!r}: applying does not change it")
    same_scopes = (present.preset, set(present.scopes)) == (key.preset, set(scopes))
    expires_at = _find_new_end(key.expires, present, policy, now)
    patch = Patch(
        preset=None if same_scopes else key.preset,
        scopes=None if same_scopes or key.preset is not None else scopes,
        expires_at=expires_at,
        constraints=None if present.constraints == key.constraints.form() else key.constraints,
    )
    status: Literal["disable", "enable"] | None = None
    if key.disabled != (present.status == "disabled"):
        status = "disable" if key.disabled else "enable"
    return Step(key, present.id, patch=None if patch == Patch() else patch, status=status)


def _find_new_end(
    expires: str | None, present: KeySummary, policy: Policy, now: datetime
) -> datetime | Literal["never"] | None:
    """The declared date, if it is another; a lifetime was meant from when the key was made."""
    if expires is None or expires in EXPIRY_OPTIONS:
        return None
    expires_at = parse_expiry(expires, now)
    if expires_at == present.expires_at:
        return None
    check_longest(expires_at, policy, now.timestamp())
    return expires_at or "never"


def _describe(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the file"
    return f"{place}: {error['msg']}"
