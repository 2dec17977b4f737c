"""A key is rotated under load: both secrets open the door inside the grace, the old one not for a moment after it."""

from __future__ import annotations

import asyncio

from proxy.keys.changes import KeyChanges
from proxy.keys.minting import MintedKey
from proxy.keys.rights import form_operator
from proxy.keys.token import parse_token
from proxy.server import Proxy
from tests.staging import GUARD_SECONDS, Stage, Wire

OPERATOR = form_operator("test")


class Caller:
    """Calls without a pause, and notes when each call began, by the database's clock, and how it was answered."""

    def __init__(self, stage: Stage, wire: Wire, token: str) -> None:
        self.stage, self.wire, self.token = stage, wire, token
        self.answers: list[tuple[float, int]] = []
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        while True:
            began = await read_clock(self.stage)
            self.answers.append((began, await self.wire.call(self.token, "aegis.agent.list")))

    async def wait_answers(self, number: int) -> None:
        wanted = len(self.answers) + number
        async with asyncio.timeout(GUARD_SECONDS):
            while len(self.answers) < wanted:
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def read_clock(stage: Stage) -> float:
    (row,) = await stage.database.fetch("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    return float(row["now"])


async def rotate(stage: Stage, key: MintedKey) -> str:
    changes = KeyChanges(stage.database, stage.hasher)
    rotated = await changes.rotate(OPERATOR, key.summary.id, stage.policy, grace="1h")
    stage.note_secret(rotated.token)
    return rotated.token


async def test_nobody_is_refused_inside_the_grace_and_nobody_with_the_old_secret_after_it(
    stage: Stage, wire: Wire, proxy: Proxy
) -> None:
    key = await stage.mint(scopes=("agent:list",))
    old = Caller(stage, wire, key.token)
    await old.wait_answers(5)
    new = Caller(stage, wire, await rotate(stage, key))
    await asyncio.gather(old.wait_answers(20), new.wait_answers(20))
    await stage.sql("UPDATE api_key_secrets SET not_after = clock_timestamp() + interval '0.5 s' WHERE version = 1")
    secrets = (await stage.store.read_keys([parse_token(key.token).key_id]))[parse_token(key.token).key_id].secrets
    end = secrets[1].not_after
    assert end is not None
    while await read_clock(stage) < end:
        await asyncio.sleep(0.01)
    await asyncio.gather(old.wait_answers(20), new.wait_answers(20))
    await asyncio.gather(old.stop(), new.stop())
    assert {status for _, status in new.answers} == {200}
    inside = [status for began, status in old.answers if began < end]
    assert set(inside[:-1]) == {200}, "the last one may have begun inside and been judged outside"
    assert {status for began, status in old.answers if began >= end} == {401}
