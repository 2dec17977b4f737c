"""The platform's keys, taken over: all of an export in one transaction, or none of it.  [io]

In go exported keys; out come the keys they are here. An imported key is a key like any other, except that its first
secret is the digest of an old token. What is here already, by its digest, is left as it is: from the first import on,
our row is the truth. Owners that are unknown are made; those that are known have to agree.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from proxy.database import Connection, Database
from proxy.errors import Fault
from proxy.identity import DEFAULT_TENANT
from proxy.keys.exports import ExportedKey, ExportError
from proxy.keys.token import ID_LENGTH, draw

T = TypeVar("T")
CHUNK: Final = 1_000  # keys in one statement: tens of milliseconds, far from any deadline
PATIENCE_SECONDS: Final = 600.0
FIND_PRESENT: Final = """
SELECT d.digest, k.id, k.status FROM legacy_digests d JOIN api_keys k ON k.id = d.key_id
 WHERE d.digest = ANY($1::bytea[])
"""
FIND_OWNERS: Final = "SELECT subject, tenant_id, tier FROM owners WHERE issuer = $1 AND subject = ANY($2::text[])"
FIND_NAMES: Final = """
SELECT o.subject, k.name FROM api_keys k JOIN owners o ON o.id = k.owner_id
 WHERE o.issuer = $1 AND o.subject = ANY($2::text[]) AND k.status = 'active'
"""
ADD_OWNERS: Final = """
INSERT INTO owners (issuer, subject, tenant_id, tier)
SELECT $1, subject, tenant_id, tier FROM unnest($2::text[], $3::text[], $4::text[]) AS o (subject, tenant_id, tier)
    ON CONFLICT DO NOTHING
"""
ADD_KEYS: Final = """
INSERT INTO api_keys (id, owner_id, name, scopes, aegis_role, status, expires_at, created_at, created_by, revoked_at,
                      revoked_by, revoked_reason)
SELECT r.id, o.id, r.name, r.scopes, r.role, r.status, r.expires_at, coalesce(r.created_at, now()), $3,
       CASE r.status WHEN 'revoked' THEN now() END, CASE r.status WHEN 'revoked' THEN $3 END,
       CASE r.status WHEN 'revoked' THEN 'revoked before it was imported' END
  FROM jsonb_to_recordset($1::jsonb) AS r (id text, owner text, name text, scopes text[], role text, status text,
                                           expires_at timestamptz, created_at timestamptz)
  JOIN owners o ON o.issuer = $2 AND o.subject = r.owner
"""
ADD_DIGESTS: Final = "INSERT INTO legacy_digests (digest, key_id) SELECT * FROM unnest($1::bytea[], $2::text[])"
ADD_AUDIT: Final = """
INSERT INTO audit_events (actor, action, key_id, owner_id, after)
SELECT $2, 'import', id, owner_id, jsonb_strip_nulls(jsonb_build_object(
           'name', name, 'scopes', scopes, 'aegis_role', aegis_role, 'status', status,
           'expires_at', expires_at, 'secret_version', 0))
  FROM api_keys WHERE id = ANY($1::text[])
