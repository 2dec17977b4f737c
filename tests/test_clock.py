"""Clocks: boot time that never runs backwards, and the database's time that is never behind."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.clock import DRIFT, Clock, DatabaseClock, SystemClock
from tests.clocks import ManualClock


def test_boot_time_counts_sleep_and_never_runs_backwards() -> None:
    clock: Clock = SystemClock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    first, second = clock.boot(), clock.boot()
    assert before <= first <= second <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_wall_time_is_the_systems() -> None:
    clock: Clock = SystemClock()
    before = time.time()
    assert before <= clock.wall() <= time.time()


def test_a_manual_clock_moves_only_when_told() -> None:
    clock: Clock = (manual := ManualClock(boot=5.0, wall=50.0))
    assert (clock.boot(), clock.wall()) == (5.0, 50.0)
    manual.advance(2.5)
    assert (clock.boot(), clock.wall()) == (7.5, 52.5)
    manual.set_wall(0.0)
    assert (clock.boot(), clock.wall()) == (7.5, 0.0)


def test_everything_has_expired_before_the_database_was_asked() -> None:
    assert DatabaseClock().now(1.0) == math.inf


def test_the_answer_is_dated_at_the_question_so_that_expiry_is_early() -> None:
    clock = DatabaseClock()
    clock.observe(1000.0, asked_at_boot=10.0, answered_at_boot=10.2)
    assert clock.now(10.0) == 1000.0
    assert clock.now(20.0) == 1010.0


def test_a_slow_answer_does_not_spoil_what_a_quick_one_taught() -> None:
    clock = DatabaseClock()
    clock.observe(1000.0, 10.0, 10.001)
    clock.observe(1001.9, 11.0, 11.9)
    assert clock.now(12.0) == pytest.approx(1002.0, abs=2 * DRIFT)


def test_a_database_clock_set_back_or_forward_is_followed_at_once() -> None:
    clock = DatabaseClock()
    clock.observe(1000.0, 10.0, 10.0)
    clock.observe(4600.0, 11.0, 11.0)
    assert clock.now(11.0) == 4600.0
    clock.observe(1001.0, 12.0, 12.0)
    assert clock.now(12.0) == 1001.0


def test_skew_is_how_far_the_database_is_ahead_of_us() -> None:
    clock = DatabaseClock()
    clock.observe(1000.0, 10.0, 10.0)
    assert clock.skew_seconds(boot=11.0, wall=998.0) == 3.0
    assert clock.skew_seconds(boot=11.0, wall=1003.0) == -2.0


TRIPS = st.lists(
    st.tuples(
        st.floats(0, 60),  # until the next question
        st.floats(0, 5),  # from the question to the reading
        st.floats(0, 5),  # from the reading to the answer
    ),
    min_size=1,
    max_size=20,
)


@given(start=st.floats(0, 1e6), ahead=st.floats(-1e9, 1e9), rate=st.floats(-DRIFT, DRIFT), trips=TRIPS)
def test_the_carried_clock_is_never_behind_and_ahead_by_the_last_round_trip_at_most(
    start: float, ahead: float, rate: float, trips: list[tuple[float, float, float]]
) -> None:
    def true_time(boot: float) -> float:
        return boot + ahead + rate * (boot - start)

    clock, boot = DatabaseClock(), start
    for pause, there, back in trips:
        asked = boot + pause
        boot = asked + there + back
        clock.observe(true_time(asked + there), asked, boot)
        # Drift since the reading, and what 64-bit floats lose around 1e9 seconds.
        slack = DRIFT * (there + back) + 1e-5
        assert -slack <= clock.now(boot) - true_time(boot) <= there + back + slack
