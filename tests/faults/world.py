"""The world that faults happen in: PostgreSQL, an upstream and two proxies, all of them processes, and what ties them.

Every way between them leads through a relay that a fault can cut: each proxy has one to the database for its pool and
one for its news, and both share one to the upstream. The administrator's way does not lead through any. A world is
shared by faults that leave it as they found it; each brings its own keys, clients and journal.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from proxy.database import migrate
from proxy.keys.minting import MintedKey
from tests.faults.admin import Administrator, open_admin_database, open_administrator
from tests.faults.journal import (
    Answered,
    Gauge,
    Killed,
    Sent,
    parse_proxy_line,
    parse_upstream_line,
)
from tests.faults.load import Door, Journal, Load, boot
from tests.faults.processes import GUARD_SECONDS, Daemon, Postgres, ProxyProcess, form_proxy, run_postgres
from tests.faults.relay import Relay, run_relay, run_relay_to

PROXIES = 2
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Timing:
    """What the proxies are configured with; seconds."""

    heartbeat_seconds: float
    lease_seconds: float
    grace_seconds: float
    revalidate_seconds: float
    query_timeout_seconds: float

    @property
    def bound_seconds(self) -> float:
        return self.lease_seconds + self.grace_seconds


SHORT = Timing(0.1, 0.6, 0.3, 1.0, 0.4)
"""About as short as a busy machine of two cores can keep up with."""
REAL = Timing(0.5, 2.0, 1.0, 15.0, 1.0)
"""As shipped."""
TENTH = Timing(0.05, 0.2, 0.1, 1.0, 0.1)
"""Lease and grace a tenth of what is shipped. A busy machine loses the lease all the time, and is closed often."""


@dataclass(frozen=True, slots=True)
class Link:
    """A proxy's ways to the database."""

    pool: Relay
    news: Relay

    @property
    def both(self) -> tuple[Relay, Relay]:
        return self.pool, self.news


@dataclass(slots=True)
class World:
    """`scale` multiplies how long and how much; `dice` decide everything that is left to chance."""

    timing: Timing
    dice: random.Random
    scale: float
    directory: Path
    postgres: Postgres
    upstream: Daemon
    upstream_relay: Relay
    links: list[Link]
    proxies: list[ProxyProcess]
    admin: Administrator
    journal: Journal
    stack: AsyncExitStack
    good: list[MintedKey] = field(default_factory=list)
    victims: list[MintedKey] = field(default_factory=list)
    _load: Load | None = None

    @property
    def load(self) -> Load:
        assert self._load is not None, "nothing is loaded between two faults"
        return self._load

    @property
    def doors(self) -> list[Door]:
        return [Door(proxy.name, partial(getattr, proxy, "data")) for proxy in self.proxies]

    @property
    def relays(self) -> list[Relay]:
        """To the database."""
        return [relay for link in self.links for relay in link.both]

    async def heal(self) -> None:
        """Whatever a fault that fell over left behind: the next one is not to blame."""
        for relay in (*self.relays, self.upstream_relay):
            relay.heal()
        self.postgres.resume()
        await self.postgres.start()

    async def move_to(self, postgres: Postgres) -> None:
        """From now on everybody's ways lead to another server; connections to the old one are reset."""
        self.postgres = postgres
        self.admin.database = await self.stack.enter_async_context(open_admin_database(postgres.url))
        for relay in self.relays:
            relay.target = str(postgres.sockets / ".s.PGSQL.5432")
            relay.cut()

    async def pass_bounds(self, number: float) -> None:
        """Let that many times the bound pass."""
        await asyncio.sleep(number * self.timing.bound_seconds)

    async def kill_proxy(self, proxy: ProxyProcess) -> None:
        await proxy.kill()
        self.journal.note(Killed(boot(), proxy.name))

    async def restart_proxy(self, proxy: ProxyProcess) -> None:
        """Start it again where it was; return once it is ready."""
        await proxy.start()
        self.admin.instances[proxy.instance] = proxy.name
        await proxy.wait_readiness()
        await self.note_gauge(proxy, "start")

    async def wait_ready(self) -> None:
        for proxy in self.proxies:
            await proxy.wait_readiness()

    async def note_gauge(self, proxy: ProxyProcess, moment: Any) -> Gauge:
        readiness = await proxy.read_readiness()
        fds, threads = proxy.count_descriptors(), proxy.count_threads()
        gauge = Gauge(boot(), proxy.name, moment, fds, threads, readiness["exchanges"], proxy.read_rss_bytes())
        self.journal.note(gauge)
        return gauge

    def _find_waiting(self, expected: list[tuple[str, str]], since: float) -> dict[str, int]:
        """What was said last to those that nobody admits."""
        waiting = {pair for pair in expected if self.load.admitted.get(pair, 0.0) <= since}
        asked = {e.id: (e.key, e.proxy) for e in self.journal.events if isinstance(e, Sent)}
        said = {asked[e.id]: f"{e.status} {e.reason}" for e in self.journal.events if isinstance(e, Answered)}
        return Counter(said.get(pair, "nothing") for pair in waiting)

    async def wait_admitted(self, keys: list[MintedKey], since: float) -> None:
        """Return once every proxy has admitted a call of each of these keys that was sent after `since`."""
        expected = [(key.summary.id, proxy.name) for key in keys for proxy in self.proxies]
        try:
            async with asyncio.timeout(GUARD_SECONDS):
                while not all(self.load.admitted.get(pair, 0.0) > since for pair in expected):
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"not admitted in {GUARD_SECONDS:g} s: {self._find_waiting(expected, since)}") from None


