"""Rows of the matrix: PostgreSQL itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.faults.row import Row
from tests.faults.world import World

# Security's 1, 5 and 60 seconds against a bound of 3.
FREEZE_OF_BOUND = (1 / 3, 5 / 3, 20.0)


async def die_repeatedly(world: World, die: Callable[[], None]) -> None:
    """Again and again while keys end; some in the very instant at which the server dies."""
    times = int(2 * world.scale)
    ending = asyncio.create_task(world.admin.end_keys(world.victims, times * world.timing.bound_seconds))
    for _ in range(times):
        await world.pass_bounds(world.dice.uniform(0.0, 1.0))
        die()
        await world.pass_bounds(world.dice.choice((0.0, 0.5, 1.5)))
        await world.postgres.start()
    await ending


async def postgres_killed(world: World) -> None:
    await die_repeatedly(world, world.postgres.kill)


async def postgres_restarted(world: World) -> None:
    await die_repeatedly(world, world.postgres.stop_immediately)


async def freeze_postgres(world: World, bounds: float) -> None:
    """Keys end around the instant at which it freezes; what is asked meanwhile is answered after it."""
    ending = asyncio.create_task(world.admin.end_keys(world.victims, 0.5 * world.timing.bound_seconds))
    await world.pass_bounds(world.dice.uniform(0.0, 0.5))
    world.postgres.freeze()
    await world.pass_bounds(bounds)
    world.postgres.resume()
    await ending


async def postgres_frozen(world: World) -> None:
    await freeze_postgres(world, FREEZE_OF_BOUND[1])


async def postgres_frozen_shortly(world: World) -> None:
    await freeze_postgres(world, FREEZE_OF_BOUND[0])


async def postgres_frozen_long(world: World) -> None:
    await freeze_postgres(world, FREEZE_OF_BOUND[2])


ROWS = (
    Row("postgres_killed", "SIGKILL to the postmaster under load", postgres_killed),
    Row("postgres_restarted", "immediate restart under load", postgres_restarted, long=True),
    Row("postgres_frozen", "SIGSTOP to the whole tree for 5/3 of the bound", postgres_frozen),
    Row("postgres_frozen_shortly", "SIGSTOP for a third of the bound", postgres_frozen_shortly, long=True),
    Row("postgres_frozen_long", "SIGSTOP for 20 times the bound", postgres_frozen_long, long=True, slow=True),
)
