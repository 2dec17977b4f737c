"""The checker can fail: for every invariant a journal that breaks it is caught, and its twin that does not passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from proxy.policy import Policy
from tests.faults.checker import FD_SLACK, RSS_ROOM_BYTES, TASK_SLACK, check, measure_window
from tests.faults.journal import (
    Answered,
    Changed,
    ChangeFailed,
    Changing,
    Chunk,
    Complained,
    Confirmed,
    Decision,
    Ended,
    Event,
    Failed,
    FaultBegun,
    FaultEnded,
    Final,
    Gauge,
    KeyState,
    Killed,
    Received,
    Sent,
    find_emitted_at,
    find_nonces,
    find_reason,
    form_nonce,
    merge,
    parse_proxy_line,
    parse_upstream_line,
)

BOUND = 3.0
KEY = "key000000001"
ONE, OTHER = "one", "other"
TOOL, RUN = "aegis.runtime.list", "aegis.workflow.run"
ANY_RULE, RUN_RULE = "mcp/tool:aegis.runtime.list", "mcp/tool:aegis.workflow.run"
ACTIVE = KeyState("active", frozenset({"workflow:run", "workflow:list"}))
NARROW = KeyState("active", frozenset({"workflow:list"}))
REVOKED = KeyState("revoked", ACTIVE.scopes)
DISABLED = KeyState("disabled", ACTIVE.scopes)
NONCES = [form_nonce(number) for number in range(9)]
RULES: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def _rules(policy: Policy) -> None:
    """What the shipped policy calls the rules of the two tools."""
    route = policy.find_route("/mcp/v1")
    assert route is not None
    for tool in (TOOL, RUN):
        rule = route.route.rules.tools.find(tool)
        assert rule is not None
        RULES[tool] = rule.id


def change(at: float, state: KeyState, key: str = KEY) -> list[Event]:
    """Sent at this instant, committed half a second later."""
    return [Changing(at, key, state), Changed(at + 0.5, key, state)]


def call(
    number: int,
    at: float,
    *,
    status: int = 200,
    reason: str | None = None,
    proxy: str = ONE,
    tool: str = TOOL,
    took: float = 0.1,
    emitted_at: float | None = None,
    received: int = 1,
    lines: int = 1,
    key: str = KEY,
    nonces: frozenset[str] | None = None,
    rule: str | None = None,
) -> list[Event]:
    """One whole call, as everybody wrote it down."""
    nonce, request_id, done = NONCES[number], f"request {number}", at + took
    admitted = reason is None
    arguments = {"name": "nightly-etl", "nonce": nonce}
    events: list[Event] = [Sent(at, nonce, key, proxy, tool, arguments)]
    events += [Received(at + took / 2, nonce)] * (received if admitted else 0)
    own = frozenset({nonce}) if admitted else frozenset[str]()
    events.append(Answered(done, nonce, status, reason, request_id, own if nonces is None else nonces, emitted_at))
    named = rule or (RULES[tool] if admitted else None)
    line = Decision(done, proxy, request_id, reason or "forwarded", status, named, key, tool)
    return [*events, *([line] * lines)]


def refuse(number: int, at: float, reason: str = "key_revoked", status: int = 401, proxy: str = ONE) -> list[Event]:
    return call(number, at, status=status, reason=reason, proxy=proxy)


def stream(number: int, at: float, *emitted: float, late: float = 0.05) -> list[Event]:
    """A stream whose chunks arrive a little after they were written."""
    nonce = NONCES[number]
    chunks = [Chunk(stamp + late, nonce, frozenset({nonce}), stamp) for stamp in emitted]
    return [*call(number, at), *chunks, Ended(emitted[-1] + 1, nonce, clean=True)]


def end(at: float, state: KeyState, key: str = KEY) -> list[Event]:
    return [Final(at, key, state)]


def broken(policy: Policy, *parts: Sequence[Event]) -> set[str]:
    """The invariants a journal breaks."""
    return {violation.invariant for violation in check(merge(*parts), BOUND, policy)}


MADE = change(0, ACTIVE)
REVOKED_AT_10 = [*MADE, *change(9.5, REVOKED), *end(99, REVOKED)]
KEPT = [*MADE, *end(99, ACTIVE)]


def test_an_admission_later_than_the_bound_is_caught_and_one_inside_it_passes(policy: Policy) -> None:
    assert broken(policy, REVOKED_AT_10, call(1, 12.9)) == set()
    assert broken(policy, REVOKED_AT_10, call(1, 13.1)) == {"I1", "I8"}


def test_a_slow_answer_to_a_request_of_before_is_no_violation(policy: Policy) -> None:
    assert broken(policy, REVOKED_AT_10, call(1, 9.0, took=60)) == set()


def test_an_answer_that_the_upstream_wrote_too_late_is_caught(policy: Policy) -> None:
    assert broken(policy, REVOKED_AT_10, call(1, 9.0, took=5, emitted_at=12.9)) == set()
    assert broken(policy, REVOKED_AT_10, call(1, 9.0, took=5, emitted_at=13.1)) == {"I1"}


def test_a_chunk_written_later_than_the_bound_is_caught_however_long_the_others_took(policy: Policy) -> None:
    assert broken(policy, REVOKED_AT_10, stream(1, 5, 6, 12.9, late=40)) == set()
    assert broken(policy, REVOKED_AT_10, stream(1, 5, 6, 13.1)) == {"I1"}


def test_a_failed_revocation_bounds_nothing_until_it_is_acknowledged(policy: Policy) -> None:
    unknown = [*MADE, Changing(9.5, KEY, REVOKED), ChangeFailed(10, KEY, REVOKED, "connection lost")]
    assert broken(policy, unknown, end(99, ACTIVE), call(1, 50)) == set()
    assert broken(policy, unknown, end(99, REVOKED), refuse(1, 50)) == set()
    assert broken(policy, unknown, change(20, REVOKED), end(99, REVOKED), call(1, 50)) == {"I1", "I8"}


def test_a_key_that_was_enabled_again_may_be_admitted_again(policy: Policy) -> None:
    disabled = [*MADE, *change(9.5, DISABLED)]
    assert broken(policy, disabled, change(20, ACTIVE), end(99, ACTIVE), call(1, 21)) == set()
    assert broken(policy, disabled, change(30, ACTIVE), end(99, ACTIVE), call(1, 21)) == {"I1", "I8"}


def test_a_narrowed_key_may_not_do_what_it_lost(policy: Policy) -> None:
    narrowed = [*MADE, *change(9.5, NARROW), *end(99, NARROW)]
    assert broken(policy, narrowed, call(1, 13.1)) == set()
    assert broken(policy, narrowed, call(1, 12.9, tool=RUN)) == set()
    assert broken(policy, narrowed, call(1, 13.1, tool=RUN)) == {"I1", "I8"}


def test_after_an_instance_confirmed_no_bound_excuses_it(policy: Policy) -> None:
    confirmed = [Confirmed(10.2, KEY, ONE)]
    assert broken(policy, REVOKED_AT_10, confirmed, call(1, 10.1)) == set()
    assert broken(policy, REVOKED_AT_10, confirmed, call(1, 10.3, proxy=OTHER)) == set()
    assert broken(policy, REVOKED_AT_10, confirmed, call(1, 10.3)) == {"I1"}
    assert broken(policy, REVOKED_AT_10, confirmed, stream(1, 5, 10.1)) == set()
    assert broken(policy, REVOKED_AT_10, confirmed, stream(1, 5, 10.3)) == {"I1"}


def test_who_said_revoked_once_never_admits_again(policy: Policy) -> None:
    assert broken(policy, REVOKED_AT_10, call(1, 10.2), refuse(2, 10.4)) == set()
    assert broken(policy, REVOKED_AT_10, refuse(1, 10.2), call(2, 10.4, proxy=OTHER)) == set()
    assert broken(policy, REVOKED_AT_10, refuse(1, 10.2), call(2, 10.4)) == {"I2"}


def test_no_other_instance_admits_later_than_the_bound_after_the_first_said_revoked(policy: Policy) -> None:
    """Here nobody knows whether the revocation was committed, except the instance that saw it."""
    seen = [*MADE, Changing(9.5, KEY, REVOKED), ChangeFailed(10, KEY, REVOKED, "lost"), *end(99, REVOKED)]
    assert broken(policy, seen, refuse(1, 10.2), call(2, 13.2, proxy=OTHER)) == set()
    assert broken(policy, seen, refuse(1, 10.2), call(2, 13.4, proxy=OTHER)) == {"I2"}


def test_a_key_that_was_called_revoked_is_so_in_the_end(policy: Policy) -> None:
    seen = [*MADE, Changing(9.5, KEY, REVOKED), ChangeFailed(10, KEY, REVOKED, "lost"), *refuse(1, 10.2)]
    assert broken(policy, seen, end(99, REVOKED)) == set()
    assert broken(policy, seen, end(99, ACTIVE)) == {"I2"}


def test_a_foreign_nonce_is_caught_in_answers_and_in_chunks(policy: Policy) -> None:
    foreign = frozenset(NONCES[1:3])
    assert broken(policy, KEPT, call(1, 5)) == set()
    assert broken(policy, KEPT, call(1, 5, nonces=foreign)) == {"I3"}
    assert broken(policy, KEPT, call(1, 5), [Chunk(6, NONCES[1], foreign, 6)]) == {"I3"}


def test_a_request_that_arrives_twice_is_caught(policy: Policy) -> None:
    assert broken(policy, KEPT, call(1, 5, received=1)) == set()
    assert broken(policy, KEPT, call(1, 5, received=0)) == set()
    assert broken(policy, KEPT, call(1, 5, received=2)) == {"I4"}


@pytest.mark.parametrize("lines", [0, 2])
def test_an_answer_without_a_line_or_with_two_is_caught(policy: Policy, lines: int) -> None:
    assert broken(policy, KEPT, call(1, 5, lines=1)) == set()
    assert broken(policy, KEPT, call(1, 5, lines=lines)) == {"I5"}
    assert broken(policy, REVOKED_AT_10, call(1, 10.2, reason="key_revoked", status=401, lines=lines)) == {"I5"}


def test_an_admission_without_a_request_id_is_caught_and_a_shed_connection_passes(policy: Policy) -> None:
    sent = Sent(5, NONCES[1], KEY, ONE, TOOL)
    assert broken(policy, KEPT, [sent, Answered(6, NONCES[1], 503, None, None)]) == set()
    assert broken(policy, KEPT, [sent, Answered(6, NONCES[1], 200, None, None)]) == {"I5"}


def test_a_kill_excuses_only_the_lines_that_may_have_been_its_last(policy: Policy) -> None:
    killed = [Killed(10, ONE)]
    assert broken(policy, KEPT, killed, call(1, 5), call(2, 9.8, lines=0)) == set()
    assert broken(policy, KEPT, killed, call(1, 5, lines=0), call(2, 9.8)) == {"I5"}
    assert broken(policy, KEPT, killed, call(1, 5), call(2, 11, lines=0)) == {"I5"}
    assert broken(policy, KEPT, killed, call(1, 5), call(2, 9.8, lines=0, proxy=OTHER)) == {"I5"}


def test_a_refused_request_that_reached_the_upstream_is_caught_unless_it_was_ended_under_way(policy: Policy) -> None:
    arrived = [Received(10.25, NONCES[1])]
    assert broken(policy, REVOKED_AT_10, refuse(1, 10.2)) == set()
    assert broken(policy, REVOKED_AT_10, refuse(1, 10.2), arrived) == {"I5"}
    under_way = call(1, 10.2, status=401, reason="key_revoked", rule=RULES[TOOL])
    assert broken(policy, REVOKED_AT_10, under_way, arrived) == set()


def test_an_acknowledged_change_that_is_gone_is_caught(policy: Policy) -> None:
    changed = [*MADE, *change(9.5, NARROW)]
    assert broken(policy, changed, end(99, NARROW)) == set()
    assert broken(policy, changed, end(99, ACTIVE)) == {"I6"}
    assert broken(policy, changed) == {"I6"}


def test_of_two_changes_under_way_at_once_either_may_last(policy: Policy) -> None:
    crossed: list[Event] = [Changing(5, KEY, NARROW), Changing(5.1, KEY, DISABLED), Changed(6, KEY, DISABLED)]
    both = [*MADE, *crossed, Changed(6.1, KEY, NARROW)]
    assert broken(policy, both, end(99, NARROW)) == broken(policy, both, end(99, DISABLED)) == set()
    assert broken(policy, both, end(99, ACTIVE)) == {"I6"}


def gauge(
    moment: Literal["start", "end"],
    *,
    fds: int = 20,
    tasks: int = 4,
    exchanges: int = 0,
    rss_bytes: int = 1 << 27,
    proxy: str = ONE,
) -> list[Event]:
    return [Gauge(1.0 if moment == "start" else 98.0, proxy, moment, fds, tasks, exchanges, rss_bytes)]


def test_whatever_is_left_behind_is_caught(policy: Policy) -> None:
    start = gauge("start")
    assert broken(policy, KEPT, start, gauge("end", fds=20 + FD_SLACK, tasks=4 + TASK_SLACK)) == set()
    assert broken(policy, KEPT, start, gauge("end", fds=21 + FD_SLACK)) == {"I7"}
    assert broken(policy, KEPT, start, gauge("end", tasks=5 + TASK_SLACK)) == {"I7"}
    assert broken(policy, KEPT, start, gauge("end", exchanges=1)) == {"I7"}
    assert broken(policy, KEPT, start, gauge("end", rss_bytes=3 * (1 << 26) + RSS_ROOM_BYTES + 1)) == {"I7"}
    assert broken(policy, KEPT, start) == broken(policy, KEPT, gauge("end")) == {"I7"}


def test_a_decision_that_the_policy_does_not_repeat_is_caught(policy: Policy) -> None:
    assert broken(policy, KEPT, call(1, 5, tool=RUN)) == set()
    assert broken(policy, KEPT, call(1, 5, tool=RUN, rule=RULES[TOOL])) == {"I8"}
    poor = [*change(0, NARROW), *end(99, NARROW)]
    assert broken(policy, poor, call(1, 5, tool=RUN, reason="message_denied")) == set()
    assert broken(policy, KEPT, call(1, 5, tool=RUN, reason="message_denied")) == {"I8"}


def test_a_line_about_the_wrong_key_is_caught(policy: Policy) -> None:
    right = call(1, 5)
    wrong = [*right[:-1], Decision(5.1, ONE, "request 1", "forwarded", 200, RULES[TOOL], "somebody", TOOL)]
    assert broken(policy, KEPT, right) == set()
    assert broken(policy, KEPT, wrong) == {"I8"}


def test_calling_a_living_key_dead_is_caught(policy: Policy) -> None:
    disabled = [*MADE, *change(9.5, DISABLED), *end(99, DISABLED)]
    assert broken(policy, disabled, refuse(1, 11, "key_disabled")) == set()
    assert broken(policy, disabled, refuse(1, 9, "key_disabled")) == {"I8"}
    assert broken(policy, disabled, refuse(1, 11, "key_expired")) == {"I8"}


def test_a_good_key_that_is_never_admitted_again_is_caught(policy: Policy) -> None:
    fault: list[Event] = [FaultBegun(6, "cut"), FaultEnded(10, "cut", frozenset({KEY}))]
    gauges = [*gauge("start"), *gauge("end"), *gauge("start", proxy=OTHER), *gauge("end", proxy=OTHER)]
    before = [*KEPT, *gauges, *call(1, 5), *call(2, 5, proxy=OTHER), *fault]
    assert broken(policy, before, call(3, 11), call(4, 11, proxy=OTHER)) == set()
    assert broken(policy, before, call(3, 11)) == {"recovery"}
    assert broken(policy, before, call(3, 11), refuse(4, 11, "state_unknown", 503, OTHER)) == {"recovery"}


def test_nothing_is_expected_of_keys_that_are_not_good_nor_of_proxies_that_are_gone(policy: Policy) -> None:
    before = [*KEPT, *call(1, 5), *gauge("start"), *gauge("end")]
    assert broken(policy, before, [FaultEnded(10, "cut")]) == set()
    gone = [*KEPT, *call(1, 5), *call(2, 11, proxy=OTHER)]
    assert broken(policy, gone, [FaultEnded(10, "cut", frozenset({KEY}))]) == set()


def test_statuses_that_say_we_broke_and_rooms_that_fell_over_are_caught(policy: Policy) -> None:
    assert broken(policy, KEPT, refuse(1, 5, "upstream_timeout", 504)) == set()
    assert broken(policy, KEPT, refuse(1, 5, "internal", 500)) == {"health"}
    assert broken(policy, KEPT, [Complained(5, ONE, "list_answer_dropped", "{}")]) == set()
    assert broken(policy, KEPT, [Complained(5, ONE, "handler_failed", "{}")]) == {"health"}


def test_a_client_that_left_breaks_nothing(policy: Policy) -> None:
    assert broken(policy, KEPT, [Sent(5, NONCES[1], KEY, ONE, TOOL), Failed(6, NONCES[1], "left")]) == set()


def test_the_measured_window_is_the_last_that_still_passed(policy: Policy) -> None:
    assert measure_window(merge(REVOKED_AT_10, call(1, 9)), policy) == 0
    assert measure_window(merge(REVOKED_AT_10, call(1, 10.25)), policy) == pytest.approx(0.25)
    assert measure_window(merge(REVOKED_AT_10, stream(1, 5, 11.5)), policy) == pytest.approx(1.5)


def test_bytes_give_away_their_nonces_their_stamp_and_their_reason() -> None:
    text = b'data: {"nonce":"nonce-00000000000a","emitted_at":1.5}\n\ndata: {"emitted_at": 2.25} nonce-00000000000b\n\n'
    assert find_nonces(text) == {form_nonce(10), form_nonce(11)}
    assert find_emitted_at(text) == 2.25
    assert find_emitted_at(b"nothing") is None
    assert find_reason(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"data":{"reason":"key_revoked"}}}') == "key_revoked"
    assert find_reason(b'event: message\ndata: {"error":{"data":{"reason":"draining"}}}\n\n') == "draining"
    assert find_reason(b'{"code":"state_unknown","error":"words"}') == "state_unknown"
    assert find_reason(b'{"jsonrpc":"2.0","id":1,"result":{}}') is None
    assert find_reason(b"\xff[1]\n[2]\n7") is None


def test_lines_of_a_log_become_events() -> None:
    request = (
        b'{"room":"decision","event":"request","level":"info","request_id":"r","outcome":"forwarded","status":200,'
        b'"decision":"allowed","rule":"a rule","key_id":"k","name":"t"}'
    )
    assert parse_proxy_line(request, proxy=ONE, at=1) == Decision(1, ONE, "r", "forwarded", 200, "a rule", "k", "t")
    denied = request.replace(b'"allowed"', b'"denied"').replace(b'"forwarded"', b'"message_denied"')
    assert parse_proxy_line(denied, proxy=ONE, at=1) == Decision(1, ONE, "r", "message_denied", 200, None, "k", "t")
    assert parse_proxy_line(b'{"event":"listening","level":"info"}', proxy=ONE, at=1) is None
    broken_line = b'{"event":"check_failed","level":"error"}'
    assert parse_proxy_line(broken_line, proxy=ONE, at=1) == Complained(1, ONE, "check_failed", broken_line.decode())
    assert parse_proxy_line(b"Segmentation fault", proxy=ONE, at=1) == Complained(
        1, ONE, "not_json", "Segmentation fault"
    )
    assert parse_upstream_line(b'{"at": 2.5, "id": "nonce-000000000001"}') == Received(2.5, form_nonce(1))
