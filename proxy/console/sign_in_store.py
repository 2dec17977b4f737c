"""Sign-ins in Postgres: opened, found, ended.  [io]

In go hashes of cookies, out come rows. A sign-in lasts while it is used, and never beyond its longest time, by the
database's clock. Being used is written down rarely: not once for each request. Who may do what is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.database import Connection, Database
from proxy.identity import KeyId, OwnerId

OPEN: Final = """
INSERT INTO sign_ins (id_hash, owner_id, key_id, secret_version, tenant_id, tier, role)
VALUES ($1, $2::uuid, $3, $4, $5, $6, $7)
"""
# A tenth of the idle time apart, uses are written down.
FIND: Final = """
WITH found AS (SELECT owner_id::text, key_id, secret_version, tenant_id, tier, role FROM sign_ins
                WHERE id_hash = $1 AND created_at > clock_timestamp() - make_interval(secs => $2)
                  AND seen_at > clock_timestamp() - make_interval(secs => $3)),
     seen AS (UPDATE sign_ins SET seen_at = clock_timestamp()
               WHERE id_hash = $1 AND EXISTS (SELECT FROM found)
                 AND seen_at < clock_timestamp() - make_interval(secs => $3 / 10))
SELECT * FROM found
"""
END: Final = "DELETE FROM sign_ins WHERE id_hash = $1"
# A key ends what was opened with it; an owner whatever is theirs, by their keys, too.
END_ALL: Final = "DELETE FROM sign_ins WHERE owner_id = $1::uuid AND ($2::text IS NULL OR key_id = $2)"
SWEEP: Final = """
DELETE FROM sign_ins WHERE id_hash IN (
    SELECT id_hash FROM sign_ins WHERE created_at <= clock_timestamp() - make_interval(secs => $1)
        OR seen_at <= clock_timestamp() - make_interval(secs => $2)
     ORDER BY id_hash LIMIT 1000 FOR UPDATE SKIP LOCKED)
"""
AUDIT: Final = "INSERT INTO audit_events (actor, action, key_id, owner_id) VALUES ($1, $2, $3, $4::uuid)"


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who signed in: an owner, by a key of theirs or by the claims of the identity provider's token."""

    owner_id: OwnerId
    key_id: KeyId | None = None
    secret_version: int | None = None
    tenant_id: str | None = None
    tier: str | None = None
    role: str | None = None


class SignInStore:
    """The table `sign_ins`. Every method raises DatabaseError."""

    def __init__(self, database: Database, *, idle_seconds: float, absolute_seconds: float) -> None:
        self._database = database
        self._idle_seconds = idle_seconds
        self._absolute_seconds = absolute_seconds

    async def open(self, id_hash: bytes, sign_in: SignIn, actor: str, replaced: bytes | None) -> None:
        """A new one; the one it takes the place of in the same browser ends. What is over anyway is swept."""

        async def work(connection: Connection) -> None:
            await connection.execute(SWEEP, self._absolute_seconds, self._idle_seconds)
            await connection.execute(END, replaced or id_hash)
            await connection.execute(
                OPEN, id_hash, sign_in.owner_id, sign_in.key_id, sign_in.secret_version, sign_in.tenant_id,
                sign_in.tier, sign_in.role,
            )  # fmt: skip
            await connection.execute(AUDIT, actor, "sign_in.open", sign_in.key_id, sign_in.owner_id)

        await self._database.transact(work)

    async def find(self, id_hash: bytes) -> SignIn | None:
        """Who it is, while it lasts."""
        rows = await self._database.fetch(FIND, id_hash, self._absolute_seconds, self._idle_seconds)
        return _form_sign_in(rows[0]) if rows else None

    async def end(self, id_hash: bytes) -> None:
        """It opens nothing any more."""
        await self._database.fetch(END, id_hash)

    async def end_all(self, sign_in: SignIn, actor: str) -> None:
        """Nor does any other of the same owner, or of the same key where one was presented."""

        async def work(connection: Connection) -> None:
            await connection.execute(END_ALL, sign_in.owner_id, sign_in.key_id)
            await connection.execute(AUDIT, actor, "sign_in.end_all", sign_in.key_id, sign_in.owner_id)

        await self._database.transact(work)


def _form_sign_in(row: Mapping[str, Any]) -> SignIn:
    key_id = None if row["key_id"] is None else KeyId(row["key_id"])
    return replace(SignIn(**row), owner_id=OwnerId(row["owner_id"]), key_id=key_id)