"""


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """What an exported key is here. `id` None: what it would be, if this were done.

    `revoked_there`: it is alive here and was revoked at the platform.
    """

    exported: ExportedKey
    id: str | None
    state: Literal["new", "present"]
    revoked_there: bool = False


async def import_keys(
    database: Database,
    keys: Sequence[ExportedKey],
    *,
    issuer: str,
    default_tier: str,
    actor: str,
    source: str,
    dry_run: bool,
    advance: Callable[[int], None],
) -> list[ImportedKey]:
    """Take them over, or say what would be. Raises ExportError, DatabaseError.

    `advance` is told how many keys are done. `source`: the file, for the words of faults.
    """

    async def work(connection: Connection) -> list[ImportedKey]:
        present = await _find_present(connection, keys)
        new = [key for key in keys if key.digest not in present]
        await _check_conflicts(connection, new, issuer, source)
        ids = {} if dry_run else {key.digest: draw(ID_LENGTH, secrets.choice) for key in new}
        if not dry_run:
            await _add_owners(connection, new, issuer, default_tier)
        for chunk in _slice(new):
            if not dry_run:
                await _add(connection, chunk, ids, issuer, actor)
            advance(len(chunk))
        return [_form(key, present.get(key.digest), ids.get(key.digest)) for key in keys]

    return await database.transact(work, timeout_seconds=PATIENCE_SECONDS)


def _form(key: ExportedKey, present: tuple[str, str] | None, new_id: str | None) -> ImportedKey:
    if present is None:
        return ImportedKey(key, new_id, "new")
    key_id, status = present
    return ImportedKey(key, key_id, "present", revoked_there=key.status == "revoked" and status != "revoked")


def _slice(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


async def _find_present(connection: Connection, keys: Sequence[ExportedKey]) -> dict[bytes, tuple[str, str]]:
    """Id and status of those that are here, by digest."""
    found = {}
    for chunk in _slice(keys):
        for row in await connection.fetch(FIND_PRESENT, [key.digest for key in chunk]):
            found[row["digest"]] = (row["id"], row["status"])
    return found


async def _check_conflicts(connection: Connection, keys: Sequence[ExportedKey], issuer: str, source: str) -> None:
    """What owners and keys that are here have to say against it. Raises ExportError."""
    names = list({key.owner for key in keys})
    owners, taken = {}, set()
    for chunk in _slice(names):
        for row in await connection.fetch(FIND_OWNERS, issuer, chunk):
            owners[row["subject"]] = row
        taken |= {(row["subject"], row["name"]) for row in await connection.fetch(FIND_NAMES, issuer, chunk)}
    faults = []
    for key in keys:
        owner = owners.get(key.owner, {})
        for column, stored, asked in (("tenant_id", "tenant_id", key.tenant), ("zaru_tier", "tier", key.tier)):
            if asked is not None and owner and asked != owner[stored]:
                mend = "leave the column out for what the owner has here, or change the owner first"
                faults.append(Fault(source, key.line, f"{column}: {key.owner} has {owner[stored]!r} here", mend))
        if key.status == "active" and (key.owner, key.name) in taken:
            why = f"name: {key.owner} has an active key {key.name!r} here"
            faults.append(Fault(source, key.line, why, "rename either, or revoke that one"))
    if faults:
        raise ExportError(faults)


async def _add_owners(connection: Connection, keys: Sequence[ExportedKey], issuer: str, default_tier: str) -> None:
    """Those that are here already stay as they are, and were found to agree."""
    tenants = {key.owner: key.tenant for key in keys if key.tenant is not None}
    tiers = {key.owner: key.tier for key in keys if key.tier is not None}
    for chunk in _slice(list({key.owner for key in keys})):
        await connection.execute(
            ADD_OWNERS, issuer, chunk, [tenants.get(owner, DEFAULT_TENANT) for owner in chunk],
            [tiers.get(owner, default_tier) for owner in chunk],
        )  # fmt: skip


async def _add(
    connection: Connection, keys: Sequence[ExportedKey], ids: Mapping[bytes, str], issuer: str, actor: str
) -> None:
    rows = [
        {
            "id": ids[key.digest], "owner": key.owner, "name": key.name, "scopes": key.scopes, "role": key.role,
            "status": key.status,
            "expires_at": key.expires_at and key.expires_at.isoformat(),
            "created_at": key.created_at and key.created_at.isoformat(),
        }
        for key in keys
    ]  # fmt: skip
    key_ids = [ids[key.digest] for key in keys]
    await connection.execute(ADD_KEYS, json.dumps(rows), issuer, actor)
    await connection.execute(ADD_DIGESTS, [key.digest for key in keys], key_ids)
    await connection.execute(ADD_AUDIT, key_ids, actor)
