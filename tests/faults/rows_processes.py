"""Rows of the matrix: what happens to the proxies' own processes, and to the machine they run on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.keys.minting import MintedKey
from tests.faults.journal import Answered, Ended, Failed, Received, Sent
from tests.faults.load import Door, boot
from tests.faults.processes import ProxyProcess
from tests.faults.row import Row
from tests.faults.rows_upstream import ARGUMENTS, TOOL
from tests.faults.third_proxy import UNKNOWN, ThirdProxy, ask, read_metric, run_third_proxy, wait_until
from tests.faults.wall_clock import WallClock, build_wall_clock
from tests.faults.wall_clock import find_obstacle as find_no_compiler
from tests.faults.world import World
from tests.staging import ACCEPT, INITIALIZE, form_call

HOUR = 3600.0
STREAMS = 20
BURNERS_PER_CORE = 2
EXIT_GUARD_SECONDS = 60.0
DRAIN_SECONDS = 3.0


async def proxies_killed(world: World) -> None:
    """SIGKILL and a restart, again and again, while keys end; sessions stay their keys' own."""
    owner, stranger = world.good[:2]
    session = await open_session(world, world.doors[0], owner)
    times = max(2, int(2 * world.scale))
    ending = asyncio.create_task(world.admin.end_keys(world.victims, times * world.timing.bound_seconds))
    for number in range(times):
        proxy = world.proxies[number % len(world.proxies)]
        await world.kill_proxy(proxy)
        await world.pass_bounds(world.dice.choice((0.0, 0.5)))
        await world.restart_proxy(proxy)
    await ending
    for door in world.doors:
        assert await use_session(world, door, stranger, session) == 404
        assert await use_session(world, door, owner, session) == 200


async def open_session(world: World, door: Door, key: MintedKey) -> str:
    """The id of a session of a revision that has them."""
    headers = {"Accept": ACCEPT, "Authorization": f"Bearer {key.token}"}
    while True:
        async with world.load.http.post(f"{door.get_url()}/mcp/v1", json=INITIALIZE, headers=headers) as answer:
            if answer.status == 200:
                return answer.headers["Mcp-Session-Id"]
            assert answer.status == 503, await answer.text()


async def use_session(world: World, door: Door, key: MintedKey, session: str) -> int:
    """The status of a call in a session, once the proxy knows."""
    headers = {"Accept": ACCEPT, "Authorization": f"Bearer {key.token}", "Mcp-Session-Id": session}
    message = form_call(TOOL, ARGUMENTS)
    while True:
        async with world.load.http.post(f"{door.get_url()}/mcp/v1", json=message, headers=headers) as answer:
            if answer.status != 503:
                return answer.status


async def proxy_frozen(world: World) -> None:
    """SIGSTOP; keys end; then calls arrive that it finds in its sockets when it goes on. Its lease is over by then."""
    for _ in range(max(1, int(world.scale**0.5))):
        number = world.dice.randrange(len(world.proxies))
        world.proxies[number].freeze()
        await world.admin.end_keys(world.victims, 0.5 * world.timing.bound_seconds)
        await world.pass_bounds(1.5)
        for key in world.victims:
            for _ in range(3):
                world.load.send_calls(key, world.doors[number])
        await world.pass_bounds(1)
        world.proxies[number].resume()
        await world.pass_bounds(1)


async def proxy_terminated(world: World) -> None:
    """SIGTERM: running calls finish, streams end with a word, nobody new is let in, and it leaves with 0."""
    async with run_third_proxy(world, server={"drain_seconds": DRAIN_SECONDS}) as third:
        slow = {**ARGUMENTS, "behaviour": "slow_headers", "seconds": 1.0}
        await ask(world, third.door, ARGUMENTS)
        calls = [asyncio.create_task(world.load.call(world.good[0], third.door, slow)) for _ in range(STREAMS)]
        streams = [asyncio.create_task(world.load.stream(world.good[0], third.door, ARGUMENTS)) for _ in range(STREAMS)]
        await wait_until(lambda: have_arrived(world, third.door.name, 1 + 2 * STREAMS))
        leaving = asyncio.create_task(terminate(third))
        refused = await wait_refused(world, third)
        assert await asyncio.wait_for(leaving, EXIT_GUARD_SECONDS) == 0
        for answer in await asyncio.gather(*calls):
            assert isinstance(answer, Answered)
            assert answer.admitted or answer.reason in UNKNOWN
        await asyncio.gather(*streams)
        check_farewell(world, third.door.name, refused)


def have_arrived(world: World, name: str, number: int) -> bool:
    """Whether so many requests of a proxy's clients have reached the upstream, or were refused."""
    asked = {event.id for event in world.journal.events if isinstance(event, Sent) and event.proxy == name}
    arrived = {event.id for event in world.journal.events if isinstance(event, Received | Answered)}
    return len(asked & arrived) >= number


