"""The door to Postgres: answers in time or not at all, says no secret, and brings the schema up to date."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.database import Connection, Database, connect, describe_failure, describe_place, list_migrations, migrate
from proxy.errors import DatabaseError, RowRefusedError
from tests.faults.relay import Relay, run_relay
from tests.staging import GUARD_SECONDS

T = TypeVar("T")
GUARD = 0.25
"""Seconds a statement may take in these tests."""
IN_TIME = 5.0
"""Far above the guard, for a busy machine; far below any answer of a frozen server."""


@asynccontextmanager
async def open_small(url: str, max_size: int = 1) -> AsyncIterator[Database]:
    async with Database.open(
        url, min_size=1, max_size=max_size, connect_timeout_seconds=IN_TIME, query_timeout_seconds=GUARD
    ) as database:
        yield database


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Database]:
    """One connection."""
    async with open_small(database_url) as database:
        yield database


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Relay]:
    async with run_relay(database_url) as relay:
        yield relay


async def in_time(awaitable: Awaitable[T]) -> T:
    began = time.monotonic()
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            return await awaitable
    finally:
        assert time.monotonic() - began < IN_TIME


async def read_pid(database: Database) -> int:
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            try:
                return int((await database.fetch("SELECT pg_backend_pid()"))[0][0])
            except DatabaseError:  # a slow machine, connecting anew
                continue


# Statements


async def test_a_statement_returns_its_rows(small: Database) -> None:
    rows = await small.fetch("SELECT n, $1::text AS word FROM generate_series(1, 2) AS n", "x")
    assert [tuple(row) for row in rows] == [(1, "x"), (2, "x")]


async def test_a_refused_statement_is_a_database_error_and_harms_nobody(small: Database) -> None:
    pid = await read_pid(small)
    with pytest.raises(DatabaseError, match=r"^DivisionByZeroError: division by zero$"):
        await small.fetch("SELECT 1 / 0")
    assert await read_pid(small) == pid


async def test_the_text_of_an_error_quotes_no_row(small: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        await small.fetch("INSERT INTO owners (tenant_id, issuer, subject, tier) VALUES ('', 'x', 'canary', 'x')")
    assert "owners_tenant_id_check" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_question_between_the_server_s_goodbye_and_its_close_says_what_happened() -> None:
    error = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    assert describe_failure(error).startswith("the connection was ended by the server")


async def test_a_transaction_commits_what_its_work_did(small: Database) -> None:
    async def work(connection: Connection) -> str:
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (1)")
        return "done"

    assert await small.transact(work) == "done"
    assert (await small.fetch("SELECT count(*) FROM kept"))[0][0] == 1


async def test_an_error_of_the_work_itself_rolls_back_and_passes_through(small: Database) -> None:
    class OurOwnError(Exception):
        pass

    async def work(connection: Connection) -> None:
        await connection.execute("CREATE TABLE dropped (n int)")
        raise OurOwnError

    with pytest.raises(OurOwnError):
        await small.transact(work)
    assert (await small.fetch("SELECT to_regclass('dropped')"))[0][0] is None


async def test_a_row_that_a_constraint_refuses_is_told_from_a_database_that_is_away(small: Database) -> None:
    await small.fetch("CREATE TABLE numbers (n int CHECK (n > 0) UNIQUE)")
    await small.fetch("INSERT INTO numbers VALUES (1)")
    for statement in ("INSERT INTO numbers VALUES (0)", "INSERT INTO numbers VALUES (1)"):
        with pytest.raises(RowRefusedError):
            await small.fetch(statement)
    with pytest.raises(DatabaseError) as caught:
        await small.fetch("SELECT FROM nowhere")
    assert not isinstance(caught.value, RowRefusedError)


# The guard


async def test_a_slow_statement_is_given_up_in_time_and_its_connection_with_it(small: Database) -> None:
    pid = await read_pid(small)
    with pytest.raises(DatabaseError, match=r"^the database did not answer within 0\.25 s$"):
        await in_time(small.fetch("SELECT pg_sleep(60)"))
    assert await in_time(read_pid(small)) != pid


async def test_a_slow_transaction_is_given_up_in_time_and_leaves_nothing(small: Database) -> None:
    pid = await read_pid(small)

    async def work(connection: Connection) -> None:
        await connection.execute("CREATE TABLE dropped (n int)")
        await connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(DatabaseError, match="did not answer within"):
        await in_time(small.transact(work))
    assert await in_time(read_pid(small)) != pid
    assert (await small.fetch("SELECT to_regclass('dropped')"))[0][0] is None


async def test_a_transaction_may_be_given_its_own_time(small: Database) -> None:
    with pytest.raises(DatabaseError, match=r"^the database did not answer within 0\.01 s$"):
        await in_time(
            small.transact(lambda connection: connection.execute("SELECT pg_sleep(60)"), timeout_seconds=0.01)
        )


async def test_waiting_for_a_connection_is_bounded_too(small: Database) -> None:
    let_go = asyncio.Event()
    began = asyncio.Event()

    async def hold(_connection: Connection) -> None:
        began.set()
        await let_go.wait()

    holding = asyncio.create_task(small.transact(hold, timeout_seconds=GUARD_SECONDS))
    await began.wait()
    with pytest.raises(DatabaseError):
        await in_time(small.fetch("SELECT 1"))
    let_go.set()
    await holding
    assert await read_pid(small)


async def test_a_frozen_server_is_given_up_in_time_and_the_pool_recovers(relay: Relay) -> None:
    async with open_small(relay.url, max_size=4) as database:
        pid = await read_pid(database)
        relay.freeze()
        plain = [database.fetch("SELECT 1") for _ in range(5)]
        atomic = [database.transact(lambda connection: connection.fetch("SELECT 1")) for _ in range(5)]
        failures = await in_time(asyncio.gather(*plain, *atomic, return_exceptions=True))
        assert [type(failure) for failure in failures] == [DatabaseError] * 10
        relay.heal()
        assert await read_pid(database) != pid


async def test_a_server_that_freezes_inside_a_transaction_is_given_up_in_time(relay: Relay) -> None:
    async with open_small(relay.url) as database:

        async def work(connection: Connection) -> None:
            await connection.execute("SELECT 1")
            relay.freeze()
            raise ValueError  # and the ROLLBACK is never answered

        with pytest.raises(DatabaseError, match="did not answer"):
            await in_time(database.transact(work))
        relay.heal()
        assert await read_pid(database)


async def test_a_server_that_freezes_as_a_connection_goes_back_is_given_up_in_time(relay: Relay) -> None:
    async with open_small(relay.url) as database:

        async def work(_connection: Connection) -> int:
            relay.freeze()
            return 1

        with pytest.raises(DatabaseError, match="did not answer"):
            await in_time(database.transact(work, atomic=False))
        relay.heal()
        assert await read_pid(database)


async def test_a_cut_connection_is_a_database_error_and_the_pool_recovers(relay: Relay) -> None:
    async with open_small(relay.url) as database:
        await read_pid(database)
        running = asyncio.create_task(database.fetch("SELECT pg_sleep(60)"))
        await asyncio.sleep(0)
        relay.cut()
        with pytest.raises(DatabaseError):
            await in_time(running)
        assert await read_pid(database)


async def test_a_frozen_server_does_not_hold_up_closing(relay: Relay) -> None:
    async def use() -> None:
        async with open_small(relay.url) as database:
            await read_pid(database)
            relay.freeze()
            with pytest.raises(DatabaseError):
                await database.fetch("SELECT 1")

    await in_time(use())


async def test_a_server_frozen_while_idle_does_not_hold_up_closing(relay: Relay) -> None:
    async def use() -> None:
        async with open_small(relay.url) as database:
            await read_pid(database)
            relay.freeze()

    await in_time(use())


# Callers who leave


async def test_a_caller_who_leaves_ends_the_statement_and_the_pool_recovers(small: Database) -> None:
    pid = await read_pid(small)
    began = asyncio.Event()

    async def work(connection: Connection) -> None:
        began.set()
        await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(small.transact(work, timeout_seconds=GUARD_SECONDS))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert await in_time(read_pid(small)) != pid


async def test_a_caller_may_leave_just_as_the_connection_has_gone_back(small: Database) -> None:
    """Between the release and the end of the task that did it, there is no connection left to terminate."""
    held: list[Connection] = []

    async def work(connection: Connection) -> None:
        held.append(connection)

    def is_released() -> bool:
        try:
            held[0].is_closed()
        except asyncpg.InterfaceError:
            return True
        return False

    task = asyncio.create_task(small.transact(work, atomic=False))
    while not (held and is_released()):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert await read_pid(small)


async def test_a_failure_after_its_caller_left_is_dropped_in_silence(small: Database) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    began = asyncio.Event()

    async def work(connection: Connection) -> None:
        began.set()
        try:
            await connection.execute("SELECT pg_sleep(60)")
        except asyncio.CancelledError:
            raise ValueError from None

    task = asyncio.create_task(small.transact(work))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_time(task)
    assert await read_pid(small)
    assert complaints == []


# What errors say

PASSWORD = "hunter2"
ODD_PASSWORDS = [
    "12/{}",
    "{}/x",
    "12#{}",
    "{}#x",
    "12?{}",
    "{}?x",
    "x?y={}",
    "1@{}",
    "{}@1",
    "[{}",
    "{}]",
    "%{}",
    ":{}",
]


@pytest.mark.parametrize("form", ["{}", *ODD_PASSWORDS])
async def test_no_error_of_connecting_holds_the_password(form: str) -> None:
    """An unescaped / ? # or @ makes a part of the password look like host, port, path or query."""
    password = form.format(PASSWORD)
    urls = [
        f"postgresql://ada:{password}@127.0.0.1:1/aegis",
        f"postgresql://ada:{password}@127.0.0.1:1/aegis?sslmode=bogus",
        f"postgresql://ada@127.0.0.1:1/aegis?password={password}",
    ]
    for url in urls:
        with pytest.raises(DatabaseError) as by_connecting:
            await in_time(connect(url, IN_TIME))
        with pytest.raises(DatabaseError) as by_opening:
            await in_time(open_small(url).__aenter__())
        for caught in (by_connecting, by_opening):
            assert PASSWORD not in str(caught.value)
            assert "cannot connect" in str(caught.value)
            assert caught.value.__cause__ is None


