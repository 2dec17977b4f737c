"""What every command needs before it can begin: settings, and a database to talk to."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import SecretStr

from proxy.database import Database
from proxy.errors import ConfigError, Fault
from proxy.settings import Settings, load_settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration file. Default: the shipped gateway.yaml.", show_default=False),
]
_AGO: Final = re.compile(r"(\d{1,4})([mhd])", re.ASCII)
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def read_since(text: str) -> datetime:
    """`30m`, `24h`, `7d` ago, or an ISO date or time (UTC unless it says otherwise)."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return datetime.now(UTC) - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("neither like 30m, 24h or 7d, nor an ISO date or time") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


SinceOption = Annotated[
    datetime | None,
    typer.Option(parser=read_since, metavar="WHEN", help="Nothing older: 30m, 24h, 7d, or an ISO date or time (UTC)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]


def get_postgres_directory(settings: Settings) -> Path:
    """Where the embedded database of `serve --embedded` lives."""
    return settings.state_dir / "postgres"


def read_settings(config: Path | None) -> Settings:
    """The settings of this command. Raises ConfigError."""
    return load_settings(config, os.environ)


def find_database_url(settings: Settings) -> str:
    """The configured database, or the embedded one if a proxy on this machine is running it. Raises ConfigError."""
    if settings.database.url is not None:
        return settings.database.url.get_secret_value()
    from proxy.embedded_postgres import read_embedded_url

    url = read_embedded_url(get_postgres_directory(settings))
    if url is None:
        mend = "set AEGIS_DATABASE_URL, or start `aegis-proxy serve --embedded` first"
        raise ConfigError([Fault("AEGIS_DATABASE_URL", None, "there is no database to talk to", mend)])
    return url


def with_database(settings: Settings, url: str) -> Settings:
    """The same settings, with this database."""
    database = settings.database.model_copy(update={"url": SecretStr(url), "listener_url": None})
    return settings.model_copy(update={"database": database})


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """One connection, with more patience than the request path has. Raises ConfigError, DatabaseError."""
    async with Database.open(
        find_database_url(settings),
        min_size=1,
        max_size=1,
        connect_timeout_seconds=settings.database.connect_timeout_seconds,
        query_timeout_seconds=10.0,
    ) as database:
        yield database


def get_actor() -> str:
    """Who is at the keyboard, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's uid without a name
        return f"cli:{os.getuid()}"
