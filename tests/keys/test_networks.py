"""Networks that keys are used from: each is told to the audit when it is new, and never again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID, uuid4

import pytest

from proxy.database import Database
from proxy.flushing import Flusher
from proxy.identity import KeyId
from proxy.keys.networks import DAY_SECONDS, MAX_NEW_OF_KEY, SWEEP, Networks
from tests.clocks import ManualClock
from tests.records import form_key_id
from tests.staging import Stage

KEY, OTHER = form_key_id(1), form_key_id(2)
START = datetime(2026, 11, 29, 12, tzinfo=UTC)
INSTANCE = UUID("00000000-0000-4000-8000-000000000001")


def ignore() -> None:
    """Nothing is dropped in most tests."""


def form_networks(
    database: Database,
    clock: ManualClock,
    instance: UUID | None = None,
    count_dropped: Callable[[], None] = ignore,
) -> Networks:
    return Networks(Flusher(database, instance or uuid4(), 3600), clock, count_dropped)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=START.timestamp())


def meet(networks: Networks, address: str, key_id: KeyId = KEY, user_agent: str | None = "agent") -> None:
    networks.meet(key_id, 1, ip_address(address), user_agent, f"from {address}")


async def read_events(database: Database) -> list[dict[str, Any]]:
    rows = await database.fetch("SELECT at, actor, action, key_id, owner_id, after FROM audit_events ORDER BY id")
    return [{**row, "after": json.loads(row["after"])} for row in rows if row["action"] == "key.new_address"]


async def read_addresses(database: Database) -> list[str]:
    return [event["after"]["address"] for event in await read_events(database)]


async def test_the_first_use_from_a_network_is_an_event(stage: Stage, database: Database, clock: ManualClock) -> None:
    key = (await stage.mint()).summary
    networks = form_networks(database, clock, INSTANCE)
    networks.meet(KeyId(key.id), 3, ip_address("192.0.2.1"), "agent/1.0", "request-1")
    networks.meet(KeyId(key.id), 3, ip_address("192.0.2.1"), "agent/2.0", "request-2")
    await networks.flush()
    (owner,) = await database.fetch("SELECT id FROM owners")
    assert await read_events(database) == [
        {
            "at": START,
            "actor": f"proxy:{INSTANCE}",
            "action": "key.new_address",
            "key_id": key.id,
            "owner_id": owner["id"],
            "after": {
                "address": "192.0.2.1", "user_agent": "agent/1.0", "secret_version": 3, "request_id": "request-1",
            },
        }
    ]  # fmt: skip


async def test_neither_a_restart_nor_another_instance_tells_it_again(database: Database, clock: ManualClock) -> None:
    before, networks = form_networks(database, clock), form_networks(database, clock)
    for one in (before, networks):
        meet(one, "192.0.2.1")
        await one.flush()
    meet(networks, "192.0.2.2")
    meet(networks, "192.0.2.1", OTHER)
    await networks.flush()
    assert await read_addresses(database) == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


async def test_a_64_of_ipv6_is_one_place_and_so_is_an_ipv4_address(database: Database, clock: ManualClock) -> None:
    networks = form_networks(database, clock)
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"):
        meet(networks, address)
    await networks.flush()
    meet(networks, "2001:db8::3")
    await networks.flush()
    assert await read_addresses(database) == ["2001:db8::1", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"]


async def test_a_known_network_costs_no_write_until_the_next_day(database: Database, clock: ManualClock) -> None:
    networks = form_networks(database, clock)
    for _ in range(3):
        meet(networks, "192.0.2.1")
        await networks.flush()
    assert [row["number"] for row in await database.fetch("SELECT number FROM flushes")] == [1]
    clock.advance(DAY_SECONDS)
    await networks.flush()
    meet(networks, "192.0.2.1")
    await networks.flush()
    rows = await database.fetch("SELECT n.seen_on::text, f.number FROM key_networks n, flushes f")
    assert [tuple(row.values()) for row in rows] == [("2026-11-30", 2)]
    assert len(await read_events(database)) == 1


async def test_a_network_unseen_for_90_days_is_forgotten_and_then_new_again(
    database: Database, clock: ManualClock
) -> None:
    networks = form_networks(database, clock)
    meet(networks, "192.0.2.1")
    meet(networks, "192.0.2.2")
    await networks.flush()
    await database.fetch(
        "UPDATE key_networks SET seen_on = current_date - CASE network WHEN '192.0.2.1' THEN 90 ELSE 91 END"
    )
    assert [row["count"] for row in await database.fetch(SWEEP, 10)] == [1]
    networks = form_networks(database, clock)
    meet(networks, "192.0.2.1")
    meet(networks, "192.0.2.2")
    await networks.flush()
    assert await read_addresses(database) == ["192.0.2.1", "192.0.2.2", "192.0.2.2"]


async def test_of_one_flush_a_key_gets_its_share_and_the_rest_is_counted(
    database: Database, clock: ManualClock
) -> None:
    dropped: list[None] = []
    networks = form_networks(database, clock, count_dropped=lambda: dropped.append(None))
    for number in range(MAX_NEW_OF_KEY + 3):
        meet(networks, f"192.0.2.{number}")
    meet(networks, "192.0.2.1", OTHER)
    await networks.flush()
    assert len(await read_events(database)) == MAX_NEW_OF_KEY + 1
    assert len(dropped) == 3


async def test_a_key_that_roams_is_no_news_any_more_and_what_is_known_stays_known(
    database: Database, clock: ManualClock
) -> None:
    networks = form_networks(database, clock)
    for number in range(150):
        meet(networks, f"192.0.2.{number}")
        if number % MAX_NEW_OF_KEY == MAX_NEW_OF_KEY - 1:
            await networks.flush()
    assert len(await read_events(database)) == 100
    clock.advance(DAY_SECONDS)
    await networks.flush()
    meet(networks, "192.0.2.1")
    await networks.flush()
    rows = await database.fetch("SELECT network FROM key_networks WHERE seen_on = '2026-11-30'")
    assert [row["network"] for row in rows] == ["192.0.2.1"]


async def test_nothing_a_client_calls_itself_makes_a_row_that_cannot_be_written(
    database: Database, clock: ManualClock
) -> None:
    networks = form_networks(database, clock)
    for number, name in enumerate(("\x00", "\udcff", "\x1b[2J", "x" * 100_000)):
        meet(networks, f"192.0.2.{number}", user_agent=name)
    meet(networks, "192.0.2.9", user_agent=None)
    assert await networks.flush()
    *named, nameless = [event["after"]["user_agent"] for event in await read_events(database)]
    assert nameless is None
    assert all(name.isprintable() and len(name) < 300 for name in named)
