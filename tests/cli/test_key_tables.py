"""Keys in lists and alone: whole where it matters, within the terminal, marked where something is to be done."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from proxy.cli.key_tables import describe_age, print_key, print_keys
from proxy.keys.last_uses import LastRefusal, LastUse
from proxy.keys.store import KeySummary

MOMENT = datetime(2026, 11, 23, 16, 20, 59, 999, tzinfo=UTC)
NOW = MOMENT - timedelta(days=30)
COLUMNS = ["ID", "STATUS", "NAME", "OWNER", "SCOPES", "EXPIRES", "USED", "CREATED"]
STATUSES = ["active", "revoked", "expired", "disabled", "owner disabled"]


def form_summary(
    key_id: str = "Ab3dEf6hIj9k",
    name: str = "ci",
    owner: str = "ada",
    status: str = "active",
    scopes: tuple[str, ...] = ("workflow:run:nightly-etl", "agent:list"),
    expires_at: datetime | None = MOMENT,
) -> KeySummary:
    end = (None, None, None, None)
    return KeySummary(key_id, name, owner, "default", "pro", None, scopes, status, expires_at, MOMENT, "cli:ada", *end)


LONG = form_summary("Zz3dEf6hIj9k", "the nightly build of the warehouse", "ada.lovelace@analytical.example",
                    "owner disabled", ("workflow:run:nightly-etl",) * 20)  # fmt: skip


def print_at(
    width: int, summaries: list[KeySummary], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    print_keys(summaries, NOW)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, COLUMNS),
        (120, COLUMNS),
        (80, COLUMNS[:7]),
        (60, ["ID", "STATUS", "NAME", "EXPIRES", "USED"]),
        (40, ["ID", "STATUS", "NAME"]),
        (20, ["ID", "STATUS"]),
    ],
)
def test_the_less_room_the_fewer_columns(
    width: int, columns: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *lines = print_at(width, [form_summary(), LONG], monkeypatch, capsys)
    assert header.split() == columns
    assert len(lines) == 2
    assert lines[1].startswith("Zz3dEf6hIj9k  owner disabled")
    assert all(len(line) <= max(width, 28) for line in (header, *lines))
    if "EXPIRES" in columns:
        assert " 2026-11-23 " in lines[1]


def test_short_rows_are_not_cut_at_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = print_at(80, [form_summary(scopes=("agent:list",), expires_at=None)], monkeypatch, capsys)
    assert lines[1].split() == ["Ab3dEf6hIj9k", "active", "ci", "ada", "agent:list", "never", "never", "2026-11-23"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(1, 200),
    rows=st.lists(
        st.builds(
            form_summary,
            st.from_regex(r"[0-9A-Za-z]{12}", fullmatch=True),
            st.text(min_size=1, max_size=64),
            st.text(min_size=1, max_size=80),
            st.sampled_from(STATUSES),
            st.lists(st.text(max_size=60), max_size=5).map(tuple),
            st.none() | st.just(MOMENT),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_ids_and_statuses_are_whole_whatever_stands_beside_them(
    width: int, rows: list[KeySummary], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = print_at(width, rows, monkeypatch, capsys)[1:]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(f"{row.id}  {row.status}")
        assert cell_len(line) <= max(width, 28)
        assert line.isprintable()


def test_every_fact_of_a_key_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_key(form_summary(name="[bold]ci[/] :key:", expires_at=None), NOW)
    assert capsys.readouterr().out.splitlines() == [
        "id          Ab3dEf6hIj9k",
        "name        [bold]ci[/] :key:",
        "owner       ada",
        "tenant      default",
        "tier        pro",
        "scopes      workflow:run:nightly-etl agent:list",
        "status      active",
        "created_at  2026-11-23 16:20Z",
        "created_by  cli:ada",
        "last_used   never",
    ]


def test_what_became_of_a_key_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    use = LastUse(MOMENT, "192.0.2.1", "agent/1.0 \x1b[2J", "aegis.workflow.run", 17)
    refusal = LastRefusal(MOMENT, "message_denied")
    print_key(
        replace(form_summary(), last_used_at=MOMENT, last_used=use, last_refused=refusal,
                old_secret_last_used_at=MOMENT), NOW,
    )  # fmt: skip
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[-3:]] == [
        "last_used 2026-11-23 16:20Z from 192.0.2.1 by agent/1.0 \ufffd[2J: aegis.workflow.run (17 calls)",
        "last_refused 2026-11-23 16:20Z: message_denied",
        "old_secret_last_used_at 2026-11-23 16:20Z",
    ]


@pytest.mark.parametrize(
    ("status", "left", "marked"),
    [
        ("active", timedelta(days=14), True),
        ("active", timedelta(seconds=1), True),
        ("active", timedelta(days=14, seconds=1), False),
        ("disabled", timedelta(days=1), False),
        ("expired", timedelta(days=-1), False),
    ],
)
def test_a_key_that_ends_soon_is_marked_in_lists_and_said_of_alone(
    status: str, left: timedelta, marked: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, never = form_summary(status=status), form_summary(expires_at=None)
    monkeypatch.setenv("COLUMNS", "80")
    print_keys([summary, never], MOMENT - left)
    listed = capsys.readouterr()
    print_key(summary, MOMENT - left)
    print_key(never, MOMENT - left)
    alone = capsys.readouterr()
    assert [" ! " in line for line in listed.out.splitlines()] == [False, marked, False]
    assert ("expires within 14 days: 1." in listed.err) == marked
    assert ("keys update Ab3dEf6hIj9k --expires" in alone.err) == marked
    assert bool(listed.err or alone.err) == marked


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s ago"), (59.9, "59s ago"), (60, "1m ago"), (86_399, "23h ago"), (86_400 * 400, "400d ago"), (-5, "0s ago")],
)
def test_an_age_is_told_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert describe_age(MOMENT, MOMENT + timedelta(seconds=seconds)) == text
