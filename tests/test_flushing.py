"""Batches: each is written exactly once, whatever becomes of the answers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar
from uuid import UUID, uuid4

import pytest

from proxy.database import Database
from proxy.flushing import FRESH, MAX_ROWS, Flusher, Flushing, Rows
from proxy.keys.minting import draw_token
from proxy.logs import configure_logging
from tests.faults.relay import Relay, run_relay
from tests.staging import GUARD_SECONDS

T = TypeVar("T")
WRITE = """
INSERT INTO written (word, count) SELECT r.word, r.count
  FROM fresh, jsonb_to_recordset($4::jsonb) AS r (word text, count integer)
"""
SWEEP = "WITH gone AS (DELETE FROM written WHERE count < 0 AND $1 > 0 RETURNING 1) SELECT count(*) FROM gone"
PATIENCE = 0.3
"""Seconds a write may take where the network is broken on purpose."""


class Basket:
    """Gathers words, and gives them away."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)
        self.taken = asyncio.Event()

    def take(self, limit: int) -> Rows:
        given, self.words = self.words[:limit], self.words[limit:]
        self.taken.set()
        return [{"word": word, "count": 1} for word in given]


def form_flushing(
    database: Database,
    basket: Basket,
    *,
    instance: UUID | None = None,
    subject: str = "words",
    flush_seconds: float = 3600,
    write_seconds: float = GUARD_SECONDS,
) -> Flushing:
    flusher = Flusher(database, instance or uuid4(), flush_seconds, write_seconds)
    return Flushing(flusher, basket.take, subject=subject, write=WRITE, sweep=SWEEP)


@pytest.fixture(autouse=True)
async def _table(database: Database) -> None:
    await database.fetch("CREATE TABLE written (word text NOT NULL, count integer NOT NULL)")


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Relay]:
    async with run_relay(database_url) as relay:
        yield relay


@pytest.fixture
async def relayed(relay: Relay) -> AsyncIterator[Database]:
    """A way to the database that can be broken."""
    async with Database.open(
        relay.url, min_size=1, max_size=1, connect_timeout_seconds=PATIENCE, query_timeout_seconds=PATIENCE
    ) as database:
        yield database


async def read_words(database: Database) -> list[str]:
    return [row["word"] for row in await database.fetch("SELECT word FROM written ORDER BY word")]


async def wait_words(database: Database, count: int) -> list[str]:
    async with asyncio.timeout(GUARD_SECONDS):
        while len(words := await read_words(database)) < count:
            await asyncio.sleep(0.01)
    return words


