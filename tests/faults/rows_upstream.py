"""Rows of the matrix: what the upstream does to the proxies.

Whatever it does, keys end meanwhile, within their bound; a call reaches it once; and what it says costs a bounded room.
"""

from __future__ import annotations

import asyncio

from bench.processes import read_cpu_seconds
from tests.faults.journal import Answered, Ended, Failed, Sent
from tests.faults.load import Journal, boot
from tests.faults.processes import ProxyProcess
from tests.faults.row import Row
from tests.faults.third_proxy import (
    ThirdProxy,
    ask,
    form_request,
    run_third_proxy,
    wait_until,
)
from tests.faults.vanishing import find_obstacle as find_no_filters
from tests.faults.world import World

TOOL = "aegis.workflow.run"
ARGUMENTS = {"name": "alpha"}
# What is no whole answer, and what the client gets then. A foreign id is the client's to judge.
BROKEN = {"garbage": 502, "reset": 502, "endless_headers": 502, "half_answer": 502, "wrong_id": 200}
ENDLESS = ("endless_line", "endless_body", "dead_after_headers")
MAX_GROWTH_BYTES = 4 * 4 * 8 * 1024 * 1024
"""Four answers without end are held up to `max_answer_bytes`, 8 MiB, to see whether they hold a list: as they come, as
one piece, and as the allocator keeps it. Held without a limit they would come to gigabytes in the same time."""
HALF_OPEN_GUARD_SECONDS = 60.0
"""The promise is 45."""
BUSY = 0.5
"""Of a core: a loop that never waits takes a whole one, a proxy that nobody asks a few hundredths."""


def find_open_streams(journal: Journal) -> set[str]:
    """The streams that have begun and that nothing has ended yet."""
    streams = {event.id for event in journal.events if isinstance(event, Sent) and event.stream}
    begun = {event.id for event in journal.events if isinstance(event, Answered) and event.admitted}
    over = {event.id for event in journal.events if isinstance(event, Ended | Failed)}
    return (streams & begun) - over


def has_answered(world: World, proxy: ProxyProcess, status: int, since: float) -> bool:
    """Whether a request sent to this proxy after an instant was answered so."""
    sent = {e.id for e in world.journal.events if isinstance(e, Sent) and e.at > since and e.proxy == proxy.name}
    return any(isinstance(e, Answered) and e.status == status and e.id in sent for e in world.journal.events)


async def upstream_killed(world: World) -> None:
    """Streams end, calls are answered 502, and nothing is sent twice."""
    for _ in range(max(1, int(world.scale))):
        await wait_until(lambda: bool(find_open_streams(world.journal)))
        broken = find_open_streams(world.journal)
        await world.upstream.kill()
        killed = boot()
        await wait_until(lambda broken=broken: not broken & find_open_streams(world.journal))  # type: ignore[misc]
        for proxy in world.proxies:
            await wait_until(lambda proxy=proxy, killed=killed: has_answered(world, proxy, 502, killed))  # type: ignore[misc]
        await world.upstream.start()
    await world.admin.end_keys(world.victims[:2])


async def upstream_silent(world: World) -> None:
    """Connections stand and carry nothing; keys end while their calls and streams wait."""
    world.upstream_relay.freeze()
    await world.admin.end_keys(world.victims, world.timing.bound_seconds)
    await world.pass_bounds(2 * world.scale**0.5)
    world.upstream_relay.heal()


async def upstream_frozen(world: World) -> None:
    """The process stands still, its kernel does not."""
    world.upstream.freeze()
    await world.admin.end_keys(world.victims, world.timing.bound_seconds)
    await world.pass_bounds(2 * world.scale**0.5)
    world.upstream.resume()


async def upstream_slow(world: World) -> None:
    """No header in time is 504; a body that never comes is cut at the idle limit."""
    limits = {"keepalive_seconds": 1.0, "headers_timeout_seconds": 0.3, "idle_timeout_seconds": 1.0}
    async with run_third_proxy(world, upstreams={"mcp": limits}) as third:
        late = await ask(world, third.door, {**ARGUMENTS, "behaviour": "slow_headers"})
        assert isinstance(late, Answered)
        assert (late.status, late.reason) == (504, "upstream_timeout")
        dead = await ask(world, third.door, {**ARGUMENTS, "behaviour": "dead_after_headers"})
        assert isinstance(dead, Answered)
        assert dead.reason == "upstream_timeout"


