"""How often, and how long between: whatever happens, within what `Retry` says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis_sdk import ApiError, ConfigurationError, ConnectionFailedError, Retry
from aegis_sdk.retrying import Failure, find_wait

SECONDS = st.floats(0, 1000)
CHANCE = st.floats(0, 1, exclude_max=True)


def refused(status: int, retry_after: float | None = None) -> Failure:
    return Failure(ApiError("no", status=status, problem={}, retry_after=retry_after))


@given(st.builds(Retry, st.integers(1, 100), SECONDS, SECONDS), st.integers(1, 100), CHANCE)
def test_a_wait_lies_between_half_and_the_whole_of_what_it_may_be(retry: Retry, attempt: int, chance: float) -> None:
    wait = find_wait(retry, attempt, refused(503), chance)
    most = min(retry.longest_wait, retry.first_wait * 2.0 ** (attempt - 1))
    assert wait is None if attempt >= retry.attempts else (wait is not None and most / 2 <= wait <= most)


@given(SECONDS, CHANCE)
def test_nobody_comes_back_sooner_than_asked_or_waits_longer_than_allowed(asked: float, chance: float) -> None:
    wait = find_wait(Retry(), 1, refused(503, asked), chance)
    assert wait is None if asked > Retry().longest_wait else (wait is not None and wait >= asked)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 501, 505])
def test_other_refusals_are_final(status: int) -> None:
    assert find_wait(Retry(), 1, refused(status), 0.5) is None


@pytest.mark.parametrize(
    "failure", [refused(502), refused(503), refused(504), Failure(ConnectionFailedError("nobody there"), unsent=True)]
)
def test_what_may_pass_is_tried_again(failure: Failure) -> None:
    assert find_wait(Retry(attempts=2), 1, failure, 0.0) == Retry().first_wait / 2
    assert find_wait(Retry(attempts=2), 2, failure, 0.0) is None


def test_what_was_sent_and_not_answered_is_not_tried_again() -> None:
    assert find_wait(Retry(), 1, Failure(ConnectionFailedError("it broke")), 0.5) is None


@pytest.mark.parametrize("odd", [{"attempts": 0}, {"first_wait": -1}, {"longest_wait": -0.1}])
def test_a_retry_that_makes_no_sense_is_refused(odd: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Retry(**odd)  # type: ignore[arg-type]
