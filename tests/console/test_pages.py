"""What is said of keys, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.console.pages import judge_state, list_hints, list_resources, tell_moment, tell_span
from proxy.management.shown import Key

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def form_key(**changes: Any) -> Key:
    values: dict[str, Any] = {
        "id": "0" * 12, "name": "ci", "owner": "ada", "issuer": "local", "tenant_id": "t", "tier": "pro",
        "preset": None, "scopes": ("agent:list",), "status": "active", "expires_at": NOW + timedelta(days=90),
        "created_at": NOW, "created_by": "test", "parent_id": None, "constraints": {}, "version": 1,
        "old_secret_until": None, "revoked_at": None, "revoked_by": None, "revoked_reason": None,
        "last_used_at": None, "last_used": None, "last_refused": None, "old_secret_last_used_at": None,
    }  # fmt: skip
    return Key(**values | changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "Active"),
        ({"expires_at": None}, "Active"),
        ({"expires_at": NOW + timedelta(days=13)}, "Expires soon"),
        ({"expires_at": NOW + timedelta(days=1), "status": "revoked"}, "Revoked"),
        ({"status": "owner_disabled"}, "Account disabled"),
    ],
)
def test_the_state_of_a_key_is_a_word(changes: dict[str, Any], word: str) -> None:
    assert judge_state(form_key(**changes), NOW).word == word


@pytest.mark.parametrize(
    ("changes", "hints"),
    [
        ({}, []),
        ({"expires_at": None}, ["Never expires"]),
        ({"expires_at": NOW + timedelta(days=5)}, ["Expires in 5 days"]),
        ({"scopes": ("*",)}, ["Can do everything"]),
        ({"created_at": NOW - timedelta(days=8)}, ["Never used"]),
        ({"created_at": NOW - timedelta(days=6)}, []),
        ({"last_used_at": NOW - timedelta(days=91)}, ["Unused for 3 months"]),
        ({"last_used_at": NOW - timedelta(days=89)}, []),
        ({"expires_at": None, "status": "revoked"}, []),
    ],
)
def test_what_deserves_a_look_is_said(changes: dict[str, Any], hints: list[str]) -> None:
    found = list_hints(form_key(**changes), NOW)
    assert [hint.startswith(start) for hint, start in zip(found, hints, strict=True)] == [True] * len(hints)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(hours=47), "1 day"),
        (timedelta(days=-2), "2 days"),
        (timedelta(days=800), "2 years"),
    ],
)
def test_a_span_is_told_in_its_largest_unit(span: timedelta, text: str) -> None:
    assert tell_span(span) == text


def test_moments_and_resources_are_told_plainly() -> None:
    assert tell_moment(NOW) == "29 Nov 2026, 12:00 UTC"
    assert list_resources(("agent:list", "agent:read", "volume:read:v-1")) == "3 rights over agents, volumes"
    assert list_resources(("*",)) == "Whatever your account may do, now and later"
