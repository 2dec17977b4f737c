"""Owners: listed, added, moved between tiers, disabled and enabled.  [io]

In go operators and the tenant's admins, and what they want; out come owners as they are shown. The table is the truth
about tier and tenant: an identity provider's claim lowers a decision, and nobody is let in whose row is missing.
Changes are audited in their own transaction; the triggers tell every instance.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from proxy.database import Connection, Database
from proxy.errors import ProxyError, Reason
from proxy.identity import OwnerId
from proxy.keys.callers import find_owner, find_owner_by_name, hold, renew
from proxy.keys.minting import check_identifier, check_tier
from proxy.keys.record import OwnerRecord
from proxy.keys.rights import Caller, RightsError, check_tiers, may_administer
from proxy.keys.store import DURABLY, KeyConflictError
from proxy.policy import Policy

SUMMARY = """
SELECT o.id::text, o.subject, o.issuer, o.tenant_id AS tenant, o.tier, o.version,
       extract(epoch FROM o.created_at)::float8 AS created_at, extract(epoch FROM o.disabled_at)::float8 AS disabled_at,
       (SELECT count(*) FROM api_keys k WHERE k.owner_id = o.id AND k.status = 'active'
           AND (k.expires_at IS NULL OR k.expires_at > now())) AS active_keys
  FROM owners o
"""
LIST = """
 WHERE ($1::text IS NULL OR o.tenant_id = $1) AND ($2::text IS NULL OR o.subject = $2)
   AND ($3::text IS NULL OR o.issuer = $3)
   AND ($4::uuid IS NULL OR (o.tenant_id, o.subject, o.issuer) > (
       SELECT a.tenant_id, a.subject, a.issuer FROM owners a
        WHERE a.id = $4 AND ($1::text IS NULL OR a.tenant_id = $1)))
 ORDER BY o.tenant_id, o.subject, o.issuer LIMIT $5
"""
ADD = """
INSERT INTO owners (tenant_id, issuer, subject, tier) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id::text
"""
# The admin's own row as well: it may be the one that is changed.
HOLD = "SELECT FROM owners WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"
SET = {
    "set_tier": "UPDATE owners SET tier = $2 WHERE id = $1::uuid",
    "disable": "UPDATE owners SET disabled_at = coalesce(disabled_at, now()) WHERE id = $1::uuid",
    "enable": "UPDATE owners SET disabled_at = NULL WHERE id = $1::uuid",
}


Change = Callable[[Connection, Caller, OwnerRecord], Awaitable[None]]


class OwnerNotFoundError(ProxyError):
    """There is no such owner, or none that this caller administers: never told apart."""


@dataclass(frozen=True, slots=True)
class OwnerSummary:
    """An owner as lists and pages show it."""

    id: str
    subject: str
    issuer: str
    tenant: str
    tier: str
    active_keys: int
    created_at: datetime
    disabled_at: datetime | None
    version: int


class Owners:
    """The table `owners`. Every method raises DatabaseError; those with a caller CallerError and RightsError, too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, issuer: str, subject: str) -> OwnerRecord | None:
        """Whom an identity provider's token means."""
        return await self._database.transact(
            lambda connection: find_owner_by_name(connection, issuer, subject), atomic=False
        )

    async def find_by_id(self, owner_id: OwnerId) -> OwnerRecord | None:
        """Whom a row means."""
        return await self._database.transact(lambda connection: find_owner(connection, owner_id), atomic=False)

    async def list(
        self, *, tenant: str | None = None, subject: str | None = None, issuer: str | None = None,
        after: str | None = None, limit: int | None = None,
    ) -> list[OwnerSummary]:  # fmt: skip
        """Those that meet all that is given, by tenant and name. `after`: the id of one that they come behind."""
        rows = await self._database.fetch(SUMMARY + LIST, tenant, subject, issuer, after, limit)
        return [_form_summary(row) for row in rows]

    async def show(self, caller: Caller, owner_id: str, policy: Policy) -> OwnerSummary:
        """One of those that the caller administers. Raises OwnerNotFoundError."""
        return await self._change(caller, owner_id, policy)

    async def add(
        self, caller: Caller, policy: Policy, *, issuer: str, subject: str, tenant: str, tier: str
    ) -> OwnerSummary:
        """Raises MintError, and KeyConflictError when there is such an owner."""
        for word, value in (("owner", subject), ("issuer", issuer), ("tenant", tenant)):
            check_identifier(word, value)
        check_tier(tier, policy)

        async def add(connection: Connection) -> OwnerSummary:
            await hold(connection, caller, None)
            admin, _ = await renew(connection, caller, policy)
            if not may_administer(admin, tenant):
                raise OwnerNotFoundError("there is no such tenant")
            if not admin.is_operator and issuer != admin.owner.issuer:  # else a name is taken before its bearer comes
                raise RightsError(
                    Reason.RIGHTS_EXCEEDED, "an admin adds owners of the identity provider they come from"
                )
            check_tiers(admin, policy, tier)
            owner_id = await connection.fetchval(ADD, tenant, issuer, subject, tier)
            if owner_id is None:
                raise KeyConflictError(f"there is an owner {subject} of {issuer} already")
            after = {"subject": subject, "issuer": issuer, "tenant": tenant, "tier": tier}
            await _audit(connection, admin, "add", owner_id, None, after)
            return await _get_summary(connection, owner_id)

        return await self._database.transact(add)

    async def update(
        self, caller: Caller, owner_id: str, policy: Policy, *, tier: str | None = None, disabled: bool | None = None
    ) -> OwnerSummary:
        """Move an owner to a tier, disable or enable it, or both at once. None: as it is. Raises MintError,
        OwnerNotFoundError."""
        changes: list[Change] = []
        if tier is not None:
            check_tier(tier, policy)
            changes.append(_form_move(tier, policy))
        if disabled is not None:
            changes.append(_form_switch(disabled, policy))
        return await self._change(caller, owner_id, policy, *changes)

    async def set_tier(self, caller: Caller, owner_id: str, tier: str, policy: Policy) -> OwnerSummary:
        """Move an owner to a tier: all of its keys are narrowed or widened at once. Raises MintError."""
        return await self.update(caller, owner_id, policy, tier=tier)

    async def disable(self, caller: Caller, owner_id: str, policy: Policy) -> OwnerSummary:
        """Refuse all of an owner's keys, and the owner, until enabled."""
        return await self.update(caller, owner_id, policy, disabled=True)

    async def enable(self, caller: Caller, owner_id: str, policy: Policy) -> OwnerSummary:
        """Let an owner and its keys in again."""
        return await self.update(caller, owner_id, policy, disabled=False)

    async def _change(self, caller: Caller, owner_id: str, policy: Policy, *changes: Change) -> OwnerSummary:
        found_id = _parse_id(owner_id)

        async def work(connection: Connection) -> OwnerSummary:
            await connection.execute(DURABLY)
            await connection.fetch(HOLD, [found_id, caller.owner.id or found_id])
            admin, _ = await renew(connection, caller, policy)
            for change in changes:
                await change(connection, admin, await _get_administered(connection, admin, found_id))
            await _get_administered(connection, admin, found_id)
            return await _get_summary(connection, found_id)

        return await self._database.transact(work)


