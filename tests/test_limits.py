"""What the constraints of keys let in: by address, by rate, and at once, for whole trees of keys."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.errors import DeniedError, LimitError, Reason
from proxy.identity import KeyId, Principal
from proxy.keys.constraints import UNCONSTRAINED, Constraints, parse_constraints
from proxy.keys.record import KeyRecord
from proxy.limits import FEWEST_SWEPT, Gate, Kind, check_address
from proxy.memory import KeyState
from proxy.news import News
from proxy.sessions import Exchange, Surplus
from tests.records import find_rights, form_key_id, make_ancestor, make_record
from tests.registry_desk import Desk

KEY, PARENT, SIBLING = form_key_id(1), form_key_id(2), form_key_id(3)
HERE, THERE = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def limit(**values: Any) -> Constraints:
    return parse_constraints(values)


def make_principal(own: Constraints, *above: tuple[KeyId, Constraints], key_id: KeyId = KEY) -> Principal:
    """A verified key, and the constraints of those it descends from."""
    ancestors = tuple(make_ancestor(one, constraints=constraints) for one, constraints in above)
    record = make_record(key_id, constraints=own, ancestors=ancestors)
    return KeyState(key_id, record, 0, 0.0).get_principal(1, find_rights)


def knock(gate: Gate, principal: Principal, now: float) -> int | None:
    """None when let in; else after how many seconds to come back."""
    try:
        gate.admit(principal, HERE, now)
    except LimitError as refusal:
        return refusal.retry_after_seconds
    return None


@pytest.fixture
def desk() -> Desk:
    return Desk()


# From where.


@pytest.mark.parametrize(
    ("own", "above", "allowed"),
    [
        (UNCONSTRAINED, UNCONSTRAINED, True),
        (limit(sources=["192.0.2.0/24"]), UNCONSTRAINED, True),
        (limit(sources=["2001:db8::/32", "192.0.2.1"]), limit(sources=["192.0.0.0/16"]), True),
        (limit(sources=["198.51.100.0/24"]), UNCONSTRAINED, False),
        (UNCONSTRAINED, limit(sources=["198.51.100.0/24"]), False),
        (limit(sources=["192.0.2.0/24"]), limit(sources=["::/0"]), False),
    ],
)
def test_every_key_of_a_lineage_has_to_be_allowed_there(own: Constraints, above: Constraints, allowed: bool) -> None:
    principal = make_principal(own, (PARENT, above))
    if allowed:
        check_address(principal, HERE)
        Gate().admit(principal, HERE, 0.0)
        return
    with pytest.raises(DeniedError) as caught:
        check_address(principal, HERE)
    assert caught.value.reason is Reason.ADDRESS_NOT_ALLOWED
    with pytest.raises(DeniedError):
        Gate().admit(principal, HERE, 0.0)


def test_a_request_from_the_wrong_place_takes_nothing_from_the_right_one() -> None:
    gate, principal = Gate(), make_principal(limit(sources=["192.0.2.1"], requests_per_second=1))
    with pytest.raises(DeniedError):
        gate.admit(principal, THERE, 0.0)
    assert knock(gate, principal, 0.0) is None


# How fast.


def test_a_burst_comes_at_once_and_then_one_by_one() -> None:
    gate, principal = Gate(), make_principal(limit(requests_per_second=2, burst=3))
    assert [knock(gate, principal, 10.0) for _ in range(5)] == [None, None, None, 1, 1]
    assert [knock(gate, principal, 10.5) for _ in range(2)] == [None, 1]
    assert [knock(gate, principal, 100.0) for _ in range(4)] == [None, None, None, 1], (
        "what is not used is not saved up"
    )


def test_whoever_comes_back_as_told_is_let_in() -> None:
    gate, principal = Gate(), make_principal(limit(requests_per_second=0.3))
    assert [knock(gate, principal, second) for second in (0.0, 0.0, 3.0, 4.0, 5.0)] == [None, 4, 1, None, 3]


def test_the_refusal_says_whose_limit_it_is_and_which() -> None:
    gate = Gate()
    for own, above, said in (
        (limit(requests_per_second=2), UNCONSTRAINED, "This API key and those made by it"),
        (UNCONSTRAINED, limit(requests_per_second=2), "The API key that this one descends from"),
    ):
        principal = make_principal(own, (PARENT, above))
        assert [knock(gate, principal, 0.0) for _ in range(2)] == [None, None]
        with pytest.raises(LimitError, match=said) as caught:
            gate.admit(principal, HERE, 0.0)
        assert caught.value.reason is Reason.RATE_EXCEEDED
        assert caught.value.data == {"requests_per_second": 2.0, "burst": 2}
        assert PARENT not in str(caught.value)


def test_what_a_key_does_counts_for_the_one_it_descends_from_and_a_refusal_for_neither() -> None:
    gate, above = Gate(), (PARENT, limit(requests_per_second=1, burst=3))
    child = make_principal(limit(requests_per_second=1, burst=2), above)
    sibling = make_principal(UNCONSTRAINED, above, key_id=SIBLING)
    assert [knock(gate, child, 0.0) for _ in range(4)] == [None, None, 1, 1]
    assert [knock(gate, sibling, 0.0) for _ in range(2)] == [None, 1]
    assert knock(gate, child, 1.0) is None, "what was refused cost the parent nothing"
    assert knock(gate, sibling, 1.0) == 1


@pytest.mark.parametrize(("now", "later", "let_in"), [((1, 10), (1, 2), 2), ((0.001, 10), (10, 10), 1)])
def test_a_rate_that_was_changed_holds_from_the_next_request_on(
    now: tuple[float, int], later: tuple[float, int], let_in: int
) -> None:
    """Narrowed: no more at once than now, however much was left. Widened: as fast as now, whatever is owed."""
    gate = Gate()
    before, after = (make_principal(limit(requests_per_second=rate, burst=burst)) for rate, burst in (now, later))
    spent = 1 if later[1] < now[1] else now[1]
    assert [knock(gate, before, 0.0) for _ in range(spent)] == [None] * spent
    assert [knock(gate, after, 0.1) for _ in range(let_in + 1)] == [None] * let_in + [1]


RATES = st.sampled_from([0.25, 0.5, 1.0, 3.0, 7.0, 1000.0])


@given(RATES, st.integers(1, 5), RATES, st.integers(1, 8), st.lists(st.floats(0, 3), max_size=60), st.floats(0, 1e8))
def test_nobody_passes_more_than_the_rate_and_the_burst_and_who_waits_as_told_passes(
    rate: float, burst: int, parent_rate: float, parent_burst: int, pauses: list[float], uptime: float
) -> None:
    gate, now = Gate(), uptime
    above = (PARENT, limit(requests_per_second=parent_rate, burst=parent_burst))
    keys = [make_principal(limit(requests_per_second=rate, burst=burst), above, key_id=key) for key in (KEY, SIBLING)]
    passed: dict[KeyId, list[float]] = {KEY: [], SIBLING: [], PARENT: []}
    for turn, pause in enumerate(pauses):
        now += pause
        principal = keys[turn % 3 == 0]
        wait = knock(gate, principal, now)
        if wait is not None:
            now += wait
            assert wait > 0
            assert knock(gate, principal, now) is None
        for key_id in principal.lineage:
            passed[key_id].append(now)
    for key_id, times in passed.items():
        per_second, depth = (parent_rate, parent_burst) if key_id == PARENT else (rate, burst)
        for first, begun in enumerate(times):
            for last in range(first, len(times)):
                assert last - first + 1 <= depth + (times[last] - begun) * per_second + 1e-3


def test_keys_that_come_and_go_leave_nothing_behind() -> None:
    gate, quick = Gate(), limit(requests_per_second=100)
    for number in range(20 * FEWEST_SWEPT):
        assert knock(gate, make_principal(quick, key_id=form_key_id(number)), number / 1000) is None
        assert len(gate) <= FEWEST_SWEPT + 1


def test_keys_that_owe_for_long_are_bounded_and_those_used_last_are_kept() -> None:
    gate, slow = Gate(max_buckets=8), limit(requests_per_second=0.001)
    keys = [make_principal(slow, key_id=form_key_id(number)) for number in range(9)]
    for principal in keys[:8]:
        assert knock(gate, principal, 0.0) is None
    assert knock(gate, keys[0], 0.0) == 1000, "refused: that is no use"
    assert knock(gate, keys[8], 0.0) is None
    assert len(gate) == 7
    assert None not in [knock(gate, principal, 0.0) for principal in keys[2:]]
    assert knock(gate, keys[1], 0.0) is None, "it has its burst again"
    for number in range(100, 1000):
        assert knock(gate, make_principal(slow, key_id=form_key_id(number)), 0.0) is None
        assert len(gate) <= 8


def test_whom_nothing_limits_is_not_remembered() -> None:
    gate = Gate()
    for principal in (make_principal(UNCONSTRAINED), make_principal(limit(max_calls=1))):
        gate.admit(principal, None, 0.0)
    assert len(gate) == 0


# How much at once.


def make_tree(**limits: Constraints) -> dict[str, KeyRecord]:
    """A root, its children a and b, and a's child c."""
    ids = {name: form_key_id(number) for number, name in enumerate(("root", "a", "b", "c"))}
    ancestors = {name: make_ancestor(ids[name], constraints=limits.get(name, UNCONSTRAINED)) for name in ("root", "a")}
    above = {"root": (), "a": ("root",), "b": ("root",), "c": ("a", "root")}
    return {
        name: make_record(
            ids[name],
            constraints=limits.get(name, UNCONSTRAINED),
            ancestors=tuple(ancestors[one] for one in above[name]),
        )
        for name in ids
    }


