"""What is said of keys, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.console.pages import (
    Held,
    Meter,
    find_held,
    find_one,
    find_one_workflow,
    find_unused,
    form_chart,
    judge_state,
    list_changes,
    list_hints,
    list_resources,
    measure_grace,
    name_deed,
    tell_actor,
    tell_moment,
    tell_number,
    tell_span,
)
from proxy.management.shown import DayUse, Event, GrantableScope, Key, Usage, Use

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


def form_event(action: str, before: Any = None, after: Any = None, at: datetime = NOW) -> Event:
    return Event(id=1, at=at, actor="jwt:local|ada", action=action, before=before, after=after)


def test_a_chart_shows_every_day_that_had_a_request() -> None:
    days = [DayUse(day=NOW.date(), allowed=allowed, denied=denied) for allowed, denied in ((0, 0), (1, 0), (900, 100))]
    chart = form_chart(days)
    assert (chart.allowed, chart.denied, chart.highest) == (901, 100, 1000)
    assert [(bar.allowed, bar.denied) for bar in chart.bars] == [(0, 0), (2, 0), (85, 9)]
    assert chart.bars[2].title == "29 Nov: 900 allowed, 100 denied"
    assert form_chart([]).highest == 0


def test_rights_that_nothing_rested_on_are_found() -> None:
    def form_usage(*scopes: str, allowed: bool = True) -> Usage:
        return Usage(days=(), uses=(Use(rule="r", scopes=scopes, allowed=allowed, count=1, last_at=NOW),))

    key = form_key(scopes=("agent:list", "workflow:run", "volume:read"))
    assert find_unused(key, form_usage("workflow:run:etl")) == ("agent:list", "volume:read")
    assert find_unused(key, form_usage("agent:list", allowed=False)) == ()
    assert find_unused(form_key(scopes=("*",)), form_usage("agent:list")) == ()


def test_what_is_left_of_a_grace_is_measured_from_the_rotation() -> None:
    key = form_key(old_secret_until=NOW + timedelta(minutes=30))
    begun = NOW - timedelta(minutes=30)
    assert measure_grace(key, [form_event("rotate", at=begun)], NOW) == Meter(begun, 3600, 1800)
    assert measure_grace(key, [form_event("update")], NOW) is None
    assert measure_grace(form_key(), [form_event("rotate")], NOW) is None


def test_history_is_told_in_words() -> None:
    assert name_deed(form_event("mint")) == "Created"
    assert name_deed(form_event("x" * 50)) == "x" * 40 + "…"
    assert list_changes(form_event("update", {"name": "a"}, {"name": "b"})) == ["name: a → b"]
    assert list_changes(form_event("mint", None, {"scopes": ["a:b", "c:d"], "constraints": {}})) == ["scopes: a:b, c:d"]
    assert list_changes(form_event("update", {"constraints": {}}, {"constraints": {"max_calls": 3}})) == [
        "constraints: none → max calls 3"
    ]
    assert list_changes(
        form_event("update", {"expires_at": None}, {"expires_at": "2027-02-17T20:28:09.975977+01:00"})
    ) == ["expires at: none → 17 Feb 2027, 19:28 UTC"]
    for name in ("2027-99-17T20:28:09+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        assert list_changes(form_event("update", {"name": "a"}, {"name": name})) == [f"name: a → {name}"]
    assert len(list_changes(form_event("x", None, {str(number): 1 for number in range(99)}))) == 12


@pytest.mark.parametrize(
    ("actor", "text"),
    [("jwt:https://id.example|ada", "ada"), ("jwt:https://id.example|auth0|ada", "auth0|ada"),
     ("key:0123456789ab", "key aegis_0123456789ab"),
     ("proxy:7ccc213b", "the proxy"), ("cli:root@host", "cli:root@host"), ("\x1b[31m", "\\x1b[31m")],
)  # fmt: skip
def test_who_did_it_is_told_plainly(actor: str, text: str) -> None:
    assert tell_actor(actor) == text


def test_what_a_key_holds_of_a_scope_is_all_of_it_or_some_or_nothing() -> None:
    scopes = ("volume:read", "workflow:run:nightly-etl", "workflow:run:a:b", "agent:list")
    assert find_held(scopes, "volume:read") == Held()
    assert find_held(scopes, "workflow:run") == Held(("nightly-etl", "a:b"))
    assert find_held(scopes, "workflow:read") is None
    assert find_held(("*",), "workflow:read") == Held()


@pytest.mark.parametrize(
    ("scopes", "workflow"),
    [
        (("workflow:run:nightly-etl",), "nightly-etl"),
        (("workflow:run:a:b",), "a:b"),
        (("workflow:run",), None),
        (("workflow:run:a", "workflow:run:b"), None),
        (("workflow:run:a", "agent:list"), None),
        (("*",), None),
        ((), None),
    ],
)
def test_a_key_for_one_workflow_is_known_as_one(scopes: tuple[str, ...], workflow: str | None) -> None:
    assert find_one(scopes) == workflow


def test_whole_numbers_have_no_point() -> None:
    assert [tell_number(number) for number in (5.0, 0.05, 3, 1_000_000.0)] == ["5", "0.05", "3", "1000000"]


def test_one_workflow_is_offered_where_it_can_be_given() -> None:
    def form_scope(scope: str, may: bool, *selectors: str, selector: str | None = "name") -> GrantableScope:
        return GrantableScope(
            scope=scope,
            title="",
            selector=selector,
            may=may,
            why_not=None if may else "no",
            selectors=selectors,
            listed=False,
        )

    assert find_one_workflow([form_scope("workflow:run", True)]) is not None
    assert find_one_workflow([form_scope("workflow:run", False, "etl")]) is not None
    assert find_one_workflow([form_scope("workflow:run", False)]) is None
    assert find_one_workflow([form_scope("workflow:run", True, selector=None)]) is None
    assert find_one_workflow([form_scope("agent:run", True)]) is None
