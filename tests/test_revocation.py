"""What follows from the news, told in virtual time: the real registry, memory, lease and reader, and a slow table."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from proxy.clock import DatabaseClock
from proxy.errors import DatabaseError, Reason
from proxy.gathering import MAX_BATCH
from proxy.identity import KeyId
from proxy.keys.reader import KeyReader, ReadKeys
from proxy.keys.record import KeyRecord
from proxy.lease import Lease, Trust
from proxy.limits import Kind
from proxy.memory import KeyState, Memory, Rights
from proxy.news import EVERYTHING, News, NewsLog, parse_news
from proxy.revocation import Revocation
from proxy.sessions import Exchange, Flow, Registry
from tests.clocks import ManualClock
from tests.records import ADA, find_rights, form_key_id, make_ancestor, make_record
from tests.staging import GUARD_SECONDS, Stage
from tests.virtual_time import run_virtually

KEY, OTHER, PARENT, ABSENT = (form_key_id(number) for number in range(1, 5))
HEARTBEAT_SECONDS, LEASE_SECONDS, GRACE_SECONDS, REVALIDATE_SECONDS = 0.5, 2.0, 1.0, 15.0
INSTANT = 1e-6  # what adding up seconds may be off by


class Table:
    """What the database holds. `fault`: what every read ends with; `hold` makes reads hang."""

    def __init__(self) -> None:
        self.rows: dict[KeyId, KeyRecord] = {}
        self.reads: list[list[KeyId]] = []
        self.fault: DatabaseError | None = None
        self._gate = asyncio.Event()
        self._gate.set()

    def put(self, record: KeyRecord) -> KeyRecord:
        """Write a row, as the database does: with the next version."""
        last = self.rows.get(record.id)
        self.rows[record.id] = dataclasses.replace(record, version=last.version + 1 if last else 1)
        return self.rows[record.id]

    def change(self, key_id: KeyId, **members: Any) -> None:
        self.put(dataclasses.replace(self.rows[key_id], **members))

    def hold(self) -> None:
        self._gate.clear()

    def answer(self) -> None:
        self._gate.set()

    async def read_keys(self, ids: Sequence[KeyId]) -> dict[KeyId, KeyRecord]:
        self.reads.append(list(ids))
        rows = {key_id: self.rows[key_id] for key_id in ids if key_id in self.rows}
        await self._gate.wait()
        if self.fault is not None:
            raise self.fault
        return rows


@dataclasses.dataclass
class Held:
    """An exchange, and when its relay was told what."""

    exchange: Exchange
    ended_at: float | None = None
    resumed: int = 0

    @property
    def reason(self) -> Reason | None:
        return self.exchange.ended


class World:
    """A revocation and everything it stands among; trusted, its database clock set, unless told otherwise."""

    def __init__(self, clock: ManualClock, read_keys: ReadKeys, *, observed: bool = True) -> None:
        self.clock = clock
        self.started = clock.boot()
        self.news = NewsLog()
        self.lease = Lease(lease_seconds=LEASE_SECONDS, grace_seconds=GRACE_SECONDS)
        self.database_clock = DatabaseClock()
        if observed:
            self.database_clock.observe(clock.wall(), clock.boot(), clock.boot())
        self.memory = Memory(
            self.news,
            digest_key=b"k" * 32,
            max_proofs=100,
            max_states=100_000,
            max_unknown=100,
            unknown_seconds=5.0,
            max_age_seconds=REVALIDATE_SECONDS,
            timer=clock.boot,
        )
        self.reader = KeyReader(read_keys, self.news, clock.boot)
        self.registry = Registry(
            news=self.news,
            lease=self.lease,
            database_clock=self.database_clock,
            rights=lambda record: self.rights(record),
        )
        self.rights: Rights = find_rights
        self.cleaned: list[list[KeyId] | None] = []
        self.heard = 0
        self.renewed: list[float] = []
        self.revocation = Revocation(
            news=self.news,
            memory=self.memory,
            reader=self.reader,
            registry=self.registry,
            lease=self.lease,
            clock=clock,
            database_clock=self.database_clock,
            clean_up_sessions=self.cleaned.append,
            renew_connections=self.renew_connections,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            revalidate_seconds=REVALIDATE_SECONDS,
            count_news=self.count,
            gather_seconds=0.0,  # it is told as one
        )
        self.proving = True

    def count(self) -> None:
        self.heard += 1

    async def renew_connections(self) -> None:
        self.renewed.append(self.clock.boot())

    @property
    def now(self) -> float:
        """Seconds since the story began."""
        return self.clock.boot() - self.started

    @property
    def database_now(self) -> float:
        return self.database_clock.now(self.clock.boot())

    def get_trust(self) -> Trust:
        return self.lease.judge(self.clock.boot())

    def open(self, record: KeyRecord, kind: Kind = "stream") -> Held:
        """What the door does with a key verified now; the relay behind it only takes notes."""
        state = KeyState(record.id, record, self.news.sequence, self.clock.boot())
        exchange = self.registry.open(state.get_principal(1, find_rights), kind, (), None)
        held = Held(exchange)

        def note_end() -> None:
            assert held.ended_at is None, "told once"
            held.ended_at = self.now

        def note_resumption() -> None:
            held.resumed += 1

        exchange.on_end, exchange.on_resume = note_end, note_resumption
        return held

    def flow(self, held: Held) -> Flow:
        return self.registry.judge_flow(held.exchange, self.clock.boot())

    async def prove(self) -> None:
        """The listener's part: a nonce comes back every heartbeat, while `proving`."""
        while True:
            if self.proving:
                self.revocation.prove(self.clock.boot())
            await asyncio.sleep(HEARTBEAT_SECONDS)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The revocation at work behind a listener that was just proven."""
        await self.revocation.revalidate()
        tasks = [asyncio.create_task(self.prove()), asyncio.create_task(self.revocation.run())]
        await settle()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await self.reader.aclose()
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def settle() -> None:
    """Let everything that is ready happen; in virtual time that is one instant."""
    await asyncio.sleep(INSTANT)


Story = Callable[[World, Table], Coroutine[Any, Any, None]]


def virtual(story: Story) -> Callable[[], None]:
    """A test told in virtual time. Two keys there are: KEY, which has a parent, and OTHER."""

    async def tell(clock: ManualClock) -> None:
        table = Table()
        table.put(make_record(KEY, ancestors=(make_ancestor(PARENT),)))
        table.put(make_record(OTHER))
        await story(World(clock, table.read_keys), table)

    def test() -> None:
        clock = ManualClock()
        run_virtually(clock, tell(clock))

    test.__name__ = story.__name__
    test.__doc__ = story.__doc__
    return test


# News.


@virtual
async def test_news_pauses_at_once_and_a_good_read_resumes(world: World, table: Table) -> None:
    held, other = world.open(table.rows[KEY]), world.open(table.rows[OTHER])
    async with world.running():
        table.hold()
        resumed = other.resumed
        world.revocation.hear(News(key_id=KEY))
        assert (world.flow(held), world.flow(other)) == (Flow.PAUSED, Flow.OPEN)
        await asyncio.sleep(1.0)
        assert world.flow(held) is Flow.PAUSED
        resumptions = held.resumed
        table.answer()
        await settle()
        assert world.flow(held) is Flow.OPEN
        assert (held.resumed, other.resumed, held.ended_at) == (resumptions + 1, resumed, None)
        assert world.cleaned[-1] == [KEY], "its sessions may rest on rights it has lost"


@virtual
async def test_what_is_revoked_ends_within_the_instant_of_its_news(world: World, table: Table) -> None:
    held, sibling, other = (world.open(table.rows[key]) for key in (KEY, KEY, OTHER))
    async with world.running():
        await asyncio.sleep(0.7)
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        await settle()
        assert held.reason is sibling.reason is Reason.KEY_REVOKED
        assert held.ended_at is not None
        assert held.ended_at == sibling.ended_at == pytest.approx(0.7, abs=3 * INSTANT)
        assert world.flow(other) is Flow.OPEN
        assert world.cleaned[-1] == [KEY]
        assert world.memory.is_revoked(KEY)


@pytest.mark.parametrize(
    ("news", "change", "reason"),
    [
        (News(owner_id=ADA), {"owner_disabled": True}, Reason.OWNER_DISABLED),
        (News(key_id=PARENT), {"ancestors": (make_ancestor(PARENT, status="revoked"),)}, Reason.KEY_REVOKED),
        (EVERYTHING, {"status": "disabled"}, Reason.KEY_DISABLED),
    ],
    ids=["owner", "parent", "all"],
)
def test_news_of_whatever_a_key_depends_on_is_followed(news: News, change: dict[str, Any], reason: Reason) -> None:
    @virtual
    async def story(world: World, table: Table) -> None:
        held = world.open(table.rows[KEY])
        async with world.running():
            table.change(KEY, **change)
            world.revocation.hear(news)
            await settle()
            assert held.reason is reason
            assert held.ended_at is not None

    story()


@virtual
async def test_a_deleted_key_ends(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        del table.rows[KEY]
        world.revocation.hear(News(key_id=KEY))
        await settle()
        assert held.reason is Reason.CREDENTIAL_INVALID
        assert world.cleaned[-1] == [KEY]


@virtual
async def test_news_that_overtakes_a_read_is_followed_by_another(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        table.hold()
        world.revocation.hear(News(key_id=KEY))
        await settle()
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        before = len(table.reads)
        table.answer()
        await settle()
        assert held.reason is Reason.KEY_REVOKED
        assert len(table.reads) == before + 1


@virtual
async def test_a_key_that_holds_nothing_here_has_its_sessions_judged_too(world: World, table: Table) -> None:
    async with world.running():
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        world.revocation.hear(News(key_id=ABSENT))
        world.revocation.hear(News(key_id=OTHER))
        await settle()
        assert sorted(world.cleaned[-1] or []) == sorted([KEY, OTHER, ABSENT])


@virtual
async def test_the_sweep_after_owner_news_follows_the_judging(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        await settle()
        world.cleaned.clear()
        table.change(KEY, owner_disabled=True)
        table.hold()
        world.revocation.hear(News(owner_id=ADA))
        await settle()
        assert world.cleaned == []
        table.answer()
        await settle()
        assert held.ended_at is not None
        assert world.cleaned == [[KEY], None]


@virtual
async def test_a_flood_about_many_keys_costs_few_reads(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        table.reads.clear()
        for number in range(10_000):
            world.revocation.hear(News(key_id=form_key_id(number + 100)))
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        await settle()
        assert held.reason is Reason.KEY_REVOKED
        assert len(table.reads) <= 10_001 // MAX_BATCH + 2
        asked = [key for read in table.reads for key in read]
        assert len(asked) == len(set(asked)) == 10_001
        assert world.heard == 10_001


@virtual
async def test_a_flood_about_one_key_costs_few_reads(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        table.reads.clear()
        table.hold()
        for _ in range(100):
            for _ in range(100):
                world.revocation.hear(News(key_id=KEY))
            await settle()
        table.answer()
        await settle()
        assert len(table.reads) <= 3
        assert world.flow(held) is Flow.OPEN


# Reads that fail.


@virtual
async def test_a_doubt_pauses_for_as_long_as_the_lease_and_then_ends(world: World, table: Table) -> None:
    """Nonces keep coming back meanwhile: they must not renew trust over a read that never succeeds."""
    held, other = world.open(table.rows[KEY]), world.open(table.rows[OTHER])
    async with world.running():
        table.fault = DatabaseError("the pool is dead, the listener is not")
        began = world.now
        world.revocation.hear(News(key_id=KEY))
        while held.ended_at is None:
            assert world.flow(held) is Flow.PAUSED
            assert world.get_trust() is Trust.TRUSTED
            await asyncio.sleep(HEARTBEAT_SECONDS / 10)
        assert held.reason is Reason.STATE_UNKNOWN
        assert LEASE_SECONDS <= held.ended_at - began <= LEASE_SECONDS + HEARTBEAT_SECONDS
        assert world.flow(other) is Flow.OPEN


@virtual
async def test_a_young_doubt_is_not_ended_for_the_age_of_an_older_one(world: World, table: Table) -> None:
    old, young = world.open(table.rows[KEY]), world.open(table.rows[OTHER])
    async with world.running():
        table.fault = DatabaseError("gone")
        world.revocation.hear(News(key_id=KEY))
        await asyncio.sleep(LEASE_SECONDS - HEARTBEAT_SECONDS / 2)
        began = world.now
        world.revocation.hear(News(key_id=OTHER))
        await asyncio.sleep(HEARTBEAT_SECONDS)
        assert old.reason is Reason.STATE_UNKNOWN
        assert world.flow(young) is Flow.PAUSED
        await asyncio.sleep(LEASE_SECONDS)
        assert young.ended_at is not None
        assert LEASE_SECONDS <= young.ended_at - began <= LEASE_SECONDS + HEARTBEAT_SECONDS


@virtual
async def test_saying_it_again_makes_a_doubt_no_younger(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        table.fault = DatabaseError("gone")
        while held.ended_at is None and world.now < 2 * LEASE_SECONDS:
            world.revocation.hear(News(key_id=KEY))
            await asyncio.sleep(0.3)
        assert held.ended_at is not None
        assert held.ended_at <= LEASE_SECONDS + HEARTBEAT_SECONDS + 3 * INSTANT


@virtual
async def test_a_doubt_that_is_settled_in_time_costs_nothing(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        await settle()
        world.cleaned.clear()
        table.fault = DatabaseError("gone")
        world.revocation.hear(News(owner_id=ADA))
        await asyncio.sleep(LEASE_SECONDS - HEARTBEAT_SECONDS / 2)
        assert world.cleaned == []
        table.fault = None
        await asyncio.sleep(HEARTBEAT_SECONDS)
        assert world.flow(held) is Flow.OPEN
        assert world.cleaned == [[KEY], None], "the sweep that was due is not forgotten"
        world.revocation.hear(News(key_id=KEY))
        await asyncio.sleep(LEASE_SECONDS)
        assert held.ended_at is None


@virtual
async def test_a_row_that_cannot_be_believed_shields_nobody_else(world: World, table: Table) -> None:
    """A replica that lags behind shows an old row of one key; all other revocations are carried out all the same."""
    older = table.rows[KEY]
    lagging = world.open(table.put(older))
    others = [table.put(make_record(form_key_id(number))) for number in range(100, 120)]
    revoked = [world.open(record) for record in others]
    async with world.running():
        table.rows[KEY] = older
        for record in others:
            table.change(record.id, status="revoked")
        world.revocation.hear(EVERYTHING)
        await settle()
        assert {held.reason for held in revoked} == {Reason.KEY_REVOKED}
        assert lagging.reason is Reason.STATE_UNKNOWN
        assert {record.id for record in others} <= set(world.cleaned[0] or ())
        good = world.open(make_record(OTHER))
        await asyncio.sleep(2 * REVALIDATE_SECONDS)
        assert world.get_trust() is Trust.TRUSTED, "lag is not silence"
        assert good.ended_at is None


@virtual
async def test_thousands_of_ends_are_carried_out_in_slices_and_confirmed_after_the_last(
    world: World, table: Table
) -> None:
    held = [world.open(table.rows[KEY]) for _ in range(1_000)]
    async with world.running():
        order: list[str] = []
        for one in held:
            one.exchange.on_end = lambda: order.append("end")
        table.change(KEY, status="revoked")
        world.revocation._confirm = lambda ended: order.append(f"confirmed {ended[0].streams}")
        world.revocation.hear(News(key_id=KEY))
        asyncio.get_running_loop().call_soon(lambda: None)
        while not order:
            await asyncio.sleep(0)
        order.append("somebody else's turn")
        assert {world.flow(one) for one in held} == {Flow.ENDED}, "whatever is still to be carried out"
        await settle()
    assert order.index("somebody else's turn") < 1_000
    assert order.count("end") == 1_000
    assert order[-1] == "confirmed 1000"


@virtual
async def test_an_end_that_cannot_be_carried_out_holds_up_no_other(world: World, table: Table) -> None:
    broken, other = world.open(table.rows[KEY]), world.open(table.rows[KEY])
    async with world.running():

        def fail() -> None:
            raise RuntimeError("a relay that fell over")

        broken.exchange.on_end = fail
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        await settle()
        assert other.ended_at is not None


@virtual
async def test_news_of_ten_thousand_keys_that_hold_nothing_never_stands_before_one_that_does(
    world: World, table: Table
) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        table.reads.clear()
        table.hold()
        for number in range(10_000):
            world.revocation.hear(News(key_id=form_key_id(number + 100)))
        await settle()
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        table.answer()
        await settle()
        assert held.reason is Reason.KEY_REVOKED
        assert table.reads[1] == [KEY]


@virtual
async def test_a_key_seen_revoked_holds_nothing_whatever_a_later_row_says(world: World, table: Table) -> None:
    async with world.running():
        table.change(KEY, status="revoked")
        world.revocation.hear(News(key_id=KEY))
        await settle()
        table.change(KEY, status="active")
        held = world.open(table.rows[KEY])
        world.revocation.hear(News(key_id=KEY))
        await settle()
        assert held.reason is Reason.KEY_REVOKED
        assert held.ended_at is not None
        assert world.cleaned[-1] == [KEY]


@virtual
async def test_a_key_that_cannot_be_judged_ends_alone(world: World, table: Table) -> None:
    def fail_for_one(record: KeyRecord) -> frozenset[str]:
        if record.id == KEY:
            raise RuntimeError("a row nobody foresaw")
        return find_rights(record)

    held, other = world.open(table.rows[KEY]), world.open(table.rows[OTHER])
    async with world.running():
        world.rights = fail_for_one
        world.revocation.hear(EVERYTHING)
        await settle()
        assert held.reason is Reason.STATE_UNKNOWN
        assert held.ended_at is not None
        assert world.flow(other) is Flow.OPEN


# Trust.


@virtual
async def test_nonces_alone_prove_nothing_once_rounds_have_been_failing(world: World, table: Table) -> None:
    async with world.running():
        await asyncio.sleep(REVALIDATE_SECONDS)
        last_good = max(REVALIDATE_SECONDS * (world.now // REVALIDATE_SECONDS), 0.0)
        table.fault = DatabaseError("the pool is dead, the listener is not")
        while world.get_trust() is Trust.TRUSTED:
            await asyncio.sleep(HEARTBEAT_SECONDS / 10)
            assert world.now < 4 * REVALIDATE_SECONDS
        bound = last_good + 2 * REVALIDATE_SECONDS + LEASE_SECONDS
        assert bound - 2 * HEARTBEAT_SECONDS <= world.now <= bound + HEARTBEAT_SECONDS
        table.fault = None
        await asyncio.sleep(2 * HEARTBEAT_SECONDS)
        assert world.get_trust() is Trust.TRUSTED


@virtual
async def test_one_failed_round_costs_no_trust(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        await asyncio.sleep(REVALIDATE_SECONDS - 1.0)
        table.fault = DatabaseError("gone for a moment")
        await asyncio.sleep(REVALIDATE_SECONDS / 2)
        table.fault = None
        while world.now < 4 * REVALIDATE_SECONDS:
            await asyncio.sleep(HEARTBEAT_SECONDS / 2)
            assert world.get_trust() is Trust.TRUSTED
        assert world.flow(held) is Flow.OPEN


@virtual
async def test_nothing_is_proven_before_what_is_open_was_read_again(world: World, table: Table) -> None:
    world.revocation.prove(world.clock.boot())
    assert world.get_trust() is Trust.CLOSED
    table.fault = DatabaseError("gone")
    with pytest.raises(DatabaseError):
        await world.revocation.revalidate()
    world.revocation.prove(world.clock.boot())
    assert world.get_trust() is Trust.CLOSED
    table.fault = None
    await world.revocation.revalidate()
    assert world.get_trust() is Trust.READ_THROUGH
    world.revocation.prove(world.clock.boot())
    assert world.get_trust() is Trust.TRUSTED


@virtual
async def test_revalidating_forgets_what_was_remembered_and_judges_what_is_open(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    state = KeyState(OTHER, table.rows[OTHER], world.news.sequence, world.clock.boot())
    world.memory.keep_state(state)
    assert world.memory.find_state(OTHER, world.clock.boot()) is state
    table.change(KEY, status="revoked")
    world.renewed.clear()
    await world.revocation.revalidate()
    assert world.renewed == [world.clock.boot()], "a connection may lead to the wrong server by now"
    assert world.memory.find_state(OTHER, world.clock.boot()) is None
    assert held.reason is Reason.KEY_REVOKED


def test_a_database_that_has_not_told_its_time_keeps_nothing_open() -> None:
    async def tell(clock: ManualClock) -> None:
        world = World(clock, Table().read_keys, observed=False)
        await world.revocation.revalidate()
        assert world.get_trust() is Trust.CLOSED
        world.revocation.prove(clock.boot())
        assert world.get_trust() is Trust.CLOSED

    clock = ManualClock()
    run_virtually(clock, tell(clock))


@virtual
async def test_without_a_listener_what_is_open_is_read_again_every_heartbeat(world: World, table: Table) -> None:
    held, other = world.open(table.rows[KEY]), world.open(table.rows[OTHER])
    async with world.running():
        await asyncio.sleep(0.1)
        world.proving = False
        world.revocation.lose()
        assert world.get_trust() is Trust.READ_THROUGH
        await asyncio.sleep(10.0)
        assert world.get_trust() is Trust.READ_THROUGH
        assert world.flow(held) is world.flow(other) is Flow.OPEN
        began = world.now
        table.change(KEY, status="revoked")  # and nobody says so
        await asyncio.sleep(HEARTBEAT_SECONDS + 3 * INSTANT)
        assert held.reason is Reason.KEY_REVOKED
        assert held.ended_at is not None
        assert held.ended_at - began <= HEARTBEAT_SECONDS + 3 * INSTANT


@virtual
async def test_what_escaped_the_news_is_found_by_the_next_round(world: World, table: Table) -> None:
    held = world.open(table.rows[KEY])
    async with world.running():
        await asyncio.sleep(1.0)
        world.cleaned.clear()
        table.change(KEY, status="revoked")  # and nobody says so
        await asyncio.sleep(REVALIDATE_SECONDS)
        assert held.reason is Reason.KEY_REVOKED
        assert held.ended_at is not None
        assert held.ended_at <= REVALIDATE_SECONDS + HEARTBEAT_SECONDS + INSTANT
        assert world.cleaned == [None], "and so do the sessions of keys that hold nothing"
        assert world.get_trust() is Trust.TRUSTED


@pytest.mark.parametrize("silence", ["fails", "hangs"])
def test_a_silent_database_ends_everything_at_the_end_of_lease_and_grace(silence: str) -> None:
    """A read that hangs is not waited for: its own deadline would come on top of the bound that is published."""

    @virtual
    async def story(world: World, table: Table) -> None:
        stream, call = world.open(table.rows[KEY]), world.open(table.rows[OTHER], "call")
        async with world.running():
            await asyncio.sleep(5.2)  # at no heartbeat
            world.proving = False
            world.revocation.prove(world.clock.boot())
            if silence == "hangs":
                table.hold()
            table.fault = DatabaseError("gone")
            closes_at = world.lease.open_until - world.started
            world.revocation.lose()
            await asyncio.sleep(LEASE_SECONDS + GRACE_SECONDS + INSTANT)
            assert world.get_trust() is Trust.CLOSED
            for held in (stream, call):
                assert held.reason is Reason.DATABASE_SILENT
                assert held.ended_at == pytest.approx(closes_at, abs=3 * INSTANT)
            table.answer()

    story()


@virtual
async def test_a_closed_proxy_opens_again_when_the_database_answers(world: World, table: Table) -> None:
    async with world.running():
        table.fault = DatabaseError("gone")
        world.proving = False
        await asyncio.sleep(10.0)
        assert world.get_trust() is Trust.CLOSED
        table.fault = None
        await asyncio.sleep(HEARTBEAT_SECONDS + INSTANT)
        assert world.get_trust() is Trust.READ_THROUGH


# Expiry.


@virtual
async def test_what_runs_out_between_two_heartbeats_ends_at_the_instant(world: World, table: Table) -> None:
    first = world.open(table.put(make_record(KEY, expires_at=world.database_now + 0.7)))
    second = world.open(table.put(make_record(OTHER, expires_at=world.database_now + 0.9)))
    async with world.running():
        await asyncio.sleep(1.0)
        assert first.reason is second.reason is Reason.KEY_EXPIRED
        assert (first.ended_at, second.ended_at) == pytest.approx((0.7, 0.9), abs=INSTANT)


@virtual
async def test_a_deadline_noted_in_a_pause_is_overlooked_for_a_heartbeat_and_by_no_byte(
    world: World, table: Table
) -> None:
    async with world.running():
        await asyncio.sleep(10.1)
        opened = world.now
        held = world.open(table.put(make_record(KEY, expires_at=world.database_now + 0.1)))
        late = world.open(table.rows[KEY])
        await asyncio.sleep(0.1)
        assert world.flow(late) is Flow.ENDED, "asked before a byte, it is ended"
        await asyncio.sleep(HEARTBEAT_SECONDS)
        assert held.reason is Reason.KEY_EXPIRED
        assert held.ended_at is not None
        assert held.ended_at - opened <= 0.1 + HEARTBEAT_SECONDS


@virtual
async def test_a_key_whose_end_is_moved_ends_then(world: World, table: Table) -> None:
    expires_at = world.database_now + 1.0
    prolonged = world.open(table.put(make_record(KEY, expires_at=expires_at)))
    shortened = world.open(table.put(make_record(OTHER, expires_at=expires_at)))
    async with world.running():
        table.change(KEY, expires_at=expires_at + 1.0)
        table.change(OTHER, expires_at=expires_at - 0.3)
        world.revocation.hear(News(key_id=KEY))
        world.revocation.hear(News(key_id=OTHER))
        await asyncio.sleep(3.0)
        assert prolonged.ended_at == pytest.approx(2.0, abs=INSTANT)
        assert shortened.ended_at is not None
        assert 0.7 - INSTANT <= shortened.ended_at <= 0.7 + HEARTBEAT_SECONDS


@virtual
async def test_expiry_waits_for_no_read(world: World, table: Table) -> None:
    held = world.open(table.put(make_record(KEY, expires_at=world.database_now + 0.7)))
    async with world.running():
        table.hold()
        world.revocation.hear(EVERYTHING)
        await asyncio.sleep(0.8)
        assert held.ended_at == pytest.approx(0.7, abs=INSTANT)
        table.answer()


# Orders from above.


@virtual
async def test_draining_tells_streams_first_and_everybody_in_the_end(world: World, table: Table) -> None:
    stream, call = world.open(table.rows[KEY]), world.open(table.rows[KEY], "call")
    world.revocation.end_streams(Reason.DRAINING)
    assert (stream.ended_at, call.ended_at) == (0.0, None)
    world.revocation.end_all(Reason.DRAINING)
    assert (call.ended_at, call.reason) == (0.0, Reason.DRAINING)


@virtual
async def test_closing_ends_everything_and_believes_nothing_until_it_is_proven_anew(world: World, table: Table) -> None:
    await world.revocation.revalidate()
    world.revocation.prove(world.clock.boot())
    held = world.open(table.rows[KEY])
    world.revocation.close()
    assert held.ended_at is not None
    assert held.reason is Reason.STATE_UNKNOWN
    assert world.get_trust() is Trust.CLOSED


# With the real store.


async def test_forged_news_that_no_statement_could_ask_for_stops_nothing(stage: Stage) -> None:
    """Any role of the database may NOTIFY; Postgres refuses a NUL, asyncpg half a surrogate pair."""
    key = await stage.mint()
    key_id = KeyId(key.summary.id)
    world = World(ManualClock(), stage.store.read_keys)
    async with asyncio.timeout(GUARD_SECONDS):
        await world.revocation.revalidate()
        world.revocation.prove(world.clock.boot())
        held = world.open((await stage.store.read_keys([key_id]))[key_id])
        ended = asyncio.Event()
        held.exchange.on_end = ended.set
        running = asyncio.create_task(world.revocation.run())
        for forged in ("Key00000000\0", "Key00000000\ud800", "K" * 7_900):
            world.revocation.hear(parse_news(json.dumps({"v": 1, "kind": "key", "key_id": forged})))
        await stage.revoke_by_sql(key)
        world.revocation.hear(parse_news(json.dumps({"v": 1, "kind": "key", "key_id": key_id, "version": 9})))
        await ended.wait()
        running.cancel()
        await asyncio.wait({running})
        await world.reader.aclose()
    assert held.reason is Reason.KEY_REVOKED
