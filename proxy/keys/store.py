"""Keys and owners in Postgres: every statement about them stands here.  [io]

In go ids and values, out come `KeyRecord`s and summaries. It knows no policy, no HTTP and no secret in the clear.
Changes and their audit entries share a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import asyncpg

from proxy.database import Connection, Database
from proxy.errors import ProxyError
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.record import Ancestor, KeyRecord, Secret

# One statement for a whole batch. The depth bound stands against cycles that SQL by hand could make: a chain longer
# than this comes back without its root and is refused below.
MAX_ANCESTORS = 32
READ_KEYS = """
WITH RECURSIVE lineage AS (
    SELECT id AS leaf, id, parent_id, 0 AS depth FROM api_keys WHERE id = ANY($1::text[])
    UNION ALL
    SELECT lineage.leaf, parent.id, parent.parent_id, lineage.depth + 1
      FROM lineage JOIN api_keys parent ON parent.id = lineage.parent_id
     WHERE lineage.depth <= $2
)
SELECT k.id, k.status, k.scopes, extract(epoch FROM k.expires_at)::float8 AS expires_at, k.version,
       o.id::text AS owner_id, o.tenant_id, o.issuer, o.subject, o.tier, o.disabled_at IS NOT NULL AS owner_disabled,
       o.version AS owner_version,
       (SELECT coalesce(json_agg(json_build_array(
                   s.version, encode(s.tag, 'hex'), s.hash, extract(epoch FROM s.not_after)::text)), '[]')
          FROM api_key_secrets s WHERE s.key_id = k.id) AS secrets,
       (SELECT coalesce(json_agg(json_build_array(
                   a.id, a.status, a.scopes, extract(epoch FROM a.expires_at)::text, a.version) ORDER BY l.depth), '[]')
          FROM lineage l JOIN api_keys a ON a.id = l.id WHERE l.leaf = k.id AND l.depth > 0) AS ancestors
  FROM api_keys k JOIN owners o ON o.id = k.owner_id
 WHERE k.id = ANY($1::text[])
"""
# Dates as seconds since the epoch: Postgres knows later ones than Python does, and infinity.
SUMMARY = """
SELECT k.id, k.name, o.subject AS owner, o.tenant_id AS tenant, o.tier, k.preset, k.scopes,
       CASE WHEN k.status <> 'active' THEN k.status
            WHEN o.disabled_at IS NOT NULL THEN 'owner disabled'
            WHEN k.expires_at <= now() THEN 'expired'
            ELSE 'active' END AS status,
       extract(epoch FROM k.expires_at)::float8 AS expires_at, extract(epoch FROM k.created_at)::float8 AS created_at,
       k.created_by, k.parent_id, extract(epoch FROM k.revoked_at)::float8 AS revoked_at, k.revoked_by, k.revoked_reason
  FROM api_keys k JOIN owners o ON o.id = k.owner_id
"""


FIRST_SECOND, LAST_SECOND = (datetime(year, 1, 2, tzinfo=UTC).timestamp() for year in (1, 9999))


class KeyConflictError(ProxyError):
    """The change contradicts what is stored: a taken name, an owner of another tenant or tier."""


@dataclass(frozen=True, slots=True)
class KeySummary:
    """A key as lists and pages show it: never any part of a secret or of its hash."""

    id: str
    name: str
    owner: str
    tenant: str
    tier: str
    preset: str | None
    scopes: tuple[str, ...]
    status: str
    expires_at: datetime | None
    created_at: datetime
    created_by: str
    parent_id: str | None
    revoked_at: datetime | None
    revoked_by: str | None
    revoked_reason: str | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """Everything stored about a key that is being minted."""

    id: KeyId
    name: str
    preset: str | None
    scopes: tuple[str, ...]
    expires_at: datetime | None
    created_by: str
    tag: bytes
    argon2_string: str


class KeyStore:
    """The tables `owners`, `api_keys` and `api_key_secrets`. Every method raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_keys(self, ids: Sequence[KeyId]) -> dict[KeyId, KeyRecord]:
        """The records of those ids that exist. With no ids it still asks, which tells whether anybody answers."""
        rows = await self._database.fetch(READ_KEYS, list(ids), MAX_ANCESTORS)
        return {KeyId(row["id"]): _form_record(row) for row in rows}

    async def insert_key(self, key: NewKey, *, owner: str, tenant: str | None, tier: str | None, default_tier: str,
                         issuer: str) -> KeySummary:  # fmt: skip
        """Store a new key, making its owner if there is none yet. Raises KeyConflictError."""

        async def insert(connection: Connection) -> KeySummary:
            owner_id = await _find_or_make_owner(connection, issuer, owner, tenant, tier, default_tier)
            try:
                await connection.execute(
                    "INSERT INTO api_keys (id, owner_id, name, preset, scopes, expires_at, created_by)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    key.id, owner_id, key.name, key.preset, list(key.scopes), key.expires_at, key.created_by,
                )  # fmt: skip
            except asyncpg.UniqueViolationError as error:
                raise KeyConflictError(
                    f"{owner} already has an active key named {key.name!r}: choose another name, or revoke that one"
                ) from error
            await connection.execute(
                "INSERT INTO api_key_secrets (key_id, version, tag, hash) VALUES ($1, 1, $2, $3)",
                key.id, key.tag, key.argon2_string,
            )  # fmt: skip
            await _audit(connection, key.created_by, "mint", key.id, after={"name": key.name, "scopes": key.scopes})
            return _form_summary(await connection.fetchrow(SUMMARY + " WHERE k.id = $1", key.id))

        return await self._database.transact(insert)

    async def list_keys(self, owner: str | None = None) -> list[KeySummary]:
        """All keys, or one owner's, newest first."""
        rows = await self._database.fetch(
            SUMMARY + " WHERE $1::text IS NULL OR o.subject = $1 ORDER BY k.created_at DESC, k.id", owner
        )
        return [_form_summary(row) for row in rows]

    async def find_key(self, key_id: str) -> KeySummary | None:
        """One key, or None."""
        rows = await self._database.fetch(SUMMARY + " WHERE k.id = $1", key_id)
        return _form_summary(rows[0]) if rows else None

    async def revoke_key(self, key_id: str, *, actor: str, reason: str | None = None) -> KeySummary | None:
        """Revoke for good; None when there is no such key. Revoking twice changes nothing."""

        async def revoke(connection: Connection) -> KeySummary | None:
            # A revocation that a failover may lose is not a revocation.
            await connection.execute("SET LOCAL synchronous_commit = on")
            changed = await connection.fetchrow(
                "UPDATE api_keys SET status = 'revoked', revoked_by = $2, revoked_reason = $3"
                " WHERE id = $1 AND status <> 'revoked' RETURNING id",
                key_id, actor, reason,
            )  # fmt: skip
            if changed:
                await _audit(connection, actor, "revoke", key_id, after={"status": "revoked", "reason": reason})
            row = await connection.fetchrow(SUMMARY + " WHERE k.id = $1", key_id)
            return _form_summary(row) if row else None

        return await self._database.transact(revoke)


