"""Imports: all of an export or none of it, once, and with owners and keys that are there already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.errors import DatabaseError, Reason
from proxy.identity import KeyId
from proxy.keys.exports import ExportedKey, ExportError
from proxy.keys.imports import CHUNK, ImportedKey, import_keys
from proxy.keys.legacy import LEGACY_VERSION
from tests.records import form_legacy_token
from tests.staging import Stage

END, BEGAN = datetime(2127, 1, 31, tzinfo=UTC), datetime(2025, 1, 31, tzinfo=UTC)


def export(number: int = 1, **values: Any) -> ExportedKey:
    given = {"name": f"key {number}", "owner": "ada", "scopes": ("agent:list",)} | values
    return ExportedKey(number, form_legacy_token(number).digest, **given)


async def take_over(stage: Stage, keys: Sequence[ExportedKey], *, dry_run: bool = False) -> list[ImportedKey]:
    told: list[int] = []
    imported = await import_keys(
        stage.database, keys, issuer="local", default_tier="free", actor="test", source="keys.csv", dry_run=dry_run,
        advance=told.append,
    )  # fmt: skip
    assert sum(told) == sum(one.state == "new" for one in imported)
    return imported


async def refuse(stage: Stage, keys: Sequence[ExportedKey]) -> list[tuple[int | None, str]]:
    with pytest.raises(ExportError) as refused:
        await take_over(stage, keys)
    return [(fault.line, fault.message) for fault in refused.value.faults]


async def count(stage: Stage) -> list[int]:
    (row,) = await stage.database.fetch(
        "SELECT (SELECT count(*) FROM owners), (SELECT count(*) FROM api_keys), (SELECT count(*) FROM legacy_digests),"
        " (SELECT count(*) FROM audit_events)"
    )
    return list(row.values())


async def test_an_imported_key_is_a_key_like_any_other(stage: Stage) -> None:
    (one,) = await take_over(
        stage,
        [
            export(
                tenant="acme",
                tier="pro",
                role="aegis:dev",
                scopes=("agent:list", "agent:read"),
                expires_at=END,
                created_at=BEGAN,
            )
        ],
    )
    assert one.id is not None
    record = (await stage.store.read_keys([KeyId(one.id)]))[KeyId(one.id)]
    assert (record.owner.subject, record.owner.tenant_id, record.owner.tier) == ("ada", "acme", "pro")
    assert (record.scopes, record.expires_at) == (("agent:list", "agent:read"), END.timestamp())
    assert record.find_use_fault(LEGACY_VERSION, datetime.now(UTC).timestamp()) is None
    summary = await stage.store.find_key(one.id)
    assert summary is not None
    assert (summary.name, summary.created_at, summary.created_by, summary.aegis_role) == (
        "key 1",
        BEGAN,
        "test",
        "aegis:dev",
    )
    (row,) = await stage.database.fetch("SELECT actor, action, owner_id::text, after FROM audit_events")
    assert (row["actor"], row["action"], row["owner_id"]) == ("test", "import", record.owner.id)
    assert json.loads(row["after"])["scopes"] == ["agent:list", "agent:read"]
    assert export().digest.hex() not in row["after"]


async def test_it_is_dead_here_if_it_was_dead_there(stage: Stage) -> None:
    keys = [export(1, status="revoked"), export(2, status="disabled"), export(3, expires_at=BEGAN)]
    ids = [KeyId(str(one.id)) for one in await take_over(stage, keys)]
    records = await stage.store.read_keys(ids)
    faults = [records[key_id].find_fault(datetime.now(UTC).timestamp()) for key_id in ids]
    assert faults == [Reason.KEY_REVOKED, Reason.KEY_DISABLED, Reason.KEY_EXPIRED]
    summary = await stage.store.find_key(ids[0])
    assert summary is not None
    assert (summary.revoked_by, summary.revoked_reason) == ("test", "revoked before it was imported")


async def test_importing_again_changes_nothing_and_adds_what_is_new(stage: Stage) -> None:
    first = await take_over(stage, [export(1), export(2)])
    before = await count(stage)
    await stage.sql("UPDATE api_keys SET name = 'renamed here' WHERE id = $1", first[0].id)
    again = await take_over(stage, [export(1), export(2, scopes=("agent:read",))])
    assert [(one.id, one.state) for one in again] == [(one.id, "present") for one in first]
    assert await count(stage) == before
    third = await take_over(stage, [export(2), export(3)])
    assert [one.state for one in third] == ["present", "new"]
    assert {key.name for key in await stage.store.list_keys("ada")} == {"renamed here", "key 2", "key 3"}


async def test_a_key_that_was_revoked_there_since_is_pointed_out(stage: Stage) -> None:
    await take_over(stage, [export(1), export(2)])
    again = await take_over(stage, [export(1, status="revoked"), export(2)])
    assert [one.revoked_there for one in again] == [True, False]
    await stage.sql("UPDATE api_keys SET status = 'revoked'")
    assert not (await take_over(stage, [export(1, status="revoked")]))[0].revoked_there


async def test_a_rehearsal_finds_the_same_faults_and_writes_nothing(stage: Stage) -> None:
    before = await count(stage)
    rehearsed = await take_over(stage, [export(1), export(2)], dry_run=True)
    assert [(one.id, one.state) for one in rehearsed] == [(None, "new"), (None, "new")]
    assert await count(stage) == before
    await stage.mint(name="key 1")
    with pytest.raises(ExportError):
        await take_over(stage, [export(1)], dry_run=True)


async def test_an_owner_that_is_here_has_to_agree(stage: Stage) -> None:
    await stage.mint(tier="pro", name="key 4")
    keys = [export(1, tenant="acme"), export(2, tier="free"), export(3, tier="pro", tenant="default"), export(4)]
    assert await refuse(stage, keys) == [
        (1, "tenant_id: ada has 'default' here"), (2, "zaru_tier: ada has 'pro' here"),
        (4, "name: ada has an active key 'key 4' here"),
    ]  # fmt: skip
    assert await count(stage) == [1, 1, 0, 1]
    (one,) = await take_over(stage, [export(3, tier="pro", tenant="default")])
    assert one.state == "new"
    (revoked,) = await take_over(stage, [export(4, status="revoked")])
    assert revoked.state == "new", "a dead key's name is free"


async def test_a_new_owner_gets_what_any_of_its_keys_says(stage: Stage) -> None:
    keys = [export(number) for number in range(1, CHUNK + 1)]
    await take_over(stage, [*keys, export(CHUNK + 1, tier="pro", tenant="acme"), export(CHUNK + 2, owner="bob")])
    rows = await stage.database.fetch("SELECT subject, tenant_id, tier FROM owners ORDER BY subject")
    assert [tuple(row) for row in rows] == [("ada", "acme", "pro"), ("bob", "default", "free")]
    assert await count(stage) == [2, CHUNK + 2, CHUNK + 2, CHUNK + 2]


async def test_what_fails_in_the_middle_leaves_nothing_behind(stage: Stage) -> None:
    await stage.sql(
        "ALTER TABLE legacy_digests ADD CHECK (digest <> $$" + r"\x" + form_legacy_token(CHUNK + 1).digest.hex() + "$$)"
    )
    with pytest.raises(DatabaseError):
        await take_over(stage, [export(number) for number in range(1, CHUNK + 2)])
    assert await count(stage) == [0, 0, 0, 0]


async def test_the_digest_stands_in_no_list_and_no_repr(stage: Stage) -> None:
    (one,) = await take_over(stage, [export()])
    assert export().digest.hex() not in repr(one)
    assert export().digest.hex() not in repr(await stage.store.list_keys())
