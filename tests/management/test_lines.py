"""Whoever asks for much at once, of rows that somebody else holds: nobody else waits, the data path least of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.keys.lines import Lines
from proxy.server import Proxy
from tests.management.asking import KEYS, Api
from tests.races.barriers import PATIENT
from tests.staging import GUARD_SECONDS, Stage, Wire

POOL = 4  # connections, of the stage's proxies
MANY = 5 * POOL
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def proxy(stage: Stage, sample: SampleServer) -> AsyncIterator[Proxy]:
    """One that neither gives up waiting nor loses its trust, on however busy a machine."""
    async with stage.proxy(sample.url, **PATIENT) as proxy:
        yield proxy


@asynccontextmanager
async def holding(stage: Stage, statement: str, *arguments: object) -> AsyncIterator[None]:
    """A transaction of somebody else's, which keeps what the statement locks until the end."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        async with connection.transaction():
            await connection.execute(statement, *arguments)
            yield
    finally:
        await connection.close()


async def count_waiting(stage: Stage) -> int:
    """Asked outside the transaction that holds the lock: there, one sight of the backends lasts to its end."""
    return int((await stage.database.fetch(WAITING))[0]["count"])


async def see_waiting(stage: Stage, count: int) -> None:
    """Return when so many wait for a lock."""
    async with asyncio.timeout(GUARD_SECONDS):
        while await count_waiting(stage) < count:
            await asyncio.sleep(0.01)


async def test_twenty_changes_of_one_caller_hold_one_connection(api: Api, wire: Wire, stage: Stage) -> None:
    busy, other, cold = (
        await stage.mint("full-access"),
        await stage.mint("full-access", owner="eve"),
        await stage.mint(),
    )
    made = await api.mint(busy.token)
    hold = "SELECT FROM owners WHERE id = (SELECT owner_id FROM api_keys WHERE id = $1) FOR NO KEY UPDATE"
    async with asyncio.TaskGroup() as tasks, holding(stage, hold, busy.summary.id):
        changes = [
            tasks.create_task(api.ask("PATCH", f"{KEYS}/{made['id']}", busy.token, {"name": f"name {number}"}))
            for number in range(MANY)
        ]
        await see_waiting(stage, 1)
        assert await wire.call(cold.token, "aegis.agent.list") == 200
        assert (await api.ask("PATCH", f"{KEYS}/{other.summary.id}", other.token, {})).status == 403  # itself: judged
        assert await api.list_ids(other.token) != []
        assert await count_waiting(stage) == 1
    assert {change.result().status for change in changes} == {200}


async def test_what_one_caller_reads_at_once_leaves_connections_for_everybody_else(
    api: Api, wire: Wire, stage: Stage
) -> None:
    busy, other, cold = (
        await stage.mint("full-access"),
        await stage.mint("full-access", owner="eve"),
        await stage.mint(),
    )
    made = await api.mint(busy.token)
    async with asyncio.TaskGroup() as tasks, holding(stage, "LOCK TABLE audit_events"):
        reads = [tasks.create_task(api.ask("GET", f"{KEYS}/{made['id']}/audit", busy.token)) for _ in range(MANY)]
        await see_waiting(stage, POOL // 2)
        assert await wire.call(cold.token, "aegis.agent.list") == 200
        assert await api.list_ids(other.token) != []
        assert await count_waiting(stage) == POOL // 2
    assert {read.result().status for read in reads} == {200}


async def test_a_revocation_does_not_wait_behind_what_its_caller_reads(api: Api, stage: Stage) -> None:
    busy = await stage.mint("full-access")
    made = await api.mint(busy.token)
    async with asyncio.TaskGroup() as tasks, holding(stage, "LOCK TABLE key_usage"):
        reads = [tasks.create_task(api.ask("GET", f"{KEYS}/{made['id']}/usage", busy.token)) for _ in range(MANY)]
        await see_waiting(stage, POOL // 2)
        revoked = await api.ask("DELETE", f"{KEYS}/{made['id']}", busy.token)
        assert (revoked.status, revoked.json["confirmed"]) == (200, True)
        assert await count_waiting(stage) < POOL
    assert {read.result().status for read in reads} == {200}


@pytest.mark.parametrize("at_once", [1, 4])
async def test_a_line_is_one_caller_s_own_in_order_and_forgotten_after(at_once: int) -> None:
    lines, order, gate = Lines(at_once), list[int](), asyncio.Event()

    async def pass_through(number: int) -> None:
        async with lines.find("ada"):
            order.append(number)
            await gate.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(9):
            tasks.create_task(pass_through(number))
        async with asyncio.timeout(GUARD_SECONDS):
            while len(order) < at_once:
                await asyncio.sleep(0)
            async with lines.find("eve"):
                assert order == list(range(at_once))
        gate.set()
    assert order == list(range(9))
    assert len(lines) == 0
