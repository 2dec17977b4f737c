"""Which tokens certainly open nothing: never one that the verifier would let in, and at the cost of few reads."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest

from proxy.errors import CredentialError, DatabaseError, Refusal, UnavailableError
from proxy.keys.hashing import Hasher
from proxy.lease import Trust
from proxy.news import News
from proxy.screening import AnyToken, Screen, Verdict
from tests.records import (
    form_key_id,
    form_legacy_token,
    form_secret_token,
    make_legacy_secret,
    make_record,
    make_secret,
)
from tests.staging import GUARD_SECONDS
from tests.test_verification import GRACE_SECONDS, LEASE_SECONDS, Hall, Table

KEY, OTHER, OLD = form_key_id(1), form_key_id(2), form_key_id(3)
TOKEN, WRONG, UNKNOWN = form_secret_token(KEY), form_secret_token(KEY, 1), form_secret_token(OTHER)
LEGACY, LEGACY_WRONG = form_legacy_token(1), form_legacy_token(2)


@pytest.fixture
async def table(hasher: Hasher) -> Table:
    """A key of each form."""
    table = Table()
    table.put(make_record(KEY, secrets=[make_secret(TOKEN, await hasher.hash(TOKEN.secret))]))
    table.put(make_record(OLD, secrets=[make_legacy_secret(LEGACY)]))
    table.digests[LEGACY.digest] = OLD
    return table


@pytest.fixture
async def hall(table: Table, hasher: Hasher) -> AsyncIterator[Hall]:
    hall = Hall([], table.read_keys, hasher, find_digests=table.find_digests)
    yield hall
    await hall.verifier.aclose()
    await hall.reader.aclose()
    await hall.digests.aclose()


@pytest.fixture
async def screen(hall: Hall) -> AsyncIterator[Screen]:
    screen = Screen(
        memory=hall.memory, reader=hall.reader, digests=hall.digests, lease=hall.lease, clock=hall.clock, pace_seconds=0
    )
    yield screen
    await screen.aclose()


async def ask(screen: Screen, *tokens: AnyToken) -> list[Verdict]:
    """The verdicts on these, asked at once."""
    answers: list[asyncio.Future[Verdict]] = []
    for token in tokens:
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        screen.ask(token, answer.set_result)
        answers.append(answer)
    async with asyncio.timeout(GUARD_SECONDS):
        return await asyncio.gather(*answers)


async def test_what_memory_does_not_hold_is_unread_and_then_known(screen: Screen, table: Table) -> None:
    tokens = [TOKEN, WRONG, UNKNOWN]
    assert {screen.judge(token) for token in tokens} == {Verdict.UNREAD}
    verdicts = await ask(screen, *tokens)
    assert verdicts == [Verdict.MAY_PASS, Verdict.FAILS, Verdict.FAILS]
    assert [screen.judge(token) for token in tokens] == verdicts
    assert table.reads == 1


async def test_the_older_form_is_looked_up_by_digest(screen: Screen, hall: Hall, table: Table) -> None:
    assert await ask(screen, LEGACY, LEGACY_WRONG) == [Verdict.MAY_PASS, Verdict.FAILS]
    assert len(table.look_ups) <= 2, "gathered"
    await hall.verify(LEGACY)
    assert screen.judge(LEGACY) is Verdict.MAY_PASS
    assert screen.judge(LEGACY_WRONG) is Verdict.UNREAD


async def test_a_flood_of_unknown_ids_costs_one_statement_at_a_time(screen: Screen, table: Table, hall: Hall) -> None:
    flood = [form_secret_token(form_key_id(number)) for number in range(100, 500)]
    table.hold()
    first = asyncio.create_task(ask(screen, *flood[:100]))
    await hall.wait_until(lambda: table.reads == 1)
    others = [asyncio.create_task(ask(screen, *flood[start : start + 100])) for start in (100, 200, 300)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert table.reads == 1
    table.answer()
    verdicts = await asyncio.gather(first, *others)
    assert {verdict for some in verdicts for verdict in some} == {Verdict.FAILS}
    assert table.reads == 2
    assert hall.hashes == []


async def test_a_token_that_was_right_once_is_the_verifier_s_to_refuse(
    screen: Screen, hall: Hall, table: Table
) -> None:
    """Its reason is told to whoever proved it, and it never counts."""
    await hall.verify(TOKEN)
    for gone in (
        dataclasses.replace(table.rows[KEY], status="revoked"),
        dataclasses.replace(table.rows[KEY], secrets={}),
    ):
        table.put(gone)
        hall.news.add(News(key_id=KEY))
        assert screen.judge(TOKEN) is Verdict.MAY_PASS


async def test_what_fails_is_refused_by_the_verifier_too(screen: Screen, hall: Hall) -> None:
    tokens: list[AnyToken] = [TOKEN, WRONG, UNKNOWN, LEGACY, LEGACY_WRONG]
    for token, verdict in zip(tokens, await ask(screen, *tokens), strict=True):
        if verdict is Verdict.FAILS:
            assert isinstance(await hall.refuse(token), CredentialError)
        else:
            await hall.verify(token)


async def test_a_secret_made_a_moment_ago_is_seen(screen: Screen, hall: Hall, table: Table) -> None:
    """What memory holds is not believed once there is news of it, nor when news may have been lost."""
    await ask(screen, WRONG)
    assert screen.judge(WRONG) is Verdict.FAILS
    table.put(make_record(KEY, secrets=[make_secret(WRONG)]))
    hall.news.add(News(key_id=KEY))
    assert screen.judge(WRONG) is Verdict.UNREAD
    assert await ask(screen, WRONG) == [Verdict.MAY_PASS]
    table.put(make_record(KEY, secrets=[make_secret(TOKEN)]))
    hall.lease.distrust()
    assert screen.judge(WRONG) is Verdict.UNREAD
    assert await ask(screen, TOKEN) == [Verdict.MAY_PASS]


async def test_a_silent_database_is_the_verifier_s_to_report(screen: Screen, hall: Hall, table: Table) -> None:
    table.fault = DatabaseError("gone")
    assert await ask(screen, UNKNOWN, LEGACY) == [Verdict.MAY_PASS] * 2
    hall.clock.advance(LEASE_SECONDS + GRACE_SECONDS)
    assert hall.lease.judge(hall.clock.boot()) is Trust.CLOSED
    reads = table.reads
    assert await ask(screen, UNKNOWN) == [Verdict.MAY_PASS]
    assert table.reads == reads
    refusal: Refusal = await hall.refuse(UNKNOWN)
    assert isinstance(refusal, UnavailableError)


async def test_a_row_older_than_one_already_seen_is_doubtful(screen: Screen, hall: Hall, table: Table) -> None:
    await hall.verify(TOKEN)
    table.rows[KEY] = dataclasses.replace(table.rows[KEY], version=table.rows[KEY].version - 1)
    hall.news.add(News(key_id=KEY))
    assert await ask(screen, WRONG) == [Verdict.MAY_PASS]
