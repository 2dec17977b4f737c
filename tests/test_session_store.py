"""Whose session is it? Bound before it is used, claimed by its key alone, ended by one instance."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from proxy.database import Database
from proxy.errors import Reason, Refusal, UnavailableError, UpstreamError
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.sealing import Seal
from proxy.session_store import (
    OWNER_MEMORY_SECONDS,
    DeadSession,
    SessionOwner,
    SessionStore,
    hash_session_id,
)
from tests.clocks import ManualClock
from tests.staging import GUARD_SECONDS, Stage

SEAL = Seal(b"the one secret that the instances share", "mcp-session")
SESSION = "6b1f1c54-a-session-id"
ATTEMPTS = 3
IDLE_SECONDS = 1800.0
PRINCIPAL = Principal(
    key_id=KeyId("key000000001"),
    owner=Owner(OwnerId(str(uuid4())), "default", "local", "ada", "pro"),
    grants=frozenset({"workflow:run:nightly-etl", "agent:list"}),
    ancestors=(),
    secret_version=1,
    ends=None,
    read_at=0.0,
    claims=Claims(()),
)
STRANGER = replace(PRINCIPAL, key_id=KeyId("key000000002"))
UNKNOWN = "There is no such session: it has ended, or never was."


def form_store(database: Database, clock: ManualClock | None = None, seal: Seal = SEAL) -> SessionStore:
    """An instance of its own: with a memory of its own."""
    timer = (clock or ManualClock()).boot
    return SessionStore(
        database, seal=seal, instance=uuid4(), max_attempts=ATTEMPTS, idle_seconds=IDLE_SECONDS, timer=timer
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(database: Database, clock: ManualClock) -> SessionStore:
    return form_store(database, clock)


@pytest.fixture
def other(database: Database) -> SessionStore:
    """Another instance."""
    return form_store(database)


@pytest.fixture
async def broken(database: Database) -> SessionStore:
    """An instance whose database has no such table."""
    await database.fetch("ALTER TABLE mcp_sessions RENAME TO elsewhere")
    return form_store(database)


async def refuse(store: SessionStore, principal: Principal, session_id: str = SESSION, upstream: str = "mcp") -> None:
    with pytest.raises(Refusal) as caught:
        await store.claim(upstream, session_id, principal)
    assert caught.value.reason is Reason.SESSION_UNKNOWN
    assert str(caught.value) == UNKNOWN


async def insert_key(stage: Stage, **changes: str) -> Principal:
    """A real key, so that its sessions are not dead."""
    minted = await stage.mint(name=f"key {uuid4()}", **changes)  # type: ignore[arg-type]
    return replace(PRINCIPAL, key_id=KeyId(minted.summary.id))


async def bind_many(store: SessionStore, count: int, principal: Principal = PRINCIPAL) -> set[str]:
    ids = [f"session-{number}" for number in range(count)]
    await asyncio.gather(*(store.bind("mcp", session_id, principal, None) for session_id in ids))
    return set(ids)


async def let_claims_lapse(database: Database) -> None:
    await database.fetch("UPDATE mcp_sessions SET claimed_until = now() - interval '1 s'")


def name(dead: list[DeadSession]) -> set[str]:
    return {session.session_id for session in dead}


# Bind and claim


async def test_a_bound_session_is_its_keys_on_every_instance(store: SessionStore, other: SessionStore) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, "2025-11-25")
    await store.claim("mcp", SESSION, PRINCIPAL)
    await other.claim("mcp", SESSION, PRINCIPAL)


async def test_a_strangers_session_and_an_unknown_one_are_refused_alike(
    store: SessionStore, other: SessionStore
) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    for instance in (store, other):
        await refuse(instance, STRANGER)
        await refuse(instance, STRANGER, "never made")
        await refuse(instance, PRINCIPAL, "never made")
        await refuse(instance, PRINCIPAL, upstream="api")
        await refuse(instance, PRINCIPAL, SESSION + " ")
        await refuse(instance, PRINCIPAL, SESSION.upper())
        await refuse(instance, PRINCIPAL, "")


async def test_a_refused_stranger_does_not_spoil_the_owners_claim(other: SessionStore, store: SessionStore) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await refuse(other, STRANGER)
    await other.claim("mcp", SESSION, PRINCIPAL)


async def test_of_all_pairs_of_keys_only_the_owner_may_claim(store: SessionStore, other: SessionStore) -> None:
    principals = [replace(PRINCIPAL, key_id=KeyId(f"key{number:09}")) for number in range(6)]
    for principal in principals:
        await store.bind("mcp", f"session-of-{principal.key_id}", principal, None)
    for holder in principals:
        for claimant in principals:
            if holder is claimant:
                await other.claim("mcp", f"session-of-{holder.key_id}", claimant)
            else:
                await refuse(other, claimant, f"session-of-{holder.key_id}")


async def test_neither_another_key_nor_the_same_may_bind_a_session_again(
    store: SessionStore, other: SessionStore
) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    for instance in (store, other):
        for principal in (PRINCIPAL, STRANGER):
            with pytest.raises(UpstreamError) as caught:
                await instance.bind("mcp", SESSION, principal, None)
            assert caught.value.reason is Reason.UPSTREAM_SESSION_CONFLICT
            assert SESSION not in str(caught.value)
        await refuse(instance, STRANGER)
        await instance.claim("mcp", SESSION, PRINCIPAL)


async def test_one_of_many_who_bind_the_same_session_at_once_wins(database: Database) -> None:
    principals = [replace(PRINCIPAL, key_id=KeyId(f"key{number:09}")) for number in range(8)]
    stores = [form_store(database) for _ in principals]
    results = await asyncio.gather(
        *(store.bind("mcp", SESSION, principal, None) for store, principal in zip(stores, principals, strict=True)),
        return_exceptions=True,
    )
    assert [type(result) for result in results].count(UpstreamError) == 7
    winner = results.index(None)
    for instance in stores:
        await instance.claim("mcp", SESSION, principals[winner])
        await refuse(instance, principals[winner - 1])


async def test_the_same_id_at_another_upstream_is_another_session(store: SessionStore) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await store.bind("api", SESSION, STRANGER, None)
    await store.claim("api", SESSION, STRANGER)
    await refuse(store, PRINCIPAL, upstream="api")


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ({"workflow:run:nightly-etl", "agent:list"}, True),
        ({"workflow:run", "agent:list"}, True),
        ({"*"}, True),
        ({"workflow:run:nightly-etl"}, False),
        ({"workflow:run:weekly", "agent:list"}, False),
        (set(), False),
    ],
)
async def test_a_session_made_under_rights_since_lost_is_refused(
    store: SessionStore, other: SessionStore, grants: set[str], allowed: bool
) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    changed = replace(PRINCIPAL, grants=frozenset(grants))
    for instance in (store, other):
        if allowed:
            await instance.claim("mcp", SESSION, changed)
        else:
            await refuse(instance, changed)


async def test_a_rotated_key_keeps_its_sessions(store: SessionStore, other: SessionStore) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await other.claim("mcp", SESSION, replace(PRINCIPAL, secret_version=2))


async def test_the_id_is_stored_sealed_and_hashed_and_never_in_the_clear(
    store: SessionStore, database: Database
) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, "2025-11-25")
    (row,) = await database.fetch("SELECT *, mcp_sessions::text AS text FROM mcp_sessions")
    assert SESSION not in row["text"]
    assert SESSION.encode().hex() not in row["text"]
    assert row["session_hash"] == hash_session_id(SESSION)
    assert SEAL.unseal(row["sealed_id"], row["session_hash"]) == SESSION.encode()
    assert (row["key_id"], row["secret_version"], row["protocol_version"]) == ("key000000001", 1, "2025-11-25")
    assert row["grants"] == ["agent:list", "workflow:run:nightly-etl"]


async def test_what_cannot_be_read_is_unavailable_and_never_unknown(broken: SessionStore) -> None:
    for call in (
        broken.claim("mcp", SESSION, PRINCIPAL),
        broken.bind("mcp", SESSION, PRINCIPAL, None),
        broken.forget("mcp", hash_session_id(SESSION)),
        broken.claim_dead(sweep=True),
    ):
        with pytest.raises(UnavailableError) as caught:
            await call
        assert caught.value.reason is Reason.STATE_UNKNOWN
        assert caught.value.retry_after_seconds == 1


async def test_a_session_that_could_not_be_bound_is_nobodys(database: Database) -> None:
    store = form_store(database)
    await database.fetch("ALTER TABLE mcp_sessions RENAME TO elsewhere")
    with pytest.raises(UnavailableError):
        await store.bind("mcp", SESSION, PRINCIPAL, None)
    await database.fetch("ALTER TABLE elsewhere RENAME TO mcp_sessions")
    await refuse(store, PRINCIPAL)


# Forgetting


async def test_a_forgotten_session_is_gone_here_and_soon_everywhere(
    store: SessionStore, database: Database, clock: ManualClock
) -> None:
    bystander = form_store(database, clock)
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await bystander.claim("mcp", SESSION, PRINCIPAL)
    await store.forget("mcp", hash_session_id(SESSION))
    await refuse(store, PRINCIPAL)
    clock.advance(OWNER_MEMORY_SECONDS)
    await refuse(bystander, PRINCIPAL)


async def test_forgetting_spares_other_sessions_and_may_be_repeated(store: SessionStore) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await store.bind("api", SESSION, PRINCIPAL, None)
    for _ in range(2):
        await store.forget("mcp", hash_session_id(SESSION))
    await store.claim("api", SESSION, PRINCIPAL)
    await store.bind("mcp", SESSION, STRANGER, None)


# Ending what dead keys left


async def test_a_living_keys_sessions_are_left_alone(store: SessionStore, stage: Stage) -> None:
    principal = await insert_key(stage)
    await store.bind("mcp", SESSION, principal, None)
    assert await store.claim_dead(sweep=True) == []
    assert await store.claim_dead(sweep=False) == []
    await store.claim("mcp", SESSION, principal)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE api_keys SET status = 'revoked'",
        "UPDATE api_keys SET status = 'disabled'",
        "UPDATE api_keys SET expires_at = now()",
        "UPDATE owners SET disabled_at = now()",
        "DELETE FROM api_keys",
    ],
)
async def test_a_dead_keys_sessions_are_claimed_with_all_it_takes_to_end_them(
    store: SessionStore, stage: Stage, sql: str
) -> None:
    principal = await insert_key(stage)
    await store.bind("mcp", SESSION, principal, "2025-11-25")
    await stage.sql(sql)
    (dead,) = await store.claim_dead(sweep=True)
    assert dead == DeadSession("mcp", hash_session_id(SESSION), SESSION, "2025-11-25", principal.key_id)
    assert SESSION not in repr(dead)


async def test_sessions_named_are_claimed_though_their_key_lives_and_only_they(
    store: SessionStore, stage: Stage
) -> None:
    living = await insert_key(stage)
    for session_id in ("narrowed", "kept"):
        await store.bind("mcp", session_id, living, None)
    await store.bind("mcp", "dead", PRINCIPAL, None)
    made = await store.list_made([living.key_id])
    also = [session for session in made if session.session_hash == hash_session_id("narrowed")]
    assert name(await store.claim_dead(sweep=False, also=also)) == {"narrowed"}
    assert name(await store.claim_dead(sweep=True)) == {"dead"}
    await store.claim("mcp", "kept", living)


async def test_sessions_are_listed_with_the_rights_they_were_made_under(store: SessionStore) -> None:
    await store.bind("mcp", "hers", PRINCIPAL, None)
    await store.bind("mcp", "his", STRANGER, None)
    made = SessionOwner(PRINCIPAL.key_id, PRINCIPAL.owner.name, tuple(sorted(PRINCIPAL.grants)))
    (listed,) = await store.list_made([PRINCIPAL.key_id, KeyId("nobody")])
    assert (listed.session_hash, listed.made_by) == (hash_session_id("hers"), made)


@pytest.mark.parametrize("changed", [{"id": str(uuid4())}, {"tenant_id": "another"}], ids=["owner", "tenant"])
async def test_a_session_is_of_nobody_once_its_key_is_in_other_hands(
    store: SessionStore, database: Database, changed: dict[str, Any]
) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    moved = replace(PRINCIPAL, owner=replace(PRINCIPAL.owner, **changed))
    for instance in (store, form_store(database)):
        with pytest.raises(Refusal, match=UNKNOWN):
            await instance.claim("mcp", SESSION, moved)
        await instance.claim("mcp", SESSION, PRINCIPAL)


async def test_a_session_nobody_used_for_long_is_swept_and_one_in_use_is_not(
    store: SessionStore, stage: Stage, database: Database
) -> None:
    living = await insert_key(stage)
    for session_id in ("idle", "claimed", "streaming"):
        await store.bind("mcp", session_id, living, None)
    await database.fetch(f"UPDATE mcp_sessions SET last_seen_at = now() - interval '{IDLE_SECONDS + 1} seconds'")
    await store.claim("mcp", "claimed", living)
    await store.note_used({("mcp", hash_session_id("streaming"))})
    assert name(await store.claim_dead(sweep=True)) == {"idle"}


@pytest.mark.parametrize("odd", ["", "a b", "a\n", "ü", "x" * 4097])
async def test_what_is_no_session_id_is_neither_bound_nor_looked_up(odd: str, broken: SessionStore) -> None:
    with pytest.raises(UpstreamError):
        await broken.bind("mcp", odd, PRINCIPAL, None)
    with pytest.raises(Refusal, match=UNKNOWN):
        await broken.claim("mcp", odd, PRINCIPAL)


async def test_a_claimed_session_is_nobodys_to_use(
    store: SessionStore, other: SessionStore, database: Database, clock: ManualClock
) -> None:
    bystander = form_store(database, clock)
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await bystander.claim("mcp", SESSION, PRINCIPAL)
    assert len(await store.claim_dead(sweep=True)) == 1
    await refuse(store, PRINCIPAL)
    await refuse(other, PRINCIPAL)
    clock.advance(OWNER_MEMORY_SECONDS)
    await refuse(bystander, PRINCIPAL)
    await let_claims_lapse(database)
    await refuse(form_store(database), PRINCIPAL)


async def test_two_instances_that_sweep_at_once_get_each_session_once(
    store: SessionStore, database: Database, database_url: str
) -> None:
    ids = await bind_many(store, 200)
    async with Database.open(
        database_url, min_size=1, max_size=4, connect_timeout_seconds=10, query_timeout_seconds=10
    ) as elsewhere:
        instances = [form_store(pool) for pool in (database, elsewhere) for _ in range(3)]
        rounds = await asyncio.gather(*(instance.claim_dead(sweep=True) for instance in instances))
    claimed = [session.session_id for dead in rounds for session in dead]
    assert len(claimed) == len(ids)
    assert set(claimed) == ids


async def test_a_session_another_instance_is_claiming_is_passed_over(store: SessionStore, database: Database) -> None:
    """Without waiting for that instance, which may never come back."""
    ids = await bind_many(store, 3)
    locked, let_go = asyncio.Event(), asyncio.Event()

    async def lock(connection: object) -> None:
        await connection.execute(  # type: ignore[attr-defined]
            "SELECT FROM mcp_sessions WHERE session_hash = $1 FOR UPDATE", hash_session_id("session-1")
        )
        locked.set()
        await let_go.wait()

    locking = asyncio.create_task(database.transact(lock, timeout_seconds=GUARD_SECONDS))
    await locked.wait()
    assert name(await store.claim_dead(sweep=True)) == ids - {"session-1"}
    let_go.set()
    await locking
    assert name(await store.claim_dead(sweep=True)) == {"session-1"}


async def test_a_claim_lapses_and_the_next_instance_gets_the_session(
    store: SessionStore, other: SessionStore, database: Database
) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    assert name(await store.claim_dead(sweep=True)) == {SESSION}
    assert await other.claim_dead(sweep=True) == []
    assert await store.claim_dead(sweep=True) == []
    (row,) = await database.fetch("SELECT claimed_until - now() AS left FROM mcp_sessions")
    assert 0 < row["left"].total_seconds() <= 30
    await let_claims_lapse(database)
    assert name(await other.claim_dead(sweep=True)) == {SESSION}


async def test_a_claim_names_its_instance(database: Database) -> None:
    instance = UUID("00000000-0000-0000-0000-000000000001")
    store = SessionStore(
        database,
        seal=SEAL,
        instance=instance,
        max_attempts=ATTEMPTS,
        idle_seconds=IDLE_SECONDS,
        timer=ManualClock().boot,
    )
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    await store.claim_dead(sweep=True)
    (row,) = await database.fetch("SELECT claimed_by, attempts FROM mcp_sessions")
    assert (row["claimed_by"], row["attempts"]) == (instance, 1)


async def test_attempts_are_bounded(store: SessionStore, database: Database) -> None:
    await store.bind("mcp", SESSION, PRINCIPAL, None)
    for _ in range(ATTEMPTS):
        assert name(await store.claim_dead(sweep=True)) == {SESSION}
        await let_claims_lapse(database)
    assert await store.claim_dead(sweep=True) == []
    (row,) = await database.fetch("SELECT attempts FROM mcp_sessions")
    assert row["attempts"] == ATTEMPTS


async def test_a_session_sealed_under_another_secret_is_skipped_and_logged(
    store: SessionStore, database: Database
) -> None:
    stranger = form_store(database, seal=Seal(b"another secret of another instance", "mcp-session"))
    await stranger.bind("mcp", "theirs", PRINCIPAL, None)
    await store.bind("mcp", "ours", PRINCIPAL, None)
    with structlog.testing.capture_logs() as lines:
        assert name(await store.claim_dead(sweep=True)) == {"ours"}
    (line,) = lines
    assert line["event"] == "session_sealed_under_another_secret"
    assert (line["log_level"], line["upstream"], line["key_id"]) == ("warning", "mcp", PRINCIPAL.key_id)
    assert "AEGIS_SECRET_KEY" in line["mend"]
    assert "theirs" not in str(line)


async def test_sessions_without_number_are_claimed_a_bounded_number_at_a_time(
    store: SessionStore, database: Database
) -> None:
    await database.fetch(
        "INSERT INTO mcp_sessions (upstream, session_hash, key_id, secret_version, grants, sealed_id)"
        " SELECT 'mcp', sha256(n::text::bytea), 'gone', 1, '{}', '\\x00' FROM generate_series(1, 700) AS n"
    )
    for claimed in (500, 700):
        await store.claim_dead(sweep=True)
        (row,) = await database.fetch("SELECT count(*) FROM mcp_sessions WHERE claimed_until > now()")
        assert row[0] == claimed
