"""How results are printed: tables that fit the terminal for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.keys.store import KeySummary

COLORS = {"active": "green", "revoked": "red", "expired": "yellow", "disabled": "yellow", "owner disabled": "yellow"}


def say(text: str) -> None:
    """Tell a person something, on stderr. `text` is rich markup."""
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def say_error(text: str) -> None:
    """Tell a person what went wrong, on stderr; `text` is printed as it is."""
    Console(stderr=True, highlight=False).print(text, style="red", markup=False, soft_wrap=True)


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
    """A table of keys on stdout."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ID", "NAME", "OWNER", "SCOPES", "STATUS", "EXPIRES", "CREATED"):
        table.add_column(column, overflow="fold" if column in ("ID", "STATUS") else "ellipsis", no_wrap=True)
    for summary in summaries:
        color = COLORS[summary.status]
        table.add_row(
            summary.id, escape(summary.name), escape(summary.owner), escape(describe_scopes(summary)),
            f"[{color}]{summary.status}[/]", describe_moment(summary.expires_at, "never"),
            describe_moment(summary.created_at, ""),
        )  # fmt: skip
    Console(highlight=False).print(table)


def print_key(summary: KeySummary) -> None:
    """One key, a line for each fact, on stdout."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in asdict(summary).items():
        if value is not None and value != ():
            shown = describe_moment(value, "") if isinstance(value, datetime) else value
            table.add_row(f"[bold]{name}[/]", escape(" ".join(shown) if isinstance(shown, tuple) else str(shown)))
    Console(highlight=False).print(table)


def describe_scopes(summary: KeySummary) -> str:
    """The preset's name, or the scopes themselves."""
    return summary.preset or " ".join(summary.scopes)


def describe_moment(moment: datetime | None, otherwise: str) -> str:
    """Minutes are enough, and UTC says so."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z" if moment else otherwise
