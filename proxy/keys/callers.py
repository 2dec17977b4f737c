"""Who asks, as the rows have it now and keep it until the transaction ends.  [io]

In go a caller as it was when the request came, out comes the same one as it is, or CallerError. Between the two a key
may have been revoked, narrowed or rotated, an owner disabled or lowered, a sign-in ended: the rows of keys and owners
are locked here, so that what is judged by them stays true until the change is committed.

Locks are taken from the root of a tree downwards, owners after keys, as revocation's cascade does: nobody waits for
somebody who waits for them. They exclude each other, because those that share pass whoever waits for an exclusive one:
a few requests at once, refused in the end, would hold a revocation off for as long as they were repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from proxy.database import Connection
from proxy.errors import Reason
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.record import KeyRecord, OwnerRecord
from proxy.keys.rights import ADMIN_ROLE, Caller, CallerError, form_caller_of_claims, form_caller_of_key
from proxy.keys.store import find_record
from proxy.policy import Policy

HOLD_KEYS = "SELECT FROM api_keys WHERE id = ANY($1::text[]) ORDER BY array_position($1::text[], id) FOR NO KEY UPDATE"
FIND_SIGN_IN = "SELECT FROM sign_ins WHERE id_hash = $1"
HOLD_KEY = "SELECT FROM api_keys WHERE id = $1 FOR NO KEY UPDATE"
HOLD_OWNERS = """
SELECT FROM owners WHERE id = ANY($1::uuid[]) OR id IN (SELECT owner_id FROM api_keys WHERE id = ANY($2::text[]))
 ORDER BY id FOR NO KEY UPDATE
"""
READ_OWNER = (
    "SELECT id::text, tenant_id, issuer, subject, tier, disabled_at IS NOT NULL AS disabled, version FROM owners"
)


async def hold(connection: Connection, caller: Caller, key: KeyRecord | None) -> None:
    """Lock what the caller and the key (None: a new one) rest on; the key itself for a change."""
    if key is not None:
        key_ids = list(key.lineage)  # a key that may act on it among them; parents never change
    else:
        key_ids = [] if caller.key_id is None else await _list_lineage(connection, caller.key_id)
    top_down = key_ids[::-1]
    await connection.fetch(HOLD_KEYS, top_down if key is None else top_down[:-1])
    if key is not None:
        await connection.fetch(HOLD_KEY, key.id)
    await connection.fetch(HOLD_OWNERS, [caller.owner.id] if caller.owner.id else [], top_down)


async def renew(connection: Connection, caller: Caller, policy: Policy) -> tuple[Caller, float]:
    """The caller by rows read from now on, and the database's time. Raises CallerError."""
    now = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    if caller.is_operator:
        return caller, now
    if caller.sign_in is not None and not await connection.fetch(FIND_SIGN_IN, caller.sign_in):
        raise CallerError(Reason.CREDENTIAL_MISSING, "this sign-in has ended")
    return replace(await _read(connection, caller, policy, now), sign_in=caller.sign_in), now


async def _read(connection: Connection, caller: Caller, policy: Policy, now: float) -> Caller:
    if caller.key_id is None:
        record = await find_owner(connection, caller.owner.id)
        role = ADMIN_ROLE if caller.is_admin else None
        return form_caller_of_claims(
            record, policy, tenant_id=caller.owner.tenant_id, tier=caller.claimed_tier, role=role
        )
    key = await find_record(connection, caller.key_id)
    if key is None:
        raise CallerError(Reason.CREDENTIAL_INVALID, "the API key that asks for this is not valid any more")
    fault = key.find_fault(now) if caller.secret_version is None else key.find_use_fault(caller.secret_version, now)
    if fault is not None:
        raise CallerError(fault, f"the API key that asks for this may not be used any more: {fault}")
    return form_caller_of_key(key, policy, caller.secret_version)


async def find_owner(connection: Connection, owner_id: OwnerId) -> OwnerRecord | None:
    """An owner by its row's id."""
    return form_owner(await connection.fetch(READ_OWNER + " WHERE id = $1::uuid", owner_id))


async def find_owner_by_name(connection: Connection, issuer: str, subject: str) -> OwnerRecord | None:
    """An owner by what an identity provider calls it."""
    return form_owner(await connection.fetch(READ_OWNER + " WHERE issuer = $1 AND subject = $2", issuer, subject))


def form_owner(rows: Sequence[dict[str, object]]) -> OwnerRecord | None:
    """The one owner that was found, if any."""
    for row in rows:
        owner = Owner(OwnerId(str(row["id"])), *(str(row[word]) for word in ("tenant_id", "issuer", "subject", "tier")))
        return OwnerRecord(owner, row["disabled"] is True, int(str(row["version"])))
    return None


async def _list_lineage(connection: Connection, key_id: KeyId) -> list[KeyId]:
    """The key and its ancestors, nearest first. Parents never change, so that this needs no lock."""
    record = await find_record(connection, key_id)
    return [key_id] if record is None else list(record.lineage)
