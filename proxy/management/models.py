"""What goes into the management API; the OpenAPI document follows from it.  [pure]

In goes plain JSON, out come frozen values, or pydantic's faults. Only shape is judged here, strictly: unknown members
are refused. What a scope or a preset is, the policy knows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from proxy.keys.constraints import Constraints

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50
MAX_SCOPES: Final = 256  # of one key: every verification reads them, and every change compares them with each other
MAX_TEXT: Final = 255
MAX_SCOPE: Final = 320  # a head, and a selector as long as they get (`policy.scopes`)
MAX_CURSOR: Final = 200
MAX_DAYS: Final = 400  # as long as usage is kept
WantedStatus = Literal["active", "disabled", "revoked", "expired"]
Expiry = Literal["7d", "30d", "90d", "1y", "never"]
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _read_moment(value: object) -> object:
    """RFC 3339, and nothing that two readers could take for different instants."""
    if not isinstance(value, str):
        return value
    if _MOMENT.fullmatch(value) is None:
        raise ValueError("a date and time with its zone, such as 2027-01-31T00:00:00Z")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies beyond the years 1 to 9999, told in UTC") from error


def _split(value: object) -> object:
    """One member of a query may hold several words, between commas."""
    return value.split(",") if isinstance(value, str) else value


def _refuse_nul(text: str) -> str:
    """What no table takes."""
    if "\0" in text:
        raise ValueError("holds a character that cannot be stored")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_refuse_nul)]
Name = Annotated[str, Field(min_length=1, max_length=64, description="Printable, without a space at its ends.")]
Scope = Annotated[str, Field(min_length=1, max_length=MAX_SCOPE), AfterValidator(_refuse_nul)]
Scopes = Annotated[tuple[Scope, ...], Field(strict=False, max_length=MAX_SCOPES)]
Moment = Annotated[AwareDatetime, BeforeValidator(_read_moment)]
Limit = Annotated[int, Field(strict=False, ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, Field(min_length=1, max_length=MAX_CURSOR, description="As `next_cursor` gave it.")]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Nothing(_Input):
    """An empty object."""


class Expiring(_Input):
    """`expires_at`: null means never. Of the two, one at most."""

    expires_at: Moment | None = Field(None, description="null: never.")
    expires_in: Expiry | None = None

    @field_validator("expires_in")
    @classmethod
    def _check_one(cls, value: Expiry | None, info: ValidationInfo) -> Expiry | None:
        if value is not None and info.data.get("expires_at") is not None:
            raise ValueError("give either expires_at or expires_in, and not both")
        return value

    @property
    def says_expiry(self) -> bool:
        """Whether either is given; an explicit null of `expires_at` is."""
        return self.expires_in is not None or "expires_at" in self.model_fields_set


class WantedKey(Expiring):
    """Exactly one of `preset` and `scopes`. Without an expiry: 90 days, or until the key that makes it expires."""

    name: Name
    preset: Text | None = None
    scopes: Scopes | None = None
    constraints: Constraints | None = None


class KeyPatch(Expiring):
    """What is to change; what is absent or null stays as it is, except that `expires_at: null` means never.
    `constraints` replaces all of them."""

    name: Name | None = None
    preset: Text | None = None
    scopes: Scopes | None = None
    constraints: Constraints | None = None


class WantedRotation(_Input):
    """`compromised`: the old secret ends now, and so does every key that was made by this one."""

    grace: Literal["now", "1h", "24h", "7d"] = Field("1h", description="How long the old secret stays good.")
    compromised: bool = False


class AskedRequest(_Input):
    """One of three: a tool call, an HTTP request (`path` with its query), or any JSON-RPC request."""

    tool: Text | None = None
    arguments: dict[str, Any] | None = None
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] | None = None
    path: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    rpc: Text | None = None
    params: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> AskedRequest:
        if [self.tool, self.path, self.rpc].count(None) != 2:
            raise ValueError("ask for one of: tool (with arguments), path (with method), rpc (with params)")
        strays = {"arguments": self.tool, "method": self.path, "params": self.rpc}
        for name, subject in strays.items():
            if subject is None and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to another question")
        return self


class WantedOwner(_Input):
    """`issuer`: the identity provider that calls it `subject`, the admin's own.
    `tier`: the policy's default unless given."""

    subject: Text
    issuer: Text | None = None
    tier: Text | None = None


class OwnerPatch(_Input):
    """What is to change; what is absent or null stays as it is."""

    tier: Text | None = None
    disabled: bool | None = None


# By query


class KeyQuery(_Input):
    """Keys that meet all that is given, newest first."""

    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None
    q: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_refuse_nul)] | None = Field(
        None, description="Part of a name or an id, in any case; of an id also as `aegis_…`."
    )
    status: Annotated[tuple[WantedStatus, ...], BeforeValidator(_split), Field(strict=False)] | None = Field(
        None, description="One or several, between commas."
    )
    preset: Text | None = None
    owner: Text | None = Field(None, description="A subject; for whoever sees other owners' keys.")
    sort: Literal["created"] = "created"


class PageQuery(_Input):
    """One page."""

    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None


class UsageQuery(_Input):
    """So many days, today included."""

    days: Annotated[int, Field(strict=False, ge=1, le=MAX_DAYS)] = 30


class NamesQuery(_Input):
    """A scope of the catalogue that takes a selector, without one."""

    scope: Scope


class RevocationQuery(_Input):
    """Why, for the audit."""

    reason: Text | None = None
