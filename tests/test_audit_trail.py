"""The audit is read back newest first, in pages, by key, actor and time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from proxy.audit_trail import Event, read_events
from proxy.database import Database
from tests.records import ADA

START = datetime(2026, 11, 29, tzinfo=UTC)


async def write(database: Database, *events: tuple[str, str, str | None], start: datetime = START) -> None:
    """Actor, action and key of each, an hour apart."""
    for number, (actor, action, key_id) in enumerate(events):
        await database.fetch(
            "INSERT INTO audit_events (at, actor, action, key_id, owner_id, after)"
            " VALUES ($1, $2, $3, $4, $5, jsonb_build_object('number', $6::integer))",
            start + timedelta(hours=number), actor, action, key_id, ADA, number,
        )  # fmt: skip


def list_numbers(events: list[Event]) -> list[object]:
    return [(event.after or {}).get("number") for event in events]


async def test_an_event_is_told_as_it_stands(database: Database) -> None:
    await database.fetch(
        "INSERT INTO audit_events (at, actor, action, key_id, owner_id, before, after)"
        """ VALUES ($1, 'cli:ada', 'update', 'key000000001', $2, '{"name": "old"}', '{"name": "new"}')""",
        START, ADA,
    )  # fmt: skip
    (event,) = await read_events(database, limit=10)
    assert event == Event(event.id, START, "cli:ada", "update", "key000000001", ADA, {"name": "old"}, {"name": "new"})


async def test_events_are_read_newest_first_and_page_by_page(database: Database) -> None:
    await write(database, *[("cli:ada", "update", "key000000001")] * 5)
    page, pages, below = list[Event](), [], None
    while page or below is None:
        page = await read_events(database, below=below, limit=2)
        pages.append(list_numbers(page))
        below = page[-1].id if page else below
    assert pages == [[4, 3], [2, 1], [0], []]


async def test_events_are_chosen_by_key_actor_and_time(database: Database) -> None:
    await write(
        database,
        ("cli:ada", "mint", "key000000001"),
        ("key:key000000001", "mint", "key000000002"),
        ("key:key000000002", "update", "key000000001"),
        ("cli", "add", None),
    )
    assert list_numbers(await read_events(database, key_id="key000000001", limit=9)) == [2, 0]
    assert list_numbers(await read_events(database, actor="key:key000000002", limit=9)) == [2]
    assert list_numbers(await read_events(database, actor="key", limit=9)) == [2, 1]
    assert list_numbers(await read_events(database, actor="cli", limit=9)) == [3, 0]
    assert list_numbers(await read_events(database, since=START + timedelta(hours=2), limit=9)) == [3, 2]
    assert await read_events(database, key_id="key000000001", actor="cli:bob", limit=9) == []


async def test_what_another_role_wrote_can_be_read_whatever_it_is(database: Database) -> None:
    for text in ("[1]", '"word"', "null"):
        await database.fetch("INSERT INTO audit_events (actor, action, after) VALUES ('x', 'y', $1::jsonb)", text)
    assert [event.after for event in await read_events(database, limit=9)] == [
        None, {"value": "word"}, {"value": [1]}
    ]  # fmt: skip
