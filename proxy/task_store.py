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
from proxy.identity import KeyId, Principal
from proxy.policy.scopes import covers

# After 30 days the upstream has forgotten a task long since, and may give its id again. Each new one sweeps.
BIND = """
WITH old AS (DELETE FROM mcp_tasks WHERE created_at < now() - interval '30 days' AND (upstream, task_hash) <> ($1, $2))
INSERT INTO mcp_tasks AS t (upstream, task_hash, key_id, scopes) VALUES ($1, $2, $3, $4)
ON CONFLICT (upstream, task_hash) DO UPDATE
   SET key_id = excluded.key_id, created_at = excluded.created_at,
       scopes = CASE WHEN t.key_id = excluded.key_id THEN t.scopes ELSE excluded.scopes END
 WHERE t.key_id = excluded.key_id OR t.created_at < now() - interval '30 days'
RETURNING key_id
"""
CLAIM = "SELECT scopes FROM mcp_tasks WHERE upstream = $1 AND task_hash = ANY($2::bytea[]) AND key_id = $3"
OWNED = "SELECT task_hash FROM mcp_tasks WHERE upstream = $1 AND key_id = $2"


def hash_task_id(task_id: str) -> bytes:
    """What stands for a task id in the database."""
    return hashlib.sha256(task_id.encode()).digest()


class TaskStore:
    """The table `mcp_tasks`. Every method raises UnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bind(self, upstream: str, task_id: str, principal: Principal, scopes: Sequence[str]) -> None:
        """Make the task this key's, before the client learns its id. Raises UpstreamError."""
        rows = await self._fetch(BIND, upstream, hash_task_id(task_id), principal.key_id, sorted(set(scopes)))
        if not rows:
            raise UpstreamError(
                Reason.UPSTREAM_SESSION_CONFLICT, "The upstream offered a task that already belongs to a key."
            )

    async def claim(self, upstream: str, task_ids: Collection[str], principal: Principal) -> tuple[str, ...]:
        """The scopes the tasks rest on, when all of them are this key's to use. Raises Refusal(HANDLE_UNKNOWN)."""
        hashes = {hash_task_id(task_id) for task_id in task_ids}
        rows = await self._fetch(CLAIM, upstream, list(hashes), principal.key_id)
        scopes = tuple(dict.fromkeys(scope for row in rows for scope in row["scopes"]))
        if len(rows) < len(hashes) or not all(covers(principal.grants, scope) for scope in scopes):
            raise refuse_task()
        return scopes

    async def list_owned(self, upstream: str, key_id: KeyId) -> frozenset[bytes]:
        """The hashes of a key's tasks."""
        return frozenset(row["task_hash"] for row in await self._fetch(OWNED, upstream, key_id))

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        try:
            return await self._database.fetch(query, *arguments)
        except DatabaseError as error:
            raise UnavailableError(
                Reason.STATE_UNKNOWN, "Tasks cannot be read right now.", retry_after_seconds=1
            ) from error
