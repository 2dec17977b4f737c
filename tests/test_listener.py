"""The listener against a real PostgreSQL: what it hears, what it proves, and how it finds out that it is deaf."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from proxy.clock import Clock, DatabaseClock, SystemClock
from proxy.database import connect, migrate
from proxy.embedded_postgres import run_embedded_postgres
from proxy.errors import DatabaseError
from proxy.identity import KeyId
from proxy.listener import TRIGGERS, Listener, Pace
from proxy.news import CHANNEL, EVERYTHING, News
from tests.faults.relay import run_relay
from tests.staging import GUARD_SECONDS, Stage

PATIENT = Pace(heartbeat_seconds=0.02, patience_seconds=GUARD_SECONDS, compare_seconds=0.05)
IMPATIENT = Pace(heartbeat_seconds=0.02, patience_seconds=0.3, compare_seconds=0.05)
TELLING = [
    ("api_keys", "aegis_4_tell"),
    ("api_key_secrets", "aegis_2_tell"),
    ("legacy_digests", "aegis_1_touch"),
    ("owners", "aegis_2_tell"),
]


class Notebook:
    """A hearer that notes what it was told, in order, and what the fault was whenever the listener was lost."""

    def __init__(self) -> None:
        self.told: list[str | News] = []
        self.stamps: list[float] = []
        self.faults: list[str] = []
        self.on_revalidate: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext
        self.listener: Listener
        self._told_more = asyncio.Event()

    def _note(self, what: str | News) -> None:
        self.told.append(what)
        self._told_more.set()

    def hear(self, news: News) -> None:
        self._note(news)

    async def revalidate(self) -> None:
        self._note("revalidating")
        async with self.on_revalidate():
            self._note("revalidated")

    def prove(self, stamp: float) -> None:
        self.stamps.append(stamp)
        self._note("proven")

    def lose(self) -> None:
        self.faults.append(self.listener.fault or "")
        self._note("lost")

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while not condition():
                self._told_more.clear()
                await self._told_more.wait()

    async def wait_told(self, *what: str | News) -> None:
        """Return when all of this was said, in this order, whatever stands between."""

        def is_told() -> bool:
            told = iter(self.told)
            return all(one in told for one in what)

        await self.wait_until(is_told)

    def count(self, what: str | News) -> int:
        return self.told.count(what)


def make_listener(url: str, pace: Pace = PATIENT, clock: Clock | None = None) -> tuple[Listener, Notebook]:
    notebook = Notebook()
    listener = notebook.listener = Listener(
        url,
        instance=uuid4(),
        pace=pace,
        clock=clock or SystemClock(),
        database_clock=DatabaseClock(),
        hearer=notebook,
    )
    return listener, notebook


@contextlib.asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[None]:
    task = asyncio.create_task(listener.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), "it ends by cancellation only"


@contextlib.asynccontextmanager
async def listening_to(url: str, pace: Pace = PATIENT) -> AsyncIterator[Notebook]:
    """A listener at work, proven."""
    listener, notebook = make_listener(url, pace)
    async with running(listener):
        await notebook.wait_told("proven")
        yield notebook


async def end_backends(stage: Stage, name: str) -> None:
    """As an administrator would: end the connections of this database that bear this name."""
    await stage.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = $1",
        name,
    )


async def wait_for_no_backends(url: str) -> None:
    """Return when nobody else is connected to this database."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            while await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ):
                pass
    finally:
        await connection.close()


# What it hears.


async def test_it_listens_then_revalidates_then_proves(stage: Stage) -> None:
    """What is committed while everything is being read again is heard: LISTEN came first."""
    listener, notebook = make_listener(stage.database_url)
    key = await stage.mint()
    said = News(key_id=KeyId(key.summary.id))

    @contextlib.asynccontextmanager
    async def revoke_meanwhile() -> AsyncIterator[None]:
        assert not listener.proven.is_set()
        await stage.revoke_by_sql(key)
        await notebook.wait_told(said)
        yield

    notebook.on_revalidate = revoke_meanwhile
    assert listener.fault
    async with running(listener):
        await notebook.wait_told("proven")
        assert notebook.told[:4] == ["revalidating", said, "revalidated", "proven"]
        await listener.proven.wait()
        assert listener.fault is None


