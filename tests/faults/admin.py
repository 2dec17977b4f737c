"""Whoever changes keys while something fails: by SQL, on a path of their own, writing down what was asked and answered.

The stamps are what the bound counts from: `Changing` before a statement is sent, `Changed` after its commit returned. A
statement that fails may have been committed all the same, so it is written down as failed and asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import asyncpg

from proxy.database import Database
from proxy.errors import DatabaseError
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintedKey, MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.policy import Policy, load_policy
from proxy.settings import find_shipped
from tests.faults.journal import Changed, ChangeFailed, Changing, Confirmed, Final, KeyState
from tests.faults.load import WORKFLOWS, Journal, boot
from tests.faults.processes import GUARD_SECONDS

SCOPES = frozenset({*(f"workflow:run:{name}" for name in WORKFLOWS), "execution:read"})
NARROWED = SCOPES - {f"workflow:run:{WORKFLOWS[-1]}"}
ACTIVE = KeyState("active", SCOPES)
REVOKED = replace(ACTIVE, status="revoked")
ENDS: Sequence[KeyState] = (
    REVOKED,
    replace(ACTIVE, status="disabled"),
    replace(ACTIVE, status="expired"),
    KeyState("active", NARROWED),
)
"""What may become of a key, a revocation first."""

CHANGE = """
UPDATE api_keys
   SET status = CASE WHEN $2 = 'expired' THEN 'active' ELSE $2 END,
       expires_at = CASE WHEN $2 = 'expired' THEN now() - interval '1 second' END,
       scopes = $3
 WHERE id = $1
"""
READ = """
SELECT k.id, CASE WHEN k.status = 'active' AND k.expires_at <= now() THEN 'expired' ELSE k.status END AS status,
       k.scopes, o.tier
  FROM api_keys k JOIN owners o ON o.id = k.owner_id WHERE k.id = ANY($1::text[])
"""
CROWD = """
INSERT INTO api_keys (id, owner_id, name, scopes, created_by)
SELECT 'Crowd' || n, o.id, 'crowd ' || n, ARRAY['execution:read'], 'bench'
  FROM (SELECT lpad(nextval('aegis_versions')::text, 7, '0') FROM generate_series(1, $1::int)) s (n),
       (SELECT id FROM owners LIMIT 1) o
RETURNING id
"""
CONNECTIONS = 8
FAILURES = (DatabaseError, asyncpg.InternalClientError)
"""The second comes of asking a connection that was told to go and does not know it yet."""
RETRY_SECONDS = 0.05
RECEIPTS_SECONDS = 0.05


@dataclass(slots=True)
class Administrator:
    """Changes keys on `database`, a path that is not the proxies'."""

    database: Database
    policy: Policy
    hasher: Hasher
    journal: Journal
    dice: random.Random
    instances: dict[str, str] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def mint(self, number: int) -> list[MintedKey]:
        """That many active keys."""
        return [await self._mint_one() for _ in range(number)]

    async def _mint_one(self) -> MintedKey:
        request = MintRequest(name=f"key {next(self._numbers)}", owner="ada", actor="bench", scopes=sorted(SCOPES))
        changing_at = boot()
        key = await mint(request, policy=self.policy, store=KeyStore(self.database), hasher=self.hasher)
        self.journal.note(Changing(changing_at, key.summary.id, ACTIVE))
        self.journal.note(Changed(boot(), key.summary.id, ACTIVE))
        return key

    async def mint_crowd(self, number: int) -> list[str]:
        """The ids of that many keys that nobody holds."""
        rows = await self.database.transact(
            lambda connection: connection.fetch(CROWD, number), timeout_seconds=GUARD_SECONDS
        )
        return [row["id"] for row in rows]

    async def change(self, key_id: str, state: KeyState) -> bool:
        """Ask once; whether it was acknowledged."""
        self.journal.note(Changing(boot(), key_id, state))
        try:
            await self.database.fetch(CHANGE, key_id, state.status, sorted(state.scopes))
        except FAILURES as error:
            self.journal.note(ChangeFailed(boot(), key_id, state, str(error)))
            return False
        self.journal.note(Changed(boot(), key_id, state))
        return True

    async def insist(self, key_id: str, state: KeyState) -> None:
        """Ask until it is acknowledged."""
        while not await self.change(key_id, state):
            await asyncio.sleep(RETRY_SECONDS)

    async def end_keys(self, keys: Collection[MintedKey], over_seconds: float = 0.0) -> None:
        """One after another, at random instants: the first is revoked, the others meet what the dice say."""
        for number, key in enumerate(keys):
            await asyncio.sleep(self.dice.uniform(0.0, 2 * over_seconds / len(keys)))
            await self.insist(key.summary.id, self.dice.choice(ENDS) if number else REVOKED)

    async def watch_receipts(self) -> None:
        """Write down every confirmation once it can be read, until cancelled."""
        known: set[tuple[str, str]] = set()
        while True:
            with suppress(*FAILURES):
                rows = await self.database.fetch("SELECT key_id, instance::text FROM revocation_receipts")
                for row in rows:
                    self._note_receipt(row["key_id"], row["instance"], known)
            await asyncio.sleep(RECEIPTS_SECONDS)

    def _note_receipt(self, key_id: str, instance: str, known: set[tuple[str, str]]) -> None:
        if (key_id, instance) not in known and instance in self.instances:
            known.add((key_id, instance))
            self.journal.note(Confirmed(boot(), key_id, self.instances[instance]))

    async def note_finals(self, keys: Collection[MintedKey]) -> None:
        """What became of these keys."""
        for row in await self.database.fetch(READ, [key.summary.id for key in keys]):
            state = KeyState(row["status"], frozenset(row["scopes"]), row["tier"])
            self.journal.note(Final(boot(), row["id"], state))


def open_admin_database(url: str) -> AbstractAsyncContextManager[Database]:
    """With more patience than a proxy has."""
    return Database.open(url, min_size=0, max_size=CONNECTIONS, connect_timeout_seconds=5, query_timeout_seconds=1)


@asynccontextmanager
async def open_administrator(url: str, journal: Journal, dice: random.Random) -> AsyncIterator[Administrator]:
    """An administrator with connections of their own, who waits for a lock no longer than for anything else."""
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=1, timeout_seconds=30)
    try:
        async with open_admin_database(url) as database:
            yield Administrator(database, load_policy(find_shipped("policy.yaml")), hasher, journal, dice)
    finally:
        hasher.close()