async def _get_administered(connection: Connection, admin: Caller, owner_id: OwnerId) -> OwnerRecord:
    record = await find_owner(connection, owner_id)
    if record is None or not may_administer(admin, record.owner.tenant_id):
        raise OwnerNotFoundError("there is no such owner")
    return record


def _form_move(tier: str, policy: Policy) -> Change:
    async def move(connection: Connection, admin: Caller, record: OwnerRecord) -> None:
        check_tiers(admin, policy, record.owner.tier, tier)
        await connection.execute(SET["set_tier"], record.owner.id, tier)
        if record.owner.tier != tier:
            await _audit(connection, admin, "set_tier", record.owner.id, {"tier": record.owner.tier}, {"tier": tier})

    return move


def _form_switch(disabled: bool, policy: Policy) -> Change:
    async def switch(connection: Connection, admin: Caller, record: OwnerRecord) -> None:
        word = "disable" if disabled else "enable"
        if not disabled:
            check_tiers(admin, policy, record.owner.tier)
        await connection.execute(SET[word], record.owner.id)
        if record.disabled != disabled:
            await _audit(
                connection, admin, word, record.owner.id, {"disabled": record.disabled}, {"disabled": disabled}
            )

    return switch


def _parse_id(text: str) -> OwnerId:
    try:
        return OwnerId(str(UUID(text)))
    except ValueError as error:
        raise OwnerNotFoundError("there is no such owner") from error


async def _get_summary(connection: Connection, owner_id: str) -> OwnerSummary:
    return _form_summary(await connection.fetchrow(SUMMARY + " WHERE o.id = $1::uuid", owner_id))


def _form_summary(row: Mapping[str, Any]) -> OwnerSummary:
    dates = {
        word: None if row[word] is None else datetime.fromtimestamp(row[word], UTC)
        for word in ("created_at", "disabled_at")
    }
    return OwnerSummary(**{**row, **dates})


async def _audit(
    connection: Connection, caller: Caller, word: str, owner_id: str, before: Mapping[str, object] | None,
    after: Mapping[str, object],
) -> None:  # fmt: skip
    await connection.execute(
        "INSERT INTO audit_events (actor, action, owner_id, before, after)"
        " VALUES ($1, $2, $3::uuid, $4::jsonb, $5::jsonb)",
        caller.actor, f"owner.{word}", owner_id, None if before is None else json.dumps(before), json.dumps(after),
    )  # fmt: skip