async def test_whatever_anybody_commits_is_heard(stage: Stage) -> None:
    key = await stage.mint()
    key_id = key.summary.id
    connection = await asyncpg.connect(stage.database_url)
    owner_id = str(await connection.fetchval("SELECT owner_id FROM api_keys WHERE id = $1", key_id))
    of_key, of_owner = News(key_id=KeyId(key_id)), News(owner_id=owner_id)  # type: ignore[arg-type]
    async with listening_to(stage.database_url) as notebook:
        for statement, news in [
            ("UPDATE api_keys SET scopes = '{}'", of_key),
            ("UPDATE api_key_secrets SET not_after = now()", of_key),
            ("UPDATE owners SET disabled_at = now()", of_owner),
            ("DELETE FROM api_key_secrets", of_key),
            ("SET session_replication_role = replica; UPDATE api_keys SET status = 'revoked'", of_key),
            ("DELETE FROM api_keys", of_key),
            ("TRUNCATE api_keys CASCADE", EVERYTHING),
        ]:
            before = notebook.count(news)
            await connection.execute(statement)
            await notebook.wait_until(lambda before=before, news=news: notebook.count(news) > before)  # type: ignore[misc]
    await connection.close()


async def test_what_cannot_be_read_is_heard_as_everything(stage: Stage) -> None:
    async with listening_to(stage.database_url) as notebook:
        await stage.sql("SELECT pg_notify($1, 'what is this?')", CHANNEL)
        await notebook.wait_told(EVERYTHING)


async def test_what_was_committed_before_a_nonce_was_stamped_is_heard_before_it_proves(stage: Stage) -> None:
    key = await stage.mint()
    said = News(key_id=KeyId(key.summary.id))
    clock = SystemClock()
    connection = await asyncpg.connect(stage.database_url)
    async with listening_to(stage.database_url) as notebook:
        for round_number in range(1, 31):
            await connection.execute("UPDATE api_keys SET expires_at = now() + make_interval(days => $1)", round_number)
            committed = clock.boot()
            await notebook.wait_until(lambda committed=committed: notebook.stamps[-1] >= committed)  # type: ignore[misc]
            assert notebook.count(said) == round_number
    await connection.close()
    assert notebook.stamps == sorted(notebook.stamps)


async def test_the_database_tells_its_time_with_every_nonce(stage: Stage) -> None:
    clock, database_clock, notebook = SystemClock(), DatabaseClock(), Notebook()
    notebook.listener = Listener(
        stage.database_url,
        instance=uuid4(),
        pace=PATIENT,
        clock=clock,
        database_clock=database_clock,
        hearer=notebook,
    )
    async with running(notebook.listener):
        await notebook.wait_told("proven")
    assert abs(database_clock.skew_seconds(clock.boot(), clock.wall())) < 1.0, "it is the same machine"


async def test_two_listeners_do_not_take_each_other_s_nonces(stage: Stage) -> None:
    async with listening_to(stage.database_url) as one, listening_to(stage.database_url) as other:
        await stage.sql("SELECT pg_notify($1, '')", CHANNEL)
        for notebook in (one, other):
            await notebook.wait_told(EVERYTHING, "proven")
            assert notebook.count(EVERYTHING) == 1


# What it loses, and how it comes back.


@pytest.mark.parametrize("name", ["listening", "beating"])
async def test_a_lost_connection_is_noticed_said_and_replaced(stage: Stage, name: str) -> None:
    async with listening_to(stage.database_url) as notebook:
        listener = notebook.listener
        await end_backends(stage, f"aegis-proxy {name}")
        await notebook.wait_told("proven", "lost", "revalidating", "revalidated", "proven")
        assert "connection" in notebook.faults[0]
        assert "pooler" not in notebook.faults[0]
        await listener.proven.wait()
        assert listener.fault is None
        await stage.sql("SELECT pg_notify($1, '')", CHANNEL)
        await notebook.wait_told("lost", EVERYTHING, "proven")


async def test_a_listener_that_was_lost_is_not_proven_until_everything_was_read_again(stage: Stage) -> None:
    async with listening_to(stage.database_url) as notebook:
        listener = notebook.listener
        refusals = iter([True, True, False])

        @contextlib.asynccontextmanager
        async def fail_twice() -> AsyncIterator[None]:
            assert not listener.proven.is_set()
            if next(refusals):
                raise DatabaseError("the pool is dead")
            yield

        notebook.on_revalidate = fail_twice
        proven = notebook.count("proven")
        await end_backends(stage, "aegis-proxy listening")
        await notebook.wait_told(*["lost", "revalidating"] * 3, "revalidated", "proven")
        assert notebook.faults[1:3] == ["the pool is dead"] * 2
        lost = notebook.told.index("lost")
        assert notebook.told[:lost].count("proven") >= proven
        assert "proven" not in notebook.told[lost : notebook.told.index("revalidated", lost)]


async def test_a_connection_that_falls_silent_without_a_word_is_lost_in_time(stage: Stage) -> None:
    async with run_relay(stage.database_url) as relay, listening_to(relay.url, IMPATIENT) as notebook:
        relay.freeze()
        await notebook.wait_told("proven", "lost")
        relay.heal()
        await notebook.wait_told("lost", "revalidated", "proven")


