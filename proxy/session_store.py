"""MCP sessions in Postgres: which key holds which session upstream.  [io]

In go session ids and principals, out come claims granted or refused. A session belongs to the key that made it, on
every instance; an unknown one and somebody else's are never told apart. The id is stored as a hash, and sealed for the
one use that needs it again: ending the session upstream.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from cachetools import TTLCache

from proxy.database import Database
from proxy.errors import DatabaseError, Reason, Refusal, UnavailableError, UpstreamError
from proxy.identity import KeyId, Owner, Principal
from proxy.logs import get_logger
from proxy.policy.scopes import covers
from proxy.sealing import Seal, SealError
from proxy.sessions import ClaimedSession

log = get_logger("sessions")

# How long another instance's DELETE may go unseen here; the upstream answers 404 meanwhile, to the same key.
OWNER_MEMORY_SECONDS = 60.0
OWNER_MEMORY_SIZE = 50_000
CLAIM_SECONDS = 30
# A client may name any version as its own; only one that a header can carry is worth keeping.
VERSION = re.compile(r"[0-9A-Za-z._-]{1,64}")
# Visible ASCII (MCP 2025-11-25, "Session Management"); the length leaves room for ids that are JWTs.
_SESSION_ID = re.compile(r"[!-~]{1,4096}", re.ASCII)
INSERT = """
INSERT INTO mcp_sessions (upstream, session_hash, key_id, secret_version, owner, grants, protocol_version, sealed_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING key_id
"""
# Sessions named in $4 and $7, and with them, in a sweep ($3), those nobody may use any more: of keys that are gone,
# dead, expired, or whose owner is disabled; and those nobody has used for long ($6 seconds).
CLAIM_DEAD = """
UPDATE mcp_sessions s
   SET claimed_by = $1, claimed_until = now() + make_interval(secs => $2), attempts = attempts + 1
 WHERE (s.upstream, s.session_hash) IN (
    SELECT c.upstream, c.session_hash FROM mcp_sessions c
      LEFT JOIN api_keys k ON k.id = c.key_id LEFT JOIN owners o ON o.id = k.owner_id
     WHERE ((c.session_hash, c.created_at) IN (SELECT * FROM unnest($4::bytea[], $7::timestamptz[]))
            OR $3 AND (k.id IS NULL OR k.status <> 'active' OR k.expires_at <= now() OR o.disabled_at IS NOT NULL
                       OR c.last_seen_at < now() - make_interval(secs => $6)))
       AND (c.claimed_until IS NULL OR c.claimed_until < now()) AND c.attempts < $5
     ORDER BY c.upstream, c.session_hash LIMIT 500 FOR UPDATE OF c SKIP LOCKED)
RETURNING s.upstream, s.session_hash, s.sealed_id, s.protocol_version, s.key_id
"""


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """Who made a session, and with which rights: state made upstream under rights since lost, or in other hands, must
    not be used. `owner`: of the key at that time; None: not written down."""

    key_id: KeyId
    owner: str | None
    grants: tuple[str, ...]

    def may_still(self, owner: Owner, grants: frozenset[str]) -> bool:
        """Whether the key, as it is now, may go on with the session."""
        return self.owner == owner.name and all(covers(grants, grant) for grant in self.grants)


@dataclass(frozen=True, slots=True)
class MadeSession:
    """A session in the table. Its id alone does not name it: an upstream may give an id again."""

    session_hash: bytes
    made_at: datetime
    made_by: SessionOwner


@dataclass(frozen=True, slots=True)
class DeadSession:
    """A session this instance has claimed to end."""

    upstream: str
    session_hash: bytes
    session_id: str = field(repr=False)
    protocol_version: str | None
    key_id: str


def _form_owner(row: Mapping[str, Any]) -> SessionOwner:
    return SessionOwner(KeyId(row["key_id"]), row["owner"], tuple(row["grants"]))


def _refuse_unknown() -> Refusal:
    return Refusal(Reason.SESSION_UNKNOWN, "There is no such session: it has ended, or never was.")


def hash_session_id(session_id: str) -> bytes:
    """What stands for a session id in the database: upstream ids are random, so a plain digest will do."""
    return hashlib.sha256(session_id.encode()).digest()


@dataclass(frozen=True, slots=True)
class HeldSession:
    """A session as lists show it: never its id, which opens it."""

    upstream: str
    protocol_version: str | None
    created_at: datetime
    last_seen_at: datetime
    secret_version: int


async def read_sessions(database: Database, key_id: str, limit: int) -> list[HeldSession]:
    """What a key holds upstream, the newest first. Raises DatabaseError."""
    rows = await database.fetch(
        "SELECT upstream, protocol_version, created_at, last_seen_at, secret_version FROM mcp_sessions"
        " WHERE key_id = $1 ORDER BY created_at DESC, session_hash LIMIT $2",
        key_id, limit,
    )  # fmt: skip
    return [HeldSession(**row) for row in rows]


class SessionStore:
    """The table `mcp_sessions`. `timer`: boot time, for the small memory of owners."""

    def __init__(
        self,
        database: Database,
        *,
        seal: Seal,
        instance: UUID,
        max_attempts: int,
        idle_seconds: float,
        timer: Callable[[], float],
    ) -> None:
        self._database = database
        self._seal = seal
        self._instance = instance
        self._max_attempts = max_attempts
        self._idle_seconds = idle_seconds
        self._used: set[tuple[str, bytes]] = set()
        self._owners: TTLCache[tuple[str, bytes], SessionOwner] = TTLCache(
            OWNER_MEMORY_SIZE, OWNER_MEMORY_SECONDS, timer
        )

    async def bind(self, upstream: str, session_id: str, principal: Principal, protocol_version: str | None) -> None:
        """Make the session this key's, before the client learns its id. Raises UpstreamError, UnavailableError."""
        if not _SESSION_ID.fullmatch(session_id):
            raise UpstreamError(Reason.UPSTREAM_PROTOCOL, "The upstream offered a session id that is not one.")
        session_hash = hash_session_id(session_id)
        if protocol_version is not None and VERSION.fullmatch(protocol_version) is None:
            protocol_version = None
        sealed = self._seal.seal(session_id.encode(), session_hash)
        grants = tuple(sorted(principal.grants))
        rows = await self._fetch(
            INSERT, upstream, session_hash, principal.key_id, principal.secret_version, principal.owner.name,
            grants, protocol_version, sealed,
        )  # fmt: skip
        if not rows:
            raise UpstreamError(
                Reason.UPSTREAM_SESSION_CONFLICT, "The upstream offered a session that already belongs to a key."
            )
        self._owners[upstream, session_hash] = SessionOwner(principal.key_id, principal.owner.name, grants)

    async def claim(self, upstream: str, session_id: str, principal: Principal) -> ClaimedSession:
        """The session, when it is this key's to use. Raises Refusal(SESSION_UNKNOWN), UnavailableError."""
        if not _SESSION_ID.fullmatch(session_id):
            raise _refuse_unknown()
        session_hash = hash_session_id(session_id)
        owner = self._owners.get((upstream, session_hash)) or await self._read_owner(upstream, session_hash)
        if owner is None or owner.key_id != principal.key_id or not owner.may_still(principal.owner, principal.grants):
            raise _refuse_unknown()
        self._used.add((upstream, session_hash))
        return ClaimedSession(session_hash, owner.grants)

    async def _read_owner(self, upstream: str, session_hash: bytes) -> SessionOwner | None:
        rows = await self._fetch(
            "SELECT key_id, owner, grants FROM mcp_sessions"
            " WHERE upstream = $1 AND session_hash = $2 AND claimed_until IS NULL",
            upstream, session_hash,
        )  # fmt: skip
        if not rows:
            return None
        owner = _form_owner(rows[0])
        self._owners[upstream, session_hash] = owner
        return owner

    async def forget(self, upstream: str, session_hash: bytes) -> None:
        """The session has ended upstream. Raises UnavailableError."""
        self._owners.pop((upstream, session_hash), None)
        await self._fetch(
            "DELETE FROM mcp_sessions WHERE upstream = $1 AND session_hash = $2", upstream, session_hash
        )  # fmt: skip

    async def forget_claimed(self, dead: DeadSession) -> None:
        """A session that this instance has claimed has ended upstream. What another has claimed since, or bound under
        the same id, stays. Raises UnavailableError."""
        self._owners.pop((dead.upstream, dead.session_hash), None)
        await self._fetch(
            "DELETE FROM mcp_sessions WHERE upstream = $1 AND session_hash = $2 AND claimed_by = $3",
            dead.upstream, dead.session_hash, self._instance,
        )  # fmt: skip

    async def list_made(self, key_ids: Sequence[KeyId]) -> list[MadeSession]:
        """Every session of these keys."""
        rows = await self._fetch(
            "SELECT key_id, session_hash, created_at, owner, grants FROM mcp_sessions WHERE key_id = ANY($1::text[])",
            list(key_ids),
        )  # fmt: skip
        return [MadeSession(row["session_hash"], row["created_at"], _form_owner(row)) for row in rows]

    async def list_keys(self) -> list[KeyId]:
        """Every key that has a session."""
        return [KeyId(row["key_id"]) for row in await self._fetch("SELECT DISTINCT key_id FROM mcp_sessions")]

    async def note_used(self, sessions: Collection[tuple[str, bytes]]) -> None:
        """Write down, in one statement, that these and those claimed since the last time are in use."""
        used, self._used = self._used | set(sessions), set()
        upstreams, hashes = [upstream for upstream, _ in used], [session_hash for _, session_hash in used]
        await self._fetch(
            "UPDATE mcp_sessions s SET last_seen_at = now() FROM unnest($1::text[], $2::bytea[]) AS u (upstream, hash)"
            " WHERE s.upstream = u.upstream AND s.session_hash = u.hash",
            upstreams, hashes,
        )  # fmt: skip

    async def claim_dead(self, *, sweep: bool, also: Sequence[MadeSession] = ()) -> list[DeadSession]:
        """Claim the sessions named in `also`; in a sweep, every session that nobody may use, or has used for long.

        One instance gets each; a claim lapses, so that a crash half way leaves the session to the next.
        """
        rows = await self._fetch(
            CLAIM_DEAD, self._instance, CLAIM_SECONDS, sweep, [one.session_hash for one in also], self._max_attempts,
            self._idle_seconds, [one.made_at for one in also],
        )  # fmt: skip
        for row in rows:
            self._owners.pop((row["upstream"], row["session_hash"]), None)
        return [dead for row in rows if (dead := self._unseal(row)) is not None]

    def _unseal(self, row: Mapping[str, Any]) -> DeadSession | None:
        try:
            session_id = self._seal.unseal(row["sealed_id"], row["session_hash"]).decode()
        except SealError:
            log.warning("session_sealed_under_another_secret", upstream=row["upstream"], key_id=row["key_id"],
                        mend="give every instance the same AEGIS_SECRET_KEY, and keep it across restarts")  # fmt: skip
            return None
        return DeadSession(row["upstream"], row["session_hash"], session_id, row["protocol_version"], row["key_id"])

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        try:
            return await self._database.fetch(query, *arguments)
        except DatabaseError as error:
            raise UnavailableError(
                Reason.STATE_UNKNOWN, "Sessions cannot be read right now.", retry_after_seconds=1
            ) from error
