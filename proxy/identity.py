"""Who is asking: the values every room hands on once a key has been verified.  [pure]

In goes nothing; these are plain frozen values. A `Principal` is only ever made from a key's state as the database had
it (`memory`), and handed out by `verification` once the secret was proven. Nothing in here knows HTTP, SQL or the
policy file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol

from proxy.errors import Reason
from proxy.keys.constraints import Constraints

KeyId = NewType("KeyId", str)  # public, 12 base62 characters
OwnerId = NewType("OwnerId", str)  # our row id of an owner, a UUID in text form
DEFAULT_TENANT = "default"  # of owners that are made without one being named
LOCAL_ISSUER = "local"  # owners made on the command line; those of an identity provider carry its issuer


@dataclass(frozen=True, slots=True)
class Owner:
    """A key's owner, as the `owners` table has it: the truth about tenant and tier."""

    id: OwnerId
    tenant_id: str
    issuer: str
    subject: str
    tier: str

    @property
    def name(self) -> str:
        """The owner, and the tenant: either may change while a key stays."""
        return f"{self.id} of {self.tenant_id}"


class Asker(Protocol):
    """In whose name an upstream is asked: a verified key, or an owner who signed in without one. `ends_at`: seconds
    since the epoch by the database's clock; None: never."""

    @property
    def owner(self) -> Owner: ...
    @property
    def grants(self) -> frozenset[str]: ...
    @property
    def key_id(self) -> KeyId | None: ...
    @property
    def secret_version(self) -> int | None: ...
    @property
    def ends_at(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Claims:
    """What a key's rights follow from, under whatever policy: the scopes written in its row, and in each ancestor's."""

    scopes: tuple[str, ...]
    ancestors: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified key: what `authorization` needs to decide.

    `grants` are the effective scopes: the key's own, intersected with every ancestor's and with what the owner's tier
    allows. `ends` is the earliest end of the key, its ancestors and the presented secret, in seconds since the epoch by
    the database's clock, and which of them it is; None means never.
    """

    key_id: KeyId
    owner: Owner
    grants: frozenset[str]
    ancestors: tuple[KeyId, ...]
    secret_version: int
    ends: tuple[float, Reason] | None
    read_at: float  # boot time at which the read of its row began: what it is worth once the news is lost
    claims: Claims
    constrained: tuple[tuple[KeyId, Constraints], ...] = ()  # those of `lineage` that are, and how: all of it holds

    @property
    def ends_at(self) -> float | None:
        """When it ends, whatever ends it."""
        return None if self.ends is None else self.ends[0]

    @property
    def holder(self) -> str:
        """The key in its owner's hands: whom handles belong to."""
        return f"{self.key_id} of {self.owner.name}"

    @property
    def lineage(self) -> tuple[KeyId, ...]:
        """The key and everything it descends from: a change to any of them concerns it."""
        return (self.key_id, *self.ancestors)
