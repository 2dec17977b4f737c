"""Race 4: the upstream gives an id again, and an old order to end it outlives the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack

import pytest

from proxy.identity import KeyId, Owner
from tests.hostile_origin import Peer
from tests.races.barriers import Barrier
from tests.staging import GUARD_SECONDS, Stage
from tests.test_session_cleanup import DEAD, ENDED, SESSION, Scene, form_answer


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    """An origin that plays a script, and instances that clean up there."""
    async with asyncio.timeout(2 * GUARD_SECONDS), AsyncExitStack() as stack:
        yield Scene(stack, stage.database)


async def mint_living(stage: Stage) -> KeyId:
    return KeyId((await stage.mint(scopes=("agent:list",))).summary.id)


async def test_a_session_listed_as_lost_is_not_claimed_once_its_id_is_another_key_s(scene: Scene, stage: Stage) -> None:
    """Between the judging and the claiming another instance ends it, and the upstream gives its id again."""
    await scene.play(ENDED)
    judging, living = Barrier(), await mint_living(stage)
    instance, other = scene.add_instance(), scene.add_instance()
    read_rights = instance._read_rights

    async def read_rights_slowly(key_ids: Collection[KeyId]) -> dict[KeyId, tuple[Owner, frozenset[str]]]:
        await judging.wait()
        return await read_rights(key_ids)

    instance.cleanup._read_rights = read_rights_slowly
    await instance.bind(SESSION, key_id=DEAD)
    cleaning = asyncio.create_task(instance.clean([DEAD]))
    await judging.reached.wait()
    await other.clean([DEAD])
    assert scene.list_ended() == [SESSION]
    await other.bind(SESSION, key_id=living)
    judging.open.set()
    await cleaning
    assert scene.list_ended() == [SESSION], "the living key's session was ended upstream"
    assert await scene.count_rows() == 1


async def test_a_claimant_whose_claim_lapsed_does_not_forget_what_stands_there_now(scene: Scene, stage: Stage) -> None:
    """The first one's DELETE is answered when another instance has ended the session and its id was given again."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold_the_first(peer: Peer) -> None:
        await peer.read_request()
        if peer.number == 0:
            asked.set()
            await answer.wait()
        await peer.send(form_answer("200 OK"))

    await scene.play(hold_the_first)
    living = await mint_living(stage)
    slow, other = scene.add_instance(), scene.add_instance()
    await slow.bind(SESSION, key_id=DEAD)
    cleaning = asyncio.create_task(slow.clean([DEAD]))
    await asked.wait()
    await scene.let_claims_lapse()
    await other.clean([DEAD])
    assert await scene.count_rows() == 0
    await other.bind(SESSION, key_id=living)
    answer.set()
    await cleaning
    assert await scene.count_rows() == 1, "the living key's session has lost its row"
