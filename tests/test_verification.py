"""Verification: whose key is it, what may be believed meanwhile, and how each refusal comes about."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from proxy.clock import DatabaseClock
from proxy.credentials import PresentedCredential
from proxy.errors import CredentialError, DatabaseError, Reason, Refusal, UnavailableError
from proxy.identity import KeyId, Principal
from proxy.keys.digests import Digests, FindDigests
from proxy.keys.hashing import Hasher
from proxy.keys.legacy import LEGACY_VERSION, LegacyToken
from proxy.keys.reader import KeyReader, ReadKeys
from proxy.keys.record import KeyRecord
from proxy.keys.token import Token, parse_token
from proxy.lease import Lease
from proxy.memory import Memory
from proxy.news import EVERYTHING, News, NewsLog
from proxy.verification import MAX_READS, Verifier
from tests.clocks import ManualClock
from tests.records import (
    ADA,
    BOB,
    find_rights,
    form_key_id,
    form_legacy_token,
    form_secret_token,
    make_ancestor,
    make_legacy_secret,
    make_record,
    make_secret,
)
from tests.staging import GUARD_SECONDS, Stage

KEY, OTHER, PARENT = form_key_id(1), form_key_id(2), form_key_id(3)
TOKEN, WRONG = form_secret_token(KEY), form_secret_token(KEY, 1)
LEASE_SECONDS, GRACE_SECONDS, MAX_AGE_SECONDS = 2.0, 1.0, 15.0
HOSTILE = "$argon2id$v=19$m=1048576,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43


class Table:
    """What the database holds, read as slowly as a test likes: rows are taken, then the gate is waited for."""

    def __init__(self) -> None:
        self.rows: dict[KeyId, KeyRecord] = {}
        self.digests: dict[bytes, KeyId] = {}
        self.reads = 0
        self.look_ups: list[list[bytes]] = []
        self.fault: Exception | None = None
        self.on_read: Callable[[], None] = lambda: None
        self._gate = asyncio.Event()
        self._gate.set()

    def put(self, record: KeyRecord) -> None:
        """Write a row, as the database does: with the next version."""
        last = self.rows.get(record.id)
        self.rows[record.id] = dataclasses.replace(record, version=last.version + 1 if last else 1)

    def hold(self) -> None:
        """From now on reads take their rows and are not answered."""
        self._gate.clear()

    def answer(self) -> None:
        """Answer them."""
        self._gate.set()

    async def read_keys(self, ids: Sequence[KeyId]) -> dict[KeyId, KeyRecord]:
        self.reads += 1
        rows = {key_id: self.rows[key_id] for key_id in ids if key_id in self.rows}
        self.on_read()
        await self._gate.wait()
        if self.fault is not None:
            raise self.fault
        return rows

    async def find_digests(self, digests: Sequence[bytes]) -> dict[bytes, KeyId]:
        self.look_ups.append(list(digests))
        if self.fault is not None:
            raise self.fault
        return {digest: self.digests[digest] for digest in digests if digest in self.digests}


async def find_none(digests: Sequence[bytes]) -> dict[bytes, KeyId]:
    return {}


class Hall:
    """A verifier and everything it stands among, with a fresh lease; `observed`: the database has told its time."""

    def __init__(
        self,
        hashes: list[float],
        read_keys: ReadKeys,
        hasher: Hasher,
        *,
        find_digests: FindDigests = find_none,
        observed: bool = True,
    ) -> None:
        self.hashes = hashes
        self.hasher = hasher
        self.clock = ManualClock()
        self.news = NewsLog()
        self.lease = Lease(lease_seconds=LEASE_SECONDS, grace_seconds=GRACE_SECONDS)
        self.database_clock = DatabaseClock()
        if observed:
            self.database_clock.observe(self.clock.wall(), self.clock.boot(), self.clock.boot())
        self.memory = Memory(
            self.news,
            digest_key=b"k" * 32,
            max_proofs=100,
            max_states=100,
            max_unknown=100,
            unknown_seconds=5.0,
            max_age_seconds=MAX_AGE_SECONDS,
            timer=self.clock.boot,
        )
        self.reader = KeyReader(read_keys, self.news, self.clock.boot)
        self.digests = Digests(find_digests, self.news, max_unknown=100, unknown_seconds=5.0, timer=self.clock.boot)
        self.remembered: list[bool] = []
        self.rights = find_rights
        self.verifier = Verifier(
            memory=self.memory,
            reader=self.reader,
            digests=self.digests,
            hasher=hasher,
            lease=self.lease,
            clock=self.clock,
            database_clock=self.database_clock,
            rights=lambda record: self.rights(record),
            count_memory=self.remembered.append,
        )
        self.renew()

    def renew(self) -> None:
        self.lease.renew(self.clock.boot())

    async def verify(self, token: Token | LegacyToken = TOKEN) -> Principal:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self.verifier.verify(PresentedCredential(token))

    async def refuse(self, token: Token | LegacyToken = TOKEN) -> Refusal:
        """The refusal that verifying ends with."""
        with pytest.raises(Refusal) as refused:
            await self.verify(token)
        return refused.value

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let others run until something is so."""
        async with asyncio.timeout(GUARD_SECONDS):
            while not condition():
                await asyncio.sleep(0)

    @property
    def database_now(self) -> float:
        return self.database_clock.now(self.clock.boot())