async def test_a_server_that_is_not_there_is_named_without_its_password(postgres_url_elsewhere: str) -> None:
    listener, notebook = make_listener(postgres_url_elsewhere)
    async with running(listener):
        await notebook.wait_told("lost", "lost")
    assert "cannot connect to" in notebook.faults[0]
    assert "s3cret" not in notebook.faults[0]
    assert set(notebook.told) == {"lost"}


@pytest.fixture
def postgres_url_elsewhere(tmp_path: Path) -> str:
    """Nobody listens there."""
    return f"postgresql://aegis:s3cret@/postgres?host={tmp_path}"


# Where it must not be trusted.


class Filter:
    """A relay that reads the server's messages and keeps NotificationResponses to itself, unless let through.

    That is what a pooler in transaction mode does: LISTEN succeeds, and nothing is ever heard.
    (PostgreSQL documentation, "Message Formats": a byte for the type, a length that counts itself.)
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self.lets_through: Callable[[bytes], bool] = lambda _message: False
        self.swallowed = 0
        self.passed = asyncio.Event()
        self.dropped = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket_path)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, server_writer))
                tasks.create_task(self._sift(server_reader, writer))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            server_writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
        raise ConnectionResetError

    async def _sift(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(5)
            message = head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
            if head[:1] != b"A":
                writer.write(message)
            elif self.lets_through(message):
                writer.write(message)
                self.passed.set()
            else:
                self.swallowed += 1
                self.dropped.set()


@contextlib.asynccontextmanager
async def filtered(database_url: str) -> AsyncIterator[tuple[str, Filter]]:
    """The URL of the same database behind a filter."""
    parts = urlsplit(database_url)
    sieve = Filter(f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432")
    carrying: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying.add(asyncio.create_task(sieve.carry(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}?sslmode=disable"
    try:
        yield url, sieve
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
        await server.wait_closed()


async def test_behind_a_pooler_that_swallows_notifications_it_is_never_proven_and_says_what_to_do(
    stage: Stage,
) -> None:
    async with filtered(stage.database_url) as (url, sieve):
        listener, notebook = make_listener(url, IMPATIENT)
        async with running(listener):
            await notebook.wait_told("lost", "lost")
        assert sieve.swallowed >= 2
        assert set(notebook.told) == {"lost"}, "it does not even begin to read again"
        assert not listener.proven.is_set()
        assert "pooler" in notebook.faults[0]
        assert "AEGIS_LISTENER_DATABASE_URL" in notebook.faults[0]


async def test_somebody_else_s_word_on_its_own_channel_proves_nothing(stage: Stage) -> None:
    async with filtered(stage.database_url) as (url, sieve):
        sieve.lets_through = lambda message: b"forged" in message
        listener, notebook = make_listener(url, Pace(heartbeat_seconds=0.02, patience_seconds=1.0, compare_seconds=60))
        async with asyncio.timeout(GUARD_SECONDS), running(listener):
            await sieve.dropped.wait()  # it listens, and waits for its nonce
            await stage.sql("SELECT pg_notify($1, 'forged')", listener._own_channel)
            await sieve.passed.wait()
            await notebook.wait_told("lost")
        assert set(notebook.told) == {"lost"}


async def test_a_pooler_that_is_taken_away_is_recovered_from(stage: Stage) -> None:
    async with filtered(stage.database_url) as (url, sieve):
        listener, notebook = make_listener(url, IMPATIENT)
        async with running(listener):
            await notebook.wait_told("lost")
            sieve.lets_through = lambda _message: True
            await notebook.wait_told("lost", "revalidated", "proven")


@pytest.mark.parametrize("state", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
@pytest.mark.parametrize(("table", "trigger"), TELLING)
async def test_with_a_trigger_that_may_keep_silent_it_is_not_proven(
    stage: Stage, table: str, trigger: str, state: str
) -> None:
    await stage.sql(f"ALTER TABLE {table} {state} TRIGGER {trigger}")
    listener, notebook = make_listener(stage.database_url)
    async with running(listener):
        await notebook.wait_told("lost", "lost")
        assert set(notebook.told) == {"lost"}
        assert f"{TRIGGERS - 1} of {TRIGGERS} triggers" in notebook.faults[0]
        assert "ENABLE ALWAYS" in notebook.faults[0]
        await stage.sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
        await notebook.wait_told("lost", "revalidated", "proven")


async def test_a_trigger_disabled_under_its_feet_loses_it_until_it_is_back(stage: Stage) -> None:
    async with listening_to(stage.database_url) as notebook:
        await stage.sql("ALTER TABLE api_keys DISABLE TRIGGER aegis_4_tell")
        await notebook.wait_told("proven", "lost", "lost")
        assert f"{TRIGGERS - 1} of {TRIGGERS} triggers" in notebook.faults[0]
        assert not notebook.listener.proven.is_set()
        await stage.sql("ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_4_tell")
        await notebook.wait_told("lost", "revalidated", "proven")


async def test_a_channel_it_no_longer_listens_to_loses_it_though_its_nonces_come_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: list[asyncpg.Connection] = []

    async def note_connection(url: str, timeout_seconds: float, *, name: str) -> asyncpg.Connection:
        connection = await connect(url, timeout_seconds, name=name)
        listening.extend([connection] if name.endswith("listening") else [])
        return connection

    monkeypatch.setattr("proxy.listener.connect", note_connection)
    async with listening_to(stage.database_url) as notebook:
        await listening[0].execute(f"UNLISTEN {CHANNEL}")
        await notebook.wait_told("proven", "lost", "revalidated", "proven")
        assert f"no longer listens to {CHANNEL}" in notebook.faults[0]


@pytest.mark.parametrize("hour", [3600.0, -3600.0])
async def test_a_wall_clock_that_jumps_loses_it_once(stage: Stage, hour: float) -> None:
    class SetClock(SystemClock):
        ahead = 0.0

        def wall(self) -> float:
            return super().wall() + self.ahead

    clock = SetClock()
    listener, notebook = make_listener(stage.database_url, clock=clock)
    async with running(listener):
        await notebook.wait_told("proven")
        clock.ahead = hour
        await notebook.wait_told("proven", "lost", "revalidated", *["proven"] * 3)
        assert notebook.count("lost") == 1
        assert f"{hour:+.0f} s" in notebook.faults[0]


async def test_an_address_that_leads_to_another_server_now_is_found_out(stage: Stage) -> None:
    """As after a failover whose old primary still lives: our connections stand, new ones go elsewhere."""
    async with run_embedded_postgres(None) as other, run_relay(stage.database_url) as relay:
        here, there = urlsplit(stage.database_url), urlsplit(other.url)
        name = here.path[1:]
        await execute(other.url, f"ALTER ROLE {here.username} PASSWORD '{here.password}'", f"CREATE DATABASE {name}")
        await migrate(here._replace(query=there.query).geturl())
        target, elsewhere = relay.target, f"{parse_qs(there.query)['host'][0]}/.s.PGSQL.5432"
        async with listening_to(relay.url) as notebook:
            relay.target = elsewhere
            await notebook.wait_told("proven", "lost")
            assert "another server" in notebook.faults[0]
            relay.target = target
            await notebook.wait_told("lost", "revalidated", "proven")


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_a_database_without_the_schema_is_not_trusted_until_it_has_one(empty_database_url: str) -> None:
    listener, notebook = make_listener(empty_database_url)
    async with running(listener):
        await notebook.wait_told("lost")
        assert "api_keys" in notebook.faults[0]
        await migrate(empty_database_url)
        await notebook.wait_told("lost", "revalidated", "proven")


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below pytest's own directory: that one is closed to the account a root's server runs as."""
    with tempfile.TemporaryDirectory(prefix="aegis-test-") as parent:
        Path(parent).chmod(0o755)
        yield Path(parent) / "database"