@asynccontextmanager
async def run_world(
    dice: random.Random,
    *,
    timing: Timing = SHORT,
    scale: float = 1.0,
    postgres_settings: Mapping[str, str] | None = None,
    disk_bytes: int | None = None,
) -> AsyncIterator[World]:
    """A world at rest: everything runs, both proxies trust their news, nobody asks anything."""
    journal = Journal()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="aegis-faults-")))
        postgres = await stack.enter_async_context(run_postgres(postgres_settings or {}, disk_bytes=disk_bytes))
        await migrate(postgres.url)
        upstream = await _start_upstream(journal, stack)
        upstream_relay = await stack.enter_async_context(run_relay_to(upstream.port))
        links = [await _open_link(postgres, stack) for _ in range(PROXIES)]
        admin = await stack.enter_async_context(open_administrator(postgres.url, journal, dice))
        proxies = [
            await start_proxy(f"proxy-{number}", link, upstream_relay, directory, timing, journal, stack)
            for number, link in enumerate(links)
        ]
        admin.instances |= {proxy.instance: proxy.name for proxy in proxies}
        world = World(
            timing, dice, scale, directory, postgres, upstream, upstream_relay, links, proxies, admin, journal, stack
        )
        await world.wait_ready()
        yield world


async def _open_link(postgres: Postgres, stack: AsyncExitStack) -> Link:
    return Link(
        await stack.enter_async_context(run_relay(postgres.url)),
        await stack.enter_async_context(run_relay(postgres.url)),
    )


@dataclass
class UpstreamProcess(Daemon):
    """`tests.faults.upstream`. It keeps its port when it is started again."""

    port: int = 0
    _listens: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Start it, and return once it listens."""
        self._listens.clear()
        self.command = (sys.executable, "-m", "tests.faults.upstream", str(self.port))
        await super().start()
        await self.wait_word(self._listens)

    def take(self, line: bytes) -> None:
        if line.startswith(b'{"listening"'):
            self.port = json.loads(line)["listening"]
            self._listens.set()
        else:
            self.hear(line)


async def _start_upstream(journal: Journal, stack: AsyncExitStack) -> UpstreamProcess:
    upstream = UpstreamProcess("upstream", (), hear=lambda line: journal.note(parse_upstream_line(line)))
    stack.push_async_callback(upstream.end)
    await upstream.start()
    return upstream


async def start_proxy(
    name: str,
    link: Link,
    upstream: Relay,
    directory: Path,
    timing: Timing,
    journal: Journal,
    stack: AsyncExitStack,
    **sections: dict[str, Any],
) -> ProxyProcess:
    """A proxy that ends with the stack. `sections` of the settings win over a bench's own."""
    settings: dict[str, dict[str, Any]] = {
        "revocation": {key: value for key, value in asdict(timing).items() if key != "query_timeout_seconds"},
        "database": {"query_timeout_seconds": timing.query_timeout_seconds, "pool_max_size": 4},
        "hashing": {"memory_cost_kib": 1024},
        "upstreams": {"mcp": {"keepalive_seconds": 1.0}},
    }
    settings = {
        section: {**settings.get(section, {}), **sections.get(section, {})} for section in {**settings, **sections}
    }
    config = directory / f"{name}.yaml"
    config.write_text(json.dumps(settings))
    environ = {
        "AEGIS_DATABASE_URL": link.pool.url,
        "AEGIS_LISTENER_DATABASE_URL": link.news.url,
        "AEGIS_UPSTREAM_MCP": f"http://127.0.0.1:{upstream.port}",
        "AEGIS_SECRET_KEY": "the same secret for every instance of a bench",
    }
    proxy = form_proxy(name, config, environ)
    proxy.hear = partial(_hear_proxy, proxy.name, journal)
    stack.push_async_callback(proxy.end)
    await proxy.start()
    return proxy


def _hear_proxy(name: str, journal: Journal, line: bytes) -> None:
    event = parse_proxy_line(line, proxy=name, at=boot())
    if event is not None:
        journal.note(event)