@pytest.mark.parametrize("kind", ["call", "stream"])
def test_as_many_as_the_limit_says_and_one_too_many_leaves_no_trace(kind: Kind, desk: Desk) -> None:
    record = make_record(KEY, constraints=limit(**{f"max_{kind}s": 2}))
    held = [desk.open(record, kind) for _ in range(2)]
    with pytest.raises(LimitError, match=f"no more than 2 {kind}s open") as caught:
        desk.open(record, kind)
    assert (caught.value.reason, caught.value.data) == (f"{kind}s_exceeded", {f"max_{kind}s": 2})
    assert caught.value.retry_after_seconds == 1
    other: Kind = "stream" if kind == "call" else "call"
    desk.registry.close(desk.open(record, other))
    assert len(desk.registry) == 2
    desk.registry.close(held.pop())
    held.append(desk.open(record, kind))
    for exchange in held:
        desk.registry.close(exchange)
    assert desk.is_swept()


def test_a_tree_of_keys_does_not_get_past_its_root_s_limit(desk: Desk) -> None:
    tree = make_tree(root=limit(max_calls=3), a=limit(max_calls=2))
    held = [desk.open(tree[name], "call") for name in ("a", "c")]
    for name in ("a", "c"):
        with pytest.raises(LimitError, match="2 calls"):
            desk.open(tree[name], "call")
    held.append(desk.open(tree["b"], "call"))
    for name in ("root", "b"):
        with pytest.raises(LimitError, match="3 calls"):
            desk.open(tree[name], "call")
    desk.registry.close(held[0])
    desk.open(tree["root"], "call")


