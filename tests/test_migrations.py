"""The triggers of the schema: every change to keys, secrets and owners is told, whoever makes it; revoked is final.

Plain SQL on one connection, and another one that listens, as `listener` does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from proxy.listener import TRIGGERS
from proxy.news import CHANNEL, EVERYTHING, News, parse_news
from tests.staging import GUARD_SECONDS, Stage

ADA, BOB = "00000000-0000-0000-0000-00000000ada0", "00000000-0000-0000-0000-00000000b0b0"
KEY, CHILD, GRANDCHILD, OTHER = "key000000001", "child0000001", "grandchild01", "other0000001"
HASH = "$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"
TABLES = ("owners", "api_keys", "api_key_secrets", "legacy_digests")


class Psql:
    """Types SQL, and hears what the database tells about it."""

    def __init__(self, hand: asyncpg.Connection, ear: asyncpg.Connection) -> None:
        self._hand = hand
        self._ear = ear
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self.fetch, self.fetchval, self.copy = hand.fetch, hand.fetchval, hand.copy_records_to_table

    async def start(self) -> None:
        await self._ear.add_listener(CHANNEL, lambda *message: self._heard.put_nowait(message[3]))

    async def run(self, sql: str, *arguments: object) -> list[dict[str, Any]]:
        """Run SQL; the payloads it made the database tell, up to a mark of our own sent right after it."""
        await self._hand.execute(sql, *arguments)
        return await self.hear()

    async def hear(self) -> list[dict[str, Any]]:
        await self._hand.execute(f"NOTIFY {CHANNEL}, 'the mark'")
        payloads: list[dict[str, Any]] = []
        async with asyncio.timeout(GUARD_SECONDS):
            while (payload := await self._heard.get()) != "the mark":
                assert len(payload) < 200
                assert "argon2" not in payload
                payloads.append(json.loads(payload))
        return payloads

    async def refuse(self, sql: str, match: str) -> None:
        """Run SQL that must be refused, and tell nothing."""
        with pytest.raises(asyncpg.CheckViolationError, match=match):
            await self._hand.execute(sql)
        assert await self.hear() == []

    async def read_version(self, key_id: str = KEY) -> int:
        return int(await self.fetchval("SELECT version FROM api_keys WHERE id = $1", key_id))


def name_subjects(payloads: list[dict[str, Any]]) -> set[News]:
    """What the listener would make of them."""
    return {parse_news(json.dumps(payload)) for payload in payloads}


def of_keys(*key_ids: str) -> set[News]:
    return {parse_news(json.dumps({"kind": "key", "key_id": key_id})) for key_id in key_ids}


def of_owners(*owner_ids: str) -> set[News]:
    return {parse_news(json.dumps({"kind": "owner", "owner_id": owner_id})) for owner_id in owner_ids}


@pytest.fixture(params=["origin", "replica"])
def role(request: pytest.FixtureRequest) -> str:
    """Under `replica`, as replication and restores use it, ordinary triggers keep silent."""
    return str(request.param)


@pytest.fixture
async def psql(database_url: str, role: str) -> AsyncIterator[Psql]:
    """Ada with a key, its child and grandchild, and another key; Bob with none."""
    hand, ear = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    await hand.execute(
        f"""
        INSERT INTO owners (id, tenant_id, issuer, subject, tier)
        VALUES ('{ADA}', 'default', 'local', 'ada', 'pro'), ('{BOB}', 'default', 'local', 'bob', 'pro');
        INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id)
        VALUES ('{KEY}', '{ADA}', 'key', '{{agent:list}}', 'sql', NULL),
               ('{CHILD}', '{ADA}', 'child', '{{agent:list}}', 'sql', '{KEY}'),
               ('{GRANDCHILD}', '{ADA}', 'grandchild', '{{agent:list}}', 'sql', '{CHILD}'),
               ('{OTHER}', '{ADA}', 'other', '{{agent:list}}', 'sql', NULL);
        INSERT INTO api_key_secrets (key_id, version, tag, hash)
        VALUES ('{KEY}', 1, '\\x01020304', '{HASH}'), ('{CHILD}', 1, '\\x01020304', '{HASH}');
        SET session_replication_role = {role};
        """
    )
    psql = Psql(hand, ear)
    await psql.start()
    yield psql
    await hand.close()
    await ear.close()


# Keys


CHANGES = [
    "name = 'renamed'", "preset = 'execution'", "scopes = '{}'", "scopes = '{workflow:run}'", "expires_at = now()",
    "expires_at = 'infinity'", "status = 'disabled'", "status = 'active'", "constraints = '{\"addresses\": []}'",
    "created_by = 'other'", f"owner_id = '{BOB}'", "revoked_reason = 'a note'", "version = 0", "version = version + 99",
    "status = 'revoked'",
]  # fmt: skip


async def test_every_change_of_a_key_is_told_with_a_new_version(psql: Psql) -> None:
    for change in CHANGES:
        before = await psql.read_version(OTHER)
        (told,) = await psql.run(f"UPDATE api_keys SET {change} WHERE id = '{OTHER}'")
        after = await psql.read_version(OTHER)
        assert told == {"v": 1, "kind": "key", "key_id": OTHER, "version": after}, change
        highest = await psql.fetchval("SELECT last_value FROM aegis_versions")
        assert before < after == highest, change


async def test_an_update_that_changes_nothing_tells_nothing_and_keeps_the_version(psql: Psql) -> None:
    before = [await psql.read_version(key_id) for key_id in (KEY, CHILD, OTHER)]
    assert await psql.run("UPDATE api_keys SET name = name, scopes = scopes, status = 'active'") == []
    assert await psql.run("UPDATE api_key_secrets SET not_after = NULL, hash = hash") == []
    assert await psql.run("UPDATE owners SET tier = 'pro', disabled_at = NULL") == []
    assert [await psql.read_version(key_id) for key_id in (KEY, CHILD, OTHER)] == before


async def test_an_inserted_key_is_told_and_its_version_is_ours_to_give(psql: Psql) -> None:
    (told,) = await psql.run(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by, version)"
        f" VALUES ('new000000001', '{ADA}', 'new', '{{}}', 'sql', 9000000000000000000)"
    )
    assert told == {"v": 1, "kind": "key", "key_id": "new000000001", "version": await psql.read_version("new000000001")}
    assert told["version"] < 1_000


async def test_an_upsert_is_told_once(psql: Psql) -> None:
    told = await psql.run(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by) VALUES"
        f" ('{KEY}', '{ADA}', 'key', '{{}}', 'sql') ON CONFLICT (id) DO UPDATE SET status = 'disabled'"
    )
    assert [payload["key_id"] for payload in told] == [KEY]


async def test_a_deleted_key_is_told(psql: Psql) -> None:
    (told,) = await psql.run(f"DELETE FROM api_keys WHERE id = '{OTHER}'")
    assert (told["kind"], told["key_id"]) == ("key", OTHER)


async def test_a_deleted_key_takes_its_secrets_along(psql: Psql, role: str) -> None:
    told = await psql.run(f"DELETE FROM api_keys WHERE id IN ('{KEY}', '{CHILD}', '{GRANDCHILD}')")
    assert name_subjects(told) == of_keys(KEY, CHILD, GRANDCHILD)
    if role == "origin":  # foreign keys are ordinary triggers: under `replica` the origin deletes for us
        assert await psql.fetchval("SELECT count(*) FROM api_key_secrets") == 0


async def test_one_statement_over_many_keys_tells_each(psql: Psql) -> None:
    told = await psql.run("UPDATE api_keys SET scopes = '{}'")
    assert name_subjects(told) == of_keys(KEY, CHILD, GRANDCHILD, OTHER)
    assert len({payload["version"] for payload in told}) == 4


async def test_a_transaction_tells_when_it_commits_and_nothing_when_it_does_not(psql: Psql) -> None:
    assert await psql.run("BEGIN; UPDATE api_keys SET scopes = '{}'; ROLLBACK") == []
    told = await psql.run("BEGIN; UPDATE api_keys SET scopes = '{}'; UPDATE owners SET tier = 'free'; COMMIT")
    assert name_subjects(told) == of_keys(KEY, CHILD, GRANDCHILD, OTHER) | of_owners(ADA, BOB)


async def test_rows_copied_in_are_told(psql: Psql) -> None:
    rows = [(f"copied{number:06}", ADA, f"copied {number}", ["agent:list"], "copy") for number in range(300)]
    columns = ["id", "owner_id", "name", "scopes", "created_by"]
    await psql.copy("api_keys", records=rows, columns=columns)
    assert name_subjects(await psql.hear()) == of_keys(*(row[0] for row in rows))
    secrets = [(row[0], 1, b"\1\2\3\4", HASH) for row in rows]
    await psql.copy("api_key_secrets", records=secrets, columns=["key_id", "version", "tag", "hash"])
    assert name_subjects(await psql.hear()) == of_keys(*(row[0] for row in rows))


@pytest.mark.parametrize("table", TABLES)
async def test_truncating_a_table_is_told_as_anything_may_have_changed(psql: Psql, table: str) -> None:
    told = await psql.run(f"TRUNCATE {table} CASCADE")
    assert name_subjects(told) == {EVERYTHING}
    assert {payload["kind"] for payload in told} == {"all"}


async def test_a_truncated_version_sequence_does_not_start_again(psql: Psql) -> None:
    before = await psql.fetchval("SELECT last_value FROM aegis_versions")
    await psql.run("TRUNCATE api_keys RESTART IDENTITY CASCADE")
    assert await psql.fetchval("SELECT last_value FROM aegis_versions") == before


# Secrets


async def test_a_changed_secret_is_a_change_of_its_key(psql: Psql) -> None:
    for sql in (
        f"UPDATE api_key_secrets SET not_after = now() WHERE key_id = '{KEY}'",
        f"UPDATE api_key_secrets SET hash = 'another' WHERE key_id = '{KEY}'",
        f"UPDATE api_key_secrets SET tag = '\\x00000000' WHERE key_id = '{KEY}'",
        f"UPDATE api_key_secrets SET version = 2 WHERE key_id = '{KEY}'",
        f"INSERT INTO api_key_secrets VALUES ('{KEY}', 3, '\\x01020304', 'another')",
        f"DELETE FROM api_key_secrets WHERE key_id = '{KEY}' AND version = 2",
    ):
        before = await psql.read_version()
        told = await psql.run(sql)
        assert told == [{"v": 1, "kind": "key", "key_id": KEY, "version": await psql.read_version()}], sql
        assert told[0]["version"] > before


async def test_a_secret_moved_to_another_key_changes_both(psql: Psql) -> None:
    told = await psql.run(f"UPDATE api_key_secrets SET key_id = '{OTHER}' WHERE key_id = '{KEY}'")
    assert name_subjects(told) == of_keys(KEY, OTHER)


async def test_secrets_of_many_keys_changed_at_once_are_told_each(psql: Psql) -> None:
    told = await psql.run("UPDATE api_key_secrets SET not_after = now()")
    assert name_subjects(told) == of_keys(KEY, CHILD)


async def test_a_changed_digest_is_a_change_of_its_key(psql: Psql) -> None:
    for sql in (
        f"INSERT INTO legacy_digests (digest, key_id) VALUES (sha256('old'), '{KEY}')",
        f"UPDATE legacy_digests SET not_after = now() WHERE key_id = '{KEY}'",
        f"UPDATE legacy_digests SET digest = sha256('other') WHERE key_id = '{KEY}'",
        f"DELETE FROM legacy_digests WHERE key_id = '{KEY}'",
    ):
        told = await psql.run(sql)
        assert told == [{"v": 1, "kind": "key", "key_id": KEY, "version": await psql.read_version()}], sql
    await psql.run(f"INSERT INTO legacy_digests (digest, key_id) VALUES (sha256('old'), '{KEY}')")
    assert await psql.run("UPDATE legacy_digests SET not_after = NULL, digest = digest") == []
    told = await psql.run(f"UPDATE legacy_digests SET key_id = '{OTHER}'")
    assert name_subjects(told) == of_keys(KEY, OTHER)


# Owners


async def test_a_changed_owner_is_told(psql: Psql) -> None:
    for change in ("disabled_at = now()", "disabled_at = NULL", "tier = 'free'", "tenant_id = 'acme'", "subject = 'x'"):
        before = await psql.fetchval(f"SELECT version FROM owners WHERE id = '{ADA}'")
        (told,) = await psql.run(f"UPDATE owners SET {change} WHERE id = '{ADA}'")
        after = await psql.fetchval(f"SELECT version FROM owners WHERE id = '{ADA}'")
        assert told == {"v": 1, "kind": "owner", "owner_id": ADA, "version": after}, change
        assert after > before


async def test_owners_made_and_deleted_are_told(psql: Psql) -> None:
    told = await psql.run(f"DELETE FROM owners WHERE id = '{BOB}'")
    assert name_subjects(told) == of_owners(BOB)
    told = await psql.run(
        f"INSERT INTO owners (id, tenant_id, issuer, subject, tier) VALUES ('{BOB}', 'default', 'local', 'bob', 'pro')"
    )
    assert name_subjects(told) == of_owners(BOB)


# Revocation


async def test_revoked_is_final(psql: Psql) -> None:
    await psql.run(f"UPDATE api_keys SET status = 'revoked' WHERE id = '{KEY}'")
    for status in ("active", "disabled"):
        await psql.refuse(f"UPDATE api_keys SET status = '{status}' WHERE id = '{KEY}'", f"key {KEY} is revoked, and")
    assert await psql.fetchval(f"SELECT status FROM api_keys WHERE id = '{KEY}'") == "revoked"


async def test_a_revoked_key_can_still_be_annotated(psql: Psql) -> None:
    await psql.run(f"UPDATE api_keys SET status = 'revoked' WHERE id = '{KEY}'")
    revoked_at = await psql.fetchval(f"SELECT revoked_at FROM api_keys WHERE id = '{KEY}'")
    (told,) = await psql.run(f"UPDATE api_keys SET revoked_reason = 'leaked', name = 'dead' WHERE id = '{KEY}'")
    assert told["key_id"] == KEY
    assert await psql.fetchval(f"SELECT revoked_at FROM api_keys WHERE id = '{KEY}'") == revoked_at


async def test_the_moment_of_a_revocation_is_noted_and_one_given_is_kept(psql: Psql) -> None:
    await psql.run(f"UPDATE api_keys SET status = 'revoked' WHERE id = '{OTHER}'")
    assert await psql.fetchval(f"SELECT now() - revoked_at < '5 min' FROM api_keys WHERE id = '{OTHER}'")
    await psql.run(f"UPDATE api_keys SET status = 'revoked', revoked_at = '2026-01-01Z' WHERE id = '{GRANDCHILD}'")
    assert await psql.fetchval(f"SELECT revoked_at = '2026-01-01Z' FROM api_keys WHERE id = '{GRANDCHILD}'")


async def test_revoking_a_key_revokes_and_tells_everything_made_from_it(psql: Psql) -> None:
    told = await psql.run(f"UPDATE api_keys SET status = 'revoked', revoked_by = 'ada' WHERE id = '{KEY}'")
    assert name_subjects(told) == of_keys(KEY, CHILD, GRANDCHILD)
    rows = await psql.fetch("SELECT id, status, revoked_by, revoked_reason FROM api_keys")
    assert {row["id"]: tuple(row)[1:] for row in rows} == {
        KEY: ("revoked", "ada", None),
        CHILD: ("revoked", "ada", f"parent key {KEY} was revoked"),
        GRANDCHILD: ("revoked", "ada", f"parent key {CHILD} was revoked"),
        OTHER: ("active", None, None),
    }


async def test_revoking_a_child_spares_its_parent(psql: Psql) -> None:
    told = await psql.run(f"UPDATE api_keys SET status = 'revoked' WHERE id = '{CHILD}'")
    assert name_subjects(told) == of_keys(CHILD, GRANDCHILD)
    assert await psql.fetchval(f"SELECT status FROM api_keys WHERE id = '{KEY}'") == "active"


async def test_revoking_a_tree_by_one_statement_works_in_any_order(psql: Psql) -> None:
    told = await psql.run("UPDATE api_keys SET status = 'revoked'")
    assert name_subjects(told) == of_keys(KEY, CHILD, GRANDCHILD, OTHER)
    assert await psql.fetchval("SELECT count(*) FROM api_keys WHERE status = 'revoked'") == 4


async def test_a_keys_id_and_parent_never_change(psql: Psql) -> None:
    for key_id, change in (
        (GRANDCHILD, f"parent_id = '{OTHER}'"),
        (GRANDCHILD, "parent_id = NULL"),
        (GRANDCHILD, "id = 'another00001'"),
        (GRANDCHILD, "id = 'another00001', parent_id = id"),
        (KEY, f"parent_id = '{OTHER}'"),
        (KEY, "parent_id = id"),
    ):
        sql = f"UPDATE api_keys SET {change} WHERE id = '{key_id}'"
        await psql.refuse(sql, "the id and the parent of a key never change")


# The audit


async def test_the_audit_is_append_only(psql: Psql) -> None:
    await psql.run("INSERT INTO audit_events (actor, action) VALUES ('ada', 'mint')")
    for sql in ("UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events", "TRUNCATE audit_events"):
        await psql.refuse(sql, "audit_events is append-only")
    assert await psql.fetchval("SELECT count(*) FROM audit_events WHERE actor = 'ada'") == 1


# The tables


@pytest.mark.parametrize("role", ["origin"])
async def test_values_without_a_meaning_are_refused(psql: Psql) -> None:
    for sql in (
        "UPDATE api_keys SET status = 'suspended'",
        "UPDATE api_keys SET name = ''",
        "UPDATE api_keys SET name = repeat('n', 65)",
        "UPDATE owners SET tier = ''",
        "UPDATE owners SET tenant_id = ''",
        "UPDATE api_key_secrets SET tag = '\\x00'",
        "UPDATE api_key_secrets SET version = 0",
        f"INSERT INTO legacy_digests (digest, key_id) VALUES ('\\\\x01', '{OTHER}')",
    ):
        await psql.refuse(sql, "violates check constraint")


@pytest.mark.parametrize("role", ["origin"])
async def test_the_listener_expects_exactly_the_triggers_that_stand(psql: Psql) -> None:
    counted = await psql.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A' AND tgrelid = ANY ($1::regclass[])",
        list(TABLES),
    )
    assert counted == TRIGGERS
    assert await psql.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'A'") == 0


@pytest.mark.parametrize("role", ["origin"])
async def test_a_sessions_row_outlives_its_key(psql: Psql) -> None:
    await psql.run(
        "INSERT INTO mcp_sessions (upstream, session_hash, key_id, secret_version, grants, sealed_id)"
        f" VALUES ('mcp', '\\x01', '{OTHER}', 1, '{{}}', '\\x02')"
    )
    await psql.run(f"DELETE FROM api_keys WHERE id = '{OTHER}'")
    assert await psql.fetchval(f"SELECT count(*) FROM mcp_sessions WHERE key_id = '{OTHER}'") == 1


@pytest.mark.parametrize("scopes", ["array_append(scopes, NULL)", "'{{agent:list},{agent:read}}'", "NULL"])
async def test_scopes_are_a_plain_list_of_texts(scopes: str, stage: Stage) -> None:
    await stage.mint()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await stage.sql(f"UPDATE api_keys SET scopes = {scopes}")
