"""Tasks in Postgres: which key made each.  [io]

In go the ids of tasks and principals, out come the scopes that a task's call rested on, or a refusal. A task belongs to
the key whose call made it, on every instance; an unknown one and somebody else's are never told apart. Only a hash of
the id is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from proxy.database import Database
from proxy.errors import DatabaseError, Reason, UnavailableError, UpstreamError
from proxy.handles import refuse_task
from proxy.identity import Principal
from proxy.policy.scopes import covers

# After 30 days the upstream has forgotten a task long since, and may give its id again. Each new one sweeps.
BIND = """
WITH old AS (DELETE FROM mcp_tasks WHERE created_at < now() - interval '30 days' AND (upstream, task_hash) <> ($1, $2))
INSERT INTO mcp_tasks AS t (upstream, task_hash, key_id, owner, scopes) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (upstream, task_hash) DO UPDATE
   SET key_id = excluded.key_id, owner = excluded.owner, created_at = excluded.created_at,
       scopes = CASE WHEN t.key_id = excluded.key_id THEN t.scopes ELSE excluded.scopes END
 WHERE (t.key_id, t.owner) = (excluded.key_id, excluded.owner) OR t.created_at < now() - interval '30 days'
RETURNING key_id
"""
OWNED = "SELECT task_hash, scopes FROM mcp_tasks WHERE upstream = $1 AND key_id = $2 AND owner = $3"
CLAIM = OWNED + " AND task_hash = ANY($4::bytea[])"


def hash_task_id(task_id: str) -> bytes:
    """What stands for a task id in the database."""
    return hashlib.sha256(task_id.encode()).digest()


class TaskStore:
    """The table `mcp_tasks`. Every method raises UnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bind(self, upstream: str, task_id: str, principal: Principal, scopes: Sequence[str]) -> None:
        """Make the task this key's, before the client learns its id. Raises UpstreamError."""
        rows = await self._fetch(
            BIND, upstream, hash_task_id(task_id), principal.key_id, principal.owner.name, sorted(set(scopes))
        )
        if not rows:
            raise UpstreamError(
                Reason.UPSTREAM_SESSION_CONFLICT, "The upstream offered a task that already belongs to a key."
            )

    async def claim(self, upstream: str, task_ids: Collection[str], principal: Principal) -> tuple[str, ...]:
        """The scopes the tasks rest on, when all of them are this key's to use. Raises Refusal(HANDLE_UNKNOWN)."""
        hashes = {hash_task_id(task_id) for task_id in task_ids}
        rows = await self._fetch(CLAIM, upstream, principal.key_id, principal.owner.name, list(hashes))
        scopes = tuple(dict.fromkeys(scope for row in rows for scope in row["scopes"]))
        if len(rows) < len(hashes) or not all(covers(principal.grants, scope) for scope in scopes):
            raise refuse_task()
        return scopes

    async def list_owned(self, upstream: str, principal: Principal) -> frozenset[bytes]:
        """The hashes of those tasks that this key may still use."""
        rows = await self._fetch(OWNED, upstream, principal.key_id, principal.owner.name)
        return frozenset(
            row["task_hash"] for row in rows if all(covers(principal.grants, scope) for scope in row["scopes"])
        )

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        try:
            return await self._database.fetch(query, *arguments)
        except DatabaseError as error:
            raise UnavailableError(
                Reason.STATE_UNKNOWN, "Tasks cannot be read right now.", retry_after_seconds=1
            ) from error
