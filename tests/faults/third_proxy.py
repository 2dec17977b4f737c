"""A third proxy, with settings, an environment and limits of its own, for faults that the shared two must not have.

In go a world and what is special, out comes a door to it, while it lasts. It uses the first proxy's ways to the
database. It leaves in order, so that every line of its log is heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from tests.faults.journal import Answered, Failed
from tests.faults.load import Door
from tests.faults.processes import ProxyProcess
from tests.faults.relay import Relay
from tests.faults.world import REAL, Timing, World, start_proxy
from tests.staging import ACCEPT, GUARD_SECONDS, MODERN, MODERN_META, form_call

POLL_SECONDS = 0.02
UNKNOWN = frozenset(("database_silent", "state_unknown", "hashing_busy"))


@dataclass(frozen=True, slots=True)
class ThirdProxy:
    process: ProxyProcess
    door: Door

    async def wait_exchanges(self, number: int, guard_seconds: float = GUARD_SECONDS) -> None:
        """Return once so many calls and streams are open, no more and no less."""
        async with asyncio.timeout(guard_seconds):
            while (await self.process.read_readiness())["exchanges"] != number:
                await asyncio.sleep(POLL_SECONDS)

    async def read_metric(self, name: str) -> float:
        return await read_metric(self.process, name)


@asynccontextmanager
async def run_third_proxy(
    world: World,
    *,
    timing: Timing = REAL,
    direct: bool = False,
    environ: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    **sections: dict[str, Any],
) -> AsyncIterator[ThirdProxy]:
    """Ready when it comes; told to stop, and at rest, when the context ends.

    `timing`: that of the shared two if its news matters, else one that a busy machine keeps up with.
    `direct`: it reaches the upstream without a relay, which would answer in place of a peer that is gone.
    """
    upstream = world.upstream_relay
    if direct:
        assert isinstance(upstream.target, int)
        upstream = Relay(upstream.target, upstream.target)
    async with AsyncExitStack() as stack:
        process = await start_proxy(
            "proxy-third", world.links[0], upstream, world.directory, timing, world.journal, stack,
            **sections,
        )  # fmt: skip
        if environ or prefix:
            await process.stop()
            process.environ |= environ or {}
            process.prefix = prefix
            await process.start()
        world.admin.instances[process.instance] = process.name
        await process.wait_readiness()
        third = ThirdProxy(process, Door(process.name, partial(getattr, process, "data")))
        yield third
        if process.process is not None and process.process.returncode is None:
            await third.wait_exchanges(0)
            await process.stop()


async def read_metric(process: ProxyProcess, name: str) -> float:
    """A figure without labels from `/metrics`."""
    async with aiohttp.ClientSession() as http, http.get(f"{process.ops}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} "))


async def wait_until(holds: Callable[[], bool], guard_seconds: float = GUARD_SECONDS) -> None:
    """Return once something that was written down holds."""
    async with asyncio.timeout(guard_seconds):
        while not holds():
            await asyncio.sleep(POLL_SECONDS)


async def ask(world: World, door: Door, arguments: Mapping[str, Any]) -> Answered | Failed:
    """A call with a good key, asked again while the proxy cannot tell: a slow machine loses its lease now and then."""
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            answer = await world.load.call(world.good[0], door, arguments)
            if isinstance(answer, Failed) or answer.reason not in UNKNOWN:
                return answer


def form_request(host: str, token: str, tool: str, arguments: Mapping[str, Any]) -> bytes:
    """A call as it stands on the wire, for clients that no HTTP library would be."""
    message = form_call(tool, dict(arguments))
    message["params"]["_meta"] = MODERN_META
    body = json.dumps(message).encode()
    head = (
        f"POST /mcp/v1 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nAccept: {ACCEPT}\r\n"
        f"Content-Type: application/json\r\nMCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/call\r\n"
        f"Mcp-Name: {tool}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
