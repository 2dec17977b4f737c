"""Keys in Postgres: how they are read, shown, stored and revoked.  [io]

In go ids and values, out come `KeyRecord`s and summaries. It knows no policy, no HTTP and no secret in the clear.
Changes and their audit entries share a transaction. What callers with rights of their own change is `changes`'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

import asyncpg

from proxy.database import Connection, Database
from proxy.errors import ProxyError
from proxy.identity import DEFAULT_TENANT, KeyId, Owner, OwnerId
from proxy.keys.constraints import UNCONSTRAINED, Constraints, parse_constraints
from proxy.keys.last_uses import COLUMNS, LastRefusal, LastUse, form_last_uses
from proxy.keys.record import Ancestor, KeyRecord, Secret, form_date
from proxy.logs import blot, get_logger

log = get_logger("keys")

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
), chains AS (  -- joined once: looked up for each key, a batch would cost the square of its size
    SELECT l.leaf, json_agg(json_build_array(
               a.id, a.status, a.scopes, extract(epoch FROM a.expires_at)::text, a.version, a.constraints::text)
               ORDER BY l.depth) AS ancestors
      FROM lineage l JOIN api_keys a ON a.id = l.id WHERE l.depth > 0 GROUP BY l.leaf
)
SELECT k.id, k.status, k.scopes, extract(epoch FROM k.expires_at)::float8 AS expires_at, k.version,
       k.constraints::text AS constraints, k.aegis_role,
       o.id::text AS owner_id, o.tenant_id, o.issuer, o.subject, o.tier, o.disabled_at IS NOT NULL AS owner_disabled,
       o.version AS owner_version,
       (SELECT coalesce(json_agg(json_build_array(
                   s.version, encode(s.tag, 'hex'), s.hash, extract(epoch FROM s.not_after)::text)), '[]')
          FROM key_secrets s WHERE s.key_id = k.id) AS secrets,
       coalesce(c.ancestors, '[]') AS ancestors
  FROM api_keys k JOIN owners o ON o.id = k.owner_id LEFT JOIN chains c ON c.leaf = k.id
 WHERE k.id = ANY($1::text[])
"""
# Dates as seconds since the epoch: Postgres knows later ones than Python does, and infinity.
SUMMARY = f"""
SELECT {COLUMNS}, k.id, k.name, o.subject AS owner, o.tenant_id AS tenant, o.tier, k.preset, k.scopes,
       CASE WHEN k.status <> 'active' THEN k.status
            WHEN o.disabled_at IS NOT NULL THEN 'owner disabled'
            WHEN k.expires_at <= now() THEN 'expired'
            ELSE 'active' END AS status,
       extract(epoch FROM k.expires_at)::float8 AS expires_at, extract(epoch FROM k.created_at)::float8 AS created_at,
       k.created_by, k.parent_id, extract(epoch FROM k.revoked_at)::float8 AS revoked_at, k.revoked_by,
       k.revoked_reason, o.issuer, k.constraints::text AS constraints, k.version, k.aegis_role,
       (SELECT extract(epoch FROM max(s.not_after))::float8 FROM key_secrets s
         WHERE s.key_id = k.id AND s.not_after > clock_timestamp()) AS old_secret_until
  FROM api_keys k JOIN owners o ON o.id = k.owner_id
"""  # noqa: S608 - texts of our own rooms
# A key as the audit compares it: never its secrets, only which one is the newest.
FACTS = """
SELECT jsonb_build_object(
           'name', name, 'preset', preset, 'scopes', scopes, 'constraints', constraints, 'status', status,
           'expires_at', expires_at, 'parent_id', parent_id, 'aegis_role', aegis_role,
           'secret_version', (SELECT max(version) FROM key_secrets WHERE key_id = id))::text
  FROM api_keys WHERE id = $1
"""
AUDIT_CHANGE = """
WITH changed AS (
    SELECT key, b.value AS old, a.value AS new FROM jsonb_each($4::jsonb) b JOIN jsonb_each($5::jsonb) a USING (key)
     WHERE b.value <> a.value
)
INSERT INTO audit_events (actor, action, key_id, owner_id, before, after)
SELECT $1, $2, id, owner_id, (SELECT jsonb_object_agg(key, old) FROM changed),
       coalesce((SELECT jsonb_object_agg(key, new) FROM changed), '{}') || $6::jsonb
  FROM api_keys WHERE id = $3
"""
UNREADABLE = "constraints unreadable"  # in place of `active`: nobody is let in by a key whose limits are unknown
CLOSED = Constraints.model_construct(sources=())  # what an unreadable one amounts to


class KeyConflictError(ProxyError):
    """The change contradicts what is stored: a taken name, a key that has ended, an owner of another tenant or tier."""


