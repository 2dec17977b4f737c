"""One PostgreSQL for the whole run, one database per test, and an ear for secrets that get out."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from hypothesis import settings as hypothesis_settings

from proxy.database import Database, migrate
from proxy.demo.sample_server import SampleServer, run_sample_server
from proxy.embedded_postgres import EmbeddedPostgres, run_embedded_postgres
from proxy.keys.hashing import Hasher
from proxy.keys.store import KeyStore
from proxy.logs import configure_logging
from proxy.policy import Policy, load_policy
from proxy.server import Proxy
from proxy.settings import find_shipped
from tests.ear import Ear as Ear  # whoever knows the fixture, knows it from here
from tests.staging import Stage, Wire, get_mcp_url

# Two cores shared with others: a slow example is no fault.
hypothesis_settings.register_profile("aegis", deadline=None)
hypothesis_settings.load_profile("aegis")

TEMPLATE = "aegis_template"
ENOUGH_MEMORY_BYTES = 2**31  # a server takes a tenth of it, and each processor may have one
_numbers = itertools.count(1)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and the processes that tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


gc.disable()  # until all tests are collected, who stay: half of the time went into looking for garbage among them


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    leaks = ear.find_leaks()
    assert not leaks, f"secrets stand where none may: {leaks}"


@pytest.fixture(autouse=True)
def _listen_to_the_log(ear: Ear) -> None:
    """Also what rooms log in tests that know nothing of it."""
    ear.begin()
    configure_logging("debug", ear.heard)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A real server, thrown away at the end."""
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        context = run_embedded_postgres(None)
        patch.setattr(tempfile, "tempdir", find_memory())
        server = runner.run(context.__aenter__())
        patch.undo()
        runner.run(_make_template(server.url))
        yield server
        runner.run(context.__aexit__(None, None, None))


def find_memory() -> str | None:
    """A directory in memory for databases: one is three hundred files, and a disk takes 0.2 s to make them and forget
    them again. None where there is none, or too little of it."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return None
    found = os.statvfs(memory)
    enough = found.f_bavail * found.f_frsize > ENOUGH_MEMORY_BYTES
    return str(memory) if enough and not found.f_flag & os.ST_NOEXEC else None


async def _make_template(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {TEMPLATE}")
    await connection.close()
    await migrate(name_database(url, TEMPLATE))


def name_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return url.replace("/postgres?", f"/{name}?")


@pytest.fixture
async def empty_database_url(postgres: EmbeddedPostgres, ear: Ear) -> AsyncIterator[str]:
    """A database without a schema."""
    async for url in _clone(postgres.url, "template1", ear):
        yield url


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres, ear: Ear) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    async for url in _clone(postgres.url, TEMPLATE, ear):
        yield url


async def _clone(url: str, template: str, ear: Ear) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield name_database(url, name)
        await ear.hear_tables(name_database(url, name))
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The policy that is shipped."""
    return load_policy(find_shipped("policy.yaml"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.open(
        database_url, min_size=1, max_size=4, connect_timeout_seconds=10, query_timeout_seconds=10
    ) as database:
        yield database


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    """The cheapest one the settings allow."""
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=100, timeout_seconds=10)
    yield hasher
    hasher.close()


@pytest.fixture
async def stage(database_url: str, database: Database, policy: Policy, hasher: Hasher, ear: Ear) -> Stage:
    return Stage(database_url, policy, database, KeyStore(database), hasher, ear)


@pytest.fixture
async def sample() -> AsyncIterator[SampleServer]:
    """The sample MCP server; its workflows run for as long as a test likes (`sample.platform.run_seconds`)."""
    async with run_sample_server(run_seconds=0.3, steps=6) as server:
        yield server


@pytest.fixture
async def proxy(stage: Stage, sample: SampleServer) -> AsyncIterator[Proxy]:
    """A proxy in front of the sample server."""
    async with stage.proxy(sample.url) as proxy:
        yield proxy


@pytest.fixture
async def http(ear: Ear) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that closes at the end whatever answer a test did not read to its end, and whose errors are heard."""
    answers: list[aiohttp.ClientResponse] = []

    class Answer(aiohttp.ClientResponse):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            answers.append(self)

        async def read(self) -> bytes:
            body = await super().read()
            ear.hear_answer(self.status, body)
            return body

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=60),
        auto_decompress=False,
        response_class=Answer,
    ) as session:
        yield session
        for answer in answers:
            answer.close()


@pytest.fixture
async def wire(http: aiohttp.ClientSession, proxy: Proxy) -> Wire:
    return Wire(http, get_mcp_url(proxy))