def test_an_answer_that_turns_out_to_be_a_stream_takes_a_stream_s_place(desk: Desk) -> None:
    record = make_record(KEY, constraints=limit(max_calls=1, max_streams=1))
    first = desk.open(record, "call")
    desk.registry.turn_into_stream(first)
    second = desk.open(record, "call")
    with pytest.raises(LimitError, match="no more than 1 stream open"):
        desk.registry.turn_into_stream(second)
    with pytest.raises(LimitError, match="no more than 1 call open"):
        desk.open(record, "call")
    assert desk.registry.count_kinds() == {"call": 1, "stream": 1}
    for exchange in (second, first):
        desk.registry.close(exchange)
    assert desk.is_swept()


# What was let in, and is no longer.


def test_a_lowered_limit_ends_the_newest_and_nothing_else(desk: Desk) -> None:
    record = make_record(KEY)
    streams = [desk.open(record) for _ in range(4)]
    calls = [desk.open(record, "call") for _ in range(2)]
    narrowed = dataclasses.replace(record, constraints=limit(max_streams=2))
    assert desk.judge(desk.read(narrowed)) == (streams[2:], [*streams[:2], *calls])
    assert {one.ended for one in streams[2:]} == {Reason.STREAMS_EXCEEDED}
    narrowed = dataclasses.replace(record, constraints=limit(max_streams=2, max_calls=1))
    assert desk.judge(desk.read(narrowed)) == (calls[1:], [*streams[:2], *calls[:1]])
    assert calls[1].ended is Reason.CALLS_EXCEEDED


