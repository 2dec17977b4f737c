"""`keys audit`, as somebody asks who did what to a key, and what it tried."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from proxy.audit import Audit
from proxy.audit_trail import Event
from proxy.cli.keys_audit import describe_event
from proxy.database import Database
from proxy.errors import DeniedError, Reason
from proxy.flushing import Flusher
from proxy.keys.token import parse_token
from tests.cli.command import Command
from tests.clocks import ManualClock
from tests.records import ADA

INSTANCE = UUID("1a2b3c4d-0000-4000-8000-000000000001")


async def test_what_was_done_to_a_key_is_told_newest_first(aegis: Command, database: Database) -> None:
    key_id = parse_token(await aegis.mint("--name", "first")).key_id
    await aegis.mint("--name", "other")
    assert (await aegis.run("keys", "update", key_id, "--name", "second")).code == 0
    audit = Audit(Flusher(database, INSTANCE, 3600), ManualClock(wall=1_764_432_000), lambda _count: None)
    for _ in range(3):
        audit.note_denial(key_id, ADA, DeniedError(Reason.ROUTE_DENIED, "no rule allows it"), "request")
    await audit.flush()
    text, machine, mine, everybodys = await asyncio.gather(
        aegis.run("keys", "audit", key_id),
        aegis.run("keys", "audit", key_id, "--json"),
        aegis.run("keys", "audit", key_id, "--actor", "cli:operator", "--json"),
        aegis.run("keys", "audit", "--actor", "cli", "--json", "--limit", "2"),
    )
    header, denied, updated, minted, *_ = text.stdout.splitlines()
    assert (text.code, text.stderr) == (0, "")
    assert header.split() == ["AT", "ACTOR", "ACTION", "WHAT"]
    told = " ".join(denied.split())
    assert told == "2025-11-29 16:00Z proxy:1a2b3c4d request.denied no rule allows it (3 times)"
    assert updated.split()[2:] == ["cli:operator", "update", "name:", "first", "→", "second"]
    assert minted.split()[2:4] == ["cli:operator", "mint"]
    events = machine.json["events"]
    assert [(event["action"], event["key_id"]) for event in events] == [
        ("request.denied", key_id), ("update", key_id), ("mint", key_id),
    ]  # fmt: skip
    assert events[0]["at"] == "2025-11-29T16:00:00Z"
    assert (events[0]["after"]["count"], events[0]["owner_id"]) == (3, ADA)
    assert (events[1]["before"], events[1]["after"]) == ({"name": "first"}, {"name": "second"})
    assert [event["action"] for event in mine.json["events"]] == ["update", "mint"]
    assert [event["action"] for event in everybodys.json["events"]] == ["update", "mint"]
    assert "2 newest" in everybodys.stderr


async def test_the_audit_of_all_keys_names_them_and_since_leaves_out_what_is_older(
    aegis: Command, database: Database
) -> None:
    key_id = parse_token(await aegis.mint("--name", "first")).key_id
    everything, later = await asyncio.gather(
        aegis.run("keys", "audit", COLUMNS="200"), aegis.run("keys", "audit", "--since", "2100-01-01")
    )
    header, line, *_ = everything.stdout.splitlines()
    assert header.split() == ["AT", "ACTOR", "ACTION", "KEY", "WHAT"]
    assert line.split()[2:5] == ["cli:operator", "mint", key_id]
    assert (later.code, later.stdout, later.stderr) == (0, "", "Nothing of the kind is written.\n")


async def test_a_key_that_is_gone_keeps_its_audit_and_one_that_never_was_exits_5(
    aegis: Command, database: Database
) -> None:
    token = await aegis.mint("--name", "first")
    key_id = parse_token(token).key_id
    await database.fetch("DELETE FROM api_keys")
    gone, unknown = await asyncio.gather(
        aegis.run("keys", "audit", token), aegis.run("keys", "audit", "Unknown00000", "--json")
    )
    assert (gone.code, "mint" in gone.stdout) == (0, True)
    assert token[19:] not in gone.stdout + gone.stderr
    assert key_id not in gone.stderr
    assert (unknown.code, unknown.stdout) == (5, "")
    assert "There is no key Unknown00000" in unknown.stderr


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"name": "a"}, {"name": "b", "reason": None}, "name: a → b"),
        ({"expires_at": "2026-01-01"}, {"expires_at": None}, "expires_at: 2026-01-01 → none"),
        ({"tier": "free"}, None, "tier: free → none"),
        (None, {"scopes": ["a", "b"], "constraints": {}, "preset": None}, "scopes: a b"),
        ({"constraints": {}}, {"constraints": {"max_calls": 2, "sources": ["::1"]}},
         "constraints: none → max_calls=2 sources=::1"),
        (None, {"count": 1, "rule": "r", "why": "not allowed"}, "not allowed"),
        (None, {"count": 9, "why": "not allowed"}, "not allowed (9 times)"),
        (None, None, ""),
    ],
)  # fmt: skip
def test_an_event_is_told_in_one_line(before: dict[str, Any] | None, after: dict[str, Any] | None, text: str) -> None:
    event = Event(1, None, "cli:ada", "update", None, None, before, after)  # type: ignore[arg-type]
    assert describe_event(event) == text