async def test_a_standby_is_refused_by_name(home: Path) -> None:
    async with run_embedded_postgres(home, options={"wal_level": "replica"}) as primary:
        await migrate(primary.url)
    (home / "data" / "standby.signal").touch(mode=0o666)
    async with run_embedded_postgres(home, options={"wal_level": "replica"}) as standby:
        listener, notebook = make_listener(standby.url)
        async with running(listener):
            await notebook.wait_told("lost")
    assert "standby" in notebook.faults[0]
    assert "primary" in notebook.faults[0]
    assert set(notebook.told) == {"lost"}


# How it ends.


async def test_cancelled_it_leaves_no_task_and_no_connection(database_url: str) -> None:
    before = asyncio.all_tasks()
    listener, notebook = make_listener(database_url)
    async with running(listener):
        await notebook.wait_told("proven")
    assert notebook.told[-1] == "lost"
    assert not listener.proven.is_set()
    assert asyncio.all_tasks() == before
    await wait_for_no_backends(database_url)


async def test_cancelled_while_everything_is_read_again_it_leaves_nothing_either(database_url: str) -> None:
    before = asyncio.all_tasks()
    listener, notebook = make_listener(database_url)

    @contextlib.asynccontextmanager
    async def hang() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    notebook.on_revalidate = hang
    async with running(listener):
        await notebook.wait_told("revalidating")
    assert notebook.told == ["revalidating", "lost"]
    assert asyncio.all_tasks() == before
    await wait_for_no_backends(database_url)


async def test_cancelled_while_its_nonce_is_awaited_it_leaves_nothing_either(database_url: str) -> None:
    async with filtered(database_url) as (url, sieve):
        listener, _ = make_listener(url)
        async with asyncio.timeout(GUARD_SECONDS), running(listener):
            await sieve.dropped.wait()
        await wait_for_no_backends(database_url)
