"""One fault, from the first request to the verdict.

In goes a world at rest and something that breaks it and mends it again; out comes a report. Clients ask before, during
and after; once every good key is admitted everywhere again, everything is left to come to rest, and the journal judged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.checker import Violation, check, measure_window
from tests.faults.journal import Answered, Decision, FaultBegun, FaultEnded, Gauge, Received
from tests.faults.load import WORKFLOWS, Journal, boot, run_load
from tests.faults.processes import GUARD_SECONDS, ProxyProcess
from tests.faults.world import POLL_SECONDS, World

GOOD_KEYS, VICTIMS = 2, 6
REST_FDS = 8
"""Descriptors that a proxy at rest may have more than before: pooled connections come and go."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a fault."""

    name: str
    violations: list[Violation]
    window_seconds: float
    requests: int
    admitted: int
    unavailable: int
    lasted_seconds: float
    bound_seconds: float


async def stage_fault(world: World, name: str, fault: Callable[[World], Awaitable[None]]) -> Report:
    """Load the world, let it happen, wait until all is well again, and judge what was written down."""
    journal = world.journal
    journal.events.clear()
    began = boot()
    await world.wait_ready()
    for proxy in world.proxies:
        await world.note_gauge(proxy, "start")
    world.good, world.victims = await world.admin.mint(GOOD_KEYS), await world.admin.mint(VICTIMS)
    watching = asyncio.create_task(world.admin.watch_receipts())
    async with run_load(journal, world.dice) as load:
        world._load = load
        try:
            await _load_and_break(world, name, fault)
        finally:
            await world.heal()
            world._load = None
            watching.cancel()
            await asyncio.wait({watching})
    await _come_to_rest(world)
    bound = world.timing.bound_seconds
    window = measure_window(journal.events, world.admin.policy)
    answers = [event for event in journal.events if isinstance(event, Answered)]
    return Report(
        name,
        check(journal.events, bound, world.admin.policy),
        window,
        len(answers),
        sum(answer.admitted for answer in answers),
        sum(answer.status == 503 for answer in answers),
        boot() - began,
        bound,
    )


async def _load_and_break(world: World, name: str, fault: Callable[[World], Awaitable[None]]) -> None:
    for key in (*world.good, *world.victims):
        for door in world.doors:
            world.load.send_calls(key, door)
        world.load.read_streams(key, world.dice.choice(world.doors))
    await world.wait_admitted([*world.good, *world.victims], 0.0)
    world.journal.note(FaultBegun(boot(), name))
    await fault(world)
    healed = boot()
    world.journal.note(FaultEnded(healed, name, frozenset(key.summary.id for key in world.good)))
    await world.wait_ready()
    await world.wait_admitted(world.good, healed)
    await world.pass_bounds(2)  # whoever is resurrected late is caught as well
    await world.load.stop()


async def _come_to_rest(world: World) -> None:
    """Everything printed is heard, everything opened is closed, what became of the keys is known."""
    for proxy in world.proxies:
        await _wait_lines(world, proxy)
        await _wait_rest(world, proxy)
    await world.admin.note_finals([*world.good, *world.victims])


async def _wait_lines(world: World, proxy: ProxyProcess) -> None:
    """A last call: once its lines were heard, so were those of all before it."""
    async with asyncio.timeout(GUARD_SECONDS):
        while (await proxy.read_readiness())["exchanges"]:
            await asyncio.sleep(POLL_SECONDS)
    last = await _make_last_call(world, proxy)
    async with asyncio.timeout(GUARD_SECONDS):
        while not (_has_line(world.journal, last) and _has_arrived(world.journal, last)):
            await asyncio.sleep(POLL_SECONDS)


async def _make_last_call(world: World, proxy: ProxyProcess) -> Answered:
    """One that is admitted: with a short lease not every one is."""
    door = next(door for door in world.doors if door.name == proxy.name)
    async with run_load(world.journal, world.dice) as load, asyncio.timeout(GUARD_SECONDS):
        while True:
            answer = await load.call(world.good[0], door, {"name": WORKFLOWS[0]})
            if isinstance(answer, Answered) and answer.admitted:
                return answer


def _has_line(journal: Journal, answer: Answered) -> bool:
    lines = (event for event in reversed(journal.events) if isinstance(event, Decision))
    return any(line.request_id == answer.request_id for line in lines)


def _has_arrived(journal: Journal, answer: Answered) -> bool:
    return any(isinstance(event, Received) and event.id == answer.id for event in reversed(journal.events))


async def _wait_rest(world: World, proxy: ProxyProcess) -> None:
    """Idle connections are closed when their time is up, not before."""
    start = next(e for e in reversed(world.journal.events) if isinstance(e, Gauge) and e.proxy == proxy.name)
    with contextlib.suppress(TimeoutError):  # the checker says what is left then
        async with asyncio.timeout(GUARD_SECONDS):
            while proxy.count_descriptors() > start.fds + REST_FDS:
                await asyncio.sleep(POLL_SECONDS)
    await world.note_gauge(proxy, "end")
