"""Sign-ins in Postgres: how long they last, and what is written of them."""

from __future__ import annotations

import asyncio

import pytest

from proxy.console.cookies import hash_value
from proxy.console.sign_in_store import SignIn, SignInStore
from proxy.database import Connection, Database
from proxy.errors import DatabaseError
from proxy.identity import KeyId, OwnerId
from tests.staging import GUARD_SECONDS, Stage

ONE, TWO, THREE = (hash_value(letter) for letter in "abc")
IDLE, ABSOLUTE = 1800.0, 43_200.0


@pytest.fixture
def store(database: Database) -> SignInStore:
    return SignInStore(database, idle_seconds=IDLE, absolute_seconds=ABSOLUTE)


async def find_owner_id(stage: Stage, name: str = "ada") -> OwnerId:
    rows = await stage.database.fetch("SELECT id::text FROM owners WHERE subject = $1", name)
    return OwnerId(rows[0]["id"])


async def count(stage: Stage) -> int:
    return int((await stage.database.fetch("SELECT count(*) FROM sign_ins"))[0]["count"])


async def test_a_sign_in_is_found_as_it_was_opened(stage: Stage, store: SignInStore) -> None:
    key = await stage.mint("full-access")
    owner_id = await find_owner_id(stage)
    by_key = SignIn(owner_id, KeyId(key.summary.id), 1)
    by_claims = SignIn(owner_id, tenant_id="acme", tier="pro", role="aegis:admin")
    await store.open(ONE, by_key, "test", None)
    await store.open(TWO, by_claims, "test", None)
    assert [await store.find(one) for one in (ONE, TWO, THREE)] == [by_key, by_claims, None]


async def test_what_it_takes_the_place_of_ends(stage: Stage, store: SignInStore) -> None:
    await stage.mint("full-access")
    sign_in = SignIn(await find_owner_id(stage))
    await store.open(ONE, sign_in, "test", None)
    await store.open(TWO, sign_in, "test", ONE)
    assert await store.find(ONE) is None
    assert await store.find(TWO) == sign_in


@pytest.mark.parametrize(
    ("column", "seconds", "lasts"),
    [
        ("seen_at", IDLE - 60, True),
        ("seen_at", IDLE + 1, False),
        ("created_at", ABSOLUTE - 60, True),
        ("created_at", ABSOLUTE + 1, False),
    ],
)
async def test_it_lasts_while_it_is_used_and_never_longer_than_its_time(
    stage: Stage, store: SignInStore, column: str, seconds: float, lasts: bool
) -> None:
    await stage.mint("full-access")
    await store.open(ONE, SignIn(await find_owner_id(stage)), "test", None)
    await stage.sql(f"UPDATE sign_ins SET {column} = clock_timestamp() - make_interval(secs => $1)", seconds)
    assert (await store.find(ONE) is not None) is lasts


async def test_being_used_is_written_down_and_rarely(stage: Stage, store: SignInStore) -> None:
    await stage.mint("full-access")
    await store.open(ONE, SignIn(await find_owner_id(stage)), "test", None)
    written = []
    for age in (0, IDLE / 10 - 30, IDLE / 10 + 1):
        await stage.sql("UPDATE sign_ins SET seen_at = clock_timestamp() - make_interval(secs => $1)", age)
        before = await stage.database.fetch("SELECT xmin::text, seen_at FROM sign_ins")
        await store.find(ONE)
        written.append(before != await stage.database.fetch("SELECT xmin::text, seen_at FROM sign_ins"))
    assert written == [False, False, True]


async def test_what_is_over_is_swept_when_somebody_signs_in(stage: Stage, store: SignInStore) -> None:
    await stage.mint("full-access")
    sign_in = SignIn(await find_owner_id(stage))
    await store.open(ONE, sign_in, "test", None)
    await stage.sql("UPDATE sign_ins SET seen_at = '2020-01-01'")
    await store.open(TWO, sign_in, "test", None)
    assert await count(stage) == 1


async def test_sweeping_waits_for_nobody(stage: Stage, store: SignInStore, database: Database) -> None:
    await stage.mint("full-access")
    sign_in = SignIn(await find_owner_id(stage))
    await store.open(ONE, sign_in, "test", None)
    await stage.sql("UPDATE sign_ins SET seen_at = '2020-01-01'")

    async def work(connection: Connection) -> None:
        await connection.execute("SELECT FROM sign_ins FOR UPDATE")
        async with asyncio.timeout(GUARD_SECONDS):
            await store.open(TWO, sign_in, "test", None)

    await database.transact(work)
    assert await count(stage) == 2


async def test_an_owner_ends_all_of_theirs_and_a_key_its_own(stage: Stage, store: SignInStore) -> None:
    key, other = await stage.mint("full-access"), await stage.mint("full-access")
    await stage.mint("full-access", owner="bob")
    ada, bob = await find_owner_id(stage), await find_owner_id(stage, "bob")
    opened = [SignIn(ada, KeyId(key.summary.id), 1), SignIn(ada, KeyId(other.summary.id), 1), SignIn(ada), SignIn(bob)]
    hashes = [hash_value(str(number)) for number in range(4)]
    for id_hash, sign_in in zip(hashes, opened, strict=True):
        await store.open(id_hash, sign_in, "test", None)
    await store.end_all(opened[0], "test")
    assert [await store.find(one) is not None for one in hashes] == [False, True, True, True]
    await store.end_all(opened[2], "test")
    assert [await store.find(one) is not None for one in hashes] == [False, False, False, True]


async def test_signing_in_and_ending_everywhere_are_audited(stage: Stage, store: SignInStore) -> None:
    key = await stage.mint("full-access")
    owner_id = await find_owner_id(stage)
    sign_in = SignIn(owner_id, KeyId(key.summary.id), 1)
    await store.open(ONE, sign_in, "key:x", None)
    await store.end_all(sign_in, "key:x")
    rows = await stage.database.fetch(
        "SELECT actor, action, key_id, owner_id::text FROM audit_events WHERE action LIKE 'sign_in%' ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("key:x", action, key.summary.id, owner_id) for action in ("sign_in.open", "sign_in.end_all")
    ]


async def test_a_deleted_key_takes_its_sign_ins_along(stage: Stage, store: SignInStore) -> None:
    key = await stage.mint("full-access")
    await store.open(ONE, SignIn(await find_owner_id(stage), KeyId(key.summary.id), 1), "test", None)
    await stage.sql("DELETE FROM api_keys WHERE id = $1", key.summary.id)
    assert await store.find(ONE) is None


async def test_rights_of_claims_do_not_stand_beside_a_key(stage: Stage, store: SignInStore) -> None:
    key = await stage.mint("full-access")
    with pytest.raises(DatabaseError):
        await store.open(
            ONE, SignIn(await find_owner_id(stage), KeyId(key.summary.id), 1, role="aegis:admin"), "test", None
        )