@pytest.fixture
def hashes() -> list[float]:
    """One entry for each hash that was worked on."""
    return []


@pytest.fixture
async def counted_hasher(hashes: list[float]) -> AsyncIterator[Hasher]:
    hasher = Hasher(
        memory_cost_kib=1024,
        time_cost=1,
        threads=2,
        queue_size=100,
        timeout_seconds=GUARD_SECONDS,
        observe_seconds=hashes.append,
    )
    yield hasher
    hasher.close()
    await asyncio.sleep(0)  # its threads have told the loop


@pytest.fixture
async def argon2_string(counted_hasher: Hasher, hashes: list[float]) -> str:
    text = await counted_hasher.hash(TOKEN.secret)
    hashes.clear()
    return text


@pytest.fixture
async def table(argon2_string: str) -> Table:
    """One key that may be used."""
    table = Table()
    table.put(make_record(KEY, secrets=[make_secret(TOKEN, argon2_string)]))
    return table


@pytest.fixture
async def hall(table: Table, counted_hasher: Hasher, hashes: list[float]) -> AsyncIterator[Hall]:
    hall = Hall(hashes, table.read_keys, counted_hasher, find_digests=table.find_digests)
    yield hall
    table.answer()
    await hall.verifier.aclose()
    await hall.reader.aclose()
    await hall.digests.aclose()


# Whose it is.


async def test_a_key_is_verified_once_and_remembered(hall: Hall, table: Table) -> None:
    first = await hall.verify()
    assert (first.key_id, first.owner.id, first.grants, first.secret_version) == (KEY, ADA, frozenset("*"), 1)
    assert await hall.verify() is first
    assert (table.reads, len(hall.hashes)) == (1, 1)
    assert hall.remembered == [False, True]


async def test_a_remembered_key_is_verified_without_giving_way(hall: Hall) -> None:
    principal = await hall.verify()
    steps = hall.verifier.verify(PresentedCredential(TOKEN))
    with pytest.raises(StopIteration) as returned:
        steps.send(None)
    assert returned.value.value is principal


async def test_an_unknown_id_and_a_wrong_secret_are_never_told_apart(hall: Hall) -> None:
    unknown, wrong = await hall.refuse(form_secret_token(OTHER)), await hall.refuse(WRONG)
    for refusal in (unknown, wrong):
        assert isinstance(refusal, CredentialError)
        assert refusal.reason is Reason.CREDENTIAL_INVALID
    assert (unknown.detail, unknown.data, unknown.retry_after_seconds) == (wrong.detail, wrong.data, None)


async def test_a_wrong_secret_and_an_unknown_id_cost_no_argon2(hall: Hall, table: Table) -> None:
    for seed in range(1, 50):
        await hall.refuse(form_secret_token(KEY, seed))
        await hall.refuse(form_secret_token(OTHER, seed))
    assert hall.hashes == []
    assert table.reads == 2


async def test_a_flood_of_unknown_ids_does_not_push_a_key_out(hall: Hall, table: Table) -> None:
    await hall.verify()
    for number in range(1_000, 1_500):
        await hall.refuse(form_secret_token(form_key_id(number)))
    reads = table.reads
    await hall.verify()
    assert (table.reads, len(hall.hashes)) == (reads, 1)


async def test_a_secret_whose_tag_fits_by_chance_is_still_refused(
    hall: Hall, table: Table, counted_hasher: Hasher
) -> None:
    table.put(make_record(KEY, secrets=[make_secret(TOKEN, await counted_hasher.hash("something else"))]))
    hall.hashes.clear()
    assert (await hall.refuse()).reason is Reason.CREDENTIAL_INVALID
    assert len(hall.hashes) == 1


