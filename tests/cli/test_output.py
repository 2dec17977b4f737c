"""How results are printed: whole where it matters, within the terminal, and harmless to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from proxy.cli.output import describe_moment, form_key, print_json, print_key, print_keys, quote, say, say_error
from proxy.keys.store import KeySummary

MOMENT = datetime(2026, 11, 23, 16, 20, 59, 999, tzinfo=UTC)
COLUMNS = ["ID", "STATUS", "NAME", "OWNER", "SCOPES", "EXPIRES", "CREATED"]
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
    print_keys(summaries)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, COLUMNS),
        (120, COLUMNS),
        (80, COLUMNS[:6]),
        (60, ["ID", "STATUS", "NAME", "EXPIRES"]),
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
        assert "2026-11-23 16:20Z" in lines[1]


def test_short_rows_are_not_cut_at_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = print_at(80, [form_summary(scopes=("agent:list",), expires_at=None)], monkeypatch, capsys)
    assert lines[1].split() == ["Ab3dEf6hIj9k", "active", "ci", "ada", "agent:list", "never", "2026-11-23", "16:20Z"]


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
    print_key(form_summary(name="[bold]ci[/] :key:", expires_at=None))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "id          Ab3dEf6hIj9k",
        "name        [bold]ci[/] :key:",
        "owner       ada",
        "tenant      default",
        "tier        pro",
        "scopes      workflow:run:nightly-etl agent:list",
        "status      active",
        "created_at  2026-11-23 16:20Z",
        "created_by  cli:ada",
    ]


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "\x9b2J", "\x07", "\u202eabc", "a\rb"])
def test_nothing_that_was_stored_commands_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_key(form_summary(name=text))
    say(f"[green]Minted[/] {quote(text)}")
    captured = capsys.readouterr()
    assert all(line.isprintable() for line in captured.out.splitlines())
    assert captured.err.removesuffix("\n").isprintable()
    assert "\ufffd" in captured.out
    assert "\ufffd" in captured.err


def test_an_error_is_printed_as_it_is_but_for_commands_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say_error("[/] [bold]first[/bold] :key:\nsecond \x1b[31m " + "long " * 100)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "[/] [bold]first[/bold] :key:\nsecond \ufffd[31m " + "long " * 100 + "\n"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quoted_words_are_said_as_they_are(text: str) -> None:
    assert Text.from_markup(f"[green]x[/] {quote(text)}[red]y[/]", emoji=False).plain == (
        "x " + "".join(sign if sign.isprintable() else "\ufffd" for sign in text) + "y"
    )


def test_json_holds_moments_in_utc_and_every_script(capsys: pytest.CaptureFixture[str]) -> None:
    summary = form_summary(name="ключ", expires_at=MOMENT.astimezone(timezone(timedelta(hours=5))))
    print_json(form_key(summary))
    text = capsys.readouterr().out
    assert "ключ" in text
    assert text.endswith("}\n")
    assert json.loads(text)["expires_at"] == "2026-11-23T16:20:59.000999Z"
    assert json.loads(text)["scopes"] == ["workflow:run:nightly-etl", "agent:list"]


def test_what_is_not_json_is_refused_and_not_written_as_its_repr() -> None:
    with pytest.raises(TypeError, match=r"^object is not JSON$"):
        print_json({"value": object()})


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, "never"),
        (MOMENT, "2026-11-23 16:20Z"),
        (datetime(2026, 11, 23, 1, 5, tzinfo=timezone(timedelta(hours=2))), "2026-11-22 23:05Z"),
    ],
)
def test_a_moment_is_told_to_the_minute_in_utc(moment: datetime | None, text: str) -> None:
    assert describe_moment(moment, "never") == text
