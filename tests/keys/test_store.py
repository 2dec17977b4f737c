"""Keys in Postgres: what a read brings, what a change leaves behind, and what a failure does not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from proxy.database import Database
from proxy.errors import DatabaseError, Reason
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.record import Ancestor
from proxy.keys.store import MAX_ANCESTORS, KeyConflictError, KeyStore, KeySummary, NewKey

EXPIRES_AT = datetime(2127, 1, 31, 12, 30, tzinfo=UTC)
NOW = 1_800_000_000.0
PARENT = "INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id) SELECT $1, id, $1, $3, 'sql', $2"


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def form_key(key_id: str = "key000000001", name: str = "ci", **changes: object) -> NewKey:
    values: dict[str, object] = {
        "id": KeyId(key_id),
        "name": name,
        "preset": None,
        "scopes": ("workflow:run", "agent:list"),
        "expires_at": None,
        "created_by": "test",
        "tag": b"\x00\xff\x10\x7f",
        "argon2_string": "$argon2id$v=19$m=1024,t=1,p=1$c2FsdA$aGFzaA",
    }
    return NewKey(**{**values, **changes})  # type: ignore[arg-type]


async def insert(
    store: KeyStore, key: NewKey, owner: str = "ada", tenant: str | None = None, tier: str | None = None
) -> KeySummary:
    return await store.insert_key(key, owner=owner, tenant=tenant, tier=tier, default_tier="pro", issuer="local")


async def insert_child(database: Database, key_id: str, parent_id: str, scopes: tuple[str, ...] = ("*",)) -> None:
    await database.fetch(PARENT + " FROM owners", key_id, parent_id, scopes)


async def read_audit(database: Database) -> list[tuple[str, str, str, object]]:
    rows = await database.fetch("SELECT actor, action, key_id, after FROM audit_events ORDER BY id")
    return [(row["actor"], row["action"], row["key_id"], json.loads(row["after"])) for row in rows]


async def count_everything(database: Database) -> list[int]:
    tables = ("owners", "api_keys", "api_key_secrets", "audit_events")
    return [(await database.fetch(f"SELECT count(*) FROM {table}"))[0][0] for table in tables]


async def test_a_stored_key_is_read_with_owner_and_secret(store: KeyStore, database: Database) -> None:
    summary = await insert(store, form_key(expires_at=EXPIRES_AT), tenant="acme", tier="free")
    records = await store.read_keys([KeyId("key000000001"), KeyId("unknown00000")])
    (key_id, record), *rest = records.items()
    (row,) = await database.fetch("SELECT id, (SELECT version FROM api_keys) AS version FROM owners")
    assert rest == []
    assert key_id == record.id == summary.id == "key000000001"
    assert record.owner == Owner(OwnerId(str(row["id"])), "acme", "local", "ada", "free")
    assert not record.owner_disabled
    assert (record.status, record.scopes, record.ancestors) == ("active", ("workflow:run", "agent:list"), ())
    assert record.expires_at == EXPIRES_AT.timestamp()
    assert record.version == row["version"] > 0
    (secret,) = record.secrets.values()
    assert (secret.version, secret.not_after) == (1, None)
    assert secret.tag == b"\x00\xff\x10\x7f"
    assert secret.hash == "$argon2id$v=19$m=1024,t=1,p=1$c2FsdA$aGFzaA"
    assert record.find_fault(NOW) is None


async def test_a_key_being_rotated_is_read_with_both_secrets(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    await database.fetch("UPDATE api_key_secrets SET not_after = to_timestamp(1800000000.25)")
    await database.fetch("INSERT INTO api_key_secrets VALUES ('key000000001', 2, '\\x01020304', 'hash 2')")
    record = (await store.read_keys([KeyId("key000000001")]))[KeyId("key000000001")]
    assert {version: secret.not_after for version, secret in record.secrets.items()} == {1: NOW + 0.25, 2: None}
    assert record.secrets[2].tag == b"\1\2\3\4"


async def test_a_key_without_secrets_is_read_and_no_secret_fits(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    await database.fetch("DELETE FROM api_key_secrets")
    record = (await store.read_keys([KeyId("key000000001")]))[KeyId("key000000001")]
    assert record.secrets == {}
    assert record.find_secret_fault(1, NOW) is Reason.SECRET_RETIRED


async def test_ancestors_are_read_nearest_first(store: KeyStore, database: Database) -> None:
    await insert(store, form_key("grandparent0", expires_at=EXPIRES_AT))
    await insert_child(database, "parent000000", "grandparent0", ("agent:list",))
    await insert_child(database, "child0000000", "parent000000")
    await database.fetch("UPDATE api_keys SET status = 'disabled' WHERE id = 'grandparent0'")
    records = await store.read_keys([KeyId("child0000000"), KeyId("parent000000")])
    versions = {row["id"]: row["version"] for row in await database.fetch("SELECT id, version FROM api_keys")}
    scopes = ("workflow:run", "agent:list")
    version = versions["grandparent0"]
    grandparent = Ancestor(KeyId("grandparent0"), "disabled", scopes, EXPIRES_AT.timestamp(), version)
    parent = Ancestor(KeyId("parent000000"), "active", ("agent:list",), None, versions["parent000000"])
    assert records[KeyId("child0000000")].ancestors == (parent, grandparent)
    assert records[KeyId("parent000000")].ancestors == (grandparent,)


@pytest.mark.parametrize(
    ("stored", "seconds", "fault"),
    [("infinity", float("inf"), None), ("-infinity", float("-inf"), Reason.KEY_EXPIRED)],
)
async def test_infinite_ends_mean_what_they_say(
    store: KeyStore, database: Database, stored: str, seconds: float, fault: Reason | None
) -> None:
    await insert(store, form_key())
    await insert_child(database, "child0000000", "key000000001")
    await database.fetch(f"UPDATE api_keys SET expires_at = '{stored}' WHERE id = 'key000000001'")
    await database.fetch(f"UPDATE api_key_secrets SET not_after = '{stored}'")
    records = await store.read_keys([KeyId("key000000001"), KeyId("child0000000")])
    parent, child = records[KeyId("key000000001")], records[KeyId("child0000000")]
    assert parent.expires_at == child.ancestors[0].expires_at == parent.secrets[1].not_after == seconds
    assert parent.find_fault(NOW) is child.find_fault(NOW) is fault
    assert (parent.find_secret_fault(1, NOW) is None) == (fault is None)
    assert [summary.id for summary in await store.list_keys()] == ["child0000000", "key000000001"]


async def grow_lineage(database: Database, ancestors: int) -> KeyId:
    for number in range(1, ancestors + 1):
        await insert_child(database, f"key{number:09}", f"key{number - 1:09}")
    return KeyId(f"key{ancestors:09}")


@pytest.mark.parametrize(
    ("ancestors", "fault"),
    [(MAX_ANCESTORS, None), (MAX_ANCESTORS + 1, Reason.KEY_DISABLED), (MAX_ANCESTORS + 8, Reason.KEY_DISABLED)],
)
async def test_a_lineage_too_long_to_be_judged_is_denied(
    store: KeyStore, database: Database, ancestors: int, fault: Reason | None
) -> None:
    await insert(store, form_key("key000000000"))
    leaf = await grow_lineage(database, ancestors)
    record = (await store.read_keys([leaf]))[leaf]
    assert record.find_fault(NOW) is fault
    if fault is None:
        assert len(record.ancestors) == ancestors


async def test_a_circle_made_by_hand_is_denied_and_can_be_revoked(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    await database.fetch(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id)"
        " SELECT v.id, owners.id, v.id, '{*}', 'sql', v.parent FROM owners,"
        " (VALUES ('circle000001', 'circle000002'), ('circle000002', 'circle000001'), ('circle000003', 'circle000003'))"
        " AS v (id, parent)"
    )
    ids = [KeyId(f"circle00000{number}") for number in (1, 2, 3)]
    records = await store.read_keys(ids)
    assert [records[key_id].find_fault(NOW) for key_id in ids] == [Reason.KEY_DISABLED] * 3
    await store.revoke_key("circle000001", actor="test")
    await store.revoke_key("circle000003", actor="test")
    assert {key.id for key in await store.list_keys() if key.status == "revoked"} == set(ids)


async def test_a_disabled_owner_disables_every_key(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    await database.fetch("UPDATE owners SET disabled_at = now()")
    record = (await store.read_keys([KeyId("key000000001")]))[KeyId("key000000001")]
    assert record.find_fault(NOW) is Reason.OWNER_DISABLED
    assert [summary.status for summary in await store.list_keys()] == ["owner disabled"]


async def test_reading_no_keys_still_asks(store: KeyStore, database: Database) -> None:
    assert await store.read_keys([]) == {}
    await database.fetch("DROP TABLE api_keys CASCADE")
    with pytest.raises(DatabaseError, match="api_keys"):
        await store.read_keys([])


async def test_a_thousand_keys_are_read_by_one_statement(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    await database.fetch(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by)"
        " SELECT 'many' || lpad(n::text, 8, '0'), owners.id, 'many ' || n, '{*}', 'sql'"
        " FROM owners, generate_series(1, 999) AS n"
    )
    ids = [KeyId(f"many{number:08}") for number in range(1, 1_001)]
    assert set(await store.read_keys(ids)) == set(ids[:-1])


async def test_minting_makes_the_owner_once_with_the_default_tier(store: KeyStore, database: Database) -> None:
    first = await insert(store, form_key("key000000001", "one"))
    second = await insert(store, form_key("key000000002", "two"))
    assert (first.owner, first.tenant, first.tier) == (second.owner, second.tenant, second.tier)
    assert (first.owner, first.tenant, first.tier) == ("ada", "default", "pro")
    assert (await count_everything(database))[0] == 1


async def test_two_keys_minted_at_once_for_a_new_owner_share_that_owner(store: KeyStore, database: Database) -> None:
    keys = [form_key(f"key{number:09}", f"key {number}") for number in range(8)]
    await asyncio.gather(*(insert(store, key) for key in keys))
    assert await count_everything(database) == [1, 8, 8, 8]


async def test_the_summary_says_everything_but_the_secret(store: KeyStore) -> None:
    summary = await insert(store, form_key(preset="execution", expires_at=EXPIRES_AT), tenant="acme", tier="free")
    assert {**asdict(summary), "created_at": None} == {
        "id": "key000000001", "name": "ci", "owner": "ada", "tenant": "acme", "tier": "free", "preset": "execution",
        "scopes": ("workflow:run", "agent:list"), "status": "active", "expires_at": EXPIRES_AT, "created_at": None,
        "created_by": "test", "parent_id": None, "revoked_at": None, "revoked_by": None, "revoked_reason": None,
        "issuer": "local", "constraints": {}, "version": summary.version, "old_secret_until": None,
            "last_used_at": None, "last_used": None, "last_refused": None, "old_secret_last_used_at": None,
            "aegis_role": None,
    }  # fmt: skip
    assert datetime.now(UTC) - summary.created_at < timedelta(minutes=5)
    assert await store.find_key("key000000001") == summary
    assert "argon2" not in repr(summary)


@pytest.mark.parametrize(
    ("tenant", "tier", "text"),
    [
        ("acme", None, "owner ada has tenant 'default', not 'acme': minting does not change it"),
        (None, "enterprise", "owner ada has tier 'pro', not 'enterprise': minting does not change it"),
        ("acme", "enterprise", "owner ada has tenant 'default', not 'acme': minting does not change it"),
    ],
)
async def test_an_owners_tenant_and_tier_are_never_changed_by_minting(
    store: KeyStore, database: Database, tenant: str | None, tier: str | None, text: str
) -> None:
    await insert(store, form_key())
    before = await count_everything(database)
    with pytest.raises(KeyConflictError) as caught:
        await insert(store, form_key("key000000002", "other"), tenant=tenant, tier=tier)
    assert str(caught.value) == text
    assert await count_everything(database) == before
    same = await insert(store, form_key("key000000003", "third"), tenant="default", tier="pro")
    assert (same.tenant, same.tier) == ("default", "pro")


async def test_the_same_subject_of_another_issuer_is_another_owner(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    other = await store.insert_key(
        form_key("key000000002"), owner="ada", tenant="acme", tier="free", default_tier="pro", issuer="https://id.test"
    )
    assert (other.tenant, other.tier) == ("acme", "free")
    assert (await count_everything(database))[0] == 2


async def test_a_name_is_taken_only_by_an_active_key_of_the_same_owner(store: KeyStore, database: Database) -> None:
    await insert(store, form_key("key000000001", "ci"))
    await insert(store, form_key("key000000002", "ci"), owner="bob")
    before = await count_everything(database)
    with pytest.raises(KeyConflictError) as caught:
        await insert(store, form_key("key000000003", "ci"))
    assert str(caught.value) == (
        "ada already has an active key named 'ci': choose another name, or revoke that one"
    )  # fmt: skip
    assert await count_everything(database) == before
    await store.revoke_key("key000000001", actor="test")
    await insert(store, form_key("key000000003", "ci"))


async def test_a_mint_is_audited_without_the_secret(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    assert await read_audit(database) == [
        (
            "test",
            "mint",
            "key000000001",
            {
                "name": "ci",
                "scopes": ["workflow:run", "agent:list"],
                "status": "active",
                "constraints": {},
                "secret_version": 1,
            },
        )
    ]
    (row,) = await database.fetch("SELECT audit_events::text AS text, owner_id FROM audit_events")
    assert "argon2" not in row["text"]
    assert row["owner_id"] == (await database.fetch("SELECT id FROM owners"))[0]["id"]


async def test_keys_are_listed_newest_first_and_by_owner(store: KeyStore, database: Database) -> None:
    assert await store.list_keys() == []
    for number, owner in enumerate(["ada", "bob", "ada"]):
        await insert(store, form_key(f"key{number:09}", f"key {number}"), owner=owner)
    await database.fetch("UPDATE api_keys SET created_at = now() - make_interval(days => right(id, 1)::int)")
    assert [key.id for key in await store.list_keys()] == ["key000000000", "key000000001", "key000000002"]
    assert [key.id for key in await store.list_keys("ada")] == ["key000000000", "key000000002"]
    assert await store.list_keys("nobody") == []


async def test_the_list_tells_the_expired_from_the_active(store: KeyStore) -> None:
    await insert(store, form_key("key000000001", "old", expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
    await insert(store, form_key("key000000002", "new", expires_at=EXPIRES_AT))
    assert {key.name: key.status for key in await store.list_keys()} == {"old": "expired", "new": "active"}


@pytest.mark.parametrize("key_id", ["unknown00000", "", "' OR true --", "x" * 10_000])
async def test_a_key_nobody_minted_is_not_found(store: KeyStore, key_id: str) -> None:
    await insert(store, form_key())
    assert await store.find_key(key_id) is None
    assert await store.revoke_key(key_id, actor="test") is None
    assert [key.status for key in await store.list_keys()] == ["active"]


async def test_a_revocation_says_who_and_why_and_revokes_the_tree(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    await insert_child(database, "child0000000", "key000000001")
    await insert_child(database, "grandchild00", "child0000000")
    revoked = await store.revoke_key("key000000001", actor="ada's hand", reason="leaked")
    assert revoked is not None
    assert (revoked.status, revoked.revoked_by, revoked.revoked_reason) == ("revoked", "ada's hand", "leaked")
    assert revoked.revoked_at is not None
    assert [(key.id, key.status) for key in await store.list_keys()] == [
        ("grandchild00", "revoked"), ("child0000000", "revoked"), ("key000000001", "revoked"),
    ]  # fmt: skip
    assert (await read_audit(database))[1:] == [
        ("ada's hand", "revoke", "key000000001", {"status": "revoked", "reason": "leaked"})
    ]


async def test_a_reason_that_holds_the_key_is_kept_without_its_secret(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    leaked = f"aegis_key000000001_{'s3cr3t' * 8}"
    revoked = await store.revoke_key("key000000001", actor="ada", reason=f"{leaked} stood in a chat, «überall»")
    assert revoked is not None
    assert revoked.revoked_reason == "aegis_key000000001_… stood in a chat, «überall»"
    assert (await read_audit(database))[1][3] == {"status": "revoked", "reason": revoked.revoked_reason}


async def test_revoking_twice_changes_and_audits_nothing_more(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    first = await store.revoke_key("key000000001", actor="ada", reason="leaked")
    version = (await database.fetch("SELECT version FROM api_keys"))[0][0]
    again = await store.revoke_key("key000000001", actor="bob", reason="to be sure")
    assert again == first
    assert (await database.fetch("SELECT version FROM api_keys"))[0][0] == version
    assert len(await read_audit(database)) == 2


async def test_two_revocations_at_once_are_one(store: KeyStore, database: Database) -> None:
    await insert(store, form_key())
    results = await asyncio.gather(*(store.revoke_key("key000000001", actor=f"actor {n}") for n in range(4)))
    assert len({key.revoked_by for key in results if key is not None}) == 1
    assert len(await read_audit(database)) == 2


async def test_a_disabled_key_and_an_expired_one_can_still_be_revoked(store: KeyStore, database: Database) -> None:
    await insert(store, form_key("key000000001", "one"))
    await insert(store, form_key("key000000002", "two", expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
    await database.fetch("UPDATE api_keys SET status = 'disabled' WHERE name = 'one'")
    for key_id in ("key000000001", "key000000002"):
        revoked = await store.revoke_key(key_id, actor="test")
        assert revoked is not None
        assert revoked.status == "revoked"


async def test_a_revocation_is_committed_synchronously(store: KeyStore, database: Database) -> None:
    """The server of the tests is not durable; the revocation is, and other transactions stay as they are."""
    await insert(store, form_key())
    await database.fetch("CREATE TABLE seen (setting text)")
    await database.fetch(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    await database.fetch("CREATE TRIGGER see AFTER UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION see()")
    await store.revoke_key("key000000001", actor="test")
    await database.fetch("UPDATE api_keys SET revoked_reason = 'by hand'")
    assert [row["setting"] for row in await database.fetch("SELECT setting FROM seen")] == ["on", "off"]


@pytest.fixture
async def without_audit(store: KeyStore, database: Database) -> None:
    """A database that takes keys and refuses to record who changed them."""
    await insert(store, form_key())
    await database.fetch("ALTER TABLE audit_events ADD CONSTRAINT full_disk CHECK (false) NOT VALID")


@pytest.mark.usefixtures("without_audit")
async def test_a_mint_that_cannot_be_audited_stores_nothing(store: KeyStore, database: Database) -> None:
    before = await count_everything(database)
    with pytest.raises(DatabaseError, match="full_disk"):
        await insert(store, form_key("key000000002", "other"), owner="bob")
    assert await count_everything(database) == before


@pytest.mark.usefixtures("without_audit")
async def test_a_revocation_that_cannot_be_audited_does_not_happen(store: KeyStore) -> None:
    with pytest.raises(DatabaseError, match="full_disk"):
        await store.revoke_key("key000000001", actor="test")
    assert [key.status for key in await store.list_keys()] == ["active"]


@pytest.mark.parametrize(
    "changes",
    [
        {"tag": b"too long a tag"},
        {"key_id": "with-dashes!"},
        {"key_id": "tooshort"},
        {"name": ""},
        {"name": "n" * 65},
        {"argon2_string": "nul \0 character"},
    ],
)
async def test_what_the_tables_refuse_leaves_nothing_behind(
    store: KeyStore, database: Database, changes: dict[str, object]
) -> None:
    key = form_key(**changes)  # type: ignore[arg-type]
    with pytest.raises(DatabaseError):
        await insert(store, key)
    assert await count_everything(database) == [0, 0, 0, 0]


async def test_a_refusal_of_the_tables_never_shows_the_stored_hash(store: KeyStore, database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        await insert(store, form_key(tag=b"wrong"))
    assert "argon2" not in str(caught.value)
    assert isinstance(caught.value.__cause__, asyncpg.CheckViolationError)
