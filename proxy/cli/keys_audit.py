"""`aegis-proxy keys audit`: what was done to keys, and what requests showed of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from proxy.audit_trail import Event, read_events
from proxy.cli.context import ConfigOption, JsonOption, SinceOption, open_database, read_settings
from proxy.cli.key_options import not_found, read_id
from proxy.cli.output import describe_moment, print_json, print_table, say
from proxy.keys.store import KeyStore
from proxy.settings import Settings

MOST_EVENTS = 10_000
LONGEST_ACTOR = 14  # of an instance's, which is a UUID: its beginning is enough to tell it from the others


def _read_id(text: str | None) -> str | None:
    return None if text is None else read_id(text)


def show_audit(
    key: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only this key's.", show_default=False, callback=_read_id)
    ] = None,
    since: SinceOption = None,
    actor: Annotated[
        str | None, typer.Option(help="Only what this one did, such as cli:ada; cli, key or proxy is all of the kind.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=MOST_EVENTS)] = 50,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the audit, newest first: every change of keys and owners, denials, and what should make an owner look.

    `aegis-proxy keys audit ID --since 7d`
    """
    events, known = asyncio.run(_read(read_settings(config), key, actor, since, limit))
    if key is not None and not known:
        raise not_found(key)
    if json:
        print_json({"events": [asdict(event) for event in events]})
    elif events:
        titles = ("AT", "ACTOR", "ACTION", *(["KEY"] if key is None else []), "WHAT")
        print_table(titles, [_form_row(event, with_key=key is None) for event in events], whole=("AT", "KEY"))
    else:
        say("Nothing of the kind is written.")
    if len(events) == limit:
        say(f"These are the {limit} newest; there may be more: --limit, up to {MOST_EVENTS}.")


async def _read(
    settings: Settings, key: str | None, actor: str | None, since: datetime | None, limit: int
) -> tuple[list[Event], bool]:
    """The events, and whether there is such a key, or ever was."""
    async with open_database(settings) as database:
        events = await read_events(database, key_id=key, actor=actor, since=since, limit=limit)
        return events, bool(events) or key is None or await KeyStore(database).find_key(key) is not None


def _form_row(event: Event, *, with_key: bool) -> tuple[str, ...]:
    actor = event.actor[:LONGEST_ACTOR] if event.actor.startswith("proxy:") else event.actor
    about = (event.key_id or "-",) if with_key else ()
    return describe_moment(event.at, ""), actor, event.action, *about, describe_event(event)


def describe_event(event: Event) -> str:
    """What differs, in one line; of a denial, why."""
    before, after = event.before or {}, event.after or {}
    if "why" in after:
        count = after.get("count", 1)
        return str(after["why"]) if count == 1 else f"{after['why']} ({count} times)"
    gone = {name: None for name in before if name not in after}
    return "; ".join(
        f"{name}: {_describe(before[name])} → {_describe(value)}" if name in before else f"{name}: {_describe(value)}"
        for name, value in {**after, **gone}.items()
        if name in before or value not in (None, [], {})
    )


def _describe(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_describe(one)}" for name, one in value.items()) or "none"
    return str(value)