class KeyNotFoundError(ProxyError):
    """There is no such key, or none that this caller may see: never told apart."""


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
    issuer: str = "local"
    constraints: Mapping[str, object] = field(default_factory=dict)
    version: int = 0
    old_secret_until: datetime | None = None
    last_used_at: datetime | None = None
    last_used: LastUse | None = None
    last_refused: LastRefusal | None = None
    old_secret_last_used_at: datetime | None = None  # by any secret but the newest
    aegis_role: str | None = None  # what it says of its owner to whoever validates it


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
    constraints: Constraints = UNCONSTRAINED
    parent_id: KeyId | None = None
    aegis_role: str | None = None


class KeyStore:
    """Keys for those whose rights are not asked: the verifier, and operators. Every method raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_keys(self, ids: Sequence[KeyId]) -> dict[KeyId, KeyRecord]:
        """The records of those ids that exist. With no ids it still asks, which tells whether anybody answers."""
        return await self._database.transact(lambda connection: read_records(connection, ids), atomic=False)

    async def find_record(self, key_id: KeyId) -> KeyRecord | None:
        """One key's record, or None."""
        return (await self.read_keys([key_id])).get(key_id)

    async def find_digests(self, digests: Sequence[bytes]) -> dict[bytes, KeyId]:
        """The keys of those digests of older tokens that are known."""
        rows = await self._database.fetch(
            "SELECT digest, key_id FROM legacy_digests WHERE digest = ANY($1::bytea[])", digests
        )
        return {row["digest"]: KeyId(row["key_id"]) for row in rows}

    async def insert_key(self, key: NewKey, *, owner: str, tenant: str | None, tier: str | None, default_tier: str,
                         issuer: str) -> KeySummary:  # fmt: skip
        """Store a new key, making its owner if there is none yet. Raises KeyConflictError."""

        async def insert(connection: Connection) -> KeySummary:
            owner_id = await _find_or_make_owner(connection, issuer, owner, tenant, tier, default_tier)
            return await insert_row(connection, key, owner_id, owner)

        return await self._database.transact(insert)

    async def list_keys(self, owner: str | None = None) -> list[KeySummary]:
        """All keys, or one owner's, newest first."""
        rows = await self._database.fetch(
            SUMMARY + " WHERE $1::text IS NULL OR o.subject = $1 ORDER BY k.created_at DESC, k.id", owner
        )
        return [form_summary(row) for row in rows]

    async def find_key(self, key_id: str) -> KeySummary | None:
        """One key, or None."""
        rows = await self._database.fetch(SUMMARY + " WHERE k.id = $1", key_id)
        return form_summary(rows[0]) if rows else None

    async def revoke_key(self, key_id: str, *, actor: str, reason: str | None = None) -> KeySummary | None:
        """Revoke for good; None when there is no such key. Revoking twice changes nothing."""

        async def revoke(connection: Connection) -> KeySummary | None:
            await connection.execute(DURABLY)
            return await revoke_row(connection, key_id, actor=actor, reason=reason)

        return await self._database.transact(revoke, timeout_seconds=TREE_SECONDS)


# What ends with a key may be many: 10,000 took 0.9 s (measured), and of all statements this one has to get through.
TREE_SECONDS = 60.0
# A revocation that a failover may lose is not a revocation; nor is any other narrowing.
DURABLY = "SET LOCAL synchronous_commit = on"


async def read_records(connection: Connection, ids: Sequence[KeyId]) -> dict[KeyId, KeyRecord]:
    """The records of those ids that exist, on a connection that may hold locks."""
    rows = await connection.fetch(READ_KEYS, list(ids), MAX_ANCESTORS)
    return {KeyId(row["id"]): _form_record(row) for row in rows}


async def find_record(connection: Connection, key_id: KeyId) -> KeyRecord | None:
    """A key's record on such a connection, or None."""
    return (await read_records(connection, [key_id])).get(key_id)


async def find_summary(connection: Connection, key_id: str) -> KeySummary | None:
    """A key as it is shown, or None."""
    row = await connection.fetchrow(SUMMARY + " WHERE k.id = $1", key_id)
    return form_summary(row) if row else None


async def insert_row(connection: Connection, key: NewKey, owner_id: str, owner: str) -> KeySummary:
    """A new key, its secret and its audit entry. `owner`: for the words of KeyConflictError."""
    with naming(owner, key.name):
        await connection.execute(
            "INSERT INTO api_keys"
            " (id, owner_id, name, preset, scopes, constraints, expires_at, parent_id, created_by, aegis_role)"
            " VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $8, $9, $10)",
            key.id, owner_id, key.name, key.preset, list(key.scopes), json.dumps(key.constraints.form()),
            key.expires_at, key.parent_id, key.created_by, key.aegis_role,
        )  # fmt: skip
    await connection.execute(
        "INSERT INTO api_key_secrets (key_id, version, tag, hash) VALUES ($1, 1, $2, $3)",
        key.id, key.tag, key.argon2_string,
    )  # fmt: skip
    after = json.loads(await connection.fetchval(FACTS, key.id))
    await _audit(connection, key.created_by, "mint", key.id, after={k: v for k, v in after.items() if v is not None})
    summary = await find_summary(connection, key.id)
    assert summary is not None
    return summary


