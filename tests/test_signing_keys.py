"""Signing keys in a real database: what is signed can be verified by what is published, whatever happens to either.

Time is a clock that the tests move. The database's own clock runs on meanwhile; rows of the past are made by SQL.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from joserfc import jwk, jwt

from proxy.assertions import PRIVATE_MEMBERS, Algorithm, Assertions, SigningKey, make_signing_key
from proxy.database import Database
from proxy.errors import DatabaseError, UnavailableError
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.signing_keys import MAX_JWK_BYTES, MAX_PUBLISHED, READ_SECONDS, SigningKeys
from tests.clocks import ManualClock
from tests.ear import Ear
from tests.staging import GUARD_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")
OWNER = Owner(OwnerId("00000000-0000-4000-8000-00000000000a"), "acme", "local", "ada", "pro")
PRINCIPAL = Principal(KeyId("Key000000001"), OWNER, frozenset({"agent:list"}), (), 1, None, 0.0, Claims(()))
LIFETIME, AHEAD, ROTATE, BEAT = 60, 35.0, 600.0, 10.0
PLANT = "INSERT INTO signing_keys (kid, instance, jwk, keep_seconds) VALUES ($1, $2, $3, 120)"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def form_keys(database: Database, clock: ManualClock, instance: UUID | None = None, **changes: Any) -> SigningKeys:
    named: dict[str, Any] = {
        "algorithm": "EdDSA",
        "fixed": None,
        "rotate_seconds": ROTATE,
        "publish_ahead_seconds": AHEAD,
        "lifetime_seconds": LIFETIME,
        "beat_seconds": BEAT,
        **changes,
    }
    return SigningKeys(database, instance=instance or uuid4(), clock=clock, **named)


async def start(database: Database, clock: ManualClock, **changes: Any) -> SigningKeys:
    keys = form_keys(database, clock, **changes)
    await keys.start()
    return keys


async def read_kids(keys: SigningKeys) -> set[str]:
    return {key["kid"] for key in json.loads(await keys.read_published())["keys"]}


async def list_rows(database: Database) -> set[str]:
    return {row["kid"] for row in await database.fetch("SELECT kid FROM signing_keys")}


async def age_row(database: Database, kid: str, seconds: float) -> None:
    """As if it had been written and seen that much earlier."""
    await database.fetch(
        "UPDATE signing_keys SET seen_at = seen_at - make_interval(secs => $2),"
        " created_at = created_at - make_interval(secs => $2) WHERE kid = $1",
        kid,
        seconds,
    )


async def plant(database: Database, key: SigningKey, *, instance: UUID | None = None) -> None:
    """The row of an instance that somebody else runs."""
    await database.fetch(PLANT, key.kid, instance or uuid4(), json.dumps(dict(key.public_jwk)))


async def pass_time(keys: SigningKeys, clock: ManualClock, seconds: float) -> None:
    for _ in range(int(seconds / BEAT)):
        clock.advance(BEAT)
        await keys.beat()


@pytest.fixture
async def lock(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that may hold the table, so that statements of others get no answer."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("BEGIN")
    yield connection
    await connection.close()


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[Database]:
    """Gives a silent database up soon."""
    async with Database.open(
        database_url, min_size=1, max_size=2, connect_timeout_seconds=GUARD_SECONDS, query_timeout_seconds=2
    ) as database:
        yield database


def count_lines(ear: Ear, event: str, since: int) -> int:
    lines = ear.heard.getvalue()[since:].splitlines()
    return sum(json.loads(line)["event"] == event for line in lines)


async def hear(ear: Ear) -> int:
    """How much has been logged until now; lines leave at the end of a turn of the loop."""
    await asyncio.sleep(0)
    return len(ear.heard.getvalue())


# Publishing


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
async def test_what_is_signed_is_verified_by_what_is_published_alone(
    algorithm: Algorithm, database: Database, clock: ManualClock
) -> None:
    keys = await start(database, clock, algorithm=algorithm)
    published = json.loads(await keys.read_published())
    token = jwt.decode(keys.current().sign({"sub": "ada"}), jwk.KeySet.import_key_set(published), [algorithm])
    assert token.claims == {"sub": "ada"}
    (key,) = published["keys"]
    material = {"kty", "n", "e"} if algorithm == "RS256" else {"kty", "crv", "x"}
    assert set(key) == {"kid", "use", "alg"} | material
    assert (key["use"], key["alg"]) == ("sig", algorithm)


async def test_nothing_signs_before_it_is_published(database: Database, clock: ManualClock) -> None:
    keys = form_keys(database, clock)
    with pytest.raises(UnavailableError):
        keys.current()
    await database.fetch("ALTER TABLE signing_keys RENAME TO hidden")
    with pytest.raises(DatabaseError):
        await keys.start()
    with pytest.raises(UnavailableError):
        keys.current()


async def test_every_instance_publishes_the_keys_of_all(database: Database, clock: ManualClock) -> None:
    one, other = await start(database, clock), await start(database, clock)
    both = {one.current().kid, other.current().kid}
    assert len(both) == 2
    assert await read_kids(one) == await read_kids(other) == both


async def test_only_public_halves_reach_the_database(database: Database, clock: ManualClock) -> None:
    for algorithm in ("RS256", "EdDSA"):
        await start(database, clock, algorithm=algorithm)
    rows = await database.fetch("SELECT jwk FROM signing_keys")
    assert [set(json.loads(row["jwk"])) & PRIVATE_MEMBERS for row in rows] == [set(), set()]


async def test_a_row_somebody_deleted_is_published_all_the_same_and_written_again(
    database: Database, clock: ManualClock
) -> None:
    keys, other = await start(database, clock), await start(database, clock)
    await database.fetch("DELETE FROM signing_keys")
    assert keys.current().kid in await read_kids(keys)
    await keys.beat()
    assert await list_rows(database) == {keys.current().kid}
    assert await read_kids(other) == {keys.current().kid, other.current().kid}


async def test_a_row_somebody_changed_is_mended(database: Database, clock: ManualClock) -> None:
    keys, other = await start(database, clock), await start(database, clock)
    await database.fetch("UPDATE signing_keys SET jwk = '{}' WHERE kid = $1", keys.current().kid)
    assert await read_kids(other) == {other.current().kid}
    await keys.beat()
    clock.advance(READ_SECONDS)
    assert await read_kids(other) == {keys.current().kid, other.current().kid}


# Changing keys


@pytest.mark.parametrize(
    ("rotate_seconds", "ahead_seconds"), [(ROTATE, AHEAD), (100.0, AHEAD), (60.0, 300.0), (100.0, 0.0)]
)
async def test_there_is_no_moment_at_which_what_is_valid_cannot_be_verified(
    rotate_seconds: float, ahead_seconds: float, database: Database, clock: ManualClock
) -> None:
    """Two instances, an assertion of each with every beat; a verifier that asks either knows all that are valid, and
    one that asked `ahead_seconds` ago knows all that are signed now."""
    changes = {"rotate_seconds": rotate_seconds, "publish_ahead_seconds": ahead_seconds}
    both = [await start(database, clock, **changes) for _ in range(2)]
    makers = [
        Assertions(keys.current, issuer="i", lifetime_seconds=LIFETIME, wall=clock.wall, max_remembered=9)
        for keys in both
    ]
    valid: list[tuple[float, str]] = []
    seen: list[tuple[float, set[str]]] = []
    signed_with = set()
    for _ in range(90):
        valid += [(clock.wall() + LIFETIME, read_kid(maker.get(PRINCIPAL, "mcp"))) for maker in makers]
        valid = [(until, kid) for until, kid in valid if until >= clock.wall()]
        published = [await read_kids(keys) for keys in both]
        assert published[0] == published[1] >= {kid for _, kid in valid}
        seen.append((clock.boot(), published[0]))
        signed_with |= {keys.current().kid for keys in both}
        known = [kids for at, kids in seen if clock.boot() - at >= ahead_seconds]
        if known and ahead_seconds:
            assert {keys.current().kid for keys in both} <= known[-1]
        clock.advance(BEAT)
        for keys in both:
            await keys.beat()
    period = max(rotate_seconds, ahead_seconds) + 2 * BEAT
    assert len(signed_with) >= 2 * int(90 * BEAT / period)
    assert len(await list_rows(database)) <= 2 * (2 + (LIFETIME + 60) // 60), "old keys are not kept for ever"


def read_kid(token: str) -> str:
    header = token.partition(".")[0]
    return str(json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


async def test_a_new_key_is_published_before_it_signs_and_an_old_one_after(
    database: Database, clock: ManualClock
) -> None:
    keys = await start(database, clock)
    first = keys.current().kid
    await pass_time(keys, clock, ROTATE - AHEAD - 5)
    assert await list_rows(database) == {first}
    await pass_time(keys, clock, 10)
    (second,) = await list_rows(database) - {first}
    await pass_time(keys, clock, 30)
    assert keys.current().kid == first
    await pass_time(keys, clock, 10)
    assert keys.current().kid == second
    await pass_time(keys, clock, LIFETIME + 50)
    assert await read_kids(keys) == await list_rows(database) == {first, second}
    await pass_time(keys, clock, 10)
    assert await read_kids(keys) == await list_rows(database) == {second}


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM signing_keys",
        "UPDATE signing_keys SET jwk = '{}'",
        "UPDATE signing_keys SET seen_at = seen_at - interval '1 day'",
    ],
)
async def test_a_new_key_that_was_not_published_for_a_while_waits_anew(
    harm: str, database: Database, clock: ManualClock
) -> None:
    keys = await start(database, clock)
    first = keys.current().kid
    await pass_time(keys, clock, ROTATE - AHEAD + 20)
    assert len(await list_rows(database)) == 2
    await database.fetch(harm)
    await pass_time(keys, clock, 40)
    assert keys.current().kid == first
    await pass_time(keys, clock, 10)
    assert keys.current().kid != first


async def test_while_the_database_refuses_the_key_stays_and_that_is_said_once(
    database: Database, clock: ManualClock, ear: Ear
) -> None:
    keys = await start(database, clock)
    first, since = keys.current().kid, await hear(ear)
    await database.fetch("ALTER TABLE signing_keys RENAME TO hidden")
    await pass_time(keys, clock, 2 * ROTATE)
    assert keys.current().kid == first
    assert first in await read_kids(keys)
    await database.fetch("ALTER TABLE hidden RENAME TO signing_keys")
    await pass_time(keys, clock, 30)
    assert keys.current().kid == first
    await pass_time(keys, clock, 20)
    assert keys.current().kid != first
    await hear(ear)
    assert count_lines(ear, "signing_keys_beat_failing", since) == 1
    assert count_lines(ear, "signing_keys_beat_works_again", since) == 1


async def test_a_silent_database_holds_a_beat_up_no_longer_than_a_statement(
    database: Database, impatient: Database, clock: ManualClock, lock: asyncpg.Connection
) -> None:
    keys = await start(impatient, clock)
    other = await start(database, clock)
    assert await read_kids(keys) == {keys.current().kid, other.current().kid}
    await lock.execute("LOCK TABLE signing_keys")
    clock.advance(ROTATE)
    async with asyncio.timeout(GUARD_SECONDS):
        await keys.beat()
        published = await read_kids(keys)
    assert {keys.current().kid, other.current().kid} < published, "the last copy, and the next key of its own"


async def test_a_fixed_key_is_never_changed(database: Database, clock: ManualClock) -> None:
    fixed = make_signing_key("EdDSA")
    keys = await start(database, clock, fixed=fixed)
    await pass_time(keys, clock, 2 * ROTATE)
    assert keys.current() is fixed
    assert await list_rows(database) == {fixed.kid}


async def test_two_instances_with_one_key_file_share_one_row(database: Database, clock: ManualClock) -> None:
    fixed = make_signing_key("EdDSA")
    one, other = await start(database, clock, fixed=fixed), await start(database, clock, fixed=fixed)
    for keys in (one, other, one, other):
        clock.advance(BEAT)
        await keys.beat()
        assert await read_kids(keys) == await list_rows(database) == {fixed.kid}


# The dead


async def test_the_row_of_a_dead_instance_is_published_while_it_counts_and_then_deleted(
    database: Database, clock: ManualClock
) -> None:
    keys, dead = await start(database, clock), make_signing_key("RS256")
    await plant(database, dead)
    await age_row(database, dead.kid, 119 - GUARD_SECONDS)
    await keys.beat()
    assert await read_kids(keys) == {keys.current().kid, dead.kid}
    await age_row(database, dead.kid, GUARD_SECONDS + 2)
    clock.advance(READ_SECONDS)
    assert await read_kids(keys) == {keys.current().kid}
    await keys.beat()
    assert await list_rows(database) == {keys.current().kid}


async def test_an_instance_says_how_long_it_is_to_be_waited_for(database: Database, clock: ManualClock) -> None:
    """Its own assertions may live longer than those of whoever cleans up."""
    keys, other = await start(database, clock), await start(database, clock, lifetime_seconds=300)
    await age_row(database, other.current().kid, 360 - GUARD_SECONDS)
    await keys.beat()
    assert await read_kids(keys) == {keys.current().kid, other.current().kid}


async def test_a_beat_keeps_rows_fresh(database: Database, clock: ManualClock) -> None:
    keys, other = await start(database, clock), await start(database, clock)
    kid = keys.current().kid
    for _ in range(3):
        await age_row(database, kid, 100)
        await keys.beat()
        clock.advance(READ_SECONDS)
        assert kid in await read_kids(other)


async def test_an_instance_that_leaves_leaves_its_key_published(database: Database, clock: ManualClock) -> None:
    instance = uuid4()
    keys = await start(database, clock, instance=instance)
    running = asyncio.create_task(keys.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    (row,) = await database.fetch("SELECT kid, instance FROM signing_keys")
    assert (row["kid"], row["instance"]) == (keys.current().kid, None)
    successor = await start(database, clock)
    assert successor.find_fault() is None
    assert await read_kids(successor) == {keys.current().kid, successor.current().kid}


async def test_a_room_that_runs_beats(database: Database, clock: ManualClock) -> None:
    keys = await start(database, clock, beat_seconds=0.01)
    running = asyncio.create_task(keys.run())
    async with asyncio.timeout(GUARD_SECONDS):
        for _ in range(2):
            await database.fetch("DELETE FROM signing_keys")
            while not await list_rows(database):
                await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})


# Too new


async def test_beside_others_a_new_instance_waits_for_verifiers_that_cache(
    database: Database, clock: ManualClock
) -> None:
    first = await start(database, clock)
    assert first.find_fault() is None
    second = await start(database, clock)
    assert second.find_fault() == "its signing key is too new for verifiers that cache"
    clock.advance(AHEAD - 1)
    await second.beat()
    assert second.find_fault() is not None
    clock.advance(1)
    assert second.find_fault() is None
    assert first.find_fault() is None


async def test_an_instance_that_fell_silent_is_no_company(database: Database, clock: ManualClock) -> None:
    gone = make_signing_key("EdDSA")
    await plant(database, gone)
    await age_row(database, gone.kid, 3 * BEAT + 1)
    keys = await start(database, clock)
    assert keys.find_fault() is None


async def test_a_key_file_that_is_published_already_is_not_new(database: Database, clock: ManualClock) -> None:
    fixed = make_signing_key("EdDSA")
    first = await start(database, clock, fixed=fixed)
    second = await start(database, clock, fixed=fixed)
    assert second.find_fault() is not None
    await age_row(database, fixed.kid, AHEAD + 1)
    await first.beat()
    third = await start(database, clock, fixed=fixed)
    assert third.find_fault() is None


# Reading


async def count_reads(database: Database) -> int:
    rows = await database.fetch("SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS count FROM reads")
    return int(rows[0]["count"])


async def test_however_many_ask_the_database_is_read_once_in_a_second(database: Database, clock: ManualClock) -> None:
    keys = await start(database, clock)
    await database.fetch("CREATE SEQUENCE reads")
    await database.fetch("ALTER TABLE signing_keys RENAME TO hidden")
    await database.fetch(
        "CREATE VIEW signing_keys AS SELECT hidden.* FROM hidden, (SELECT nextval('reads') OFFSET 0) counted"
    )
    for expected in (1, 2):
        answers = await asyncio.gather(*(keys.read_published() for _ in range(50)))
        assert len(set(answers)) == 1
        assert await count_reads(database) == expected
        clock.advance(READ_SECONDS - 0.01)
        await keys.read_published()
        assert await count_reads(database) == expected
        clock.advance(0.01)


async def test_news_of_others_is_a_second_old_at_most_and_that_of_its_own_none(
    database: Database, clock: ManualClock
) -> None:
    keys = await start(database, clock)
    await read_kids(keys)
    other = await start(database, clock)
    assert await read_kids(keys) == {keys.current().kid}
    clock.advance(READ_SECONDS)
    assert await read_kids(keys) == {keys.current().kid, other.current().kid}


async def test_a_reader_that_leaves_takes_nobody_with_it(
    database: Database, clock: ManualClock, lock: asyncpg.Connection
) -> None:
    keys = await start(database, clock)
    await lock.execute("LOCK TABLE signing_keys")
    readers = [asyncio.create_task(keys.read_published()) for _ in range(3)]
    async with asyncio.timeout(GUARD_SECONDS):
        while not await lock.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)
        readers[0].cancel()
        await asyncio.wait({readers[0]})
        await lock.execute("ROLLBACK")
        answers = await asyncio.gather(*readers[1:])
    assert keys.current().kid in answers[0].decode()
    assert answers[0] == answers[1]


async def test_rows_that_are_no_public_keys_are_skipped_and_told_once(
    database: Database, clock: ManualClock, ear: Ear
) -> None:
    keys, good, leaked = await start(database, clock), make_signing_key("EdDSA"), make_signing_key("RS256")
    await plant(database, good)
    hostile: dict[str, object] = {
        leaked.kid: {**leaked.public_jwk, "d": "the private half"},
        "another's id": dict(make_signing_key("EdDSA").public_jwk),
        "short": {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
        "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"},
        "list": [],
        "text": "a text",
        "null": None,
        "number": 1e300,
        "empty": {},
        "deep": json.loads("[" * 900 + "]" * 900),
        "huge": {**make_signing_key("EdDSA").public_jwk, "x5c": "A" * MAX_JWK_BYTES},
        "a long id" * 100: {},
        "a\nline \u2028 end": {},
    }
    for kid, written in hostile.items():
        await database.fetch(PLANT, kid, uuid4(), json.dumps(written))
    since = await hear(ear)
    for _ in range(3):
        published = await keys.read_published()
        assert {key["kid"] for key in json.loads(published)["keys"]} == {keys.current().kid, good.kid}
        assert b"private half" not in published
        clock.advance(READ_SECONDS)
    await hear(ear)
    assert count_lines(ear, "signing_keys_unusable", since) == 1
    assert b"private half" not in ear.heard.getvalue()


async def test_a_huge_key_under_its_own_id_is_not_even_fetched(database: Database, clock: ManualClock) -> None:
    keys, key = await start(database, clock), make_signing_key("EdDSA")
    await database.fetch(PLANT, key.kid, uuid4(), json.dumps({**key.public_jwk, "x5c": "A" * MAX_JWK_BYTES}))
    assert await read_kids(keys) == {keys.current().kid}


async def test_only_so_many_are_published_and_its_own_always(database: Database, clock: ManualClock) -> None:
    keys = await start(database, clock)
    for _ in range(MAX_PUBLISHED + 5):
        await plant(database, make_signing_key("EdDSA"))
    kids = await read_kids(keys)
    assert keys.current().kid in kids
    assert len(kids) == MAX_PUBLISHED + 1


async def test_while_the_database_refuses_the_last_copy_stands_and_that_is_said_once(
    database: Database, clock: ManualClock, ear: Ear
) -> None:
    keys, other = await start(database, clock), await start(database, clock)
    kids, since = await read_kids(keys), await hear(ear)
    assert other.current().kid in kids
    await database.fetch("ALTER TABLE signing_keys RENAME TO hidden")
    for _ in range(3):
        clock.advance(READ_SECONDS)
        assert await read_kids(keys) == kids
    await database.fetch("ALTER TABLE hidden RENAME TO signing_keys")
    clock.advance(READ_SECONDS)
    assert await read_kids(keys) == kids
    await hear(ear)
    assert count_lines(ear, "signing_keys_read_failing", since) == 1
    assert count_lines(ear, "signing_keys_read_works_again", since) == 1


async def test_the_log_and_reprs_hold_no_private_key(database: Database, clock: ManualClock, ear: Ear) -> None:
    keys = await start(database, clock, algorithm="RS256")
    clock.advance(ROTATE)
    await keys.beat()
    clock.advance(AHEAD)
    await keys.beat()
    await hear(ear)
    shown = f"{keys!r} {keys.current()!r} {vars(keys)!r} {ear.heard.getvalue().decode()}"
    assert keys.current().kid in shown
    private: Any = keys.current()._private
    numbers = private.private_numbers()
    for number in (numbers.d, numbers.p, numbers.q):
        assert str(number) not in shown
        assert f"{number:x}" not in shown
    assert "PRIVATE" not in shown
