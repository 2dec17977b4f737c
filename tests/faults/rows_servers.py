"""Rows of the matrix: a database that lets nobody in, has no room, or is not the same one any more."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import asyncpg

from tests.faults.admin import ENDS, REVOKED
from tests.faults.journal import Answered, Sent
from tests.faults.load import boot
from tests.faults.processes import GUARD_SECONDS, follow_primary
from tests.faults.row import Row
from tests.faults.rows_changes import connect_past
from tests.faults.world import POLL_SECONDS, World

SMALL_DISK = {"postgres_settings": {"min_wal_size": "32MB", "max_wal_size": "32MB"}, "disk_bytes": 160 * 1024 * 1024}
OWN: dict[str, object] = {}
MANY_LETTERS = "SELECT pg_logical_emit_message(false, 'bench', repeat('x', 8000000))"
MISSED = 4
"""How many keys end without the replica's knowledge."""


async def shut_out(world: World, arrange: Awaitable[None]) -> None:
    """Every proxy loses its connections, and something is arranged before it can make others."""
    for relay in world.relays:
        relay.freeze()
        relay.cut()
    await arrange
    for relay in world.relays:
        relay.heal()


async def connections_exhausted(world: World) -> None:
    """Somebody else holds every connection there is."""
    hogs: list[asyncpg.Connection] = []
    try:
        await shut_out(world, take_every_connection(world, hogs))
        await world.admin.end_keys(world.victims, world.timing.bound_seconds)
        await world.pass_bounds(2)
    finally:
        for hog in hogs:
            hog.terminate()


async def take_every_connection(world: World, hogs: list[asyncpg.Connection]) -> None:
    """All but those that the administrator has already. One that was reset takes a moment to be free."""
    await asyncio.gather(*(world.admin.database.fetch("SELECT pg_sleep(0.1)") for _ in range(8)))
    latest = boot() + world.timing.bound_seconds
    while boot() < latest:
        try:
            hogs.append(await asyncpg.connect(world.postgres.url, timeout=GUARD_SECONDS))
        except asyncpg.TooManyConnectionsError:
            await asyncio.sleep(POLL_SECONDS)


async def password_changed(world: World) -> None:
    """The proxies' password is not the right one any more, until it is again."""
    right = (world.postgres.home / "password").read_text().strip()
    async with connect_past(world) as connection:
        try:
            await shut_out(world, connection.execute("ALTER ROLE aegis PASSWORD 'another'"))
            await world.admin.end_keys(world.victims, world.timing.bound_seconds)
            await world.pass_bounds(2)
        finally:
            await connection.execute(f"ALTER ROLE aegis PASSWORD '{right}'")


async def failed_over(world: World) -> None:
    """The primary dies and a replica takes its place that has missed revocations. Who heard of them does not forget.

    The loss of the commits themselves is outside of every promise, so they are asked for again; until then nothing but
    the proxies' memory stands in the way.
    """
    replica = await world.stack.enter_async_context(follow_primary(world.postgres))
    missed = world.victims[:MISSED]
    await replica.stop_following()
    for key in missed:
        await world.admin.insist(key.summary.id, REVOKED)
    await wait_refused(world, {key.summary.id for key in missed})
    world.postgres.kill()
    await replica.promote()
    await world.move_to(replica)
    await world.wait_ready()
    await world.pass_bounds(3)
    for key in missed:
        await world.admin.insist(key.summary.id, REVOKED)
    for key in world.victims[MISSED:]:
        await world.admin.insist(key.summary.id, world.dice.choice(ENDS))


async def wait_refused(world: World, key_ids: set[str]) -> None:
    """Return once each proxy has said of each of these keys that it is revoked."""
    expected = {(key_id, proxy.name) for key_id in key_ids for proxy in world.proxies}
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            refused = {e.id for e in world.journal.events if isinstance(e, Answered) and e.reason == "key_revoked"}
            if expected <= {(e.key, e.proxy) for e in world.journal.events if isinstance(e, Sent) and e.id in refused}:
                return
            await asyncio.sleep(POLL_SECONDS)


async def disk_full(world: World) -> None:
    """No room for another segment of the log: PostgreSQL falls over, and whoever wanted to revoke is told so."""
    half = len(world.victims) // 2
    await world.admin.end_keys(world.victims[:half])
    ending = asyncio.create_task(world.admin.end_keys(world.victims[half:], world.timing.bound_seconds))
    with fill_disk(world):
        await spoil_log(world)
        await world.pass_bounds(2)
    await world.postgres.start()
    await ending


@contextmanager
def fill_disk(world: World) -> Iterator[None]:
    """Not a byte is left beside the data, until the context ends."""
    filler = world.postgres.data / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        size = 1 << 20
        while size:
            try:
                os.write(descriptor, b"x" * size)
            except OSError:
                size //= 2
        yield
    finally:
        os.close(descriptor)
        filler.unlink()


async def spoil_log(world: World) -> None:
    """Write until the log needs room."""
    try:
        async with connect_past(world) as connection:
            while True:
                await connection.execute(MANY_LETTERS, timeout=GUARD_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        pass


def find_no_root() -> str | None:
    """Only root can mount a small file system."""
    return None if os.geteuid() == 0 and shutil.which("mount") else "a small file system takes root to mount"


ROWS = (
    Row("connections_exhausted", "max_connections is reached by others", connections_exhausted, long=True),
    Row("password_changed", "the password is not the right one any more", password_changed, long=True),
    Row("failed_over", "a replica that missed revocations is promoted", failed_over, long=True, own_world=OWN),
    Row("disk_full", "PostgreSQL's disk is full", disk_full, True, SMALL_DISK, find_no_root),
)
