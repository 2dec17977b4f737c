"""A proxy that serves: opened, followed until the first signal, drained, closed."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import AsyncExitStack

import uvloop

from proxy.cli.context import get_postgres_directory, with_database
from proxy.database import migrate
from proxy.errors import ConfigError, Fault
from proxy.fittings import raise_descriptor_limit
from proxy.logs import configure_logging, get_logger
from proxy.policy_files import PolicyFiles
from proxy.server import Proxy, run_proxy
from proxy.settings import Settings

log = get_logger("server")


def run(settings: Settings, *, embedded: bool, migrations: bool) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and leave. Raises ProxyError."""
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


async def wait_and_drain(proxy: Proxy) -> None:
    """Return after the first SIGTERM or SIGINT and the draining it starts; a second one cuts the draining short."""
    loop = asyncio.get_running_loop()
    told, again = asyncio.Event(), asyncio.Event()

    def hear() -> None:
        (again if told.is_set() else told).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hear)
    await told.wait()
    log.info("draining", exchanges=len(proxy.registry), budget_seconds=proxy.settings.server.drain_seconds)
    draining = asyncio.create_task(proxy.drain())
    impatient = asyncio.create_task(again.wait())
    await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
    proxy.end_all()
    for task in (draining, impatient):
        task.cancel()
    await asyncio.wait({draining, impatient})
    log.info("stopped")