async def in_time(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(GUARD_SECONDS):
        return await awaitable


async def test_what_was_gathered_is_written_once(database: Database) -> None:
    basket = Basket("one", "two")
    flushing = form_flushing(database, basket)
    assert await flushing.flush()
    assert await flushing.flush()
    basket.words = ["three"]
    assert await flushing.flush()
    assert await read_words(database) == ["one", "three", "two"]


async def test_nothing_gathered_writes_nothing(database: Database) -> None:
    assert await form_flushing(database, Basket()).flush()
    assert await database.fetch("SELECT FROM flushes") == []


async def test_what_looks_like_a_credential_is_not_written(database: Database) -> None:
    token = draw_token().text
    flushing = form_flushing(database, Basket("agent/1.0", token, f"Bearer {token}", "the \\ end"))
    assert await flushing.flush()
    words = [row["word"] for row in await database.fetch("SELECT word FROM written")]
    assert words == ["agent/1.0", f"{token[:19]}…", "Bearer …", "the \\ end"]


async def test_more_than_a_batch_is_written_in_several(database: Database) -> None:
    basket = Basket(*(f"{number:05}" for number in range(2 * MAX_ROWS + 1)))
    words = list(basket.words)
    assert await form_flushing(database, basket).flush()
    assert await read_words(database) == words
    assert [row["number"] for row in await database.fetch("SELECT number FROM flushes")] == [3]


async def test_a_batch_whose_commit_was_not_answered_is_not_written_again(
    relay: Relay, relayed: Database, database: Database
) -> None:
    basket = Basket("before")
    flushing = form_flushing(relayed, basket, write_seconds=PATIENCE)
    assert await flushing.flush()  # what is prepared now needs one more message only
    basket.words = ["one"]
    relay.freeze(onward=False)
    assert not await in_time(flushing.flush())
    assert await wait_words(database, 2) == ["before", "one"]
    basket.words = ["two"]
    relay.heal()
    async with asyncio.timeout(GUARD_SECONDS):
        while not await flushing.flush():
            await asyncio.sleep(0)
    assert await read_words(database) == ["before", "one", "two"]


async def test_a_batch_that_never_arrived_is_written_later(relay: Relay, relayed: Database, database: Database) -> None:
    flushing = form_flushing(relayed, Basket("one"), write_seconds=PATIENCE)
    relay.freeze()
    assert not await in_time(flushing.flush())
    assert await read_words(database) == []
    relay.cut()
    relay.heal()
    async with asyncio.timeout(GUARD_SECONDS):
        while not await flushing.flush():
            await asyncio.sleep(0)
    assert await read_words(database) == ["one"]


async def test_an_attempt_that_arrives_after_later_batches_writes_nothing(database: Database) -> None:
    instance, basket = uuid4(), Basket("one")
    flushing = form_flushing(database, basket, instance=instance)
    await flushing.flush()
    basket.words = ["two"]
    await flushing.flush()
    for number in (1, 2):
        await database.fetch(FRESH + WRITE, instance, "words", number, '[{"word": "late", "count": 1}]')
    assert await read_words(database) == ["one", "two"]


async def test_two_attempts_at_once_write_once(database: Database) -> None:
    arguments = (uuid4(), "words", 1, '[{"word": "one", "count": 1}]')
    await asyncio.gather(*(database.fetch(FRESH + WRITE, *arguments) for _ in range(4)))
    assert await read_words(database) == ["one"]


async def test_instances_and_subjects_are_numbered_apart(database: Database) -> None:
    instance = uuid4()
    await form_flushing(database, Basket("one"), instance=instance).flush()
    await form_flushing(database, Basket("two"), instance=instance, subject="others").flush()
    await form_flushing(database, Basket("three")).flush()
    assert await read_words(database) == ["one", "three", "two"]


async def test_a_loop_cancelled_while_it_writes_loses_and_repeats_nothing(
    relay: Relay, relayed: Database, database: Database
) -> None:
    basket = Basket("one")
    flushing = form_flushing(relayed, basket, flush_seconds=0.001)
    running = asyncio.create_task(flushing.run())
    assert await wait_words(database, 1) == ["one"]
    basket.taken.clear()
    await in_time(basket.taken.wait())
    relay.freeze(onward=False)
    basket.words = ["two"]
    assert await wait_words(database, 2) == ["one", "two"]  # committed, and not answered
    basket.words = ["three"]
    running.cancel()
    await asyncio.wait({running})
    relay.heal()
    await in_time(flushing.aclose())
    assert await read_words(database) == ["one", "three", "two"]


async def test_closing_waits_for_a_database_that_comes_back(
    relay: Relay, relayed: Database, database: Database
) -> None:
    flushing = form_flushing(relayed, Basket("one"), write_seconds=PATIENCE)
    relay.freeze()
    closing = asyncio.create_task(flushing.aclose())
    done, _ = await asyncio.wait({closing}, timeout=2 * PATIENCE)
    assert not done
    relay.cut()
    relay.heal()
    await in_time(closing)
    assert await read_words(database) == ["one"]


async def test_closing_gives_up_on_a_database_that_stays_away_and_says_so(relay: Relay, relayed: Database) -> None:
    heard = io.BytesIO()
    configure_logging("error", heard)
    relay.freeze()
    await in_time(form_flushing(relayed, Basket("one")).aclose())
    await asyncio.sleep(0)  # lines of one turn of the loop leave together
    assert b"flush_given_up" in heard.getvalue()


async def test_what_is_old_is_swept_when_the_loop_begins(database: Database) -> None:
    await database.fetch("INSERT INTO written VALUES ('old', -1), ('kept', 1)")
    await database.fetch("INSERT INTO flushes VALUES (gen_random_uuid(), 'words', 7, now() - interval '31 days')")
    running = asyncio.create_task(form_flushing(database, Basket("new"), flush_seconds=0.01).run())
    async with asyncio.timeout(GUARD_SECONDS):
        while "new" not in await read_words(database):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert await read_words(database) == ["kept", "new"]
    assert [row["number"] for row in await database.fetch("SELECT number FROM flushes")] == [1]
