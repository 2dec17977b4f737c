"""This instance's signing key: made, published, changed in time; and everybody's public keys in one list.  [io]

In go a database and the beat, out come the key to sign with now and the JWKS (RFC 7517) of every live instance. Only
public halves leave this room. What is signed is not known here.

A key signs only after verifiers had time to learn of it: they fetch the list when they meet a key they do not know,
but not twice within a while (30 s in the platform's). It stays published until nothing it signed can be valid. An
instance that cannot reach the database goes on signing with the key it has, which others keep publishing for
`keep_seconds` after its last beat; where `database_loss_grace_seconds` is longer than that, verifiers that ask another
instance refuse it until the database is back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from proxy.assertions import Algorithm, SigningKey, make_signing_key, parse_public_jwk
from proxy.clock import Clock
from proxy.database import Database
from proxy.errors import DatabaseError, Reason, UnavailableError
from proxy.logs import get_logger
from proxy.outages import Outage

log = get_logger("signing_keys")

BEAT_SECONDS = 10.0
SILENT_BEATS = 3  # after so many an instance is no company any more
DEAD_BEATS = 6  # after so many, and not within a minute, it signs no more
MARGIN_SECONDS = 60.0  # by which a verifier's clock and leeway may prolong what was signed
READ_SECONDS = 1.0  # verifiers' questions cost the database no more than one statement in that time
MAX_PUBLISHED = 100  # keys; an instance that restarts every other second leaves that many behind
MAX_JWK_BYTES = 4096  # an RSA key of 4096 bits has 800
MAX_LOGGED = 10
# A row says again and again what its instance knows to be true. Where it was gone, stale or changed meanwhile, its key
# was not published, and `created_at` begins anew.
REGISTER = """
INSERT INTO signing_keys (kid, instance, jwk, keep_seconds)
SELECT k.kid, $1, k.jwk, $2 FROM unnest($3::text[], $4::jsonb[]) AS k (kid, jwk)
ON CONFLICT (kid) DO UPDATE
   SET instance = excluded.instance, jwk = excluded.jwk, keep_seconds = excluded.keep_seconds,
       seen_at = clock_timestamp(),
       created_at = CASE WHEN signing_keys.jwk = excluded.jwk AND signing_keys.seen_at
                              > clock_timestamp() - make_interval(secs => signing_keys.keep_seconds)
                         THEN signing_keys.created_at ELSE clock_timestamp() END
RETURNING kid, created_at, greatest(extract(epoch FROM clock_timestamp() - created_at), 0)::float8 AS age_seconds,
          EXISTS (SELECT FROM signing_keys o
                   WHERE o.instance <> $1 AND o.seen_at > clock_timestamp() - make_interval(secs => $5)) AS accompanied
"""
READ = """
SELECT kid, CASE WHEN octet_length(jwk::text) <= $1 THEN jwk::text END AS jwk
  FROM signing_keys
 WHERE seen_at > clock_timestamp() - make_interval(secs => keep_seconds)
 ORDER BY seen_at DESC, kid LIMIT $2