def test_what_ends_for_another_reason_leaves_its_place_to_the_others(desk: Desk) -> None:
    record = make_record(KEY, scopes=("agent:list", "workflow:run"))
    lost, kept = desk.open(record, scopes=("workflow:run",)), desk.open(record)
    narrowed = dataclasses.replace(record, scopes=("agent:list",), constraints=limit(max_streams=1))
    assert desk.judge(desk.read(narrowed)) == ([lost], [kept])
    assert lost.ended is Reason.RIGHTS_CHANGED


def test_a_lowered_limit_of_the_root_ends_the_newest_of_the_whole_tree(desk: Desk) -> None:
    tree = make_tree()
    held = [desk.open(tree[name]) for name in ("a", "b", "c", "a", "root", "b")]
    tree = make_tree(root=limit(max_streams=3))
    for record in tree.values():
        desk.judge(desk.read(record))
    assert [one.ended for one in held] == [None] * 3 + [Reason.STREAMS_EXCEEDED] * 3


def test_in_one_round_a_tree_is_counted_once(desk: Desk) -> None:
    tree = make_tree()
    held = [desk.open(tree[name]) for name in ("a", "b", "c", "a", "root", "b")]
    surplus: Surplus = {}
    for record in make_tree(root=limit(max_streams=3)).values():
        desk.registry.judge(desk.read(record), desk.clock.boot(), surplus)
    assert surplus == {(tree["root"].id, "stream", 3): held[3].number}
    assert [one.ended for one in held] == [None] * 3 + [Reason.STREAMS_EXCEEDED] * 3


def test_an_address_that_is_no_longer_allowed_ends_what_was_asked_for_there(desk: Desk) -> None:
    record = make_record(KEY, ancestors=(make_ancestor(PARENT),))
    held: list[Exchange] = []
    for desk.address in (HERE, THERE, None):
        held.append(desk.open(record))
    narrowed = dataclasses.replace(record, constraints=limit(sources=["192.0.2.0/24", "2001:db8::/32"]))
    assert desk.judge(desk.read(narrowed)) == (held[2:], held[:2])
    above = make_ancestor(PARENT, constraints=limit(sources=["192.0.2.0/24"]))
    assert desk.judge(desk.read(dataclasses.replace(record, ancestors=(above,)))) == (held[1:2], held[:1])
    assert {one.ended for one in held[1:]} == {Reason.ADDRESS_NOT_ALLOWED}


