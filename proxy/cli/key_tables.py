"""How keys are shown: lists that fit the terminal, and one key with every fact of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from proxy.cli.output import GAP, describe_moment, make_printable, open_console, print_facts, say, show_table
from proxy.expiry import WARNING_DAYS, is_near
from proxy.identity import LOCAL_ISSUER
from proxy.keys.last_uses import LastUse
from proxy.keys.store import KeySummary

# What a list does without on a narrow terminal, first things first; and what it shortens, to no less than so much.
DISPENSABLE = ("CREATED", "SCOPES", "OWNER", "USED", "EXPIRES", "NAME")
SHORTENED = frozenset({"NAME", "OWNER", "SCOPES"})
RECOGNISABLE = 9
NARROWEST = 12 + GAP + 14  # an id and the longest status: never cut, even if the terminal has to wrap them
COLORS = {"active": "green", "revoked": "red", "expired": "yellow", "disabled": "yellow", "owner disabled": "yellow"}
SOON = " !"  # beside a date, for who sees no colours
HIDDEN = ("version", "last_used_at")  # from who reads facts: the one is for scripts, the other said again
AGES = ((86_400, "d"), (3_600, "h"), (60, "m"))


def form_key(summary: KeySummary) -> dict[str, Any]:
    """A key as `--json` shows it."""
    return asdict(summary)


def print_keys(summaries: Sequence[KeySummary], now: datetime) -> None:
    """A table of keys on stdout, a line for each: ids and statuses whole, and as much of the rest as fits."""
    console = open_console()
    console.width = max(console.width, NARROWEST)
    rows = [_form_row(summary, now) for summary in summaries]
    titles = _choose_columns(rows, console.width)
    table = Table(*titles, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, title in zip(table.columns, titles, strict=True):
        column.no_wrap = title not in SHORTENED  # rich shortens the others first
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    show_table(table, console)
    expiring = sum(expires_soon(summary, now) for summary in summaries)
    if expiring:
        say(f"[yellow]![/] expires within {WARNING_DAYS} days: {expiring}. See: aegis-proxy keys show ID")


def _form_row(summary: KeySummary, now: datetime) -> dict[str, Text]:
    expires = f"{summary.expires_at.astimezone(UTC):%Y-%m-%d}" if summary.expires_at else "never"
    soon = expires_soon(summary, now)
    cells = {
        "ID": Text(summary.id),
        "STATUS": Text(summary.status, COLORS.get(summary.status, "red")),
        "NAME": Text(make_printable(summary.name)),
        "OWNER": Text(make_printable(summary.owner)),
        "SCOPES": Text(make_printable(describe_scopes(summary))),
        "EXPIRES": Text(expires + SOON, "yellow") if soon else Text(expires),
        "USED": Text(describe_age(summary.last_used_at, now)),
        "CREATED": Text(f"{summary.created_at.astimezone(UTC):%Y-%m-%d}"),
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


def print_key(summary: KeySummary, now: datetime) -> None:
    """One key, a line for each fact, on stdout; and on stderr what is to be done about it soon."""
    hidden = {*HIDDEN, *(["issuer"] if summary.issuer == LOCAL_ISSUER else [])}
    facts = {name: value for name, value in asdict(summary).items() if name not in hidden}
    facts["last_used"] = describe_use(summary.last_used) if summary.last_used else "never"
    if summary.last_refused:
        facts["last_refused"] = f"{describe_moment(summary.last_refused.at, '')}: {summary.last_refused.reason}"
    print_facts(facts)
    if summary.expires_at is not None and expires_soon(summary, now):
        left = describe_left(summary.expires_at, now)
        say(f"[yellow]![/] It expires in {left}. To go on: aegis-proxy keys update {summary.id} --expires 90d")


def expires_soon(summary: KeySummary, now: datetime) -> bool:
    """Whether it is let in now, and will not be for long."""
    end = summary.expires_at
    return summary.status == "active" and is_near(end.timestamp() if end else None, now.timestamp())


def describe_scopes(summary: KeySummary) -> str:
    """The preset's name, or the scopes themselves."""
    return summary.preset or " ".join(summary.scopes)


def describe_use(use: LastUse) -> str:
    """When, from where, by whom, for what, and how many there were."""
    where = f" from {use.address}" if use.address else ""
    by = f" by {use.user_agent}" if use.user_agent else ""
    return f"{describe_moment(use.at, '')}{where}{by}: {use.tool} ({use.count} calls)"


def describe_age(moment: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    return "never" if moment is None else f"{_describe_span((now - moment).total_seconds())} ago"


def describe_left(moment: datetime, now: datetime) -> str:
    """How long it is until then."""
    return _describe_span((moment - now).total_seconds())


def _describe_span(seconds: float) -> str:
    for length, unit in AGES:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
