"""A key as the database has it, and what that means at a given instant.  [pure]

In go rows, out come frozen values and the one judgement everything rests on: may this key be used now? Nothing here
knows SQL, HTTP or the policy file.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.errors import Reason
from proxy.identity import KeyId, Owner
from proxy.keys.constraints import UNCONSTRAINED, Constraints

FIRST_SECOND, LAST_SECOND = (datetime(year, 1, 2, tzinfo=UTC).timestamp() for year in (1, 9999))
STATUS_REASONS = {"revoked": Reason.KEY_REVOKED, "disabled": Reason.KEY_DISABLED}


@dataclass(frozen=True, slots=True)
class Secret:
    """One valid secret of a key. `not_after`: seconds since the epoch by the database's clock; None means never."""

    version: int
    tag: bytes = field(repr=False)
    hash: str = field(repr=False)
    not_after: float | None


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A key this one was made by, directly or not."""

    id: KeyId
    status: str
    scopes: tuple[str, ...]
    expires_at: float | None
    version: int
    constraints: Constraints = UNCONSTRAINED


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """An owner as the table has it now."""

    owner: Owner
    disabled: bool
    version: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key stands in a list, newest first."""

    created_at: datetime
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key with everything a decision about it needs, read in one statement."""

    id: KeyId
    owner: Owner
    owner_disabled: bool
    owner_version: int
    status: str
    scopes: tuple[str, ...]
    expires_at: float | None
    version: int
    secrets: Mapping[int, Secret]
    ancestors: tuple[Ancestor, ...]
    constraints: Constraints = UNCONSTRAINED
    role: str | None = None  # what it says of its owner to whoever validates it

    def find_fault(self, now: float) -> Reason | None:
        """Why this key may not be used at `now` (database clock); None when it may. Only `active` is ever admitted."""
        for status, expires_at in self._lineage():
            if status != "active":
                return STATUS_REASONS.get(status, Reason.KEY_DISABLED)
            if expires_at is not None and expires_at <= now:
                return Reason.KEY_EXPIRED
        return Reason.OWNER_DISABLED if self.owner_disabled else None

    def find_tagged(self, tag: bytes) -> Secret | None:
        """The secret of this fast tag, compared in constant time."""
        return next((secret for secret in self.secrets.values() if hmac.compare_digest(secret.tag, tag)), None)

    def find_secret_fault(self, version: int, now: float) -> Reason | None:
        """Why the secret of this version may not be used at `now`; None when it may."""
        secret = self.secrets.get(version)
        if secret is None or (secret.not_after is not None and secret.not_after <= now):
            return Reason.SECRET_RETIRED
        return None

    def find_use_fault(self, secret_version: int, now: float) -> Reason | None:
        """Why this key may not be used with this secret at `now`; None when it may."""
        return self.find_fault(now) or self.find_secret_fault(secret_version, now)

    def find_end(self, secret_version: int) -> tuple[float, Reason] | None:
        """The instant at which the key, an ancestor or this secret runs out, and which it was; None means never."""
        ends = [(expires_at, Reason.KEY_EXPIRED) for _, expires_at in self._lineage()]
        ends.append((self.secrets[secret_version].not_after, Reason.SECRET_RETIRED))
        return min(((end, reason) for end, reason in ends if end is not None), default=None)

    def find_expiry(self) -> float | None:
        """The instant at which the key or an ancestor expires; None means never."""
        return min((end for _, end in self._lineage() if end is not None), default=None)

    @property
    def lineage(self) -> tuple[KeyId, ...]:
        """The key and everything it descends from, nearest first."""
        return (self.id, *(ancestor.id for ancestor in self.ancestors))

    @property
    def limits(self) -> tuple[Constraints, ...]:
        """The constraints of each of `lineage`, in its order: all of them hold."""
        return (self.constraints, *(ancestor.constraints for ancestor in self.ancestors))

    @property
    def constrained(self) -> tuple[tuple[KeyId, Constraints], ...]:
        """Those of `lineage` that are constrained at all, and how."""
        limits = zip(self.lineage, self.limits, strict=True)
        return tuple((key_id, constraints) for key_id, constraints in limits if constraints != UNCONSTRAINED)

    @property
    def versions(self) -> dict[str, int]:
        """The version of every row this was read from, by the id of its key or owner."""
        ancestors: dict[str, int] = {ancestor.id: ancestor.version for ancestor in self.ancestors}
        return {self.id: self.version, self.owner.id: self.owner_version} | ancestors

    @property
    def revoked_ids(self) -> list[KeyId]:
        """The key and its ancestors, as far as they are revoked."""
        lineage = [(self.id, self.status), *((ancestor.id, ancestor.status) for ancestor in self.ancestors)]
        return [key_id for key_id, status in lineage if status == "revoked"]

    def _lineage(self) -> Iterator[tuple[str, float | None]]:
        """Status and end of the key and of everything it descends from."""
        yield self.status, self.expires_at
        for ancestor in self.ancestors:
            yield ancestor.status, ancestor.expires_at


def form_date(seconds: float) -> datetime:
    """The nearest date that Python can tell: Postgres knows later ones, and infinity."""
    return datetime.fromtimestamp(min(max(seconds, FIRST_SECOND), LAST_SECOND), UTC)
