"""How results are printed: tables that fit the terminal for people, JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from proxy.receipts import Receipt

GAP = 2
UNBOUNDED = 10_000  # columns: what is not for a terminal is cut nowhere


def say(text: str) -> None:
    """Tell a person something, on stderr. `text` is rich markup: foreign words in it go through `quote`."""
    open_console(stderr=True).print(text, soft_wrap=True)


def say_error(text: str) -> None:
    """Tell a person what went wrong, on stderr; `text` is printed as it is."""
    open_console(stderr=True).print(make_printable(text, keep="\n"), style="red", markup=False, soft_wrap=True)


def quote(text: object) -> str:
    """Foreign words for `say`: neither markup nor commands to the terminal."""
    return escape(make_printable(str(text)))


def make_printable(text: str, keep: str = "") -> str:
    """Any role of the database can write names and reasons: an escape sequence in them must not reach a terminal."""
    return "".join(sign if sign.isprintable() or sign in keep else "\ufffd" for sign in text)


def open_console(*, stderr: bool = False) -> Console:
    """As wide as the terminal, or as COLUMNS says; without either nothing has to fit."""
    console = Console(stderr=stderr, highlight=False, emoji=False)  # `:key:` in a scope is no picture
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUNDED
    return console


def show_table(table: Table, console: Console) -> None:
    """On stdout, without the blanks that make every line as long as the longest."""
    with console.capture() as captured:
        console.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().removesuffix("\n").split("\n"))


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    json.dump(value, sys.stdout, default=_write_value, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def _write_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


def print_facts(facts: Mapping[str, object]) -> None:
    """One thing, a line for each fact that there is, on stdout."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        if value is not None and value not in ((), {}):
            table.add_row(f"[bold]{name}[/]", quote(_describe_fact(value)))
    show_table(table, open_console())


def _describe_fact(value: object) -> str:
    if isinstance(value, datetime):
        return describe_moment(value, "")
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_describe_fact(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    return " ".join(value) if isinstance(value, tuple) else str(value)


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
    with Progress(*columns, console=open_console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda advance: progress.advance(task, advance)


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Lines of markup on stdout, each in its style ("" for none); never wrapped, so that they can be searched."""
    console = open_console()
    for text, style in lines:
        console.print(text, style=style or None, soft_wrap=True)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Collection[str] = ()) -> None:
    """A table of foreign words on stdout; what is too long for its column goes on below, and nothing is cut.

    `whole`: titles of columns that are short, and narrowed last."""
    table = Table(*titles, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, title in zip(table.columns, titles, strict=True):
        column.overflow = "fold"
        column.no_wrap = title in whole
    for row in rows:
        table.add_row(*(Text(make_printable(cell)) for cell in row))
    show_table(table, open_console())
