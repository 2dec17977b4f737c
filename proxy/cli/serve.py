"""`aegis-proxy serve` and `aegis-proxy demo`: the proxy itself, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from proxy.cli.context import ConfigOption, get_postgres_directory, read_settings, with_database
from proxy.cli.lifetime import wait_and_drain
from proxy.cli.output import say
from proxy.database import migrate
from proxy.errors import ConfigError, Fault
from proxy.fittings import raise_descriptor_limit
from proxy.logs import configure_logging, get_logger
from proxy.policy_files import PolicyFiles
from proxy.server import run_proxy
from proxy.settings import Settings

log = get_logger("server")


def serve(
    config: ConfigOption = None,
    policy: Annotated[Path | None, typer.Option(help="The policy file; overrides the configuration.")] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Run a private PostgreSQL in the state directory.")
    ] = False,
    migrations: Annotated[
        bool, typer.Option("--migrate/--no-migrate", help="Bring the database schema up to date first.")
    ] = True,
) -> None:
    """Run the proxy until SIGTERM or Ctrl-C, then drain and leave."""
    settings = read_settings(config)
    if policy is not None:
        settings = settings.model_copy(update={"policy": policy})
    configure_logging(settings.log_level)
    raise_descriptor_limit()
    uvloop.run(_serve(settings, embedded=embedded, migrations=migrations))


async def _serve(settings: Settings, *, embedded: bool, migrations: bool) -> None:
    policy_files = PolicyFiles(settings.policy)
    policy = policy_files.load()
    if embedded and settings.database.url is not None:
        mend = "unset AEGIS_DATABASE_URL, or leave --embedded out"
        raise ConfigError([Fault("--embedded", None, "a database is configured as well: which one is meant?", mend)])
    async with AsyncExitStack() as stack:
        if embedded:
            from proxy.embedded_postgres import run_embedded_postgres

            directory = get_postgres_directory(settings)
            postgres = await stack.enter_async_context(
                run_embedded_postgres(directory, on_progress=lambda step: log.info("embedded_postgres", step=step))
            )
            settings = with_database(settings, postgres.url)
        if migrations and settings.database.url is not None:
            applied = await migrate(settings.database.url.get_secret_value())
            log.info("schema", applied=applied)
        proxy = await stack.enter_async_context(run_proxy(settings, policy, policy_files))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, policy_files.wake)
        spare_collections()
        await wait_and_drain(proxy)


def spare_collections() -> None:
    """Walking through all objects stops everything (measured: 50 to 110 ms for 500 streams), and it came when many were
    opened or ended. What stays for good is left out of it, and as requests leave no cycles it is seldom needed."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 100)


def demo(
    listen: Annotated[str, typer.Option(help="Where clients connect; port 0 picks a free one.")] = "127.0.0.1:8080",
    ops_listen: Annotated[str, typer.Option(help="Health and metrics.")] = "127.0.0.1:9090",
    policy: Annotated[Path | None, typer.Option(help="A policy file to try, edits included.")] = None,
) -> None:
    """Try it all on this machine: a database, a sample MCP server, the proxy, and a key for each preset.

    Everything is thrown away on Ctrl-C.
    """
    try:
        from proxy.demo.command import run_demo
    except ModuleNotFoundError as error:
        say(f'The demo needs {error.name}: pip install "aegis-mcp-proxy\\[demo]"')
        sys.exit(1)
    uvloop.run(run_demo(listen, ops_listen, policy))
