"""Requests that may come twice and shall be done once.  [io]

In go a word that the caller chose and a digest of what it asked for; out comes the key that came of it the first time.
The word is written in the transaction of the change itself: either both are there, or neither. Of the answer only the
key is remembered, and never a secret. Words are forgotten after a day, by whoever writes the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from proxy.database import Connection, Database
from proxy.errors import ProxyError
from proxy.keys.changes import Also
from proxy.keys.rights import Caller
from proxy.keys.store import KeySummary

LIFETIME: Final = "interval '1 day'"
FIND: Final = f"SELECT request, key_id FROM idempotency WHERE caller = $1 AND word = $2 AND at > now() - {LIFETIME}"  # noqa: S608
# An old word that was not forgotten yet is as good as new.
WRITE: Final = f"""
INSERT INTO idempotency AS i (caller, word, request, key_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (caller, word) DO UPDATE SET request = excluded.request, key_id = excluded.key_id, at = now()
 WHERE i.at <= now() - {LIFETIME}
RETURNING true
"""  # noqa: S608
# More than one for each that is written, so that the table follows the traffic down.
FORGET: Final = f"""
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE at <= now() - {LIFETIME} LIMIT 10 FOR UPDATE SKIP LOCKED))
"""  # noqa: S608


class TakenError(ProxyError):
    """Another request of the same word was done meanwhile."""


class OtherRequestError(ProxyError):
    """The word stands for another request already."""


@dataclass(frozen=True, slots=True)
class Once:
    """`request`: a digest of what is asked for, target and all."""

    word: str
    request: bytes


async def find_done(database: Database, caller: Caller, once: Once) -> str | None:
    """The id of the key that came of it; None when it was not done yet. Raises OtherRequestError, DatabaseError."""
    for row in await database.fetch(FIND, *_form_subject(caller, once)):
        if row["request"] != once.request:
            raise OtherRequestError("this word stands for another request already")
        return str(row["key_id"])
    return None


def remember(caller: Caller, once: Once) -> Also:
    """What is done in the change's own transaction. Raises TakenError, which undoes the change."""

    async def write(connection: Connection, summary: KeySummary) -> None:
        await connection.execute(FORGET)
        written = await connection.fetchval(WRITE, *_form_subject(caller, once), once.request, summary.id)
        if written is None:
            raise TakenError("another request of this word was done meanwhile")

    return write


def _form_subject(caller: Caller, once: Once) -> tuple[bytes, bytes]:
    return sha256(caller.actor.encode()).digest(), sha256(once.word.encode()).digest()
