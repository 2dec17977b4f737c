"""How often, and how long between: whatever happens, within what `Retry` says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis_sdk import ConfigurationError, Retry
from aegis_sdk.retrying import Failure, find_wait

SECONDS = st.floats(0, 1000)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.builds(Retry, st.integers(1, 100), SECONDS, SECONDS), st.integers(1, 100), CHANCE)
def test_a_wait_lies_between_half_and_the_whole_of_what_it_may_be(retry: Retry, attempt: int, chance: float) -> None:
    wait = find_wait(retry, attempt, Failure(503), chance)
    most = min(retry.longest_wait, retry.first_wait * 2.0 ** (attempt - 1))
    assert wait is None if attempt >= retry.attempts else (wait is not None and most / 2 <= wait <= most)


@given(SECONDS, CHANCE)
def test_nobody_comes_back_sooner_than_asked_or_waits_longer_than_allowed(asked: float, chance: float) -> None:
    wait = find_wait(Retry(), 1, Failure(503, asked), chance)
    assert wait is None if asked > Retry().longest_wait else (wait is not None and wait >= asked)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 501, 505])
def test_other_refusals_are_final(status: int) -> None:
    assert find_wait(Retry(), 1, Failure(status), 0.5) is None


@pytest.mark.parametrize("status", [502, 503, 504, None])
def test_what_may_pass_is_tried_again(status: int | None) -> None:
    assert find_wait(Retry(attempts=2), 1, Failure(status), 0.0) == Retry().first_wait / 2
    assert find_wait(Retry(attempts=2), 2, Failure(status), 0.0) is None


@pytest.mark.parametrize("odd", [{"attempts": 0}, {"first_wait": -1}, {"longest_wait": -0.1}])
def test_a_retry_that_makes_no_sense_is_refused(odd: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Retry(**odd)  # type: ignore[arg-type]
