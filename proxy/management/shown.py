"""What comes out of the management API; the OpenAPI document follows from it.  [pure]

In go values of other rooms, out comes JSON, in exactly the members that are written down here: whatever a row may have
beside them is not shown.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.management.models import Expiry

KeyStatus = Literal["active", "disabled", "revoked", "expired", "owner_disabled", "constraints_unreadable"]


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LastUse(_Output):
    """The last time a key was let in; `count`: how often ever."""

    at: datetime
    address: str | None
    user_agent: str | None
    tool: str = Field(description="What it named: a tool, a method, a route or an operation.")
    count: int


class LastRefusal(_Output):
    """The last time a key was refused."""

    at: datetime
    reason: str


class Key(_Output):
    """A key as everybody may see it who may see it at all: never any part of a secret."""

    id: str
    name: str
    owner: str = Field(description="The owner's subject.")
    issuer: str
    tenant_id: str
    tier: str
    preset: str | None
    scopes: tuple[str, ...]
    status: KeyStatus
    expires_at: datetime | None
    created_at: datetime
    created_by: str
    parent_id: str | None
    constraints: dict[str, Any]
    version: int
    old_secret_until: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    revoked_reason: str | None
    last_used_at: datetime | None
    last_used: LastUse | None
    last_refused: LastRefusal | None
    old_secret_last_used_at: datetime | None


class KeyPage(_Output):
    """`next_cursor`: null when there are no more."""

    api_keys: tuple[Key, ...]
    next_cursor: str | None


class NewKey(Key):
    """A key with its token, for the one sight of it."""

    key: str = Field(repr=False, description="The token. It is not stored, and never shown again.")


class RotatedKey(NewKey):
    """A key with its new token. `descendants_revoked`: of a compromised one."""

    descendants_revoked: int


class Confirmation(_Output):
    """One instance's word. `milliseconds` after the revocation; null until it confirmed."""

    instance: str
    state: Literal["confirmed", "unconfirmed", "fenced"]
    milliseconds: float | None
    streams: int
    calls: int


class Revocation(_Output):
    """What became of a revocation on every instance: what it ended there, and whether the instance said so."""

    message: str
    confirmed: bool
    milliseconds: float | None
    instances: tuple[Confirmation, ...]
    streams: int
    calls: int
    api_key: Key


class Validation(_Output):
    """What a valid key says of its owner. `scopes`: what it can do now, its maker's and its tier's limits applied."""

    user_id: str
    tenant_id: str
    aegis_role: str | None
    scopes: tuple[str, ...]
    zaru_tier: str
    key_id: str
    name: str
    expires_at: datetime | None


class GrantableScope(_Output):
    """A scope of the catalogue. `selectors`: what of it may be given where not all of it may; `listed`: the platform
    lists what a selector may name."""

    scope: str
    title: str
    selector: str | None
    may: bool
    why_not: str | None
    selectors: tuple[str, ...]
    listed: bool


class OfferedName(_Output):
    """What a selector may name; `title`: in words, where the platform has any."""

    name: str
    title: str | None


class OfferedNames(_Output):
    """What the platform lists for whoever asks, with their own rights. `why_not`: why there is nothing; any exact name
    may be given all the same."""

    scope: str
    selector: str
    names: tuple[OfferedName, ...]
    why_not: str | None


class GrantablePreset(_Output):
    """A preset may be given whole, or not at all."""

    name: str
    title: str
    scopes: tuple[str, ...]
    may: bool
    why_not: str | None
    missing: tuple[str, ...]


class Session(_Output):
    """An MCP session that a key holds upstream; its id is its holder's alone."""

    upstream: str
    protocol_version: str | None
    created_at: datetime
    last_seen_at: datetime
    secret_version: int


class SessionList(_Output):
    """The newest first."""

    sessions: tuple[Session, ...]


class Event(_Output):
    """One thing that was done to a key, or that a request showed of it. `before`, `after`: what differs."""

    id: int
    at: datetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class EventPage(_Output):
    """The newest first. `next_cursor`: null when there are no more."""

    events: tuple[Event, ...]
    next_cursor: str | None


class DayUse(_Output):
    """How often a key was let through and denied on one day, UTC."""

    day: date
    allowed: int
    denied: int


class Use(_Output):
    """How often a rule allowed or denied, resting on these scopes; of a denial: which would have sufficed, if any."""

    rule: str
    scopes: tuple[str, ...]
    allowed: bool
    count: int
    last_at: datetime


class Usage(_Output):
    """What a key did on the last days, today included and last."""

    days: tuple[DayUse, ...]
    uses: tuple[Use, ...]


class Explained(_Output):
    """`explanation`: why, as denials and `policy explain --json` say it."""

    allowed: bool
    explanation: dict[str, Any]


class Owner(_Output):
    """Whose keys there are, and the most that any of them can do (`tier`)."""

    id: str
    issuer: str
    subject: str
    tenant_id: str
    tier: str
    disabled: bool
    created_at: datetime


class OwnerPage(_Output):
    """By name. `next_cursor`: null when there are no more."""

    owners: tuple[Owner, ...]
    next_cursor: str | None


class Grantables(_Output):
    """What this caller may give to a key, and why not the rest."""

    scopes: tuple[GrantableScope, ...]
    presets: tuple[GrantablePreset, ...]
    expiries: tuple[Expiry, ...]


class Fault(_Output):
    """What is wrong with one member."""

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. `error` is `detail` once more, for the platform's clients; some codes have further members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    error: str
    missing: tuple[str, ...] | None = Field(None, description="Scopes that would have been needed.")
    faults: tuple[Fault, ...] | None = None
