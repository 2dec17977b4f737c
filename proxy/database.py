"""The one door to Postgres: a pool whose every statement answers in time, or is given up.  [io]

In go SQL and arguments, out come rows; foreign exceptions become `DatabaseError` here. It knows no table.
A frozen server makes asyncpg's own timeouts hang while the connection is released (measured), so each statement
runs under a guard of our own that terminates the connection instead of waiting for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg

from proxy.errors import DatabaseError, RowRefusedError

T = TypeVar("T")
Connection: TypeAlias = asyncpg.Connection

# "aegis", as a number: the advisory lock under which one instance migrates while the others wait.
MIGRATION_LOCK = 0x6165676973
NAME = "aegis-proxy"
UNNAMED = "the database"
# What a broken, refusing or silent server raises; anything else is a bug of ours and stays loud.
# (InternalClientError: a server that is dying tells an idle connection so, and asyncpg loses its place.)
FOREIGN_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
)


def describe_failure(error: BaseException) -> str:
    """What went wrong, without the URL or anything else that may hold a password."""
    if isinstance(error, asyncpg.PostgresError):  # whose text would go on with DETAIL, which quotes whole rows
        return f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    if isinstance(error, asyncpg.InternalClientError):  # asked after the server's goodbye was read, before its close
        return f"the connection was ended by the server, or is out of step: {error}"
    return str(error).strip() or type(error).__name__


async def connect(url: str, timeout_seconds: float, *, name: str = NAME) -> Connection:
    """A connection of the caller's own, outside any pool. Raises DatabaseError.

    `name` is what pg_stat_activity shows.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            return await asyncpg.connect(url, timeout=timeout_seconds, server_settings={"application_name": name})
    except (*FOREIGN_ERRORS, ValueError) as error:
        raise _form_connect_error(url, error) from None


def describe_place(url: str) -> str:
    """Host and database of a URL, for messages; unnamed where an unescaped / ? or # in the password would be read as
    their beginning."""
    try:
        parts = urlsplit(url)
        if "@" in parts.path + parts.query + parts.fragment:
            return UNNAMED
        return f"{parts.hostname or 'local socket'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return UNNAMED


def _form_connect_error(url: str, error: BaseException) -> DatabaseError:
    """Parsers of URLs name what they choke on, which may be half a password: of those only the type is told."""
    place, why = describe_place(url), describe_failure(error)
    if place == UNNAMED or (isinstance(error, ValueError) and not isinstance(error, asyncpg.InterfaceError)):
        why = f"{type(error).__name__}; percent-encode @ / ? # [ ] in the user and password of its URL"
    return DatabaseError(f"cannot connect to {place}: {why}")


class Database:
    """A small pool. `timeout_seconds` bounds each statement, acquiring included."""

    def __init__(self, pool: asyncpg.Pool, timeout_seconds: float) -> None:
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._abandoned: set[asyncio.Task[Any]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, min_size: int, max_size: int, connect_timeout_seconds: float, query_timeout_seconds: float
    ) -> AsyncIterator[Database]:
        """A pool for as long as the context lasts. Raises DatabaseError when nothing answers."""
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=min_size,
                max_size=max_size,
                timeout=connect_timeout_seconds,
                command_timeout=query_timeout_seconds,
                server_settings={"application_name": NAME},
            )
        except (*FOREIGN_ERRORS, ValueError) as error:
            raise _form_connect_error(url, error) from None
        database = cls(pool, query_timeout_seconds)
        try:
            yield database
        finally:
            await database._close()

    async def renew(self) -> None:
        """Have every connection replaced before its next use: the server they lead to may be the wrong one now."""
        await self._pool.expire_connections()

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one statement and return its rows. Raises DatabaseError."""
        return await self.transact(lambda connection: connection.fetch(query, *arguments), atomic=False)

    async def transact(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        atomic: bool = True,
        timeout_seconds: float | None = None,
    ) -> T:
        """Run `work` on one connection, in a transaction when `atomic`. Raises DatabaseError, and RowRefusedError when
        the server is well and the row is not."""
        guard_seconds = timeout_seconds or self._timeout_seconds
        held: list[Connection] = []
        task = asyncio.create_task(self._run(work, held, atomic, guard_seconds))
        try:
            done, _ = await asyncio.wait({task}, timeout=guard_seconds)
        except asyncio.CancelledError:
            self._abandon(task, held)
            raise
        if not done:
            self._abandon(task, held)
            raise DatabaseError(f"the database did not answer within {guard_seconds:g} s")
        try:
            return task.result()
        except asyncpg.IntegrityConstraintViolationError as error:
            raise RowRefusedError(describe_failure(error)) from error
        except FOREIGN_ERRORS as error:
            raise DatabaseError(describe_failure(error)) from error

    async def _run(
        self, work: Callable[[Connection], Awaitable[T]], held: list[Connection], atomic: bool, guard_seconds: float
    ) -> T:
        async with self._pool.acquire(timeout=guard_seconds) as connection:
            held.append(connection)
            if not atomic:
                return await work(connection)
            async with connection.transaction():
                return await work(connection)

    def _abandon(self, task: asyncio.Task[Any], held: list[Connection]) -> None:
        """Terminate the connection first: a cancelled asyncpg query would wait for the very server that is silent."""
        for connection in held:
            with suppress(asyncpg.InterfaceError):  # it is back in the pool already
                connection.terminate()
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # read, so that a given-up failure is not reported a second time

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except (TimeoutError, *FOREIGN_ERRORS):
            self._pool.terminate()
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=1)


def list_migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration, in order."""
    files = (entry for entry in (resources.files("proxy") / "migrations").iterdir() if entry.name.endswith(".sql"))
    return sorted((int(entry.name[:4]), entry.name.removesuffix(".sql"), entry.read_text("utf-8")) for entry in files)


async def migrate(url: str, *, timeout_seconds: float = 60.0) -> list[str]:
    """Bring the schema up to date; return the names applied now. Raises DatabaseError.

    Runs on a connection of its own, under an advisory lock, one transaction per migration. A schema newer than this
    release is left alone: during a rolling upgrade the older instances keep serving.
    """
    connection = await connect(url, timeout_seconds)
    loop = asyncio.get_running_loop()
    # Terminated, not cancelled: after a cancellation asyncpg would wait for a silent server's answer to ROLLBACK.
    guard = loop.call_later(timeout_seconds, connection.terminate)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        return await _apply_missing(connection)
    except FOREIGN_ERRORS as error:
        late = loop.time() >= guard.when()
        why = f"not done within {timeout_seconds:g} s" if late else describe_failure(error)
        raise DatabaseError(f"migration failed: {why}") from error
    finally:
        guard.cancel()
        connection.terminate()


async def _apply_missing(connection: Connection) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    present = {row["number"] for row in await connection.fetch("SELECT number FROM schema_migrations")}
    applied = []
    for number, name, sql in list_migrations():
        if number in present:
            continue
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute("INSERT INTO schema_migrations (number, name) VALUES ($1, $2)", number, name)
        applied.append(name)
    return applied
