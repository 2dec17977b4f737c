"""Usage: counts add up exactly, cost one write, and stay bounded whatever clients choose."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest

from proxy.clock import Clock, SystemClock
from proxy.database import Database
from proxy.flushing import Flusher
from proxy.identity import KeyId
from proxy.logs import configure_logging
from proxy.usage import DAY_SECONDS, MAX_ROWS, MAX_SCOPES, MAX_SELECTIVE, DayUse, Usage, read_usage
from tests.clocks import ManualClock
from tests.records import form_key_id
from tests.staging import GUARD_SECONDS

KEY, OTHER = form_key_id(1), form_key_id(2)
RUN, LIST = "mcp/tool:aegis.workflow.run", "mcp/tool:aegis.workflow.list"
CLOCK = SystemClock()


def ignore() -> None:
    """Nothing is dropped in most tests."""


def form_usage(
    database: Database,
    clock: Clock = CLOCK,
    *,
    flush_seconds: float = 3600,
    count_dropped: Callable[[], None] = ignore,
) -> Usage:
    return Usage(Flusher(database, uuid4(), flush_seconds), clock, count_dropped)


async def read_rows(database: Database) -> dict[tuple[str, str, tuple[str, ...], bool], int]:
    rows = await database.fetch("SELECT key_id, rule, scopes, allowed, count FROM key_usage")
    return {(row["key_id"], row["rule"], tuple(row["scopes"]), row["allowed"]): row["count"] for row in rows}


async def read_total(database: Database) -> int:
    return int((await database.fetch("SELECT coalesce(sum(count), 0)::bigint AS total FROM key_usage"))[0]["total"])


async def test_what_was_counted_is_what_is_written(database: Database) -> None:
    usage = form_usage(database)
    usage.count(KEY, RUN, ("workflow:run:nightly-etl",), True)
    usage.count(KEY, RUN, ("workflow:run:nightly-etl",), True)
    usage.count(KEY, RUN, ("workflow:run:other",), False)
    usage.count(KEY, None, (), False)
    usage.count(OTHER, LIST, ("*",), True)
    await usage.flush()
    usage.count(KEY, RUN, ("workflow:run:nightly-etl",), True)
    await usage.flush()
    assert await read_rows(database) == {
        (KEY, RUN, ("workflow:run:nightly-etl",), True): 3,
        (KEY, RUN, ("workflow:run:other",), False): 1,
        (KEY, "", (), False): 1,
        (OTHER, LIST, ("*",), True): 1,
    }


async def test_a_hundred_thousand_calls_cost_one_write_and_add_up(database: Database) -> None:
    usage = form_usage(database)
    keys = [form_key_id(number) for number in range(100)]
    for call in range(100_000):
        usage.count(keys[call % 100], RUN, ("workflow:run:nightly-etl",), True)
    await usage.aclose()
    assert set((await read_rows(database)).values()) == {1000}
    assert [row["number"] for row in await database.fetch("SELECT number FROM flushes")] == [1]


async def test_instances_that_write_the_same_rows_at_once_add_up(database: Database) -> None:
    instances = [form_usage(database) for _ in range(3)]
    dice = random.Random(7)
    for round_ in range(4):
        for usage in instances:
            for number in dice.sample(range(200), 200):
                usage.count(form_key_id(number), RUN, (f"workflow:run:{round_ % 2}",), True)
        assert await asyncio.gather(*(usage.flush() for usage in instances)) == [True] * 3
    assert set((await read_rows(database)).values()) == {6}


async def test_what_is_counted_while_a_flush_is_under_way_is_counted(database: Database) -> None:
    usage = form_usage(database, flush_seconds=0.001)
    running = asyncio.create_task(usage.run())
    for _ in range(500):
        for selector in ("one", "two"):
            usage.count(KEY, RUN, (f"workflow:run:{selector}",), True)
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    await usage.aclose()
    assert set((await read_rows(database)).values()) == {500}


async def test_a_day_is_the_day_of_the_call_not_of_the_write(database: Database) -> None:
    clock = ManualClock(wall=datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC).timestamp())
    usage = form_usage(database, clock)
    usage.count(KEY, RUN, (), True)
    clock.advance(1)
    usage.count(KEY, RUN, (), True)
    usage.count(KEY, RUN, (), True)
    clock.advance(-1)  # somebody sets the clock back, over midnight
    usage.count(KEY, RUN, (), True)
    clock.advance(2 * DAY_SECONDS)
    await usage.flush()
    rows = await database.fetch("SELECT day, count, last_at FROM key_usage ORDER BY day")
    assert [(row["day"], row["count"]) for row in rows] == [(date(2026, 11, 23), 2), (date(2026, 11, 24), 2)]
    assert rows[1]["last_at"] == datetime(2026, 11, 24, tzinfo=UTC)


async def test_a_key_with_too_many_selectors_counts_without_them(database: Database) -> None:
    usage = form_usage(database)
    for number in range(MAX_SELECTIVE + 5):
        usage.count(KEY, RUN, (f"workflow:run:{number}",), True)
        usage.count(KEY, RUN, (f"workflow:run:{number}",), True)
    usage.count(OTHER, RUN, ("workflow:run:mine",), True)
    await usage.flush()
    for number in range(MAX_SELECTIVE + 5):  # the bound is the day's, not the flush's
        usage.count(KEY, RUN, (f"workflow:run:more-{number}",), True)
    await usage.flush()
    rows = await read_rows(database)
    assert rows.pop((OTHER, RUN, ("workflow:run:mine",), True)) == 1
    assert rows.pop((KEY, RUN, ("workflow:run",), True)) == 10 + MAX_SELECTIVE + 5
    assert len(rows) == MAX_SELECTIVE
    assert set(rows.values()) == {2}


@pytest.mark.parametrize("selector", ["\x00", "a\nb", "\ud800", "x" * 257, "*", "", "\u202e", "\x1b[2J"], ids=ascii)
async def test_a_selector_that_no_key_can_hold_counts_without(selector: str, database: Database) -> None:
    usage = form_usage(database)
    usage.count(KEY, RUN, (f"workflow:run:{selector}", "workflow:list"), True)
    usage.count(KEY, RUN, (f"workflow:run:{selector}", "workflow:list"), True)
    assert await usage.flush()
    assert await read_rows(database) == {(KEY, RUN, ("workflow:run", "workflow:list"), True): 2}


async def test_a_call_that_rests_on_very_many_scopes_counts_without_selectors(database: Database) -> None:
    usage = form_usage(database)
    longest = tuple(f"volume:read:{number:02}{'ü' * 254}" for number in range(MAX_SCOPES))
    usage.count(KEY, RUN, longest, True)
    usage.count(KEY, RUN, (*longest, "volume:write:x"), True)
    assert await usage.flush()
    assert set(await read_rows(database)) == {
        (KEY, RUN, longest, True),
        (KEY, RUN, ("volume:read", "volume:write"), True),
    }


async def test_memory_is_bounded_and_what_it_does_not_hold_is_told(database: Database) -> None:
    heard, dropped = io.BytesIO(), []
    configure_logging("warning", heard)
    usage = form_usage(database, count_dropped=lambda: dropped.append(1))
    keys = [form_key_id(number) for number in range(MAX_ROWS // MAX_SELECTIVE + 1)]
    for key in keys:
        for number in range(MAX_SELECTIVE):
            usage.count(key, RUN, (f"workflow:run:{number}",), True)
    usage.count(KEY, LIST, ("workflow:run:a",), True)  # full of selectors: without
    for number in range(MAX_ROWS):
        usage.count(form_key_id(1_000 + number), LIST, (), True)
    assert sum(dropped) == 2  # beside one row for the last of the keys above, and one for the line before
    async with asyncio.timeout(4 * GUARD_SECONDS):
        assert await usage.flush()
    assert await read_total(database) == len(keys) * MAX_SELECTIVE + 1 + MAX_ROWS - 2
    assert (await read_rows(database))[keys[-1], RUN, ("workflow:run",), True] == MAX_SELECTIVE
    assert b'"count":2' in heard.getvalue()
    fresh = form_key_id(999)
    usage.count(fresh, LIST, ("workflow:run:b",), True)  # what is written makes room
    await usage.flush()
    assert (await read_rows(database))[fresh, LIST, ("workflow:run:b",), True] == 1


async def test_what_is_older_than_four_hundred_days_is_swept(database: Database) -> None:
    await database.fetch(
        "INSERT INTO key_usage SELECT current_date - age, 'k', '\\x00', 'r', '{}', true, 1, now()"
        " FROM unnest(ARRAY[399, 401, 900]) AS age"
    )
    running = asyncio.create_task(form_usage(database).run())
    async with asyncio.timeout(GUARD_SECONDS):
        while len(rows := await database.fetch("SELECT current_date - day AS age FROM key_usage")) > 1:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert [row["age"] for row in rows] == [399]


async def test_usage_is_read_over_days_and_tells_which_of_them_were_recorded(database: Database) -> None:
    today = (await database.fetch("SELECT (now() AT TIME ZONE 'UTC')::date AS day"))[0]["day"]
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    for key_id, ago in ((KEY, 0), (KEY, 2), (KEY, 3), (OTHER, 1)):
        clock = ManualClock(wall=(noon - timedelta(days=ago)).timestamp())
        usage = form_usage(database, clock)
        usage.count(key_id, RUN, ("workflow:run:a",), True)
        usage.count(key_id, None, (), False)
        usage.count(key_id, RUN, ("workflow:run:a",), True)
        await usage.flush()
    found = await read_usage(database, KEY, 3)
    assert [(use.rule, use.scopes, use.allowed, use.count, use.last_at) for use in found.uses] == [
        (RUN, ("workflow:run:a",), True, 4, noon),
        ("", (), False, 2, noon),
    ]
    days = [today - timedelta(days=ago) for ago in (2, 1, 0)]
    assert found.days == tuple(days)
    assert found.recorded == {*days}
    assert found.used == {days[0], days[2]}
    assert found.by_day == (
        DayUse(days[0], True, 2, 1), DayUse(days[1], True, 0, 0), DayUse(days[2], True, 2, 1),
    )  # fmt: skip
    assert (await read_usage(database, KeyId("nobody000000"), 400)).uses == ()
    assert len((await read_usage(database, KEY, 400)).recorded) == 4
