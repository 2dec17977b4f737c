"""Look-ups by digest: gathered, bounded, and remembered only while no news is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from proxy.errors import DatabaseError
from proxy.identity import KeyId
from proxy.keys.digests import Digests
from proxy.news import EVERYTHING, News, NewsLog
from tests.clocks import ManualClock
from tests.records import form_key_id
from tests.staging import GUARD_SECONDS, Stage

KEY = form_key_id(1)
KNOWN, UNKNOWN = b"k" * 32, b"u" * 32


class Desk:
    """What the database holds, and every statement it was asked."""

    def __init__(self) -> None:
        self.rows = {KNOWN: KEY}
        self.asked: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def find_digests(self, digests: Sequence[bytes]) -> dict[bytes, KeyId]:
        self.asked.append(sorted(digests))
        await self.gate.wait()
        return {digest: self.rows[digest] for digest in digests if digest in self.rows}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def news() -> NewsLog:
    return NewsLog()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def digests(desk: Desk, news: NewsLog, clock: ManualClock) -> Digests:
    return Digests(desk.find_digests, news, max_unknown=2, unknown_seconds=5.0, timer=clock.boot)


async def ask(digests: Digests, digest: bytes, *, trusted: bool = True) -> KeyId | None:
    async with asyncio.timeout(GUARD_SECONDS):
        return await digests.find_key(digest, trusted=trusted)


async def test_a_digest_leads_to_its_key_and_another_to_none(digests: Digests) -> None:
    assert await ask(digests, KNOWN) == KEY
    assert await ask(digests, UNKNOWN) is None


async def test_whoever_comes_while_a_statement_runs_shares_the_next(digests: Digests, desk: Desk) -> None:
    desk.gate.clear()
    first = asyncio.create_task(ask(digests, KNOWN))
    while not desk.asked:
        await asyncio.sleep(0)
    crowd = [asyncio.create_task(ask(digests, bytes([number]) * 32)) for number in range(100)]
    await asyncio.sleep(0)
    desk.gate.set()
    assert await first == KEY
    assert set(await asyncio.gather(*crowd)) == {None}
    assert [len(statement) for statement in desk.asked] == [1, 100]


@pytest.mark.parametrize("heard", [EVERYTHING, News(key_id=form_key_id(7))])
async def test_what_is_nobody_s_is_remembered_until_any_news(
    digests: Digests, desk: Desk, news: NewsLog, heard: News
) -> None:
    for _ in range(3):
        assert await ask(digests, UNKNOWN) is None
    assert len(desk.asked) == 1
    desk.rows[UNKNOWN] = KEY
    news.add(heard)
    assert await ask(digests, UNKNOWN) == KEY


async def test_news_while_a_statement_runs_makes_its_answer_doubtful(
    digests: Digests, desk: Desk, news: NewsLog
) -> None:
    desk.gate.clear()
    asking = asyncio.create_task(ask(digests, UNKNOWN))
    while not desk.asked:
        await asyncio.sleep(0)
    news.add(EVERYTHING)
    desk.gate.set()
    assert await asking is None
    desk.rows[UNKNOWN] = KEY
    assert await ask(digests, UNKNOWN) == KEY


async def test_what_is_nobody_s_is_forgotten_after_its_time(digests: Digests, desk: Desk, clock: ManualClock) -> None:
    await ask(digests, UNKNOWN)
    clock.advance(5.0)
    await ask(digests, UNKNOWN)
    assert len(desk.asked) == 2


async def test_memory_does_not_answer_without_trust(digests: Digests, desk: Desk) -> None:
    await ask(digests, UNKNOWN)
    await ask(digests, UNKNOWN, trusted=False)
    assert len(desk.asked) == 2


async def test_a_flood_is_remembered_no_further_than_its_shelf(digests: Digests, desk: Desk) -> None:
    for number in range(3):
        await ask(digests, bytes([number]) * 32)
    await ask(digests, bytes([0]) * 32)
    await ask(digests, bytes([2]) * 32)
    assert len(desk.asked) == 4


async def test_closing_tells_whoever_waits(digests: Digests, desk: Desk) -> None:
    desk.gate.clear()
    asking = asyncio.create_task(ask(digests, KNOWN))
    while not desk.asked:
        await asyncio.sleep(0)
    await digests.aclose()
    with pytest.raises(DatabaseError, match="given up"):
        await asking


async def test_the_real_store_answers_by_primary_key(stage: Stage) -> None:
    key = await stage.mint()
    await stage.sql("INSERT INTO legacy_digests (digest, key_id) VALUES ($1, $2)", KNOWN, key.summary.id)
    assert await stage.store.find_digests([KNOWN, UNKNOWN]) == {KNOWN: key.summary.id}
