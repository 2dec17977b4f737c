"""Denials and events in the audit: the same in one row, many different ones within bounds, none of them waited for."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from proxy.audit import MAX_BEYOND, MAX_LISTED, MAX_ROWS, MAX_ROWS_OF_KEY, Audit
from proxy.database import Database
from proxy.errors import DeniedError, Reason
from proxy.flushing import Flusher
from proxy.identity import KeyId, OwnerId
from proxy.logs import configure_logging
from proxy.policy import Denied
from proxy.policy.explanations import form_denial
from tests.clocks import ManualClock
from tests.records import ADA, BOB, form_key_id
from tests.staging import GUARD_SECONDS

KEY, OTHER = form_key_id(1), form_key_id(2)
INSTANCE = UUID("00000000-0000-4000-8000-000000000001")
GRANTS = frozenset({"agent:list"})


def ignore(_count: int) -> None:
    """Nothing is dropped in most tests."""


def form_audit(
    database: Database, clock: ManualClock | None = None, count_dropped: Callable[[int], None] = ignore
) -> Audit:
    return Audit(Flusher(database, INSTANCE, 3600), clock or ManualClock(), count_dropped)


def deny(scope: str = "workflow:run:nightly-etl", rule: str | None = "mcp/tool:aegis.workflow.run") -> DeniedError:
    denied = Denied(rule, f"tool aegis.workflow.run needs scope {scope}", (scope,), (scope,), (scope,))
    return DeniedError(Reason.MESSAGE_DENIED, denied.why, data=form_denial(denied, GRANTS))


async def read_events(database: Database) -> list[dict[str, Any]]:
    rows = await database.fetch(
        "SELECT at, actor, action, key_id, owner_id::text, before, after FROM audit_events ORDER BY id"
    )
    return [{**row, "after": json.loads(row["after"])} for row in rows]


async def test_the_same_denial_is_one_row_with_a_count_and_its_last_request(database: Database) -> None:
    clock = ManualClock(wall=datetime(2026, 11, 24, tzinfo=UTC).timestamp())
    audit = form_audit(database, clock)
    for number in range(3):
        audit.note_denial(KEY, ADA, deny(), f"request-{number}")
        clock.advance(1)
    await audit.flush()
    assert await read_events(database) == [
        {
            "at": datetime(2026, 11, 24, 0, 0, 2, tzinfo=UTC),
            "actor": f"proxy:{INSTANCE}",
            "action": "request.denied",
            "key_id": KEY,
            "owner_id": ADA,
            "before": None,
            "after": {
                "count": 3,
                "rule": "mcp/tool:aegis.workflow.run",
                "reason": "message_denied",
                "required": ["workflow:run:nightly-etl"],
                "missing": ["workflow:run:nightly-etl"],
                "smallest_sufficient": "workflow:run:nightly-etl",
                "why": "tool aegis.workflow.run needs scope workflow:run:nightly-etl",
                "request_id": "request-2",
            },
        }
    ]


async def test_denials_that_differ_have_rows_of_their_own(database: Database) -> None:
    audit = form_audit(database)
    plain = DeniedError(Reason.ROUTE_DENIED, "no rule allows request GET /v1/x")
    for key_id, owner_id, denial in (
        (KEY, ADA, deny()), (OTHER, BOB, deny()), (KEY, ADA, deny("workflow:run:other")), (KEY, ADA, deny(rule=None)),
        (KEY, ADA, plain),
    ):  # fmt: skip
        audit.note_denial(key_id, owner_id, denial, "r")
    await audit.flush()
    events = await read_events(database)
    assert [event["after"]["count"] for event in events] == [1] * 5
    assert {(event["key_id"], event["owner_id"]) for event in events} == {(KEY, ADA), (OTHER, BOB)}
    assert events[4]["after"] == {
        "count": 1, "rule": None, "reason": "route_denied", "required": [], "missing": [], "smallest_sufficient": None,
        "why": "no rule allows request GET /v1/x", "request_id": "r",
    }  # fmt: skip


async def test_after_a_flush_counting_begins_anew(database: Database) -> None:
    audit = form_audit(database)
    for _ in range(2):
        audit.note_denial(KEY, ADA, deny(), "r")
        await audit.flush()
    assert [event["after"]["count"] for event in await read_events(database)] == [1, 1]


async def test_a_key_denied_many_things_fills_its_share_and_the_rest_is_counted(database: Database) -> None:
    audit = form_audit(database)
    for number in range(1_000):
        audit.note_denial(KEY, ADA, deny(f"workflow:run:{number}"), f"request-{number}")
    audit.note_denial(OTHER, BOB, deny(), "r")
    await audit.flush()
    events = await read_events(database)
    assert len(events) == MAX_ROWS_OF_KEY + 2
    (beyond,) = (event for event in events if "and_more" in event["after"])
    assert beyond["key_id"] == KEY
    assert beyond["after"] == {"count": 1_000 - MAX_ROWS_OF_KEY, "and_more": True, "request_id": "request-999"}
    assert [event["after"]["why"] for event in events if event["key_id"] == OTHER] == [deny().detail]


async def test_many_keys_fill_so_many_rows_and_the_oldest_counts_give_way(database: Database) -> None:
    heard = io.BytesIO()
    configure_logging("warning", heard)
    dropped: list[int] = []
    audit = form_audit(database, count_dropped=dropped.append)
    for number in range(MAX_ROWS + MAX_BEYOND + 3):
        audit.note_denial(form_key_id(number), ADA, deny(), "r")
    audit.note_denial(form_key_id(0), ADA, deny(), "r")
    assert dropped == [1, 1, 1]
    await audit.flush()
    events = await read_events(database)
    assert len(events) == MAX_ROWS + MAX_BEYOND
    assert sum(event["after"]["count"] for event in events) == MAX_ROWS + MAX_BEYOND + 1
    assert b'"event":"audit_dropped"' in heard.getvalue()


async def test_an_event_says_what_it_is_and_the_same_again_only_counts(database: Database) -> None:
    clock = ManualClock(wall=datetime(2026, 11, 29, tzinfo=UTC).timestamp())
    audit = form_audit(database, clock)
    for number, address in enumerate(("192.0.2.1", "192.0.2.1", "192.0.2.2")):
        audit.note_event("key.new_address", KEY, ADA, {"address": address}, f"request-{number}")
        clock.advance(1)
    audit.note_event("secret.replayed", KEY, None, {"address": "192.0.2.2", "secret_version": 1}, "request-3")
    await audit.flush()
    events = await read_events(database)
    assert [(event["action"], event["owner_id"], event["after"]) for event in events] == [
        ("key.new_address", ADA, {"count": 2, "address": "192.0.2.1", "request_id": "request-1"}),
        ("key.new_address", ADA, {"count": 1, "address": "192.0.2.2", "request_id": "request-2"}),
        (
            "secret.replayed",
            None,
            {"count": 1, "address": "192.0.2.2", "secret_version": 1, "request_id": "request-3"},
        ),
    ]
    assert {(event["actor"], event["key_id"], event["before"]) for event in events} == {
        (f"proxy:{INSTANCE}", KEY, None)
    }


async def test_a_flood_of_denials_leaves_events_their_room(database: Database) -> None:
    audit = form_audit(database)
    for number in range(2 * MAX_ROWS):
        audit.note_denial(form_key_id(number), ADA, deny(), "r")
    for number in range(MAX_ROWS_OF_KEY + 5):
        audit.note_event("key.new_address", KEY, ADA, {"address": f"192.0.2.{number}"}, f"request-{number}")
    await audit.flush()
    events = [event for event in await read_events(database) if event["action"] == "key.new_address"]
    assert [event["after"].get("address") for event in events] == [
        *(f"192.0.2.{number}" for number in range(MAX_ROWS_OF_KEY)), None
    ]  # fmt: skip
    assert events[-1]["after"] == {
        "count": 5,
        "and_more": True,
        "request_id": f"request-{MAX_ROWS_OF_KEY + 4}",
    }


async def test_nothing_a_client_sends_makes_a_row_that_cannot_be_written(database: Database) -> None:
    audit = form_audit(database)
    for text in ("\x00", "\ud800", "\x1b[2J", "\u202e", "x" * 100_000):
        audit.note_denial(KEY, ADA, deny(f"workflow:run:{text}"), "r")
        audit.note_event("key.exposed", KEY, ADA, {"where": text}, "r")
    many = tuple(f"volume:read:{number}" for number in range(10_000))
    denied = Denied("listen", f"needs {' '.join(many)}", many, many)
    audit.note_denial(KEY, ADA, DeniedError(Reason.MESSAGE_DENIED, denied.why, data=form_denial(denied, GRANTS)), "r")
    assert await audit.flush()
    events = await read_events(database)
    assert len(events) == 11
    assert len(events[10]["after"]["missing"]) == MAX_LISTED
    assert all(len(json.dumps(event["after"])) < 10_000 for event in events)
    said = [event["after"]["where" if event["action"] == "key.exposed" else "why"] for event in events]
    assert all(text.isprintable() for text in said)


async def test_what_else_the_key_holds_is_not_repeated(database: Database) -> None:
    audit = form_audit(database)
    audit.note_denial(KEY, ADA, deny(), "r")
    await audit.flush()
    assert "agent:list" not in str(await read_events(database))


async def test_a_row_outlives_key_and_owner(database: Database) -> None:
    audit = form_audit(database)
    audit.note_denial(KeyId("gone00000000"), OwnerId(str(uuid4())), deny(), "r")
    assert await audit.flush()
    assert len(await read_events(database)) == 1


async def test_the_rest_is_written_at_the_end(database: Database) -> None:
    audit = form_audit(database)
    running = asyncio.create_task(audit.run())
    await asyncio.sleep(0)
    audit.note_denial(KEY, ADA, deny(), "r")
    running.cancel()
    await asyncio.wait({running})
    async with asyncio.timeout(GUARD_SECONDS):
        await audit.aclose()
    assert len(await read_events(database)) == 1