@given(st.text(min_size=6))
def test_a_place_is_never_made_of_the_password(rest: str) -> None:
    place = describe_place(f"postgresql://ada:12{rest}@db.test:5432/aegis")
    assert place in ("db.test:5432/aegis", "the database")


async def test_a_wrong_password_is_told_without_it(database_url: str) -> None:
    parts = urlsplit(database_url)
    assert parts.password is not None
    wrong = database_url.replace(parts.password, PASSWORD)
    with pytest.raises(DatabaseError, match="password authentication failed") as caught:
        await connect(wrong, IN_TIME)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://ada:x@db.test:6432/aegis?sslmode=require", "db.test:6432/aegis"),
        ("postgresql://ada:x@db.test/aegis", "db.test:5432/aegis"),
        ("postgresql://[::1]:5433/aegis", "::1:5433/aegis"),
        ("postgresql://ada@/aegis?host=/run/postgresql&password=x", "local socket:5432/aegis"),
        ("postgresql://ada:x@db.test:port/aegis", "the database"),
    ],
)
def test_a_place_is_host_port_and_database(url: str, place: str) -> None:
    assert describe_place(url) == place


async def test_connecting_to_a_silent_server_ends_in_time(relay: Relay) -> None:
    relay.freeze()
    with pytest.raises(DatabaseError, match=r"^cannot connect to 127\.0\.0\.1:\d+/test_\d+: "):
        await in_time(connect(relay.url, GUARD))


