"""Last uses: what a batch leaves of many, and what is shown of it beside the key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from uuid import uuid4

import pytest

from proxy.database import Database
from proxy.errors import Reason
from proxy.flushing import Flusher
from proxy.identity import KeyId
from proxy.keys.changes import KeyChanges
from proxy.keys.last_uses import MAX_ROWS, MAX_SHOWN, SWEEP, LastRefusal, LastUse, LastUseLog
from proxy.keys.minting import draw_token
from proxy.keys.rights import form_operator
from tests.clocks import ManualClock
from tests.records import form_key_id
from tests.staging import Stage

KEY, OTHER = form_key_id(1), form_key_id(2)
START = datetime(2026, 11, 29, 12, tzinfo=UTC)
HERE, THERE = ip_address("192.0.2.1"), ip_address("2001:db8::2")


def ignore() -> None:
    """Nothing is dropped in most tests."""


def form_log(database: Database, clock: ManualClock, count_dropped: Callable[[], None] = ignore) -> LastUseLog:
    return LastUseLog(Flusher(database, uuid4(), 3600), clock, count_dropped)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=START.timestamp())


async def read_rows(database: Database) -> list[tuple[object, ...]]:
    rows = await database.fetch(
        "SELECT key_id, secret_version, at, address, user_agent, what, count FROM key_last_uses ORDER BY 1, 2"
    )
    return [tuple(row.values()) for row in rows]


async def test_the_last_of_many_uses_is_written_with_their_number(database: Database, clock: ManualClock) -> None:
    log = form_log(database, clock)
    for tool, address in (("aegis.workflow.run", HERE), ("aegis.workflow.list", HERE), ("aegis.agent.list", THERE)):
        log.note_use(KEY, 1, tool, address, f"client/{address}")
        clock.advance(1)
    log.note_use(OTHER, 4, "mcp", None, None)
    await log.flush()
    assert await read_rows(database) == [
        (KEY, 1, START + timedelta(seconds=2), "2001:db8::2", "client/2001:db8::2", "aegis.agent.list", 3),
        (OTHER, 4, START + timedelta(seconds=3), None, None, "mcp", 1),
    ]


async def test_each_secret_and_refusals_have_rows_of_their_own(database: Database, clock: ManualClock) -> None:
    log = form_log(database, clock)
    log.note_use(KEY, 1, "old", HERE, None)
    log.note_use(KEY, 2, "new", HERE, None)
    log.note_refusal(KEY, Reason.MESSAGE_DENIED, THERE, "agent")
    log.note_refusal(KEY, Reason.SECRET_RETIRED, THERE, "agent")
    await log.flush()
    assert await read_rows(database) == [
        (KEY, -1, START, "2001:db8::2", "agent", "secret_retired", 2),
        (KEY, 1, START, "192.0.2.1", None, "old", 1),
        (KEY, 2, START, "192.0.2.1", None, "new", 1),
    ]


async def test_counts_add_up_and_a_batch_that_comes_late_does_not_hide_a_later_use(database: Database) -> None:
    early, late = ManualClock(wall=START.timestamp()), ManualClock(wall=START.timestamp() + 60)
    slow, quick = form_log(database, early), form_log(database, late)
    slow.note_use(KEY, 1, "earlier", HERE, "slow")
    for _ in range(2):
        quick.note_use(KEY, 1, "later", THERE, "quick")
    await quick.flush()
    await slow.flush()
    later = START + timedelta(seconds=60)
    assert await read_rows(database) == [(KEY, 1, later, "2001:db8::2", "quick", "later", 3)]
    early.advance(3600)
    slow.note_use(KEY, 1, "latest", None, None)
    await slow.flush()
    assert await read_rows(database) == [(KEY, 1, START + timedelta(hours=1), None, None, "latest", 4)]


async def test_nothing_a_client_sends_makes_a_row_that_cannot_be_written(
    database: Database, clock: ManualClock
) -> None:
    log, token = form_log(database, clock), draw_token().text
    texts = ("\x00", "\udcff", "\x1b[2J", "\u202e", "x" * 100_000, token)
    for version, text in enumerate(texts, start=1):
        log.note_use(KEY, version, text, HERE, text)
    assert await log.flush()
    rows = await read_rows(database)
    assert len(rows) == len(texts)
    for *_, user_agent, what, _count in rows:
        assert user_agent == what
        assert str(what).isprintable()
        assert len(str(what)) <= MAX_SHOWN + 1
        assert token[19:] not in str(what)


async def test_the_rows_that_wait_are_bounded(database: Database, clock: ManualClock) -> None:
    dropped: list[None] = []
    log = form_log(database, clock, lambda: dropped.append(None))
    for version in range(1, MAX_ROWS + 3):
        log.note_use(KEY, version, "tool", None, None)
    log.note_use(KEY, 1, "tool", None, None)
    assert len(dropped) == 2


async def test_a_key_shows_its_last_use_and_refusal(stage: Stage, database: Database, clock: ManualClock) -> None:
    key_id, log = KeyId((await stage.mint()).summary.id), form_log(database, clock)
    unused = await stage.store.find_key(key_id)
    assert unused is not None
    assert {unused.last_used_at, unused.last_used, unused.last_refused, unused.old_secret_last_used_at} == {None}
    log.note_use(OTHER, 1, "of another key", HERE, None)
    log.note_use(key_id, 1, "aegis.workflow.list", HERE, "agent/0")
    clock.advance(1)
    log.note_use(key_id, 1, "aegis.workflow.run", THERE, "agent/1")
    log.note_refusal(key_id, Reason.MESSAGE_DENIED, HERE, "agent/2")
    await log.flush()
    (used,) = await stage.store.list_keys()
    second = START + timedelta(seconds=1)
    assert used.last_used_at == second
    assert used.last_used == LastUse(second, "2001:db8::2", "agent/1", "aegis.workflow.run", 2)
    assert used.last_refused == LastRefusal(second, "message_denied")
    assert used.old_secret_last_used_at is None


async def test_after_a_rotation_the_old_secrets_last_use_is_shown_beside_the_keys(
    stage: Stage, database: Database, clock: ManualClock
) -> None:
    key_id, log = KeyId((await stage.mint()).summary.id), form_log(database, clock)
    log.note_use(key_id, 1, "tool", HERE, None)
    await log.flush()
    changes = KeyChanges(database, stage.hasher)
    rotated = await changes.rotate(form_operator("test"), key_id, stage.policy, grace="24h")
    stage.note_secret(rotated.token)
    assert rotated.summary.old_secret_last_used_at == START  # nobody has used the new one yet
    for version in (1, 2):
        clock.advance(1)
        log.note_use(key_id, version, "tool", HERE, None)
    await log.flush()
    key = await stage.store.find_key(key_id)
    assert key is not None
    assert key.last_used == LastUse(START + timedelta(seconds=2), "192.0.2.1", None, "tool", 3)
    assert key.old_secret_last_used_at == START + timedelta(seconds=1)


async def test_a_use_tells_no_instance_any_news_and_changes_no_key(
    stage: Stage, database: Database, clock: ManualClock
) -> None:
    key, log = (await stage.mint()).summary, form_log(database, clock)
    log.note_use(KeyId(key.id), 1, "tool", HERE, None)
    await log.flush()
    used = await stage.store.find_key(key.id)
    assert used is not None
    assert used.version == key.version


async def test_only_rows_of_keys_that_are_gone_are_swept(stage: Stage, database: Database, clock: ManualClock) -> None:
    key_id, log = KeyId((await stage.mint()).summary.id), form_log(database, clock)
    log.note_use(key_id, 1, "tool", HERE, None)
    log.note_use(KEY, 1, "tool", HERE, None)
    await log.flush()
    await database.fetch("UPDATE key_last_uses SET at = '-infinity'")
    assert [row["count"] for row in await database.fetch(SWEEP, 10)] == [1]
    assert [row[0] for row in await read_rows(database)] == [key_id]
    key = await stage.store.find_key(key_id)
    assert key is not None
    assert key.last_used_at == datetime(1, 1, 2, tzinfo=UTC)