async def test_a_hostile_argon2_string_is_refused_and_never_worked_on(hall: Hall, table: Table) -> None:
    for hostile in (HOSTILE, "$argon2d$v=19$m=1024,t=1,p=1$c29tZXNhbHQ$" + "A" * 43, "plain text", ""):
        table.put(make_record(KEY, secrets=[make_secret(TOKEN, hostile)]))
        hall.news.add(News(key_id=KEY))
        assert (await hall.refuse()).reason is Reason.CREDENTIAL_INVALID
    assert hall.hashes == []


# Why it may not be used, said only to whoever holds the secret.


def revoke(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, status="revoked")


def disable(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, status="disabled")


def expire(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, expires_at=now)


def disable_owner(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, owner_disabled=True)


def retire_secret(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, secrets={1: dataclasses.replace(record.secrets[1], not_after=now)})


def revoke_parent(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, ancestors=(make_ancestor(PARENT, status="revoked"),))


def disable_grandparent(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, ancestors=(make_ancestor(PARENT), make_ancestor(OTHER, status="disabled")))


def expire_parent(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, ancestors=(make_ancestor(PARENT, expires_at=now),))


def invent_a_status(record: KeyRecord, now: float) -> KeyRecord:
    return dataclasses.replace(record, status="a status of tomorrow")


Change = Callable[[KeyRecord, float], KeyRecord]
CHANGES: list[tuple[Change, Reason]] = [
    (revoke, Reason.KEY_REVOKED),
    (disable, Reason.KEY_DISABLED),
    (expire, Reason.KEY_EXPIRED),
    (disable_owner, Reason.OWNER_DISABLED),
    (retire_secret, Reason.SECRET_RETIRED),
    (revoke_parent, Reason.KEY_REVOKED),
    (disable_grandparent, Reason.KEY_DISABLED),
    (expire_parent, Reason.KEY_EXPIRED),
    (invent_a_status, Reason.KEY_DISABLED),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
async def test_a_reason_is_given_only_once_the_secret_is_proven(
    change: Change, reason: Reason, hall: Hall, table: Table
) -> None:
    table.put(change(table.rows[KEY], hall.database_now))
    assert (await hall.refuse(WRONG)).reason is Reason.CREDENTIAL_INVALID
    assert hall.hashes == []
    for _ in range(3):
        refusal = await hall.refuse()
        assert isinstance(refusal, CredentialError)
        assert refusal.reason is reason
    assert (table.reads, len(hall.hashes)) == (1, 1), "saying so again costs nothing"


@pytest.mark.parametrize(("change", "reason"), CHANGES)
async def test_a_key_in_use_is_refused_from_the_news_on(
    change: Change, reason: Reason, hall: Hall, table: Table
) -> None:
    await hall.verify()
    table.put(change(table.rows[KEY], hall.database_now))
    await hall.verify()
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse()).reason is reason
    assert (table.reads, len(hall.hashes)) == (2, 1)


async def test_a_secret_that_was_taken_away_is_retired_for_whoever_proved_it(hall: Hall, table: Table) -> None:
    await hall.verify()
    table.put(make_record(KEY, secrets=[make_secret(form_secret_token(KEY, 2), version=2)]))
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse()).reason is Reason.SECRET_RETIRED


async def test_both_secrets_of_a_rotated_key_work_until_the_old_one_runs_out(
    hall: Hall, table: Table, argon2_string: str, counted_hasher: Hasher
) -> None:
    new = form_secret_token(KEY, 2)
    old_secret = make_secret(TOKEN, argon2_string, not_after=hall.database_now + 1.0)
    new_secret = make_secret(new, await counted_hasher.hash(new.secret), version=2)
    table.put(make_record(KEY, secrets=[old_secret, new_secret]))
    assert (await hall.verify()).secret_version == 1
    assert (await hall.verify(new)).secret_version == 2
    hall.clock.advance(1.0)
    assert (await hall.refuse()).reason is Reason.SECRET_RETIRED
    assert (await hall.verify(new)).secret_version == 2


async def test_a_new_secret_opens_before_the_news_of_its_rotation_is_here(
    hall: Hall, table: Table, argon2_string: str, counted_hasher: Hasher
) -> None:
    """Whoever was just told it may be quicker than the news: nobody is refused by a row read before they asked."""
    await hall.verify()
    new = form_secret_token(KEY, 2)
    new_secret = make_secret(new, await counted_hasher.hash(new.secret), version=2)
    table.put(make_record(KEY, secrets=[make_secret(TOKEN, argon2_string), new_secret]))
    hall.clock.advance(2**-10)
    assert (await hall.verify(new)).secret_version == 2
    assert (await hall.verify()).secret_version == 1
    assert table.reads == 2


