"""Rows of the matrix: the ways between the proxies and the database.

A revocation is committed on the administrator's own way while theirs is bad; some are at the very edge of the fault.
"""

from __future__ import annotations

import asyncio

from tests.faults.relay import Relay, Weather, form_jitter, form_loss
from tests.faults.row import Row
from tests.faults.world import World

LOSS = 0.05
JITTER_OF_LEASE = 0.1
RETRANSMIT_OF_LEASE = 0.1
"""200 ms of the 2 s that are shipped; with a shorter lease everything is shorter."""


async def end_keys_while_frozen(world: World, relays: list[Relay], *, onward: bool = True, back: bool = True) -> None:
    """Half of the keys end around the instant at which the ways fall silent, the others while they are."""
    half = len(world.victims) // 2
    edge = asyncio.create_task(world.admin.end_keys(world.victims[:half], 0.2 * world.timing.bound_seconds))
    await world.pass_bounds(world.dice.uniform(0.0, 0.2))
    for relay in relays:
        relay.freeze(onward=onward, back=back)
    await edge
    await world.admin.end_keys(world.victims[half:], world.timing.bound_seconds)
    await world.pass_bounds(2 * world.scale**0.5)
    for relay in relays:
        relay.heal()


async def news_cut(world: World) -> None:
    await end_keys_while_frozen(world, [link.news for link in world.links])


async def pool_cut(world: World) -> None:
    await end_keys_while_frozen(world, [link.pool for link in world.links])


async def both_cut(world: World) -> None:
    await end_keys_while_frozen(world, world.relays)


async def one_instance_cut(world: World) -> None:
    await end_keys_while_frozen(world, list(world.links[0].both))


async def answers_lost(world: World) -> None:
    await end_keys_while_frozen(world, world.relays, onward=False)


async def questions_lost(world: World) -> None:
    await end_keys_while_frozen(world, world.relays, back=False)


async def ways_reset(world: World) -> None:
    """Every connection is reset, again and again."""
    ending = asyncio.create_task(world.admin.end_keys(world.victims, 2 * world.timing.bound_seconds))
    for _ in range(int(3 * world.scale)):
        await world.pass_bounds(world.dice.uniform(0.0, 1.0))
        for relay in world.relays:
            relay.cut()
    await ending


async def end_keys_in(world: World, weather: Weather) -> None:
    for relay in world.relays:
        relay.disturb(weather)
    await world.pass_bounds(2)
    await world.admin.end_keys(world.victims, 4 * world.timing.bound_seconds * world.scale**0.5)
    await world.pass_bounds(2)
    for relay in world.relays:
        relay.heal()


async def jitter(world: World) -> None:
    await end_keys_in(world, form_jitter(world.dice, JITTER_OF_LEASE * world.timing.lease_seconds))


async def loss(world: World) -> None:
    await end_keys_in(world, form_loss(world.dice, LOSS, RETRANSMIT_OF_LEASE * world.timing.lease_seconds))


ROWS = (
    Row("news_cut", "the listener's way is silent, the pool's is fine", news_cut, long=True),
    Row("pool_cut", "the pool's way is silent, the listener's is fine", pool_cut, long=True),
    Row("both_cut", "both ways are silent, keys end elsewhere, the ways heal", both_cut),
    Row("one_instance_cut", "one instance is cut off, the other is not", one_instance_cut, long=True),
    Row("answers_lost", "one way: questions arrive, answers do not", answers_lost, long=True),
    Row("questions_lost", "one way: answers arrive, questions do not", questions_lost, long=True),
    Row("ways_reset", "every connection to the database is reset, repeatedly", ways_reset, long=True),
    Row("jitter", "every packet is late by up to a tenth of the lease", jitter, long=True),
    Row("loss", "5 % of the packets are lost and sent again", loss, long=True),
)