async def revoke_row(connection: Connection, key_id: str, *, actor: str, reason: str | None) -> KeySummary | None:
    """Revoke, and audit what changed; None when there is no such key. No reason holds the secret it is about."""
    reason = None if reason is None else blot(reason.encode("utf-8", "replace")).decode()
    changed = await connection.fetchrow(
        "UPDATE api_keys SET status = 'revoked', revoked_by = $2, revoked_reason = $3"
        " WHERE id = $1 AND status <> 'revoked' RETURNING id",
        key_id, actor, reason, timeout=TREE_SECONDS,
    )  # fmt: skip
    if changed:
        await _audit(connection, actor, "revoke", key_id, after={"status": "revoked", "reason": reason})
    return await find_summary(connection, key_id)


@contextmanager
def naming(owner: str, name: str) -> Iterator[None]:
    """Around statements that give a key its name or make it active."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise KeyConflictError(
            f"{owner} already has an active key named {name!r}: choose another name, or revoke that one"
        ) from error


async def _find_or_make_owner(
    connection: Connection, issuer: str, subject: str, tenant: str | None, tier: str | None, default_tier: str
) -> str:
    """The owner's id. The table's tier and tenant are the truth: a differing request is an error, never a change."""
    await connection.execute(
        "INSERT INTO owners (tenant_id, issuer, subject, tier) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        tenant or DEFAULT_TENANT, issuer, subject, tier or default_tier,
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


DATES = ("expires_at", "created_at", "revoked_at", "old_secret_until")


def form_summary(row: asyncpg.Record) -> KeySummary:
    """A row of `SUMMARY`."""
    values = dict(row)
    uses = form_last_uses(values.pop("last_uses"), values.pop("newest_secret"))
    dates = {name: None if row[name] is None else form_date(row[name]) for name in DATES}
    constraints = _read_constraints(row["constraints"])
    shown = {"unreadable": row["constraints"][:200]} if constraints is None else constraints.form()
    return KeySummary(**values | dates | uses | {"scopes": tuple(row["scopes"]), "constraints": shown})


def _form_record(row: asyncpg.Record) -> KeyRecord:
    ancestors = tuple(
        Ancestor(KeyId(id_), status, tuple(scopes), _seconds(expires_at), version, constraints)
        for id_, stored, scopes, expires_at, version, text in json.loads(row["ancestors"])
        for status, constraints in [_judge_constraints(id_, stored, text)]
    )
    if len(ancestors) > MAX_ANCESTORS:
        ancestors = (Ancestor(KeyId(row["id"]), "too many ancestors", (), None, 0),)
    secrets = {
        version: Secret(version, bytes.fromhex(tag), argon2_string, _seconds(not_after))
        for version, tag, argon2_string, not_after in json.loads(row["secrets"])
    }
    status, constraints = _judge_constraints(row["id"], row["status"], row["constraints"])
    return KeyRecord(
        id=KeyId(row["id"]),
        owner=Owner(OwnerId(row["owner_id"]), row["tenant_id"], row["issuer"], row["subject"], row["tier"]),
        owner_disabled=row["owner_disabled"],
        owner_version=row["owner_version"],
        status=status,
        scopes=tuple(row["scopes"]),
        expires_at=row["expires_at"],
        version=row["version"],
        secrets=MappingProxyType(secrets),
        ancestors=ancestors,
        constraints=constraints,
        role=row["aegis_role"],
    )


def _judge_constraints(key_id: str, status: str, text: str) -> tuple[str, Constraints]:
    """A key whose limits cannot be read opens nothing, and says so in the log at every read."""
    constraints = _read_constraints(text)
    if constraints is not None:
        return status, constraints
    log.error("constraints_unreadable", key_id=key_id, mend="set api_keys.constraints to {} or to valid constraints")
    return UNREADABLE if status == "active" else status, CLOSED


def _read_constraints(text: str) -> Constraints | None:
    """What a row holds; None when it is not what this release understands. Any role may have written it."""
    if text == "{}":
        return UNCONSTRAINED
    try:
        return parse_constraints(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _seconds(text: str | None) -> float | None:
    """Epoch seconds from Postgres' text form, which knows `Infinity` where JSON does not."""
    return None if text is None else float(text)
