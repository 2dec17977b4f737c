"""Rows of the matrix: what is asked of the database, and what it is told to tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from proxy.news import CHANNEL
from tests.faults.admin import REVOKED
from tests.faults.processes import GUARD_SECONDS
from tests.faults.row import Row
from tests.faults.world import POLL_SECONDS, World

CROWD = 1000
FORGERIES = 300
FULL_QUEUE = {"postgres_settings": {"max_notify_queue_pages": "64"}}
"""Half a megabyte, the least that PostgreSQL 18 allows."""
MUTE = "ALTER TABLE api_keys DISABLE TRIGGER USER"
UNMUTE = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'api_keys'::regclass AND NOT tgisinternal LOOP
        EXECUTE format('ALTER TABLE api_keys ENABLE ALWAYS TRIGGER %I', name);
    END LOOP;
END $$
"""


@asynccontextmanager
async def connect_past(world: World) -> AsyncIterator[asyncpg.Connection]:
    """A connection on nobody's way."""
    connection = await asyncpg.connect(world.postgres.url, timeout=GUARD_SECONDS)
    try:
        yield connection
    finally:
        connection.terminate()


async def crowd_revoked(world: World) -> None:
    """Half of a crowd in one statement, half one by one, and amid them the keys that somebody uses."""
    crowd = await world.admin.mint_crowd(int(CROWD * world.scale))
    half = len(crowd) // 2
    ending = asyncio.create_task(world.admin.end_keys(world.victims, world.timing.bound_seconds))
    async with connect_past(world) as connection:
        await connection.execute("UPDATE api_keys SET status = 'revoked' WHERE id = ANY($1::text[])", crowd[:half])
        for key_id in crowd[half:]:
            await connection.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", key_id)
    await ending


async def news_forged(world: World) -> None:
    """Everybody who may connect may NOTIFY: garbage, unknown kinds, everything at once, the same again, real ids."""
    ending = asyncio.create_task(world.admin.end_keys(world.victims, world.timing.bound_seconds))
    async with connect_past(world) as connection:
        for _ in range(int(FORGERIES * world.scale)):
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, form_forgery(world))
    await ending


def form_forgery(world: World) -> str:
    dice = world.dice
    key_id = dice.choice([*world.good, *world.victims]).summary.id
    news = {
        "v": dice.choice((1, 1, 2)),
        "kind": dice.choice(("key", "key", "owner", "all", "party")),
        "key_id": dice.choice((key_id, "nobody", None, 7)),
        "version": dice.choice((0, 1, 2**62, -1)),
    }
    return dice.choice((json.dumps(news), json.dumps(news), "garbage", "", "[" * 1000, "x" * 7900))


async def queue_full(world: World) -> None:
    """A listener idle in a transaction holds the queue; once it is full, nobody can say anything any more, and whoever
    wants to revoke is told so."""
    async with connect_past(world) as sleeper:
        await sleeper.execute("LISTEN elsewhere")
        await sleeper.execute("BEGIN")
        await sleeper.execute("SELECT 1")
        async with connect_past(world) as talker:
            await fill_queue(talker)
        assert not await world.admin.change(world.victims[0].summary.id, REVOKED), "acknowledged, and told to nobody"
        await world.pass_bounds(3)
    await empty_queue(world)
    await world.admin.end_keys(world.victims)


async def empty_queue(world: World) -> None:
    """PostgreSQL cuts off what everybody has read when something is added or when it is asked how full the queue is.
    Nothing can be added to a full one, so it stays full until somebody asks."""
    async with connect_past(world) as connection, asyncio.timeout(GUARD_SECONDS):
        while await connection.fetchval("SELECT pg_notification_queue_usage()") > 0:
            await asyncio.sleep(POLL_SECONDS)


async def fill_queue(talker: asyncpg.Connection) -> None:
    """Until it is refused."""
    try:
        while True:
            await talker.execute("SELECT pg_notify('elsewhere', repeat('x', 7900))")
    except asyncpg.PostgresError as error:
        assert "NOTIFY queue" in str(error), error  # noqa: PT017 - any other end is a fault of the row


async def triggers_muted(world: World) -> None:
    """Changes are committed and not told. What notices is the look that every heartbeat takes."""
    async with connect_past(world) as connection:
        await connection.execute(MUTE)
        try:
            await world.admin.end_keys(world.victims, world.timing.bound_seconds)
            await world.pass_bounds(2)
        finally:
            await connection.execute(UNMUTE)


async def schema_missing(world: World) -> None:
    """The table of the keys has gone, and comes back."""
    half = len(world.victims) // 2
    await world.admin.end_keys(world.victims[:half])
    ending = asyncio.create_task(world.admin.end_keys(world.victims[half:]))
    async with connect_past(world) as connection:
        await connection.execute("ALTER TABLE api_keys RENAME TO keys_of_old")
        try:
            await world.pass_bounds(3)
        finally:
            await connection.execute("ALTER TABLE keys_of_old RENAME TO api_keys")
    await ending


ROWS = (
    Row("crowd_revoked", "a thousand keys revoked at once, those in use amid them", crowd_revoked),
    Row("news_forged", "forged, malformed, repeated and unknown notifications", news_forged, long=True),
    Row(
        "queue_full",
        "the NOTIFY queue is full, a listener idle in a transaction holds it",
        queue_full,
        True,
        FULL_QUEUE,
    ),
    Row("triggers_muted", "the triggers that tell the news are disabled", triggers_muted, long=True),
    Row("schema_missing", "the table of the keys is missing", schema_missing, long=True),
)
