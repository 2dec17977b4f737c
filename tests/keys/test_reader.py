"""Gathered reads: one statement running, one waiting, and nobody served by a read older than their question."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from proxy.errors import DatabaseError
from proxy.gathering import MAX_BATCH
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.reader import KeyReader
from proxy.keys.record import KeyRecord
from proxy.news import EVERYTHING, News, NewsLog
from tests.clocks import ManualClock
from tests.staging import GUARD_SECONDS

T = TypeVar("T")
A, B, C = KeyId("a"), KeyId("b"), KeyId("c")
OWNER = Owner(OwnerId("f3b1"), "default", "local", "ada", "pro")


class Statement:
    """A statement under way: what it asks for, and the answer the test gives."""

    def __init__(self, ids: Sequence[KeyId]) -> None:
        self.ids = list(ids)
        self.answered: asyncio.Future[dict[KeyId, KeyRecord]] = asyncio.get_running_loop().create_future()

    def answer(self, version: int = 1) -> None:
        """Every key exists but `c`."""
        self.answered.set_result({key_id: form_record(key_id, version) for key_id in self.ids if key_id != C})

    def fail(self, error: Exception) -> None:
        self.answered.set_exception(error)


class Desk:
    """The far side of the reader: statements arrive here and wait until the test answers them."""

    def __init__(self) -> None:
        self.begun: list[Statement] = []
        self._arrivals: asyncio.Queue[Statement] = asyncio.Queue()
        self.running = 0
        self.most_at_once = 0

    async def read_keys(self, ids: Sequence[KeyId]) -> Mapping[KeyId, KeyRecord]:
        statement = Statement(ids)
        self.begun.append(statement)
        self._arrivals.put_nowait(statement)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            return await statement.answered
        finally:
            self.running -= 1

    async def wait_statement(self) -> Statement:
        """The next statement that has begun."""
        return await soon(self._arrivals.get())


def form_record(key_id: KeyId, version: int) -> KeyRecord:
    return KeyRecord(key_id, OWNER, False, 1, "active", (), None, version, {}, ())


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(GUARD_SECONDS):
        return await awaitable


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
def reader(desk: Desk, news: NewsLog, clock: ManualClock) -> KeyReader:
    return KeyReader(desk.read_keys, news, clock.boot)


def ask(reader: KeyReader, *ids: KeyId) -> asyncio.Task[Any]:
    return asyncio.create_task(reader.read_many(ids))


async def step() -> None:
    """Let every task that can go on do so once."""
    await asyncio.sleep(0)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_key_that_exists_has_a_record_and_another_has_none(reader: KeyReader, desk: Desk) -> None:
    reading = asyncio.create_task(reader.read(A)), asyncio.create_task(reader.read(C))
    (await desk.wait_statement()).answer(7)
    known, unknown = await soon(asyncio.gather(*reading))
    assert (known.key_id, known.record) == (A, form_record(A, 7))
    assert (unknown.key_id, unknown.record) == (C, None)


async def test_a_thousand_requests_for_one_key_cost_one_statement_and_one_id(reader: KeyReader, desk: Desk) -> None:
    asking = [ask(reader, A) for _ in range(1_000)]
    statement = await desk.wait_statement()
    assert statement.ids == [A]
    statement.answer()
    answers = await soon(asyncio.gather(*asking))
    assert all(set(answer) == {A} for answer in answers)
    assert len(desk.begun) == 1


async def test_everybody_who_comes_meanwhile_shares_the_next_statement(reader: KeyReader, desk: Desk) -> None:
    first = ask(reader, A)
    running = await desk.wait_statement()
    later = [ask(reader, A), ask(reader, B), ask(reader, B, C)]
    await step()
    assert desk.begun == [running]
    running.answer(1)
    waiting = await desk.wait_statement()
    assert first.done() or await soon(first)
    assert not any(task.done() for task in later)
    assert set(waiting.ids) == {A, B, C}
    waiting.answer(2)
    answers = await soon(asyncio.gather(*later))
    assert [set(answer) for answer in answers] == [{A}, {B}, {B, C}]
    assert answers[0][A].record.version == 2
    assert desk.most_at_once == 1


async def test_a_request_is_never_served_by_a_read_that_began_before_it(
    reader: KeyReader, desk: Desk, news: NewsLog, clock: ManualClock
) -> None:
    early = ask(reader, A)
    old = await desk.wait_statement()
    news.add(News(key_id=A))
    clock.advance(5)
    late = ask(reader, A)
    await step()
    old.answer(1)
    fresh = await desk.wait_statement()
    fresh.answer(2)
    (before, after) = await soon(asyncio.gather(early, late))
    assert (before[A].record.version, before[A].read_sequence, before[A].read_at) == (1, 0, 1_000.0)
    assert (after[A].record.version, after[A].read_sequence, after[A].read_at) == (2, 1, 1_005.0)


async def test_news_while_a_statement_runs_makes_its_answer_doubtful(
    reader: KeyReader, desk: Desk, news: NewsLog, clock: ManualClock
) -> None:
    """The stamps are those from before the statement was sent: the fill race cannot slip through."""
    asking = ask(reader, A)
    statement = await desk.wait_statement()
    news.add(EVERYTHING)
    clock.advance(1)
    statement.answer()
    state = (await soon(asking))[A]
    assert state.read_at == 1_000.0
    assert not news.is_current(state.read_sequence, state.subjects)


async def test_asking_for_no_key_still_asks_the_database(reader: KeyReader, desk: Desk) -> None:
    asking = ask(reader)
    statement = await desk.wait_statement()
    assert statement.ids == []
    statement.fail(DatabaseError("nobody answers"))
    with pytest.raises(DatabaseError, match="nobody answers"):
        await soon(asking)


async def test_an_error_reaches_everybody_who_waited_for_that_statement_and_nobody_else(
    reader: KeyReader, desk: Desk
) -> None:
    failing = [ask(reader, A), ask(reader, B)]
    statement = await desk.wait_statement()
    well = ask(reader, A)
    await step()
    statement.fail(DatabaseError("the database did not answer"))
    (await desk.wait_statement()).answer()
    for task in failing:
        with pytest.raises(DatabaseError, match="did not answer"):
            await soon(task)
    assert (await soon(well))[A].record is not None


async def test_an_unforeseen_error_is_a_database_error_and_does_not_stop_later_reads(
    reader: KeyReader, desk: Desk
) -> None:
    failing = ask(reader, A)
    statement = await desk.wait_statement()
    waiting = ask(reader, B)
    await step()
    statement.fail(ZeroDivisionError("a row nobody foresaw"))
    with pytest.raises(DatabaseError, match=r"^reading keys failed$"):
        await soon(failing)
    (await desk.wait_statement()).answer()
    assert (await soon(waiting))[B].record is not None
    later = ask(reader, C)
    (await desk.wait_statement()).answer()
    assert (await soon(later))[C].record is None


async def test_who_leaves_harms_nobody(reader: KeyReader, desk: Desk) -> None:
    leaving, staying = ask(reader, A), ask(reader, A)
    running = await desk.wait_statement()
    leaving_later, staying_later = ask(reader, B), ask(reader, B)
    await step()
    await cancel(leaving)
    await cancel(leaving_later)
    running.answer(1)
    (await desk.wait_statement()).answer(2)
    assert (await soon(staying))[A].record.version == 1
    assert (await soon(staying_later))[B].record.version == 2


async def test_a_failure_after_everybody_left_is_dropped_in_silence(reader: KeyReader, desk: Desk) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    leaving = ask(reader, A)
    statement = await desk.wait_statement()
    await cancel(leaving)
    statement.fail(DatabaseError("too late"))
    following = ask(reader, B)
    (await desk.wait_statement()).answer()
    await soon(following)
    desk.begun.clear()  # the error's traceback holds the answer nobody took
    del statement
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize(("count", "sizes"), [(1000, [1000]), (1001, [1000, 1]), (2500, [1000, 1000, 500])])
async def test_many_keys_are_asked_for_a_bounded_number_at_a_time(
    reader: KeyReader, desk: Desk, count: int, sizes: list[int]
) -> None:
    ids = [KeyId(f"key {number}") for number in range(count)]
    asking = ask(reader, *ids)
    for size in sizes:
        statement = await desk.wait_statement()
        assert len(statement.ids) == size <= MAX_BATCH
        statement.answer()
    answers = await soon(asking)
    assert list(answers) == ids
    assert all(state.key_id == key_id and state.record is not None for key_id, state in answers.items())
    assert desk.most_at_once == 1


async def test_a_small_request_rides_along_with_a_large_one(reader: KeyReader, desk: Desk) -> None:
    large = ask(reader, *(KeyId(f"key {number}") for number in range(MAX_BATCH + 1)))
    small = ask(reader, A)
    for size in (MAX_BATCH, 2):
        statement = await desk.wait_statement()
        assert len(statement.ids) == size
        statement.answer()
    await soon(large)
    assert set(await soon(small)) == {A}


async def test_closing_tells_everybody_who_waits(reader: KeyReader, desk: Desk) -> None:
    running = ask(reader, A)
    assert (await desk.wait_statement()).ids == [A]
    waiting = ask(reader, B)
    await step()
    await soon(reader.aclose())
    for task in (running, waiting):
        with pytest.raises(DatabaseError, match="given up"):
            await soon(task)
    assert desk.running == 0


async def test_closing_before_the_statement_is_sent_leaves_nobody_waiting(reader: KeyReader, desk: Desk) -> None:
    asking = ask(reader, A)
    await step()  # asked, and the reader's own task not begun yet
    await soon(reader.aclose())
    with pytest.raises(DatabaseError, match="given up"):
        await soon(asking)
    assert desk.begun == []
    later = ask(reader, A)
    (await desk.wait_statement()).answer()
    assert set(await soon(later)) == {A}


async def test_closing_an_idle_reader_is_nothing(reader: KeyReader, desk: Desk) -> None:
    await soon(reader.aclose())
    asking = ask(reader, A)
    (await desk.wait_statement()).answer()
    await soon(asking)
    await soon(reader.aclose())
