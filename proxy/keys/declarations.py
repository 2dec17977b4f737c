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
from proxy.identity import LOCAL_ISSUER
from proxy.keys.changes import Patch
from proxy.keys.constraints import UNCONSTRAINED, Constraints, parse_constraints
from proxy.keys.minting import (
    EXPIRY_OPTIONS,
    MintError,
    MintRequest,
    check_longest,
    check_name,
    check_request,
    parse_expiry,
    settle_expiry,
    settle_scopes,
)
from proxy.keys.owners import OwnerSummary
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
    role: str | None = None

    @property
    def label(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.issuer, self.owner, self.name

    @property
    def owner_identity(self) -> tuple[str, str]:
        return self.issuer, self.owner


class _Declaration(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    keys: Annotated[tuple[DeclaredKey, ...], Field(strict=False, max_length=MAX_KEYS)]


@dataclass(frozen=True, slots=True)
class Step:
    """What has to be done about one key: `mint` it, or change the `present` one. Nothing, if it is as declared."""

    owner: str
    name: str
    present: KeySummary | None = None
    mint: MintRequest | None = None
    patch: Patch | None = None
    status: Literal["disable", "enable"] | None = None
    scopes: tuple[str, ...] = ()  # as declared, presets written out

    @property
    def label(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def words(self) -> tuple[str, ...]:
        """In a word for each thing that is done."""
        minted = ("mint",) if self.mint is not None else ()
        return (*minted, *self.differences, *((self.status,) if self.status else ()))

    @property
    def differences(self) -> dict[str, tuple[object, object]]:
        """What of a key that is there is changed: how it is, and how it should be."""
        patch, present = self.patch, self.present
        if patch is None or present is None:
            return {}
        changed: dict[str, tuple[object, object]] = {}
        if patch.preset is not None or patch.scopes is not None:
            same = set(present.scopes) == set(self.scopes)  # by another name
            names = (present.preset or "custom", patch.preset or "custom")
            changed["scopes"] = names if same else (present.scopes, self.scopes)
        if patch.expires_at is not None:
            changed["expires_at"] = (present.expires_at or "never", patch.expires_at)
        if patch.constraints is not None:
            changed["constraints"] = (present.constraints, patch.constraints.form())
        return changed


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
    declared: Sequence[DeclaredKey],
    present: Sequence[KeySummary],
    owners: Sequence[OwnerSummary],
    policy: Policy,
    actor: str,
    now: datetime,
) -> list[Step]:
    """A step for each declared key, in the file's order. Raises DeclarationError."""
    found: dict[tuple[str, str, str], KeySummary] = {}
    for summary in sorted(present, key=lambda one: (one.status != "disabled", one.created_at)):  # the active one wins
        if summary.status != "revoked":
            found[summary.issuer, summary.owner, summary.name] = summary
    settled, faults = _settle_owners(declared, owners)
    steps = []
    for key in declared:
        try:
            steps.append(_plan(key, found.get(key.identity), settled[key.owner_identity], policy, actor, now))
        except MintError as error:
            faults.append(f"{key.label}: {error}")
    if faults:
        raise DeclarationError(faults)
    return steps


def plan_pruning(declared: Sequence[DeclaredKey], present: Sequence[KeySummary]) -> list[Step]:
    """Active keys of the file's owners that the file does not name, to be disabled: a name put back enables its key.

    Keys made by keys are their makers' affair.
    """
    named, owners = {key.identity for key in declared}, {key.owner_identity for key in declared}
    return [
        Step(key.owner, key.name, key, status="disable")
        for key in present
        if key.status == "active" and key.parent_id is None and (key.issuer, key.owner) in owners
        and (key.issuer, key.owner, key.name) not in named
    ]  # fmt: skip


@dataclass(slots=True)
class _Account:
    """What an owner has, or will have once the first of their keys is minted."""

    tenant: str | None = None
    tier: str | None = None


def _settle_owners(
    declared: Sequence[DeclaredKey], owners: Sequence[OwnerSummary]
) -> tuple[dict[tuple[str, str], _Account], list[str]]:
    """Each owner's account, and what the file says against it. An owner has one tenant and one tier, for all keys."""
    accounts = {(one.issuer, one.subject): _Account(one.tenant, one.tier) for one in owners}
    faults = []
    for key in declared:
        account = accounts.setdefault(key.owner_identity, _Account())
        for word, wanted in (("tenant", key.tenant), ("tier", key.tier)):
            stored = getattr(account, word)
            if stored is None:
                setattr(account, word, wanted)
            elif wanted is not None and wanted != stored:
                faults.append(f"{key.label}: the owner has {word} {stored!r}, not {wanted!r}")
    return accounts, faults


def _plan(
    key: DeclaredKey, present: KeySummary | None, account: _Account, policy: Policy, actor: str, now: datetime
) -> Step:
    check_name(key.name)
    scopes = settle_scopes(key.preset, key.scopes, policy)
    if present is None:
        request = MintRequest(
            name=key.name, owner=key.owner, actor=actor, tenant=account.tenant, tier=account.tier, preset=key.preset,
            scopes=key.scopes, expires_at=settle_expiry(key.expires, policy, now), constraints=key.constraints,
            issuer=key.issuer, role=key.role,
        )  # fmt: skip
        check_request(request, policy, now.timestamp())
        return Step(key.owner, key.name, mint=request, status="disable" if key.disabled else None)
    if present.status == "expired":
        raise MintError(f"key {present.id} has expired: revoke it, and apply again to have a new one minted")
    if key.role != present.aegis_role:
        raise MintError(f"key {present.id} has role {present.aegis_role!r}: a key keeps the one it was minted with")
    same_scopes = (present.preset, set(present.scopes)) == (key.preset, set(scopes))
    patch = Patch(
        preset=None if same_scopes else key.preset,
        scopes=None if same_scopes or key.preset is not None else scopes,
        expires_at=_find_new_end(key.expires, present, policy, now),
        constraints=None if present.constraints == key.constraints.form() else key.constraints,
    )
    status: Literal["disable", "enable"] | None = None
    if key.disabled != (present.status == "disabled"):
        status = "disable" if key.disabled else "enable"
    return Step(key.owner, key.name, present, patch=None if patch == Patch() else patch, status=status, scopes=scopes)


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