async def _find_or_make_owner(
    connection: Connection, issuer: str, subject: str, tenant: str | None, tier: str | None, default_tier: str
) -> str:
    """The owner's id. The table's tier and tenant are the truth: a differing request is an error, never a change."""
    await connection.execute(
        "INSERT INTO owners (tenant_id, issuer, subject, tier) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        tenant or "default", issuer, subject, tier or default_tier,
    )  # fmt: skip
    row = await connection.fetchrow(
        "SELECT id, tenant_id, tier FROM owners WHERE issuer = $1 AND subject = $2", issuer, subject
    )
    for word, asked, stored in (("tenant", tenant, row["tenant_id"]), ("tier", tier, row["tier"])):
        if asked is not None and asked != stored:
            raise KeyConflictError(f"owner {subject} has {word} {stored!r}, not {asked!r}: minting does not change it")
    return str(row["id"])


async def _audit(connection: Connection, actor: str, action: str, key_id: str, *, after: Mapping[str, object]) -> None:
    await connection.execute(
        "INSERT INTO audit_events (actor, action, key_id, owner_id, after)"
        " SELECT $1, $2, $3, owner_id, $4::jsonb FROM api_keys WHERE id = $3",
        actor, action, key_id, json.dumps(after),
    )  # fmt: skip


def _form_summary(row: asyncpg.Record) -> KeySummary:
    dates = {name: _form_date(row[name]) for name in ("expires_at", "created_at", "revoked_at")}
    return KeySummary(**{**row, **dates, "scopes": tuple(row["scopes"])})


def _form_date(seconds: float | None) -> datetime | None:
    """The nearest date that Python can tell."""
    return None if seconds is None else datetime.fromtimestamp(min(max(seconds, FIRST_SECOND), LAST_SECOND), UTC)


def _form_record(row: asyncpg.Record) -> KeyRecord:
    ancestors = tuple(
        Ancestor(KeyId(id_), status, tuple(scopes), _seconds(expires_at), version)
        for id_, status, scopes, expires_at, version in json.loads(row["ancestors"])
    )
    if len(ancestors) > MAX_ANCESTORS:
        ancestors = (Ancestor(KeyId(row["id"]), "too many ancestors", (), None, 0),)
    secrets = {
        version: Secret(version, bytes.fromhex(tag), argon2_string, _seconds(not_after))
        for version, tag, argon2_string, not_after in json.loads(row["secrets"])
    }
    return KeyRecord(
        id=KeyId(row["id"]),
        owner=Owner(OwnerId(row["owner_id"]), row["tenant_id"], row["issuer"], row["subject"], row["tier"]),
        owner_disabled=row["owner_disabled"],
        owner_version=row["owner_version"],
        status=row["status"],
        scopes=tuple(row["scopes"]),
        expires_at=row["expires_at"],
        version=row["version"],
        secrets=MappingProxyType(secrets),
        ancestors=ancestors,
    )


def _seconds(text: str | None) -> float | None:
    """Epoch seconds from Postgres' text form, which knows `Infinity` where JSON does not."""
    return None if text is None else float(text)
