"""What was gathered in memory goes to the database now and then, each batch exactly once.  [io]

In go rows, taken from whoever gathers them, and the statement that writes them; out comes nothing but the writing. What
the rows are about is not known here; whatever in them looks like a credential is blotted out, as in the log: clients
choose names of things, and their own.

A batch that failed may have been committed all the same, when only the answer was lost. So it is kept as it is, and
written again under its number, which the database remembers in the same transaction: what is in already is not written
twice, in whatever order the attempts arrive. Meanwhile others gather on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

from proxy.database import Database
from proxy.errors import DatabaseError
from proxy.logs import blot, get_logger, has_signs

log = get_logger("flushing")

Rows = Sequence[Mapping[str, object]]

MAX_ROWS: Final = 2_000  # of a batch: 1.5 ms of the event loop, and 50 ms of the database (measured)
WRITE_SECONDS: Final = 10.0  # no request waits for it, so it has more time than theirs
CLOSE_SECONDS: Final = 3.0  # how long a shutdown waits for a database that is away
RETRY_SECONDS: Final = 0.2
SWEEP_EVERY: Final = 360  # flushes: an hour, by default
SWEPT_AT_ONCE: Final = 10_000
# A row here comes from a batch that is not in yet; a writer's statement begins with `FROM fresh`.
FRESH = """
WITH fresh AS (
    INSERT INTO flushes AS f (instance, subject, number) VALUES ($1, $2, $3)
    ON CONFLICT (instance, subject) DO UPDATE SET number = excluded.number, at = now() WHERE f.number < excluded.number
    RETURNING true)
"""
# No batch is in doubt for that long.
FORGET = "DELETE FROM flushes WHERE at < now() - interval '30 days'"


@dataclass(frozen=True, slots=True)
class Flusher:
    """What all who gather have in common: where it goes, whose it is, and how often."""

    database: Database
    instance: UUID
    flush_seconds: float
    write_seconds: float = WRITE_SECONDS


class Flushing:
    """`take(limit)` gives up to so many rows away, for good; `write` reads them as `jsonb_to_recordset($4::jsonb)`.

    `sweep` is run now and then to delete what is old, at most $1 rows, of which it returns the `count`.
    """

    def __init__(
        self, flusher: Flusher, take: Callable[[int], Rows], *, subject: str, write: str, sweep: str | None = None
    ) -> None:
        self._database = flusher.database
        self._take = take
        self._write_statement = FRESH + write
        self._sweep_statement = sweep
        self._instance = flusher.instance
        self._subject = subject
        self._flush_seconds = flusher.flush_seconds
        self._write_seconds = flusher.write_seconds
        self._number = 0
        self._batch: str | None = None  # not known to be in
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Write every `flush_seconds`, until cancelled."""
        while True:
            await self._sweep()
            for _ in range(SWEEP_EVERY):
                await asyncio.sleep(self._flush_seconds)
                await self.flush()

    async def flush(self) -> bool:
        """Write what there is. False: the database failed, and what it may not have is kept."""
        async with self._writing:
            more = True
            while self._batch is not None or more:
                if self._batch is None:
                    rows = self._take(MAX_ROWS)
                    more = len(rows) == MAX_ROWS  # what comes while this one is written waits for the next flush
                    if not rows:
                        break
                    self._number += 1
                    self._batch = _form_batch(rows)
                if not await self._write(self._batch):
                    return False
                self._batch = None
            return True

    async def _write(self, batch: str) -> bool:
        arguments = (self._instance, self._subject, self._number, batch)
        try:
            await self._database.transact(
                lambda connection: connection.execute(self._write_statement, *arguments, timeout=self._write_seconds),
                atomic=False,
                timeout_seconds=self._write_seconds,
            )
        except DatabaseError as error:
            log.warning("flush_failed", subject=self._subject, error=str(error))
            return False
        return True

    async def _sweep(self) -> None:
        try:
            await self._database.fetch(FORGET)
            swept = SWEPT_AT_ONCE if self._sweep_statement is not None else 0
            while swept == SWEPT_AT_ONCE and self._sweep_statement is not None:
                swept = (await self._database.fetch(self._sweep_statement, SWEPT_AT_ONCE))[0]["count"]
        except DatabaseError as error:
            log.warning("sweep_failed", subject=self._subject, error=str(error))

    async def aclose(self) -> None:
        """Write the rest, while the time lasts. Call it when nothing is gathered any more and `run` has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while True:
                    if await self.flush():
                        return
                    await asyncio.sleep(RETRY_SECONDS)
        log.error("flush_given_up", subject=self._subject, number=self._number)


def _form_batch(rows: Rows) -> str:
    """Most hold nothing to blot out, which one search tells (1.5 ms for 2,000 rows with it; in each, 6)."""
    whole = orjson.dumps(rows)
    if has_signs(whole):
        whole = b"[" + b",".join(blot(orjson.dumps(row)) for row in rows) + b"]"
    return whole.decode()
