"""How results are printed: whole where it matters, within the terminal, and harmless to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from proxy.cli.output import describe_moment, print_facts, print_json, print_table, quote, say, say_error

MOMENT = datetime(2026, 11, 23, 16, 20, 59, 999, tzinfo=UTC)


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "\x9b2J", "\x07", "\u202eabc", "a\rb"])
def test_nothing_that_was_stored_commands_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"name": text})
    say(f"[green]Minted[/] {quote(text)}")
    captured = capsys.readouterr()
    assert all(line.isprintable() for line in captured.out.splitlines())
    assert captured.err.removesuffix("\n").isprintable()
    assert "\ufffd" in captured.out
    assert "\ufffd" in captured.err


def test_what_is_piped_is_cut_nowhere_unless_columns_says_how_wide_it_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("one", "word " * 60 + "end"), ("two", "short")]
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(("NAME", "TEXT"), rows)
    assert capsys.readouterr().out.split("\n") == ["NAME  TEXT", f"one   {rows[0][1]}", "two   short", ""]
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("NAME", "TEXT"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)


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
    print_json({"name": "ключ", "at": MOMENT.astimezone(timezone(timedelta(hours=5))), "scopes": ("a", "b")})
    text = capsys.readouterr().out
    assert "ключ" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"name": "ключ", "at": "2026-11-23T16:20:59.000999Z", "scopes": ["a", "b"]}


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