async def upstream_trickles(world: World) -> None:
    """A byte each second is no silence: what flows is not cut, however slowly."""
    async with run_third_proxy(world, upstreams={"mcp": {"idle_timeout_seconds": 3.0}}) as third:
        answer = await ask(world, third.door, {**ARGUMENTS, "behaviour": "byte_per_second", "seconds": 9})
        assert isinstance(answer, Answered)
        assert answer.admitted


async def upstream_babbles(world: World) -> None:
    """Anything but an answer, on both proxies, while RSS is watched."""
    before = {proxy.name: proxy.read_rss_bytes() for proxy in world.proxies}
    growing = [asyncio.create_task(swallow_nothing(world, one)) for one in ENDLESS for _ in range(2)]
    try:
        for behaviour, status in BROKEN.items():
            for door in world.doors:
                answer = await ask(world, door, {**ARGUMENTS, "behaviour": behaviour})
                assert isinstance(answer, Answered), behaviour
                assert answer.status == status, behaviour
        await world.admin.end_keys(world.victims, world.timing.bound_seconds)
        await world.pass_bounds(2 * world.scale)
        for proxy in world.proxies:
            grown = proxy.read_rss_bytes() - before[proxy.name]
            assert grown < MAX_GROWTH_BYTES, f"{proxy.name} grew by {grown >> 20} MiB"
    finally:  # the next fault is not to blame
        for task in growing:
            task.cancel()
        await asyncio.wait(growing)


async def swallow_nothing(world: World, behaviour: str) -> None:
    """Ask every proxy for something endless, and read none of it."""
    writers = []
    try:
        for proxy in world.proxies:
            host = proxy.data.removeprefix("http://")
            _, writer = await asyncio.open_connection(*host.split(":"), limit=1024)
            writers.append(writer)
            writer.write(form_request(host, world.good[1].token, TOOL, {**ARGUMENTS, "behaviour": behaviour}))
        await asyncio.Event().wait()
    finally:
        for writer in writers:
            writer.transport.abort()


async def upstream_half_open(world: World) -> None:
    """It is gone in the middle of a stream, without a FIN: that is noticed, and the client is told."""
    async with run_third_proxy(world, direct=True) as third:
        asking = {**ARGUMENTS, "behaviour": "half_open"}
        calls = [asyncio.create_task(world.load.call(world.good[0], third.door, asking)) for _ in range(5)]
        await third.wait_exchanges(len(calls))
        await third.wait_exchanges(0, HALF_OPEN_GUARD_SECONDS)
        for answer in await asyncio.gather(*calls):
            assert isinstance(answer, Answered | Failed)
            assert not (isinstance(answer, Answered) and answer.admitted)


async def upstream_name_unknown(world: World) -> None:
    """Its name cannot be resolved: calls are answered 502 or 504, and nobody asks again and again."""
    nowhere = {"AEGIS_UPSTREAM_MCP": "http://nowhere.invalid:80"}
    async with run_third_proxy(world, environ=nowhere, upstreams={"mcp": {"connect_timeout_seconds": 1.0}}) as third:
        for _ in range(5):
            answer = await ask(world, third.door, ARGUMENTS)
            assert isinstance(answer, Answered)
            assert answer.status in (502, 504)
        assert await measure_idleness(third) < BUSY


async def measure_idleness(third: ThirdProxy) -> float:
    """The part of a core that a proxy takes while nobody asks anything of it."""
    began, used = boot(), read_cpu_seconds(third.process.pid)
    await asyncio.sleep(1)
    return (read_cpu_seconds(third.process.pid) - used) / (boot() - began)


ROWS = (
    Row("upstream_killed", "SIGKILL in the middle of streams, and a restart", upstream_killed),
    Row("upstream_silent", "a relay before it stops copying while keys end", upstream_silent),
    Row("upstream_frozen", "SIGSTOP while keys end", upstream_frozen, long=True),
    Row("upstream_slow", "slow headers, and a body that never comes", upstream_slow, long=True),
    Row("upstream_trickles", "one byte each second", upstream_trickles, long=True, slow=True),
    Row("upstream_babbles", "garbage, foreign ids, endless lines, heads and bodies", upstream_babbles),
    Row(
        "upstream_half_open",
        "gone without a FIN in the middle of a stream",
        upstream_half_open,
        long=True,
        slow=True,
        find_obstacle=find_no_filters,
    ),
    Row("upstream_name_unknown", "its name does not resolve", upstream_name_unknown, long=True, slow=True),
)