def test_a_state_that_news_has_overtaken_ends_nothing_that_was_opened_since(desk: Desk) -> None:
    record = make_record(KEY)
    narrow = desk.read(dataclasses.replace(record, constraints=limit(max_streams=1)))
    old, first = desk.open(record), desk.open(record)
    desk.news.add(News(key_id=KEY))
    new = desk.open(record)  # by a row that was read since: it has been widened again
    assert desk.judge(narrow) == ([first], [old])
    assert new.ended is None


NAMES = ("root", "a", "b", "c")
LINEAGES = {"root": {"root"}, "a": {"a", "root"}, "b": {"b", "root"}, "c": {"c", "a", "root"}}
LIMITS = st.sampled_from([None, None, 1, 2, 3])
KINDS: tuple[Kind, ...] = ("call", "stream")


class TreeMachine(RuleBasedStateMachine):
    """A tree of keys under limits that change, against a list of what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.limits: dict[str, dict[str, int]] = {name: {} for name in NAMES}
        self.held: list[tuple[str, Exchange]] = []

    def find_open(self, name: str, kind: Kind) -> list[Exchange]:
        """What counts against the limit of a key, the oldest first."""
        return [one for holder, one in self.held if name in LINEAGES[holder] and one.kind == kind]

    def read_tree(self) -> dict[str, KeyRecord]:
        return make_tree(**{name: limit(**limits) for name, limits in self.limits.items()})

    def is_full(self, name: str, kind: Kind) -> bool:
        return any(
            len(self.find_open(above, kind)) >= self.limits[above].get(f"max_{kind}s", 99) for above in LINEAGES[name]
        )

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(KINDS))
    def open(self, name: str, kind: Kind) -> None:
        full = self.is_full(name, kind)
        try:
            exchange = self.desk.open(self.read_tree()[name], kind)
        except LimitError:
            assert full
        else:
            assert not full
            self.held.append((name, exchange))

    @rule(data=st.data())
    def turn(self, data: st.DataObject) -> None:
        calls = [(name, one) for name, one in self.held if one.kind == "call"]
        if calls:
            name, exchange = data.draw(st.sampled_from(calls))
            full = self.is_full(name, "stream")
            try:
                self.desk.registry.turn_into_stream(exchange)
            except LimitError:
                assert full
            else:
                assert not full

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.held:
            held = data.draw(st.sampled_from(self.held))
            self.held.remove(held)
            self.desk.registry.close(held[1])

    @rule(name=st.sampled_from(NAMES), calls=LIMITS, streams=LIMITS, order=st.permutations(NAMES))
    def change(self, name: str, calls: int | None, streams: int | None, order: list[str]) -> None:
        """News: every key that it concerns is read again, in any order; what ends is closed by its relay."""
        wanted = {"max_calls": calls, "max_streams": streams}
        self.limits[name] = {member: value for member, value in wanted.items() if value is not None}
        tree = self.read_tree()
        for one in order:
            before = {kind: {above: self.find_live(above, kind) for above in LINEAGES[one]} for kind in KINDS}
            ended, _ = self.desk.judge(self.desk.read(tree[one]))
            for exchange in ended:
                assert exchange.ended == f"{exchange.kind}s_exceeded"
                assert any(
                    exchange in live[self.limits[above].get(f"max_{exchange.kind}s", 99) :]
                    for above, live in before[exchange.kind].items()
                ), "it was one too many, the oldest counted first"
        for above in NAMES:
            for kind in KINDS:
                assert len(self.find_live(above, kind)) <= self.limits[above].get(f"max_{kind}s", 99)
        for held in [held for held in self.held if held[1].ended is not None]:
            self.held.remove(held)
            self.desk.registry.close(held[1])

    def find_live(self, name: str, kind: Kind) -> list[Exchange]:
        return [one for one in self.find_open(name, kind) if one.ended is None]

    @invariant()
    def what_is_closed_leaves_no_count_behind(self) -> None:
        assert len(self.desk.registry) == len(self.held)
        if not self.held:
            assert self.desk.is_swept()


TestTrees = TreeMachine.TestCase
