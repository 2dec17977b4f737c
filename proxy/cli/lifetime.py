"""Until when a command that serves goes on: the first signal, and the draining it starts."""

from __future__ import annotations

import asyncio
import signal

from proxy.logs import get_logger
from proxy.server import Proxy

log = get_logger("server")


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