async def test_wrong_secrets_of_a_remembered_key_share_their_reads(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.clock.advance(2**-10)
    hall.hashes.clear()
    refusals = await asyncio.gather(*(hall.refuse(form_secret_token(KEY, seed)) for seed in range(1, 100)))
    assert {refusal.reason for refusal in refusals} == {Reason.CREDENTIAL_INVALID}
    assert (table.reads, hall.hashes) == (2, [])


async def test_a_remembered_key_expires_at_the_instant(hall: Hall, table: Table) -> None:
    table.put(dataclasses.replace(table.rows[KEY], expires_at=hall.database_now + 1.0))
    principal = await hall.verify()
    assert principal.ends == (hall.database_now + 1.0, Reason.KEY_EXPIRED)
    hall.clock.advance(1.0 - 2**-10)
    assert await hall.verify() is principal
    hall.clock.advance(2**-10)
    assert (await hall.refuse()).reason is Reason.KEY_EXPIRED
    assert table.reads == 1


async def test_nothing_but_the_database_s_clock_says_what_has_expired(hall: Hall, table: Table) -> None:
    table.put(dataclasses.replace(table.rows[KEY], expires_at=hall.database_now + 1.0))
    await hall.verify()
    hall.clock.set_wall(hall.clock.wall() + 86_400.0)
    await hall.verify()


# Changed rows.


async def test_a_row_whose_argon2_string_changed_is_proven_anew(
    hall: Hall, table: Table, counted_hasher: Hasher
) -> None:
    await hall.verify()
    again = await counted_hasher.hash(TOKEN.secret)
    table.put(make_record(KEY, secrets=[make_secret(TOKEN, again)]))
    hall.news.add(News(key_id=KEY))
    hall.hashes.clear()
    await hall.verify()
    await hall.verify()
    assert len(hall.hashes) == 1


async def test_a_proof_does_not_outlive_its_secret_s_replacement(
    hall: Hall, table: Table, counted_hasher: Hasher
) -> None:
    await hall.verify()
    new = form_secret_token(KEY, 2)
    table.put(make_record(KEY, secrets=[make_secret(new, await counted_hasher.hash(new.secret))]))
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse()).reason is Reason.CREDENTIAL_INVALID
    assert (await hall.verify(new)).key_id == KEY


async def test_a_key_seen_revoked_is_not_brought_back_by_a_later_row(
    hall: Hall, table: Table, argon2_string: str
) -> None:
    await hall.verify()
    table.put(dataclasses.replace(table.rows[KEY], status="revoked"))
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse()).reason is Reason.KEY_REVOKED
    table.put(dataclasses.replace(table.rows[KEY], status="active"))
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse()).reason is Reason.KEY_REVOKED
    assert (await hall.refuse(WRONG)).reason is Reason.CREDENTIAL_INVALID


async def test_a_row_older_than_one_already_seen_decides_nothing(hall: Hall, table: Table) -> None:
    older = table.rows[KEY]
    table.put(older)
    await hall.verify()
    table.rows[KEY] = older
    hall.news.add(News(key_id=KEY))
    refusal = await hall.refuse()
    assert isinstance(refusal, UnavailableError)
    assert refusal.reason is Reason.STATE_UNKNOWN


# Many at once.


async def test_a_crowd_with_one_cold_key_costs_one_hash_and_no_more_than_two_reads(hall: Hall, table: Table) -> None:
    principals = await asyncio.gather(*(hall.verify() for _ in range(50)))
    assert all(principal is principals[0] for principal in principals)
    assert len(hall.hashes) == 1
    assert table.reads <= 2


