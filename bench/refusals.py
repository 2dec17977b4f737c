"""Commit to first refusal: keys in use, revoked one after another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import asyncpg

from bench.stage import ProxyAddress, Wire, revoke, say


async def measure_refusals(url: str, proxies: Sequence[ProxyAddress], tokens: Sequence[str]) -> list[float]:
    """Milliseconds until each proxy has refused each key, which asks it without pause, one request at a time."""
    connection = await asyncpg.connect(url)
    times: list[float] = []
    for count, token in enumerate(tokens):
        if count and not count % 500:
            say(f"  {count:,} of {len(tokens):,} keys are revoked")
        wires = [Wire(proxy, token) for proxy in proxies]
        for wire in wires:
            status = await wire.ask()
            assert status == 200, f"a good key was answered {status}"
        refusing = [asyncio.create_task(wait_refused(wire)) for wire in wires]
        committed = await revoke(connection, [token])
        times += [(moment - committed) * 1000 for moment in await asyncio.gather(*refusing)]
    connection.terminate()
    return times


async def wait_refused(wire: Wire) -> float:
    """The time at which the key was refused."""
    while (status := await wire.ask()) == 200:
        pass
    moment = time.perf_counter()
    assert status == 401, f"a revoked key was answered {status}"
    wire.close()
    return moment
