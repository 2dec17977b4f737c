"""A key's secrets in time: the newest, and how long those before it stay good.  [io]

In go a connection inside a transaction and a new token; out come rows. Whether somebody may have a new secret was
judged before, by `changes`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from proxy.database import Connection
from proxy.identity import KeyId
from proxy.keys.store import TREE_SECONDS
from proxy.keys.token import Token, fast_tag

KEPT_SECRETS: Final = 16  # newest ones, so that a replay is told from a wrong secret; each is read with its key
# Of older secrets only the one before the new may have any time left. `least` passes over NULL.
RETIRE: Final = """
UPDATE api_key_secrets s
   SET not_after = least(s.not_after, k.expires_at, clock_timestamp() + CASE WHEN s.version = $2 THEN $3::interval
                                                                             ELSE '0' END)
  FROM api_keys k WHERE k.id = $1 AND s.key_id = $1
"""
# A token of the older form is the secret of version 0; its digest stays, because it costs one row and no time.
RETIRE_LEGACY: Final = """
UPDATE legacy_digests d
   SET not_after = least(d.not_after, k.expires_at, clock_timestamp() + CASE WHEN $2 = 0 THEN $3::interval ELSE '0' END)
  FROM api_keys k WHERE k.id = $1 AND d.key_id = $1
"""
ADD: Final = "INSERT INTO api_key_secrets (key_id, version, tag, hash) VALUES ($1, $2, $3, $4)"
END_DESCENDANTS: Final = """
UPDATE api_keys SET status = 'revoked', revoked_by = $2, revoked_reason = 'parent key ' || $1 || ' was compromised'
 WHERE parent_id = $1 AND status <> 'revoked'
"""
COUNT_DESCENDANTS: Final = """
WITH RECURSIVE below AS (
    SELECT id, status, ARRAY[id] AS path FROM api_keys WHERE parent_id = $1
    UNION ALL
    SELECT k.id, k.status, path || k.id FROM below JOIN api_keys k ON k.parent_id = below.id WHERE k.id <> ALL (path)
) SELECT count(*) FROM below WHERE status <> 'revoked'
"""
FORGET: Final = "DELETE FROM api_key_secrets WHERE key_id = $1 AND version <= $2"


async def replace_secret(
    connection: Connection, token: Token, argon2_string: str, *, newest: int, left: timedelta
) -> None:
    """Retire the secrets there are, the `newest` after the time `left`, and add the token's."""
    for retire in (RETIRE, RETIRE_LEGACY):
        await connection.execute(retire, token.key_id, newest, left)
    tag = fast_tag(token.key_id, token.secret)
    await connection.execute(ADD, token.key_id, newest + 1, tag, argon2_string)
    await connection.execute(FORGET, token.key_id, newest + 1 - KEPT_SECRETS)


async def end_descendants(connection: Connection, key_id: KeyId, actor: str) -> int:
    """Revoke whatever a compromised key has made, for good; how many that were."""
    ended = int(await connection.fetchval(COUNT_DESCENDANTS, key_id))
    await connection.execute(END_DESCENDANTS, key_id, actor, timeout=TREE_SECONDS)
    return ended
