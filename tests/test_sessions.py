"""The registry: what flows, what pauses, what ends; told as examples, then as a machine against a simple model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.errors import Reason
from proxy.identity import KeyId, OwnerId, Principal
from proxy.keys.record import KeyRecord
from proxy.memory import KeyState
from proxy.news import EVERYTHING, News
from proxy.policy.scopes import covers
from proxy.sessions import Exchange, Flow
from tests.records import (
    ADA,
    BOB,
    form_key_id,
    form_secret_token,
    make_ancestor,
    make_record,
    make_secret,
)
from tests.registry_desk import GRACE_SECONDS, LEASE_SECONDS, Desk

KEY, OTHER, PARENT = form_key_id(1), form_key_id(2), form_key_id(3)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# What may flow.


def test_an_exchange_flows_while_nothing_speaks_against_it(desk: Desk) -> None:
    exchange = desk.open(make_record(KEY))
    assert desk.flow(exchange) is Flow.OPEN
    assert exchange.ended is None


@pytest.mark.parametrize("news", [News(key_id=KEY), News(key_id=PARENT), News(owner_id=ADA), EVERYTHING])
def test_news_pauses_what_it_concerns_at_once_until_the_row_was_read_again(news: News, desk: Desk) -> None:
    record = make_record(KEY, ancestors=(make_ancestor(PARENT),))
    exchange, other = desk.open(record), desk.open(make_record(OTHER, owner=BOB))
    read_before = desk.read(record)
    desk.news.add(news)
    assert desk.registry.find_touched(news) == ([KEY, OTHER] if news == EVERYTHING else [KEY])
    assert desk.flow(exchange) is Flow.PAUSED
    assert desk.flow(other) is (Flow.PAUSED if news == EVERYTHING else Flow.OPEN)
    assert desk.judge(read_before) == ([], [exchange])
    assert desk.flow(exchange) is Flow.PAUSED, "that read knew nothing of the news"
    assert desk.judge(desk.read(record)) == ([], [exchange])
    assert desk.flow(exchange) is Flow.OPEN


def test_nothing_flows_once_the_database_was_silent_for_too_long(desk: Desk) -> None:
    exchange = desk.open(make_record(KEY))
    desk.clock.advance(LEASE_SECONDS + GRACE_SECONDS - 2**-10)
    assert desk.flow(exchange) is Flow.OPEN
    desk.clock.advance(2**-10)
    assert desk.flow(exchange) is Flow.ENDED
    desk.lease.renew(desk.clock.boot())
    assert desk.flow(exchange) is Flow.ENDED, "what ended stays so"
    assert exchange.ended is Reason.DATABASE_SILENT


def test_nothing_flows_from_the_instant_of_expiry_on(desk: Desk) -> None:
    exchange = desk.open(make_record(KEY, expires_at=desk.database_now + 1.0))
    desk.clock.advance(1.0 - 2**-10)
    assert desk.flow(exchange) is Flow.OPEN
    desk.clock.advance(2**-10)
    assert desk.flow(exchange) is Flow.ENDED
    assert exchange.ended is Reason.KEY_EXPIRED


# What ends.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "revoked"}, Reason.KEY_REVOKED),
        ({"status": "disabled"}, Reason.KEY_DISABLED),
        ({"owner_disabled": True}, Reason.OWNER_DISABLED),
        ({"expires_at": 0.0}, Reason.KEY_EXPIRED),
        ({"ancestors": (make_ancestor(PARENT, status="revoked"),)}, Reason.KEY_REVOKED),
        ({"secrets": {}}, Reason.SECRET_RETIRED),
        ({"scopes": ("agent:list",)}, Reason.RIGHTS_CHANGED),
        ({"owner": dataclasses.replace(make_record(KEY).owner, id=BOB)}, Reason.RIGHTS_CHANGED),
        ({"owner": dataclasses.replace(make_record(KEY).owner, tenant_id="another")}, Reason.RIGHTS_CHANGED),
    ],
)
def test_what_a_key_may_no_longer_do_ends_with_the_reason(
    change: dict[str, object], reason: Reason, desk: Desk
) -> None:
    record = make_record(KEY)
    exchange = desk.open(record, scopes=("workflow:run:nightly-etl",))
    changed: KeyRecord = dataclasses.replace(record, **change)  # type: ignore[arg-type]
    assert desk.judge(desk.read(changed)) == ([exchange], [])
    assert exchange.ended is reason
    assert desk.flow(exchange) is Flow.ENDED
    assert desk.judge(desk.read(record)) == ([], []), "and no better news brings it back"


def test_a_key_that_is_gone_ends_what_it_held(desk: Desk) -> None:
    exchange = desk.open(make_record(KEY))
    assert desk.judge(KeyState(KEY, None, desk.news.sequence, desk.clock.boot())) == ([exchange], [])
    assert exchange.ended is Reason.CREDENTIAL_INVALID


def test_narrowing_ends_only_what_rested_on_what_was_taken(desk: Desk) -> None:
    record = make_record(KEY, scopes=("agent:list", "workflow:run"))
    listing = desk.open(record, "call", ("agent:list",))
    running = desk.open(record, "call", ("workflow:run:nightly-etl",))
    waiting = desk.open(record)
    narrowed = dataclasses.replace(record, scopes=("agent:list",))
    assert desk.judge(desk.read(narrowed)) == ([running], [listing, waiting])
    assert listing.principal.grants == waiting.principal.grants == {"agent:list"}


def test_a_retired_secret_ends_what_was_opened_with_it_and_nothing_else(desk: Desk) -> None:
    old, new = make_secret(form_secret_token(KEY)), make_secret(form_secret_token(KEY, 1), version=2)
    record = make_record(KEY, secrets=[old, new])
    with_old, with_new = desk.open(record), desk.open(record, secret_version=2)
    retired = dataclasses.replace(record, secrets={2: new})
    assert desk.judge(desk.read(retired)) == ([with_old], [with_new])


def test_a_state_that_news_has_overtaken_says_nothing_of_what_was_opened_since(desk: Desk) -> None:
    """Narrow when it was read, wide when the exchange was opened: the late answer must neither end nor rename it."""
    narrow = make_record(KEY, scopes=("agent:list",))
    before = desk.open(narrow, scopes=("agent:list",))
    overtaken = desk.read(narrow)
    desk.news.add(News(key_id=KEY))
    wide = make_record(KEY, scopes=("agent:list", "workflow:run"))
    exchange = desk.open(wide, scopes=("workflow:run:nightly-etl",))
    assert desk.judge(overtaken) == ([], [before])
    assert exchange.principal.grants == {"agent:list", "workflow:run"}
    assert (desk.flow(before), desk.flow(exchange)) == (Flow.PAUSED, Flow.OPEN)


def test_a_key_that_changes_hands_is_found_by_both_owners_for_as_long_as_it_matters(desk: Desk) -> None:
    old = desk.open(make_record(KEY, owner=ADA))
    new = desk.open(make_record(KEY, owner=BOB))
    assert desk.registry.find_touched(News(owner_id=ADA)) == [KEY]
    assert desk.registry.find_touched(News(owner_id=BOB)) == [KEY]
    desk.registry.close(old)
    assert desk.registry.find_touched(News(owner_id=ADA)) == []
    assert desk.registry.find_touched(News(owner_id=BOB)) == [KEY]
    desk.registry.close(new)
    assert desk.is_swept()


def test_a_stream_is_found_by_its_session_while_it_lives_and_can_be_spoken_on(desk: Desk) -> None:
    mine, other = desk.open(make_record(KEY)), desk.open(make_record(KEY))
    for exchange, name in ((mine, b"mine"), (other, b"other")):
        exchange.session = ("mcp", name)
        assert desk.registry.find_stream(KEY, ("mcp", name)) is None
        exchange.inject = lambda event: True
    assert desk.registry.find_stream(KEY, ("mcp", b"mine")) is mine
    assert desk.registry.find_stream(KEY, ("mcp", b"other")) is other
    assert desk.registry.find_stream(OTHER, ("mcp", b"mine")) is None
    assert desk.registry.find_stream(KEY, ("api", b"mine")) is None
    mine.ended = Reason.KEY_REVOKED
    desk.registry.close(other)
    assert desk.registry.find_stream(KEY, ("mcp", b"mine")) is None
    assert desk.registry.find_stream(KEY, ("mcp", b"other")) is None


def test_streams_end_and_calls_may_finish(desk: Desk) -> None:
    call, stream, gone = desk.open(make_record(KEY), "call"), desk.open(make_record(KEY)), desk.open(make_record(KEY))
    gone.ended = Reason.KEY_REVOKED
    assert desk.registry.count_kinds() == {"call": 1, "stream": 2}
    assert desk.registry.end_streams(Reason.DRAINING) == [stream]
    assert (call.ended, stream.ended, gone.ended) == (None, Reason.DRAINING, Reason.KEY_REVOKED)
    assert desk.registry.end_all(Reason.DRAINING) == [call]
    assert desk.registry.end_all(Reason.DRAINING) == []


def test_ending_keys_ends_what_they_hold_and_nothing_else(desk: Desk) -> None:
    mine, other = desk.open(make_record(KEY)), desk.open(make_record(OTHER))
    assert desk.registry.end_keys([KEY, PARENT], Reason.STATE_UNKNOWN) == [mine]
    assert (mine.ended, other.ended) == (Reason.STATE_UNKNOWN, None)


# Deadlines.


def test_a_prolonged_key_outlives_its_first_deadline(desk: Desk) -> None:
    record = make_record(KEY, expires_at=desk.database_now + 1.0)
    exchange = desk.open(record)
    desk.judge(desk.read(dataclasses.replace(record, expires_at=desk.database_now + 2.0)))
    desk.lease.renew(desk.clock.boot() + 1.0)
    desk.clock.advance(1.0)
    assert desk.end_expired() == []
    assert desk.registry.find_deadline() == desk.database_now + 1.0
    desk.clock.advance(1.0)
    assert desk.end_expired() == [exchange]
    assert desk.registry.find_deadline() is None


def test_a_shortened_key_ends_at_its_new_deadline(desk: Desk) -> None:
    record = make_record(KEY, expires_at=desk.database_now + 100.0)
    exchange = desk.open(record)
    desk.judge(desk.read(dataclasses.replace(record, expires_at=desk.database_now + 1.0)))
    assert desk.registry.find_deadline() == desk.database_now + 1.0
    desk.clock.advance(1.0)
    assert desk.end_expired() == [exchange]


def test_a_rotated_secret_that_runs_out_ends_what_it_opened_by_its_own_name(desk: Desk) -> None:
    secret = make_secret(form_secret_token(KEY), not_after=desk.database_now + 1.0)
    exchange = desk.open(make_record(KEY, secrets=[secret], expires_at=desk.database_now + 2.0))
    desk.clock.advance(1.0)
    assert desk.end_expired() == [exchange]
    assert exchange.ended is Reason.SECRET_RETIRED


def test_an_expiry_taken_back_and_given_again_still_counts(desk: Desk) -> None:
    record = make_record(KEY, expires_at=desk.database_now + 1.0)
    exchange = desk.open(record)
    desk.judge(desk.read(dataclasses.replace(record, expires_at=None)))
    desk.judge(desk.read(record))
    desk.clock.advance(1.0)
    assert desk.end_expired() == [exchange]


def test_a_thousand_calls_of_a_key_note_one_deadline(desk: Desk) -> None:
    record = make_record(KEY, expires_at=desk.database_now + 1.0)
    for _ in range(1_000):
        desk.registry.close(desk.open(record, "call"))
    assert desk.is_swept()
    assert len(desk.registry._deadlines) == 1
    desk.clock.advance(1.0)
    assert desk.end_expired() == []
    assert desk.registry._deadlines == []


# Closing.


def test_closing_twice_closes_once(desk: Desk) -> None:
    emptied: list[bool] = []
    desk.registry.on_empty = lambda: emptied.append(True)
    one, two = desk.open(make_record(KEY)), desk.open(make_record(KEY))
    for _ in range(2):
        desk.registry.close(one)
    assert (len(desk.registry), emptied) == (1, [])
    assert desk.registry.find_touched(News(owner_id=ADA)) == [KEY]
    for _ in range(2):
        desk.registry.close(two)
        desk.registry.close(one)
    assert (len(desk.registry), emptied) == (0, [True])
    assert desk.is_swept()


# The machine.


@dataclass(frozen=True)
class Snapshot:
    """What the database says between two commits: whose status, whose owner, whose expiry."""

    records: tuple[tuple[KeyId, KeyRecord], ...]

    def get(self, key_id: KeyId) -> KeyRecord:
        return dict(self.records)[key_id]

    def replace(self, *changed: KeyRecord) -> Snapshot:
        return Snapshot(tuple({**dict(self.records), **{record.id: record for record in changed}}.items()))

    def find_of_owner(self, owner: OwnerId) -> list[KeyRecord]:
        return [record for _, record in self.records if record.owner.id == owner]


@dataclass(eq=False)
class Held:
    """An exchange as the model sees it: what it was opened as, and what the world had heard by then."""

    exchange: Exchange
    opened: Principal
    scopes: tuple[str, ...]
    heard_at_opening: int
    read_at: float
    ended: Reason | None = None

    def is_permitted(self, snapshot: Snapshot, now: float) -> bool:
        record = snapshot.get(self.opened.key_id)
        return (
            record.find_fault(now) is None
            and record.find_secret_fault(self.opened.secret_version, now) is None
            and record.owner.id == self.opened.owner.id
            and all(covers(frozenset(record.scopes), scope) for scope in self.scopes)
        )


KEYS = (KEY, OTHER)
Change = tuple[News, list[KeyRecord]]
SCOPES = ("agent:list", "workflow:run")


class RegistryMachine(RuleBasedStateMachine):
    """Commits, news that arrives later but in order, reads that arrive in any order, time, silence and trust.

    The model knows every state the database ever had and how much of its news was heard. Whatever flows must be allowed
    by some state that may still be the latest as far as anybody has heard.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.history: list[Snapshot] = []
        self.queue: list[News] = []
        self.heard = 0
        self.reads: list[KeyState] = []
        self.held: list[Held] = []
        self.proven_at = self.desk.clock.boot()

    @initialize()
    def make_keys(self) -> None:
        secrets = [make_secret(form_secret_token(KEY, version), version=version) for version in (1, 2)]
        child = make_record(KEY, secrets=secrets, scopes=SCOPES, ancestors=(make_ancestor(PARENT),))
        self.history.append(Snapshot(((KEY, child), (OTHER, make_record(OTHER, secrets=secrets, scopes=SCOPES)))))

    @property
    def latest(self) -> Snapshot:
        return self.history[-1]

    def is_proven(self, held: Held) -> bool:
        """Whether the latest nonce, or the latest read of this very key, is young enough to go on."""
        return self.desk.clock.boot() < max(self.proven_at, held.read_at) + LEASE_SECONDS + GRACE_SECONDS

    def note_read(self, state: KeyState) -> None:
        for held in self.live():
            if held.opened.key_id == state.key_id:
                held.read_at = max(held.read_at, state.read_at)

    def live(self) -> Iterator[Held]:
        return (held for held in self.held if held.exchange.ended is None)

    # Commits.

    def change(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(["status", "scopes", "end", "secret", "hands", "owner", "parent"]))
        record = self.latest.get(data.draw(st.sampled_from(KEYS)))
        news, changed = getattr(self, f"change_{what}")(record, data)
        self.history.append(self.latest.replace(*changed))
        self.queue.append(news)

    @rule(data=st.data())
    def change_unheard(self, data: st.DataObject) -> None:
        self.change(data)

    @rule(data=st.data())
    def change_and_hear(self, data: st.DataObject) -> None:
        self.change(data)
        self.hear()

    def change_status(self, record: KeyRecord, data: st.DataObject) -> Change:
        statuses = ["active", "active", "active", "disabled", "disabled", "revoked"]
        status = "revoked" if record.status == "revoked" else data.draw(st.sampled_from(statuses))
        return News(key_id=record.id), [dataclasses.replace(record, status=status)]

    def change_scopes(self, record: KeyRecord, data: st.DataObject) -> Change:
        scopes = data.draw(st.sampled_from([SCOPES, SCOPES, SCOPES[:1], SCOPES[1:]]))
        return News(key_id=record.id), [dataclasses.replace(record, scopes=scopes)]

    def change_end(self, record: KeyRecord, data: st.DataObject) -> Change:
        return News(key_id=record.id), [dataclasses.replace(record, expires_at=self.draw_end(data))]

    def change_secret(self, record: KeyRecord, data: st.DataObject) -> Change:
        old = dataclasses.replace(record.secrets[1], not_after=self.draw_end(data))
        return News(key_id=record.id), [dataclasses.replace(record, secrets={**record.secrets, 1: old})]

    def draw_end(self, data: st.DataObject) -> float | None:
        seconds = data.draw(st.sampled_from([None, None, 0.0, 0.25, 0.5]))
        return None if seconds is None else self.desk.database_now + seconds

    def change_hands(self, record: KeyRecord, data: st.DataObject) -> Change:
        owner = data.draw(st.sampled_from([ADA, BOB]))
        disabled = any(one.owner_disabled for one in self.latest.find_of_owner(owner))
        new = dataclasses.replace(record.owner, id=owner)
        return News(key_id=record.id), [dataclasses.replace(record, owner=new, owner_disabled=disabled)]

    def change_owner(self, record: KeyRecord, data: st.DataObject) -> Change:
        disabled = data.draw(st.booleans())
        owned = self.latest.find_of_owner(record.owner.id)
        return News(owner_id=record.owner.id), [dataclasses.replace(one, owner_disabled=disabled) for one in owned]

    def change_parent(self, record: KeyRecord, data: st.DataObject) -> Change:
        parent = make_ancestor(PARENT, status=data.draw(st.sampled_from(["active", "disabled"])))
        news = data.draw(st.sampled_from([News(key_id=PARENT), EVERYTHING]))
        return news, [dataclasses.replace(self.latest.get(KEY), ancestors=(parent,))]

    # The proxy's side.

    @rule()
    def hear(self) -> None:
        for news in self.queue:
            self.desk.news.add(news)
        self.heard += len(self.queue)
        self.queue.clear()

    @rule()
    def read(self) -> None:
        """A read of everything that nothing overtakes: it leaves nothing in doubt."""
        for _, record in self.latest.records:
            state = self.desk.read(record)
            self.desk.judge(state)
            self.note_read(state)
        assert Flow.PAUSED not in {self.desk.flow(held.exchange) for held in self.held}

    @rule()
    def begin_read(self) -> None:
        self.reads += [self.desk.read(record) for _, record in self.latest.records]

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def finish_read(self, data: st.DataObject) -> None:
        state = self.reads.pop(data.draw(st.integers(0, len(self.reads) - 1)))
        ended, confirmed = self.desk.judge(state)
        self.note_read(state)
        assert all(exchange.ended is not None for exchange in ended)
        assert all(exchange.ended is None for exchange in confirmed)

    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        """One exchange for every secret that works, verified by a state that nothing heard speaks against."""
        now = self.desk.database_now
        for _, record in data.draw(st.sampled_from(self.history[self.heard :])).records:
            for version in record.secrets:
                if record.find_fault(now) is None and record.find_secret_fault(version, now) is None:
                    scopes = data.draw(st.sampled_from([record.scopes, record.scopes[:1], ()]))
                    exchange = self.desk.open(record, "stream", scopes, version)
                    self.held.append(Held(exchange, exchange.principal, scopes, self.heard, self.desk.clock.boot()))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), times=st.integers(1, 2))
    def close(self, data: st.DataObject, times: int) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        for _ in range(times):
            self.desk.registry.close(held.exchange)

    # Time and trust.

    @rule(seconds=st.sampled_from([0.125, 0.25, 0.5]))
    def wait(self, seconds: float) -> None:
        self.desk.clock.advance(seconds)
        self.desk.lease.renew(self.desk.clock.boot())
        self.proven_at = self.desk.clock.boot()

    @rule(seconds=st.sampled_from([0.5, LEASE_SECONDS, GRACE_SECONDS]))
    def hear_nothing(self, seconds: float) -> None:
        self.desk.clock.advance(seconds)
        self.desk.lease.distrust()

    @rule()
    def end_expired(self) -> None:
        for exchange in self.desk.end_expired():
            assert exchange.ended in (Reason.KEY_EXPIRED, Reason.SECRET_RETIRED, Reason.DATABASE_SILENT)
        ends = [held.exchange.principal.ends for held in self.live()]
        assert all(end is None or end[0] > self.desk.database_now for end in ends)

    # What must always be so.

    @invariant()
    def nothing_flows_that_no_possible_state_allows(self) -> None:
        now = self.desk.database_now
        possible = self.history[self.heard :]
        for held in self.held:
            if self.desk.flow(held.exchange) is not Flow.OPEN:
                continue
            assert self.is_proven(held)
            grants = held.exchange.principal.grants
            assert any(
                held.is_permitted(snapshot, now) and grants == set(snapshot.get(held.opened.key_id).scopes)
                for snapshot in possible
            )

    @invariant()
    def what_ended_had_to_and_stays_ended(self) -> None:
        now = self.desk.database_now
        for held in self.held:
            reason = held.exchange.ended
            if held.ended is not None:
                assert reason is held.ended
            elif reason is not None:
                held.ended = reason
                denied = any(not held.is_permitted(one, now) for one in self.history[held.heard_at_opening :])
                assert denied or reason is Reason.DATABASE_SILENT
                assert reason is not Reason.DATABASE_SILENT or not self.is_proven(held)

    @invariant()
    def news_finds_exactly_whom_it_concerns(self) -> None:
        registry = self.desk.registry
        holders = {held.opened.key_id for held in self.held}
        assert set(registry.key_ids) == holders
        assert len(registry) == len(self.held)
        for owner in (ADA, BOB):
            expected = {held.opened.key_id for held in self.held if held.opened.owner.id == owner}
            assert set(registry.find_touched(News(owner_id=owner))) == expected
        for key in (*KEYS, PARENT):
            expected = {held.opened.key_id for held in self.held if key in held.opened.lineage}
            assert set(registry.find_touched(News(key_id=key))) == expected

    @invariant()
    def no_deadline_is_overlooked(self) -> None:
        deadline = self.desk.registry.find_deadline()
        for held in self.live():
            ends = held.exchange.principal.ends
            assert ends is None or (deadline is not None and deadline <= ends[0])

    def teardown(self) -> None:
        for held in self.held:
            self.desk.registry.close(held.exchange)
        assert self.desk.is_swept()
        self.desk.clock.advance(1e6)
        assert self.desk.end_expired() == []
        assert self.desk.registry.find_deadline() is None


RegistryMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestRegistryAgainstItsModel = RegistryMachine.TestCase
