"""`aegis-proxy db …`: the schema."""

from __future__ import annotations

import asyncio

import typer

from proxy.cli.context import ConfigOption, find_database_url, read_settings
from proxy.cli.output import say
from proxy.database import migrate

app = typer.Typer(help="Look after the database schema.", no_args_is_help=True)


@app.command("migrate")
def migrate_schema(config: ConfigOption = None) -> None:
    """Bring the schema up to date. Safe to run at any time, from several places at once."""
    applied = asyncio.run(migrate(find_database_url(read_settings(config))))
    for name in applied:
        say(f"[green]applied[/] {name}")
    if not applied:
        say("The schema is up to date.")


@app.callback()
def describe() -> None:
    """Look after the database schema."""