async def test_a_pool_to_a_silent_server_ends_in_time(relay: Relay) -> None:
    relay.freeze()
    pool = Database.open(
        relay.url, min_size=1, max_size=2, connect_timeout_seconds=GUARD, query_timeout_seconds=GUARD
    )  # fmt: skip
    with pytest.raises(DatabaseError, match=r"^cannot connect to 127\.0\.0\.1:\d+/test_\d+: "):
        await in_time(pool.__aenter__())


# Migrations


async def read_applied(url: str) -> list[int]:
    connection = await connect(url, IN_TIME)
    rows = await connection.fetch("SELECT number FROM schema_migrations ORDER BY number")
    await connection.close()
    return [row["number"] for row in rows]


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    migrations = list_migrations()
    assert [number for number, _, _ in migrations] == list(range(1, len(migrations) + 1))
    assert all(name.startswith(f"{number:04}_") and sql.strip() for number, name, sql in migrations)


async def test_migrating_twice_applies_everything_once(empty_database_url: str) -> None:
    names = [name for _, name, _ in list_migrations()]
    assert await migrate(empty_database_url) == names
    assert await migrate(empty_database_url) == []
    assert await read_applied(empty_database_url) == list(range(1, len(names) + 1))


async def test_several_instances_that_migrate_at_once_apply_everything_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert sorted(applied) == [[], [], [], [name for _, name, _ in list_migrations()]]


async def test_a_schema_newer_than_this_release_is_left_alone(database_url: str, database: Database) -> None:
    await database.fetch("INSERT INTO schema_migrations VALUES (9999, '9999_from_the_future')")
    assert await migrate(database_url) == []
    assert (await read_applied(database_url))[-1] == 9999


async def test_a_migration_that_fails_leaves_nothing_and_can_be_repeated(empty_database_url: str) -> None:
    async with open_small(empty_database_url) as database:
        await database.fetch("CREATE TABLE audit_events (in_the_way int)")
        with pytest.raises(DatabaseError, match=r"^migration failed: DuplicateTableError: .*audit_events"):
            await migrate(empty_database_url)
        assert (await database.fetch("SELECT to_regclass('owners')"))[0][0] is None
        assert await read_applied(empty_database_url) == []
        await database.fetch("DROP TABLE audit_events")
    assert await migrate(empty_database_url) == [name for _, name, _ in list_migrations()]


async def test_migrating_without_a_server_says_so() -> None:
    with pytest.raises(DatabaseError, match=r"^cannot connect to 127\.0\.0\.1:1/aegis: "):
        await migrate("postgresql://ada:x@127.0.0.1:1/aegis")


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_migration_that_is_held_up_ends_in_time(empty_database_url: str, frozen: bool) -> None:
    """Also when the server falls silent: a ROLLBACK would wait for it for ever."""
    async with run_relay(empty_database_url) as relay:
        in_the_way = await connect(empty_database_url, IN_TIME)
        await in_the_way.execute("BEGIN; CREATE TABLE owners (in_the_way int)")
        migrating = asyncio.create_task(migrate(relay.url, timeout_seconds=1))
        while not await in_the_way.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not migrating.done()
        if frozen:
            relay.freeze()
        with pytest.raises(DatabaseError, match=r"^migration failed: not done within 1 s$"):
            await in_time(migrating)
        await in_the_way.close()