"""
# What no verifier needs any more: rows of instances that are gone, and our own that are named.
FORGET = """
DELETE FROM signing_keys WHERE seen_at <= clock_timestamp() - make_interval(secs => keep_seconds) OR kid = ANY($1)
"""
LEAVE = "UPDATE signing_keys SET instance = NULL WHERE instance = $1"


@dataclass(slots=True)
class _Own:
    """A key of this instance. Boot times; `published_at`: since when its row stands, as far as we have seen."""

    key: SigningKey
    created_at: datetime | None = None
    published_at: float = math.inf
    retired_at: float = math.inf


class SigningKeys:
    """`start` once, then `run` beside everything else. `fixed`: the operator's own key, which is never changed."""

    def __init__(
        self,
        database: Database,
        *,
        instance: UUID,
        algorithm: Algorithm,
        fixed: SigningKey | None,
        rotate_seconds: float,
        publish_ahead_seconds: float,
        lifetime_seconds: float,
        clock: Clock,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._database = database
        self._instance = instance
        self._algorithm = algorithm
        self._fixed = fixed
        self._rotate_seconds = rotate_seconds
        self._publish_ahead_seconds = publish_ahead_seconds
        self._clock = clock
        self._beat_seconds = beat_seconds
        self._retire_seconds = lifetime_seconds + MARGIN_SECONDS
        self._keep_seconds = lifetime_seconds + max(MARGIN_SECONDS, DEAD_BEATS * beat_seconds)
        self._signing: _Own | None = None
        self._signing_since = math.inf
        self._next: _Own | None = None
        self._retired: list[_Own] = []
        self._new_until = -math.inf
        self._found: Mapping[str, Mapping[str, str]] = {}
        self._unusable: frozenset[str] = frozenset()
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self._beats = Outage("signing_keys", "signing_keys_beat")
        self._reads = Outage("signing_keys", "signing_keys_read")

    async def start(self) -> None:
        """Publish the first key. Raises DatabaseError."""
        first = _Own(self._fixed or await self._make())
        if await self._register([first]):
            self._new_until = first.published_at + self._publish_ahead_seconds
        self._signing, self._signing_since = first, self._clock.boot()
        log.info("signing_key_registered", kid=first.key.kid, algorithm=first.key.algorithm)

    def current(self) -> SigningKey:
        """The key to sign with now: one that is published. Raises UnavailableError before there is any."""
        if self._signing is None:
            raise UnavailableError(Reason.STATE_UNKNOWN, "No signing key is published yet.")
        return self._signing.key

    def find_fault(self) -> str | None:
        """Why requests should still go to other instances."""
        new = self._clock.boot() < self._new_until
        return "its signing key is too new for verifiers that cache" if new else None

    async def run(self) -> None:
        """Beat until cancelled; then say that this instance has left."""
        try:
            while True:
                await self.beat()
                await asyncio.sleep(self._beat_seconds)
        finally:
            await self._leave()

    async def beat(self) -> None:
        """Say what is still ours, change the key when its time has come, forget what nobody needs."""
        forgotten = self._drop_expired()
        if self._is_change_due():
            self._next = _Own(await self._make())
        try:
            await self._register(self._list_own())
            self._change()
            await self._database.fetch(FORGET, forgotten)
        except DatabaseError as error:
            self._beats.begin(error)
        else:
            self._beats.end()

    def _drop_expired(self) -> list[str]:
        """Keys of which nothing valid is left. Should their rows not be deleted now, they grow stale by themselves."""
        now = self._clock.boot()
        expired = [own for own in self._retired if own.retired_at + self._retire_seconds <= now]
        self._retired = [own for own in self._retired if own not in expired]
        return [own.key.kid for own in expired]

    def _is_change_due(self) -> bool:
        if self._fixed is not None or self._next is not None:
            return False
        return self._clock.boot() >= self._signing_since + self._rotate_seconds - self._publish_ahead_seconds

    def _change(self) -> None:
        """Sign with the next key once it has stood long enough."""
        now = self._clock.boot()
        if self._next is None or self._signing is None or self._next.published_at + self._publish_ahead_seconds > now:
            return
        self._signing.retired_at = now
        self._retired.append(self._signing)
        self._signing, self._signing_since, self._next = self._next, now, None
        log.info("signing_key_changed", kid=self._signing.key.kid)

    def _list_own(self) -> list[_Own]:
        return [own for own in (self._signing, self._next, *self._retired) if own is not None]

    async def _make(self) -> SigningKey:
        return await asyncio.to_thread(make_signing_key, self._algorithm)

    async def _register(self, owns: list[_Own]) -> bool:
        """Have these published; whether other instances were there before. Raises DatabaseError."""
        kids = [own.key.kid for own in owns]
        jwks = [orjson.dumps(own.key.public_jwk).decode() for own in owns]
        rows = await self._database.fetch(
            REGISTER, self._instance, self._keep_seconds, kids, jwks, SILENT_BEATS * self._beat_seconds
        )
        by_kid = {row["kid"]: row for row in rows}
        for own in owns:
            row = by_kid[own.key.kid]
            if row["created_at"] != own.created_at:
                own.created_at, own.published_at = row["created_at"], self._clock.boot() - row["age_seconds"]
        return any(row["accompanied"] for row in rows)

    async def _leave(self) -> None:
        """What was signed is still to be verified, so the rows stay; a successor need not wait for company."""
        try:
            await self._database.fetch(LEAVE, self._instance)
        except DatabaseError as error:
            self._beats.begin(error)

    async def read_published(self) -> bytes:
        """The JWKS: our own keys and those of every live instance, as of a second ago at most while the database
        answers, and as last seen while it does not."""
        async with self._reading:
            if self._clock.boot() >= self._read_at + READ_SECONDS:
                await self._read()
        own = {own.key.kid: dict(own.key.public_jwk) for own in self._list_own()}
        return orjson.dumps({"keys": list({**own, **self._found}.values())})

    async def _read(self) -> None:
        try:
            rows = await self._database.fetch(READ, MAX_JWK_BYTES, MAX_PUBLISHED)
        except DatabaseError as error:
            self._reads.begin(error)
        else:
            self._reads.end()
            self._found = self._parse(rows)
        self._read_at = self._clock.boot()

    def _parse(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
        """Only what is a public key under its own id; anything else is told once."""
        found, unusable = {}, set()
        for row in rows:
            try:
                jwk = parse_public_jwk(row["jwk"] or "")
                if jwk["kid"] != row["kid"]:
                    raise ValueError("under another key's id")
                found[jwk["kid"]] = jwk
            except ValueError:
                unusable.add(row["kid"][:64])
        if unusable - self._unusable:
            log.warning("signing_keys_unusable", kids=sorted(unusable)[:MAX_LOGGED], count=len(unusable))
        self._unusable = frozenset(unusable)
        return found