async def terminate(third: ThirdProxy) -> int:
    assert third.process.process is not None
    third.process.process.send_signal(signal.SIGTERM)
    return await third.process.process.wait()


async def wait_refused(world: World, third: ThirdProxy) -> float:
    """When the first call was sent that was not let in any more."""
    while True:
        sent = boot()
        answer = await world.load.call(world.good[0], third.door, ARGUMENTS)
        if not (isinstance(answer, Answered) and answer.admitted):
            if isinstance(answer, Answered) and answer.reason in UNKNOWN:
                continue
            assert isinstance(answer, Failed) or answer.reason == "draining", answer
            return sent


def check_farewell(world: World, name: str, refused: float) -> None:
    """Every stream ended in order and says why; whoever came after the first that was refused was refused, too."""
    asked = {event.id: event for event in world.journal.events if isinstance(event, Sent) and event.proxy == name}
    ends = [event for event in world.journal.events if isinstance(event, Ended) and event.id in asked]
    assert ends
    assert all(end.clean and end.reason in {"draining", *UNKNOWN} for end in ends)
    late = [
        e for e in world.journal.events
        if isinstance(e, Answered) and e.id in asked and asked[e.id].at > refused and e.admitted
    ]  # fmt: skip
    assert not late


async def wall_clock_jumps(world: World) -> None:
    """An hour ahead, an hour behind: neither the lease nor an expiry depends on it, and the skew is shown."""
    wall_clock = await asyncio.to_thread(build_wall_clock, world.directory)
    await expire_in(world, world.good, "30 minutes")
    with preload(world.proxies, wall_clock):
        await restart_all(world)
        for offset_seconds in (HOUR, -HOUR):
            wall_clock.jump(offset_seconds)
            jumped = boot()
            await world.pass_bounds(2)
            half = world.victims[:4] if offset_seconds > 0 else world.victims[4:]
            await world.admin.end_keys(half, world.timing.bound_seconds)
            await world.wait_admitted(world.good, jumped)
            for proxy in world.proxies:
                skew_seconds = await read_metric(proxy, "aegis_database_clock_skew_seconds")
                assert abs(skew_seconds + offset_seconds) < HOUR / 2, skew_seconds
        wall_clock.jump(0.0)
    await restart_all(world)


async def expire_in(world: World, keys: list[MintedKey], interval: str) -> None:
    """By the database's clock."""
    ids = [key.summary.id for key in keys]
    statement = f"UPDATE api_keys SET expires_at = now() + interval '{interval}' WHERE id = ANY($1::text[])"
    await world.admin.database.fetch(statement, ids)


@contextmanager
def preload(proxies: list[ProxyProcess], wall_clock: WallClock) -> Iterator[None]:
    """Whoever is started meanwhile is told another time."""
    for proxy in proxies:
        proxy.environ |= wall_clock.environ
    try:
        yield
    finally:
        for proxy in proxies:
            for name in wall_clock.environ:
                del proxy.environ[name]


async def restart_all(world: World) -> None:
    for proxy in world.proxies:
        await world.kill_proxy(proxy)
        await world.restart_proxy(proxy)


async def processor_starved(world: World) -> None:
    """Every core has more to do than it can while keys end."""
    burners = [start_burner() for _ in range(BURNERS_PER_CORE * (os.cpu_count() or 1))]
    try:
        await world.pass_bounds(1)
        await world.admin.end_keys(world.victims, 2 * world.timing.bound_seconds)
        await world.pass_bounds(2 * world.scale**0.5)
    finally:
        for burner in burners:
            burner.kill()
            await asyncio.to_thread(burner.wait)


def start_burner() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


async def out_of_memory(world: World) -> None:
    """What the kernel does then is what `proxies_killed` does, at an instant of the kernel's choosing."""
    await proxies_killed(world)


def find_no_memory_cap() -> str:
    return "needs a control group of its own; that death is SIGKILL, which proxies_killed stages"


ROWS = (
    Row("proxies_killed", "SIGKILL and a restart, repeatedly, while keys end", proxies_killed),
    Row("proxy_frozen", "SIGSTOP for longer than the bound, while keys end, and SIGCONT", proxy_frozen),
    Row("proxy_terminated", "SIGTERM with calls and streams open", proxy_terminated),
    Row("wall_clock_jumps", "the wall clock goes an hour ahead, then an hour behind", wall_clock_jumps, True, slow=True,
        find_obstacle=find_no_compiler),
    Row("out_of_memory", "a memory cap is reached", out_of_memory, long=True, find_obstacle=find_no_memory_cap),
    Row("processor_starved", "twice as many busy loops as cores, while keys end", processor_starved, True, slow=True),
)  # fmt: skip
