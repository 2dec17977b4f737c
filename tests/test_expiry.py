"""Ends that deserve a warning: those ahead, and close."""

from __future__ import annotations

import pytest

from proxy.expiry import DAY_SECONDS, WARNING_DAYS, form_moment, is_near, may_be_shared

NOW = 1_796_000_000.0
LAST = WARNING_DAYS * DAY_SECONDS


@pytest.mark.parametrize(
    ("end", "near"),
    [
        (None, False),
        (NOW, False),
        (NOW - 1, False),
        (NOW + 0.1, True),
        (NOW + LAST, True),
        (NOW + LAST + 0.1, False),
        (float("inf"), False),
    ],
)
def test_an_end_is_near_for_its_last_14_days(end: float | None, near: bool) -> None:
    assert is_near(end, NOW) is near


def test_a_moment_is_told_by_the_second_in_utc_and_never_later_than_it_is() -> None:
    assert form_moment(NOW + 0.9) == "2026-11-30T00:53:20Z"


@pytest.mark.parametrize(
    ("cache_control", "shared"),
    [
        (None, False),
        ("", False),
        ("no-store", False),
        ("private, max-age=60", False),
        ("max-age=60", False),
        ("Public", True),
        ("max-age=1,s-maxage=60", True),
        ("max-age=60, must-revalidate", True),
    ],
)
def test_an_answer_to_an_authorised_request_is_shared_only_where_it_says_so(
    cache_control: str | None, shared: bool
) -> None:
    assert may_be_shared(cache_control) is shared
