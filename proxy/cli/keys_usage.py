"""`aegis-proxy keys usage`: what a key did, by day and by rule."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from proxy.cli.context import ConfigOption, JsonOption, open_database, read_settings
from proxy.cli.key_options import KeyArgument, not_found
from proxy.cli.key_tables import describe_use
from proxy.cli.output import (
    GAP,
    describe_moment,
    open_console,
    print_json,
    print_lines,
    print_table,
    quote,
    say,
    show_table,
)
from proxy.identity import KeyId
from proxy.keys.store import KeyStore, KeySummary
from proxy.settings import Settings
from proxy.usage import DayUse, KeyUsage, read_usage

LONGEST_DAYS = 400  # as long as counts are kept
MOST_DAYS = 31  # with a line of their own; beyond, each stands for a week
WEEK = 7
MOST_USES = 10
LONGEST_BAR, SHORTEST_BAR = 40, 8
ALLOWED, DENIED = "█", "░"  # told apart without colours, too


def show_usage(
    key: KeyArgument,
    days: Annotated[int, typer.Option(help="How far to look back, today included.", min=1, max=LONGEST_DAYS)] = 30,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show what a key did: how often it was let through and denied, day by day, and by which rules and scopes.

    Running proxies add what they counted every few seconds (`usage.flush_seconds`). Days are UTC.

    `aegis-proxy keys usage ID --days 7`
    """
    found = asyncio.run(_read(read_settings(config), key, days))
    if found is None:
        raise not_found(key)
    summary, usage = found
    if json:
        print_json(_form_json(summary, usage))
    else:
        _print_usage(summary, usage)


async def _read(settings: Settings, key: str, days: int) -> tuple[KeySummary, KeyUsage] | None:
    async with open_database(settings) as database:
        summary = await KeyStore(database).find_key(key)
        return None if summary is None else (summary, await read_usage(database, KeyId(key), days))


def _form_json(summary: KeySummary, usage: KeyUsage) -> dict[str, Any]:
    return {
        "id": summary.id,
        "name": summary.name,
        "last_used": summary.last_used and asdict(summary.last_used),
        "last_refused": summary.last_refused and asdict(summary.last_refused),
        "days": [{"day": one.day.isoformat(), "allowed": one.allowed, "denied": one.denied} for one in usage.by_day],
        "uses": [
            {
                "rule": use.rule or None, "scopes": list(use.scopes), "allowed": use.allowed, "count": use.count,
                "last_at": use.last_at,
            }
            for use in usage.uses
        ],
    }  # fmt: skip


def _print_usage(summary: KeySummary, usage: KeyUsage) -> None:
    made = summary.created_at.astimezone(UTC).date()
    days = [one for one in usage.by_day if one.day >= made or one.allowed or one.denied]
    used = f"Last used {describe_use(summary.last_used)}" if summary.last_used else "Never used."
    refused = summary.last_refused
    lines = [(f"[bold]{quote(summary.name)}[/] ({quote(summary.id)}) of {quote(summary.owner)}", ""), (quote(used), "")]
    if refused is not None:
        lines.append((quote(f"Last refused {describe_moment(refused.at, '')}: {refused.reason}"), ""))
    print_lines(lines)
    if usage.uses:
        print_lines([("", "")])
        print_chart(days)
        print_lines([("", "")])
        titles = ("RULE", "SCOPES", "OUTCOME", "CALLS", "LAST")
        print_table(titles, _form_rows(usage), whole={*titles} - {"SCOPES"})
    allowed, denied = sum(one.allowed for one in days), sum(one.denied for one in days)
    say(f"{allowed} calls allowed and {denied} denied in {len(days)} days.")
    if len(usage.uses) > MOST_USES:
        say(f"Of {len(usage.uses)} rules and scopes the {MOST_USES} most frequent are shown; --json has all.")


def _form_rows(usage: KeyUsage) -> Iterator[tuple[str, ...]]:
    for use in usage.uses[:MOST_USES]:
        outcome = "allowed" if use.allowed else "denied"
        yield use.rule or "none", " ".join(use.scopes) or "-", outcome, str(use.count), describe_moment(use.last_at, "")


def print_chart(days: Sequence[DayUse]) -> None:
    """A line for each day, or week, on stdout, whose bar is as long as its calls are many."""
    by_week = len(days) > MOST_DAYS
    rows = _sum_weeks(days) if by_week else [(one.day, one.allowed, one.denied) for one in days]
    console = open_console()
    widths = [max(10, len("WEEK OF")), *(max(7, len(str(max(row[part] for row in rows)))) for part in (1, 2))]
    room = max(SHORTEST_BAR, min(LONGEST_BAR, console.width - sum(widths) - GAP * len(widths)))
    most = max((allowed + denied for _, allowed, denied in rows), default=0)
    titles = ("WEEK OF" if by_week else "DAY", "ALLOWED", "DENIED", f"{ALLOWED} allowed {DENIED} denied")
    table = Table(*titles, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    table.columns[1].justify = table.columns[2].justify = "right"
    for day, allowed, denied in rows:
        table.add_row(day.isoformat(), str(allowed), str(denied), _form_bar(allowed, denied, most, room))
    show_table(table, console)


def _sum_weeks(days: Sequence[DayUse]) -> list[tuple[date, int, int]]:
    """Weeks that end today, so that the last one is whole."""
    first = len(days) % WEEK
    weeks = [days[:first]] if first else []
    weeks += [days[begin : begin + WEEK] for begin in range(first, len(days), WEEK)]
    return [(week[0].day, sum(one.allowed for one in week), sum(one.denied for one in week)) for week in weeks]


def _form_bar(allowed: int, denied: int, most: int, room: int) -> Text:
    """What happened at all can be seen, however seldom it was."""
    if not most:
        return Text()
    long_allowed, long_denied = (max(round(count * room / most), 1) if count else 0 for count in (allowed, denied))
    if long_allowed + long_denied > room:
        long_allowed, long_denied = (room - 1, 1) if long_denied == 1 else (room - long_denied, long_denied)
    return Text.assemble((ALLOWED * long_allowed, "green"), (DENIED * long_denied, "red"))
