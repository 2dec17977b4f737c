"""Receipts: which instances run, and what each did when a key died.  [io]

In go the dead keys this instance has just ended, out come rows that others read; the other way round, whoever revoked
a key waits here until every living instance has confirmed. *Confirmed* means: it refuses the key locally and has
stopped relaying for it. Alive is judged by the database's clock; an instance silent beyond its own bound is *fenced*:
it has closed itself, unconfirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from proxy.database import Database
from proxy.errors import DatabaseError
from proxy.identity import KeyId
from proxy.logs import get_logger

log = get_logger("receipts")

WAIT_SECONDS = 5.0
POLL_SECONDS = 0.02
MAX_LOGGED_KEYS = 10
REGISTER = """
INSERT INTO instances (id, version, bound_seconds) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
# What nobody will ask about again. Revoked keys stay listed for 90 days.
FORGET = """
WITH gone AS (DELETE FROM instances WHERE seen_at < now() - interval '1 day')
DELETE FROM revocation_receipts WHERE confirmed_at < now() - interval '90 days'
"""
# The first word stands: later news of the same key only adds what it still ended.
CONFIRM = """
INSERT INTO revocation_receipts (key_id, instance, streams, calls)
SELECT c.key_id, $1, c.streams, c.calls
  FROM unnest($2::text[], $3::integer[], $4::integer[]) AS c (key_id, streams, calls)
ON CONFLICT (key_id, instance) DO UPDATE
   SET streams = revocation_receipts.streams + excluded.streams, calls = revocation_receipts.calls + excluded.calls
RETURNING (SELECT extract(epoch FROM confirmed_at - k.revoked_at)::float8 * 1000 FROM api_keys k WHERE k.id = key_id)
          AS milliseconds
"""
# Every instance that may have been alive when the key was revoked.
READ = """
SELECT i.id::text AS instance, coalesce(r.streams, 0) AS streams, coalesce(r.calls, 0) AS calls,
       extract(epoch FROM r.confirmed_at - k.revoked_at)::float8 * 1000 AS milliseconds,
       CASE WHEN r.confirmed_at IS NOT NULL THEN 'confirmed'
            WHEN i.seen_at < clock_timestamp() - make_interval(secs => i.bound_seconds) THEN 'fenced'
            ELSE 'unconfirmed' END AS state
  FROM api_keys k
  JOIN instances i ON i.seen_at > k.revoked_at - make_interval(secs => i.bound_seconds)
  LEFT JOIN revocation_receipts r ON r.key_id = k.id AND r.instance = i.id
 WHERE k.id = $1
 ORDER BY i.started_at, i.id
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """What this instance ended when it learnt that a key is dead."""

    key_id: KeyId
    streams: int
    calls: int


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One instance's word. `milliseconds` after the revocation, by the database's clock; None until confirmed."""

    instance: str
    state: Literal["confirmed", "unconfirmed", "fenced"]
    milliseconds: float | None
    streams: int
    calls: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a revocation, on every instance that may have been alive."""

    instances: tuple[Confirmation, ...]

    @property
    def confirmed(self) -> bool:
        return all(instance.state == "confirmed" for instance in self.instances)

    @property
    def settled(self) -> bool:
        """Nothing more is to be waited for."""
        return all(instance.state != "unconfirmed" for instance in self.instances)

    @property
    def milliseconds(self) -> float | None:
        """When the last of those that confirmed did."""
        return max((one.milliseconds for one in self.instances if one.milliseconds is not None), default=None)


class Receipts:
    """This instance's part: being seen, and giving its word."""

    def __init__(self, database: Database, *, instance: UUID, version: str, bound_seconds: float) -> None:
        self._database = database
        self._instance = instance
        self._version = version
        self._bound_seconds = bound_seconds
        self._writing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Be seen three times within the bound, until cancelled; then be gone."""
        try:
            await self._try(FORGET)
            while True:
                await self._try(REGISTER, self._instance, self._version, self._bound_seconds)
                await asyncio.sleep(self._bound_seconds / 3)
        finally:
            await self._try("DELETE FROM instances WHERE id = $1", self._instance)

    def confirm(self, ended: Sequence[Ended]) -> None:
        """Write down, beside everything else, that these keys are refused here and that nothing flows for them."""
        task = asyncio.create_task(self._confirm(ended))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _confirm(self, ended: Sequence[Ended]) -> None:
        key_ids, streams, calls = zip(*((one.key_id, one.streams, one.calls) for one in ended), strict=True)
        rows = await self._try(CONFIRM, self._instance, key_ids, streams, calls)
        if rows:
            log.info(
                "revocation_confirmed",
                key_ids=key_ids[:MAX_LOGGED_KEYS],
                keys=len(key_ids),
                streams=sum(streams),
                calls=sum(calls),
                milliseconds=max(
                    (row["milliseconds"] for row in rows if row["milliseconds"] is not None), default=None
                ),
            )

    async def _try(self, statement: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        """A word that could not be written is reported by its absence."""
        try:
            return await self._database.fetch(statement, *arguments)
        except DatabaseError as error:
            log.warning("receipt_not_written", error=str(error))
            return []

    async def aclose(self) -> None:
        """Let the words under way be written."""
        if self._writing:
            await asyncio.wait(self._writing)


async def read_receipt(database: Database, key_id: str) -> Receipt:
    """What is known so far. Raises DatabaseError."""
    return Receipt(tuple(Confirmation(**row) for row in await database.fetch(READ, key_id)))


async def wait_receipt(database: Database, key_id: str, *, timeout_seconds: float = WAIT_SECONDS) -> Receipt:
    """Ask again until every instance has confirmed or is fenced, or the time is up. Raises DatabaseError."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + timeout_seconds
    receipt = await read_receipt(database, key_id)
    while not receipt.settled and loop.time() < latest:
        await asyncio.sleep(POLL_SECONDS)
        receipt = await read_receipt(database, key_id)
    return receipt