async def test_a_crowd_after_news_costs_no_hash_and_one_read(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.news.add(EVERYTHING)
    await asyncio.gather(*(hall.verify() for _ in range(50)))
    assert (table.reads, len(hall.hashes)) == (2, 1)


async def test_the_first_caller_s_leaving_hurts_nobody(hall: Hall) -> None:
    callers = [asyncio.create_task(hall.verify()) for _ in range(5)]
    await hall.wait_until(lambda: hall.hasher.pending > 0)
    callers[0].cancel()
    first, *others = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert all(isinstance(other, Principal) for other in others)
    assert len(hall.hashes) == 1


async def test_a_hash_that_everybody_left_is_still_worth_having(hall: Hall) -> None:
    caller = asyncio.create_task(hall.verify())
    await hall.wait_until(lambda: hall.hasher.pending > 0)
    caller.cancel()
    await asyncio.wait({caller})
    await hall.verify()
    assert len(hall.hashes) == 1


async def test_closing_waits_for_the_hashes_under_way(hall: Hall) -> None:
    caller = asyncio.create_task(hall.verify())
    await hall.wait_until(lambda: hall.hasher.pending > 0)
    caller.cancel()
    await hall.verifier.aclose()
    assert hall.hasher.pending == 0


# The race between a read and the news.


RACES: list[tuple[str, Change, Reason, News]] = [
    ("key", revoke, Reason.KEY_REVOKED, News(key_id=KEY)),
    ("owner", disable_owner, Reason.OWNER_DISABLED, News(owner_id=ADA)),
    ("ancestor", revoke_parent, Reason.KEY_REVOKED, News(key_id=PARENT)),
    ("all", disable, Reason.KEY_DISABLED, EVERYTHING),
]


@pytest.mark.parametrize(("change", "reason", "news"), [race[1:] for race in RACES], ids=[race[0] for race in RACES])
@pytest.mark.parametrize("moment", ["reading", "hashing"])
async def test_a_row_read_before_the_news_admits_nobody_after_it(
    moment: str, change: Change, reason: Reason, news: News, hall: Hall, table: Table
) -> None:
    """Nothing is known of the key beforehand: not its owner, not its parent."""
    table.put(dataclasses.replace(table.rows[KEY], ancestors=(make_ancestor(PARENT),)))
    table.hold()
    caller = asyncio.create_task(hall.refuse())
    await hall.wait_until(lambda: table.reads == 1)
    if moment == "hashing":
        table.answer()
        await hall.wait_until(lambda: hall.hasher.pending > 0)
    table.put(change(table.rows[KEY], hall.database_now))
    hall.news.add(news)
    table.answer()
    assert (await caller).reason is reason
    assert (await hall.refuse()).reason is reason


@pytest.mark.parametrize(("change", "reason", "news"), [race[1:] for race in RACES], ids=[race[0] for race in RACES])
async def test_news_that_overtakes_a_read_counts_without_trust_too(
    change: Change, reason: Reason, news: News, hall: Hall, table: Table
) -> None:
    table.put(dataclasses.replace(table.rows[KEY], ancestors=(make_ancestor(PARENT),)))
    await hall.verify()
    hall.lease.distrust()
    table.hold()
    caller = asyncio.create_task(hall.refuse())
    await hall.wait_until(lambda: table.reads == 2)
    table.put(change(table.rows[KEY], hall.database_now))
    hall.news.add(news)
    table.answer()
    assert (await caller).reason is reason
    assert table.reads == 3


async def test_news_about_others_costs_no_second_read(hall: Hall, table: Table) -> None:
    table.hold()
    caller = asyncio.create_task(hall.verify())
    await hall.wait_until(lambda: table.reads == 1)
    hall.news.add(News(key_id=OTHER))
    hall.news.add(News(owner_id=BOB))
    table.answer()
    await caller
    assert table.reads == 1


async def test_a_storm_of_news_ends_in_unknown_and_never_in_admission(hall: Hall, table: Table) -> None:
    table.on_read = lambda: hall.news.add(News(key_id=KEY))
    refusal = await hall.refuse()
    assert isinstance(refusal, UnavailableError)
    assert refusal.reason is Reason.STATE_UNKNOWN
    assert table.reads == MAX_READS


# Without trust.


async def test_read_through_reads_every_time_and_hashes_never_again(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.lease.distrust()
    for _ in range(3):
        await hall.verify()
    assert (table.reads, len(hall.hashes)) == (4, 1)
    assert hall.remembered == [False] * 4


async def test_read_through_needs_no_news_to_see_a_change(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.lease.distrust()
    table.put(dataclasses.replace(table.rows[KEY], status="revoked"))
    assert (await hall.refuse()).reason is Reason.KEY_REVOKED


async def test_read_through_answers_from_no_read_that_began_before_the_request(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.lease.distrust()
    table.hold()
    before = asyncio.create_task(hall.verify())
    await hall.wait_until(lambda: table.reads == 2)
    table.put(dataclasses.replace(table.rows[KEY], status="revoked"))
    after = asyncio.create_task(hall.refuse())
    await asyncio.sleep(0)
    table.answer()
    assert (await before).key_id == KEY
    assert (await after).reason is Reason.KEY_REVOKED
    assert table.reads == 3


async def test_read_through_requests_share_the_reads_that_follow_them(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.lease.distrust()
    table.hold()
    first = asyncio.create_task(hall.verify())
    await hall.wait_until(lambda: table.reads == 2)
    crowd = [asyncio.create_task(hall.verify()) for _ in range(50)]
    await asyncio.sleep(0)
    table.answer()
    await asyncio.gather(first, *crowd)
    assert table.reads == 3


async def test_trust_that_is_lost_while_a_row_is_read_makes_it_be_read_again(hall: Hall, table: Table) -> None:
    table.hold()
    caller = asyncio.create_task(hall.refuse())
    await hall.wait_until(lambda: table.reads == 1)
    table.put(dataclasses.replace(table.rows[KEY], status="revoked"))
    hall.lease.distrust()
    table.answer()
    assert (await caller).reason is Reason.KEY_REVOKED


async def test_a_lease_that_ran_out_asleep_is_judged_by_the_time_of_waking(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.clock.advance(LEASE_SECONDS)
    table.put(dataclasses.replace(table.rows[KEY], status="revoked"))
    assert (await hall.refuse()).reason is Reason.KEY_REVOKED


async def test_what_escaped_the_news_is_read_again_when_it_is_old(hall: Hall, table: Table) -> None:
    await hall.verify()
    table.put(dataclasses.replace(table.rows[KEY], status="revoked"))
    hall.clock.advance(MAX_AGE_SECONDS - 2**-10)
    hall.renew()
    await hall.verify()
    hall.clock.advance(2**-10)
    hall.renew()
    assert (await hall.refuse()).reason is Reason.KEY_REVOKED


async def test_when_all_is_lost_nothing_is_read_and_nobody_is_blamed(hall: Hall, table: Table) -> None:
    await hall.verify()
    hall.clock.advance(LEASE_SECONDS + GRACE_SECONDS)
    for token in (TOKEN, WRONG, form_secret_token(OTHER)):
        refusal = await hall.refuse(token)
        assert isinstance(refusal, UnavailableError)
        assert refusal.reason is Reason.DATABASE_SILENT
        assert refusal.retry_after_seconds
    assert table.reads == 1


async def test_a_proxy_that_closes_while_it_hashes_admits_nobody(hall: Hall) -> None:
    caller = asyncio.create_task(hall.refuse())
    await hall.wait_until(lambda: hall.hasher.pending > 0)
    hall.clock.advance(LEASE_SECONDS + GRACE_SECONDS)
    assert (await caller).reason is Reason.DATABASE_SILENT


# Whatever else goes wrong.


@pytest.mark.parametrize("fault", [DatabaseError("gone"), RuntimeError("a bug"), KeyError("a row without a column")])
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "read-through"])
async def test_a_row_that_cannot_be_read_is_unknown(fault: Exception, trusted: bool, hall: Hall, table: Table) -> None:
    if not trusted:
        hall.lease.distrust()
    table.fault = fault
    refusal = await hall.refuse()
    assert isinstance(refusal, UnavailableError)
    assert refusal.reason is Reason.STATE_UNKNOWN
    assert refusal.retry_after_seconds
    table.fault = None
    assert (await hall.verify()).key_id == KEY


async def test_one_unreadable_row_does_not_take_those_behind_it_along(hall: Hall, table: Table) -> None:
    """They wait for the next statement while the first one fails."""
    table.hold()
    first = asyncio.create_task(hall.refuse(form_secret_token(OTHER)))
    await hall.wait_until(lambda: table.reads == 1)
    behind = asyncio.create_task(hall.verify())
    table.fault = RuntimeError("a bug")

    def mend() -> None:
        table.fault = None

    table.on_read = mend
    table.answer()
    assert (await first).reason is Reason.STATE_UNKNOWN
    assert (await behind).key_id == KEY


async def test_rights_that_cannot_be_found_admit_nobody(hall: Hall) -> None:
    def fail(record: KeyRecord) -> frozenset[str]:
        raise RuntimeError("a policy nobody foresaw")

    hall.rights = fail
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await hall.verify()
    hall.rights = find_rights
    assert (await hall.verify()).grants == {"*"}


async def test_a_hasher_that_fails_admits_nobody(hall: Hall, counted_hasher: Hasher) -> None:
    counted_hasher.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await hall.verify()


async def test_a_full_hasher_is_busy_and_never_wrong(table: Table, hashes: list[float]) -> None:
    """One thread, nobody may wait: three tokens come at the same moment."""
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=0, timeout_seconds=GUARD_SECONDS)
    hall = Hall(hashes, table.read_keys, hasher)
    tokens = [form_secret_token(form_key_id(number)) for number in range(3)]
    for token in tokens:
        table.put(make_record(token.key_id, secrets=[make_secret(token, table.rows[KEY].secrets[1].hash)]))
    first, *others = await asyncio.gather(*map(hall.verify, tokens), return_exceptions=True)
    assert isinstance(first, Principal)
    for other in others:
        assert isinstance(other, UnavailableError)
        assert other.reason is Reason.HASHING_BUSY
    assert (await hall.verify(tokens[1])).key_id == tokens[1].key_id
    hasher.close()


async def test_before_the_database_told_its_time_every_expiry_has_come(
    table: Table, hashes: list[float], counted_hasher: Hasher
) -> None:
    """The clock of a database nobody has asked yet is later than everything, so nothing slips through."""
    hall = Hall(hashes, table.read_keys, counted_hasher, observed=False)
    await hall.verify()
    table.put(dataclasses.replace(table.rows[KEY], expires_at=hall.clock.wall() + 10.0))
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse()).reason is Reason.KEY_EXPIRED


# Tokens of the older form.

LEGACY, UNKNOWN_LEGACY = form_legacy_token(), form_legacy_token(1)


def import_key(table: Table, key_id: KeyId = OTHER, token: LegacyToken = LEGACY) -> None:
    """A key whose only secret is an old token."""
    table.put(make_record(key_id, secrets=[make_legacy_secret(token)]))
    table.digests = {token.digest: key_id}


async def test_an_old_token_is_looked_up_by_its_digest_once_and_remembered(hall: Hall, table: Table) -> None:
    import_key(table)
    first = await hall.verify(LEGACY)
    assert (first.key_id, first.secret_version) == (OTHER, LEGACY_VERSION)
    assert await hall.verify(LEGACY) is first
    assert (table.look_ups, table.reads, hall.hashes) == ([[LEGACY.digest]], 1, [])
    assert hall.remembered == [False, True]


async def test_a_flood_of_unknown_old_tokens_costs_look_ups_in_batches_and_nothing_else(
    hall: Hall, table: Table
) -> None:
    tokens = [form_legacy_token(seed) for seed in range(1_000, 1_500)]
    refusals = await asyncio.gather(*map(hall.refuse, tokens))
    assert {(refusal.reason, refusal.detail) for refusal in refusals} == {
        (Reason.CREDENTIAL_INVALID, (await hall.refuse(WRONG)).detail)
    }
    assert len(table.look_ups) <= 2
    assert (table.reads, hall.hashes) == (1, [])  # one for the wrong secret


async def test_an_unknown_old_token_that_comes_again_costs_nothing_until_there_is_news(
    hall: Hall, table: Table
) -> None:
    for _ in range(3):
        await hall.refuse(LEGACY)
    assert len(table.look_ups) == 1
    import_key(table)
    hall.news.add(News(key_id=OTHER))
    assert (await hall.verify(LEGACY)).key_id == OTHER


async def test_without_trust_an_unknown_old_token_is_looked_up_each_time(hall: Hall, table: Table) -> None:
    await hall.refuse(LEGACY)
    hall.clock.advance(LEASE_SECONDS)
    import_key(table)
    assert (await hall.verify(LEGACY)).key_id == OTHER


@pytest.mark.parametrize(("change", "reason"), [pair for pair in CHANGES if pair[0] is not retire_secret])
async def test_an_old_token_in_use_is_refused_from_the_news_on_for_the_reasons_of_any_other(
    change: Change, reason: Reason, hall: Hall, table: Table
) -> None:
    import_key(table)
    await hall.verify(LEGACY)
    table.put(change(table.rows[OTHER], hall.database_now))
    await hall.verify(LEGACY)
    hall.news.add(News(key_id=OTHER))
    for _ in range(3):
        refusal = await hall.refuse(LEGACY)
        assert isinstance(refusal, CredentialError)
        assert (refusal.reason, refusal.key_id) == (reason, OTHER)
    assert (len(table.look_ups), table.reads) == (1, 2), "saying so again costs nothing"


async def test_an_old_token_works_beside_the_new_one_until_it_runs_out(
    hall: Hall, table: Table, counted_hasher: Hasher
) -> None:
    new = form_secret_token(OTHER)
    import_key(table)
    await hall.verify(LEGACY)
    secrets = [
        make_legacy_secret(LEGACY, not_after=hall.database_now + 1.0),
        make_secret(new, await counted_hasher.hash(new.secret)),
    ]
    table.put(make_record(OTHER, secrets=secrets))
    hall.news.add(News(key_id=OTHER))
    assert (await hall.verify(new)).secret_version == 1
    assert (await hall.verify(LEGACY)).secret_version == LEGACY_VERSION
    hall.clock.advance(1.0)
    assert (await hall.refuse(LEGACY)).reason is Reason.SECRET_RETIRED
    assert (await hall.verify(new)).secret_version == 1


async def test_an_old_token_whose_digest_was_taken_away_is_unknown_from_the_news_on(hall: Hall, table: Table) -> None:
    import_key(table)
    await hall.verify(LEGACY)
    table.put(make_record(OTHER, secrets=[]))
    table.digests = {}
    hall.news.add(News(key_id=OTHER))
    assert (await hall.refuse(LEGACY)).reason is Reason.CREDENTIAL_INVALID


async def test_an_old_token_that_was_imported_anew_is_its_new_key_s(hall: Hall, table: Table) -> None:
    import_key(table)
    await hall.verify(LEGACY)
    del table.rows[OTHER]
    import_key(table, PARENT)
    hall.news.add(News(key_id=OTHER))
    assert (await hall.verify(LEGACY)).key_id == PARENT


async def test_old_tokens_whose_digests_were_swapped_are_each_other_s_key_from_the_news_on(
    hall: Hall, table: Table
) -> None:
    import_key(table)
    await hall.verify(LEGACY)
    table.put(make_record(OTHER, secrets=[make_legacy_secret(UNKNOWN_LEGACY)]))
    table.put(make_record(PARENT, secrets=[make_legacy_secret(LEGACY)]))
    table.digests = {UNKNOWN_LEGACY.digest: OTHER, LEGACY.digest: PARENT}
    hall.news.add(News(key_id=OTHER))
    assert (await hall.verify(LEGACY)).key_id == PARENT
    assert (await hall.verify(UNKNOWN_LEGACY)).key_id == OTHER


async def test_a_digest_that_leads_to_a_key_which_does_not_hold_it_opens_nothing(hall: Hall, table: Table) -> None:
    """The key's own row is the truth; the look-up is only the way to it."""
    table.digests = {LEGACY.digest: KEY}
    assert (await hall.refuse(LEGACY)).reason is Reason.CREDENTIAL_INVALID
    table.put(make_record(KEY, secrets=[make_legacy_secret(UNKNOWN_LEGACY)]))
    hall.news.add(News(key_id=KEY))
    assert (await hall.refuse(LEGACY)).reason is Reason.CREDENTIAL_INVALID


async def test_a_token_of_our_form_is_never_taken_for_a_digest(hall: Hall, table: Table) -> None:
    import_key(table)
    assert (await hall.refuse(form_secret_token(OTHER))).reason is Reason.CREDENTIAL_INVALID
    assert hall.hashes == []


async def test_an_old_token_is_not_refused_for_what_the_database_does_not_say(hall: Hall, table: Table) -> None:
    table.fault = DatabaseError("it does not answer")
    refusal = await hall.refuse(LEGACY)
    assert isinstance(refusal, UnavailableError)
    assert refusal.reason is Reason.STATE_UNKNOWN
    hall.clock.advance(LEASE_SECONDS + GRACE_SECONDS)
    look_ups = len(table.look_ups)
    assert (await hall.refuse(LEGACY)).reason is Reason.DATABASE_SILENT
    assert len(table.look_ups) == look_ups


# The same with the real store.


async def test_the_real_store_tells_the_same_story(stage: Stage, hashes: list[float], counted_hasher: Hasher) -> None:
    hall = Hall(hashes, stage.store.read_keys, counted_hasher)
    key, sibling = await stage.mint(scopes=("agent:list",)), await stage.mint(scopes=("agent:list",), owner="bob")
    token, other = parse_token(key.token), parse_token(sibling.token)

    principal = await hall.verify(token)
    assert (principal.key_id, principal.owner.subject, principal.grants) == (
        token.key_id,
        "ada",
        frozenset({"agent:list"}),
    )
    assert await hall.verify(token) is principal
    assert (await hall.refuse(form_secret_token(token.key_id))).reason is Reason.CREDENTIAL_INVALID
    assert (await hall.refuse(form_secret_token(KEY))).reason is Reason.CREDENTIAL_INVALID
    assert len(hall.hashes) == 1

    await stage.revoke_by_sql(key)
    hall.news.add(News(key_id=token.key_id))
    assert (await hall.refuse(token)).reason is Reason.KEY_REVOKED

    owner = (await hall.verify(other)).owner.id
    await stage.sql("UPDATE owners SET disabled_at = now() WHERE subject = 'bob'")
    hall.news.add(News(owner_id=owner))
    assert (await hall.refuse(other)).reason is Reason.OWNER_DISABLED
    assert (await hall.refuse(form_secret_token(other.key_id))).reason is Reason.CREDENTIAL_INVALID
