"""How results are printed: tables that fit the terminal for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from proxy.keys.minting import LOCAL_ISSUER
from proxy.keys.store import KeySummary
from proxy.receipts import Receipt

# What a list does without on a narrow terminal, first things first; and what it shortens, to no less than so much.
DISPENSABLE = ("CREATED", "SCOPES", "OWNER", "EXPIRES", "NAME")
SHORTENED = frozenset({"NAME", "OWNER", "SCOPES"})
RECOGNISABLE = 9
GAP = 2
NARROWEST = 12 + GAP + 14  # an id and the longest status: never cut, even if the terminal has to wrap them
COLORS = {"active": "green", "revoked": "red", "expired": "yellow", "disabled": "yellow", "owner disabled": "yellow"}


def say(text: str) -> None:
    """Tell a person something, on stderr. `text` is rich markup: foreign words in it go through `quote`."""
    _open_console(stderr=True).print(text, soft_wrap=True)


def say_error(text: str) -> None:
    """Tell a person what went wrong, on stderr; `text` is printed as it is."""
    _open_console(stderr=True).print(_make_printable(text, keep="\n"), style="red", markup=False, soft_wrap=True)


def quote(text: object) -> str:
    """Foreign words for `say`: neither markup nor commands to the terminal."""
    return escape(_make_printable(str(text)))


def _make_printable(text: str, keep: str = "") -> str:
    """Any role of the database can write names and reasons: an escape sequence in them must not reach a terminal."""
    return "".join(sign if sign.isprintable() or sign in keep else "\ufffd" for sign in text)


def _open_console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, emoji=False)  # `:key:` in a scope is no picture


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    json.dump(value, sys.stdout, default=_write_value, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def _write_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


def form_key(summary: KeySummary) -> dict[str, Any]:
    """A key as `--json` shows it."""
    return asdict(summary)


def print_keys(summaries: list[KeySummary]) -> None:
    """A table of keys on stdout, a line for each: ids and statuses whole, and as much of the rest as fits."""
    console = _open_console()
    console.width = max(console.width, NARROWEST)
    rows = [_form_row(summary) for summary in summaries]
    titles = _choose_columns(rows, console.width)
    table = Table(*titles, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, title in zip(table.columns, titles, strict=True):
        column.no_wrap = title not in SHORTENED  # rich shortens the others first
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    console.print(table)


def _form_row(summary: KeySummary) -> dict[str, Text]:
    cells = {
        "ID": Text(summary.id),
        "STATUS": Text(summary.status, COLORS[summary.status]),
        "NAME": Text(_make_printable(summary.name)),
        "OWNER": Text(_make_printable(summary.owner)),
        "SCOPES": Text(_make_printable(describe_scopes(summary))),
        "EXPIRES": Text(describe_moment(summary.expires_at, "never")),
        "CREATED": Text(describe_moment(summary.created_at, "")),
    }
    for cell in cells.values():
        cell.no_wrap, cell.overflow = True, "ellipsis"
    return cells


def _choose_columns(rows: list[dict[str, Text]], width: int) -> list[str]:
    """The columns that leave every shortened one enough to be recognised by; the least important go first."""
    titles = list(rows[0])
    needed = {title: max(len(title), *(row[title].cell_len for row in rows)) for title in titles}
    for title in SHORTENED:
        needed[title] = min(needed[title], RECOGNISABLE)
    for dispensable in DISPENSABLE:
        if sum(needed[title] + GAP for title in titles) - GAP > width:
            titles.remove(dispensable)
    return titles


def print_key(summary: KeySummary) -> None:
    """One key, a line for each fact, on stdout."""
    hidden = {"version", *(["issuer"] if summary.issuer == LOCAL_ISSUER else [])}
    print_facts({name: value for name, value in asdict(summary).items() if name not in hidden})


def print_facts(facts: Mapping[str, object]) -> None:
    """One thing, a line for each fact that there is, on stdout."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        if value is not None and value not in ((), {}):
            table.add_row(f"[bold]{name}[/]", quote(_describe_fact(value)))
    _open_console().print(table)


def _describe_fact(value: object) -> str:
    if isinstance(value, datetime):
        return describe_moment(value, "")
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_describe_fact(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    return " ".join(value) if isinstance(value, tuple) else str(value)


def describe_scopes(summary: KeySummary) -> str:
    """The preset's name, or the scopes themselves."""
    return summary.preset or " ".join(summary.scopes)


def describe_moment(moment: datetime | None, otherwise: str) -> str:
    """Minutes are enough, and UTC says so."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z" if moment else otherwise


def form_receipt(receipt: Receipt) -> dict[str, Any]:
    """A receipt as `--json` shows it."""
    return {
        "confirmed": receipt.confirmed,
        "milliseconds": receipt.milliseconds,
        "streams": sum(one.streams for one in receipt.instances),
        "calls": sum(one.calls for one in receipt.instances),
        "instances": [asdict(one) for one in receipt.instances],
    }


def print_receipt(key_id: str, receipt: Receipt) -> None:
    """What really happened, on stderr: who refuses the key since when, what was ended, and who did not say so."""
    if not receipt.instances:
        say(f"[red]Revoked[/] {key_id}. No proxy is running on this database.")
        return
    confirmed = [one for one in receipt.instances if one.state == "confirmed"]
    streams, calls = sum(one.streams for one in confirmed), sum(one.calls for one in confirmed)
    took = f" within {receipt.milliseconds:.0f} ms" if receipt.milliseconds is not None else ""
    say(
        f"[red]Revoked[/] {key_id}: refused on {len(confirmed)}/{len(receipt.instances)} instances{took};"
        f" {streams} streams and {calls} running calls ended."
    )
    for one in receipt.instances:
        if one.state == "fenced":
            say(f"[yellow]fenced[/] {one.instance} is silent beyond its bound: it has closed itself, unconfirmed.")
        elif one.state == "unconfirmed":
            say(f"[red]unconfirmed[/] {one.instance} has not said that it refuses the key.")


@contextmanager
def open_progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar on stderr while something takes long, gone when it is done: the caller tells each advance."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_open_console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda advance: progress.advance(task, advance)


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Lines of markup on stdout, each in its style ("" for none); never wrapped, so that they can be searched."""
    console = _open_console()
    for text, style in lines:
        console.print(text, style=style or None, soft_wrap=True)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of foreign words on stdout; what is too long for its column goes on below, and nothing is cut."""
    table = Table(*titles, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(_make_printable(cell)) for cell in row))
    _open_console().print(table)
