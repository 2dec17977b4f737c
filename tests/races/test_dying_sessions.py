"""Races 3, 4 and 5: MCP sessions made while their key dies, replaced while they are ended, ended by two instances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from proxy.errors import Reason, UpstreamError
from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream
from tests.hostile_origin import Peer, Script
from tests.races.barriers import (
    PATIENT,
    Barrier,
    hold_bindings,
    hold_rows,
    pass_through,
    revoke_and_wait_ended,
    revoke_and_wait_heard,
    wait_until,
)
from tests.raw_client import form_request, open_raw
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage
from tests.test_session_cleanup import ALSO_DEAD, DEAD, SESSION, Scene, form_answer


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    """An origin that plays a script, and instances that clean up there."""
    async with asyncio.timeout(2 * GUARD_SECONDS), AsyncExitStack() as stack:
        yield Scene(stack, stage.database)


def list_ended(upstream: CanaryUpstream) -> list[str]:
    """The session ids of all DELETEs."""
    return [received.fold()["MCP_SESSION_ID"][0] for received in upstream.requests if received.method == "DELETE"]


async def count_sessions(stage: Stage) -> int:
    return int((await stage.database.fetch("SELECT count(*) FROM mcp_sessions"))[0][0])


async def finish_clean_up(proxy: Proxy) -> None:
    """Return when everything that was begun by now has ended."""
    await proxy.heart.cleanup.aclose()


# Race 3: a session created upstream at the very moment its key dies.


async def test_no_client_learns_of_a_session_before_it_is_bound(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    key, binding = await stage.mint(), hold_bindings(monkeypatch)
    async with (
        CanaryUpstream() as upstream,
        stage.proxy(upstream.url, **PATIENT) as proxy,
        open_raw(proxy.data_address) as client,
        asyncio.timeout(GUARD_SECONDS),
    ):
        await client.send(form_request(token=key.token, body=INITIALIZE))
        await binding.reached.wait()
        answering = asyncio.create_task(client.read_answer())
        await pass_through(proxy)
        assert not answering.done()
        assert await count_sessions(stage) == 0
        binding.open.set()
        answer = await answering
        assert (answer.status, answer.headers["Mcp-Session-Id"]) == (200, "session-of-the-canary")
        assert await count_sessions(stage) == 1


async def test_a_session_bound_after_its_key_died_is_ended_and_told_to_nobody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the news started has looked for sessions before this one stood in any row."""
    key, binding = await stage.mint(), hold_bindings(monkeypatch)
    async with (
        CanaryUpstream() as upstream,
        stage.proxy(upstream.url, **PATIENT) as proxy,
        open_raw(proxy.data_address) as client,
        asyncio.timeout(GUARD_SECONDS),
    ):
        await client.send(form_request(token=key.token, body=INITIALIZE))
        await binding.reached.wait()
        await revoke_and_wait_ended(stage, proxy, key)
        await finish_clean_up(proxy)
        assert list_ended(upstream) == []
        binding.open.set()
        refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        assert "Mcp-Session-Id" not in refused.headers
        await finish_clean_up(proxy)
        assert list_ended(upstream) == ["session-of-the-canary"]
        assert await count_sessions(stage) == 0


async def test_a_session_bound_while_its_key_was_in_doubt_is_ended_once_the_row_is_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it was bound nothing had ended yet: the clean-up that follows the judging has to find it."""
    key, binding = await stage.mint(), hold_bindings(monkeypatch)
    async with (
        CanaryUpstream() as upstream,
        stage.proxy(upstream.url, **PATIENT) as proxy,
        open_raw(proxy.data_address) as client,
        asyncio.timeout(GUARD_SECONDS),
    ):
        await wait_until(lambda: not proxy.heart.cleanup._tasks)  # the sweep of its start would find the session, too
        await client.send(form_request(token=key.token, body=INITIALIZE))
        await binding.reached.wait()
        async with hold_rows(stage):
            await revoke_and_wait_heard(stage, proxy, key)
            binding.open.set()
            await binding.passed.wait()
            await pass_through(proxy)
            assert await count_sessions(stage) == 1
            assert list_ended(upstream) == []
        refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        assert "Mcp-Session-Id" not in refused.headers
        await finish_clean_up(proxy)
        assert list_ended(upstream) == ["session-of-the-canary"]
        assert await count_sessions(stage) == 0


# Race 4: the clean-up of an old session removing its replacement.


def hold_answers(barrier: Barrier) -> Script:
    """A script: every DELETE is received at once and answered when the test says so."""

    async def answer_when_told(peer: Peer) -> None:
        while True:
            await peer.read_request()
            await barrier.wait()
            await peer.send(form_answer("200 OK"))

    return answer_when_told


async def test_a_session_is_not_replaced_while_it_is_being_ended(scene: Scene) -> None:
    """The upstream has forgotten it and gives its id to another key before it answers the DELETE."""
    answering = Barrier()
    await scene.play(hold_answers(answering))
    instance, other = scene.add_instance(), scene.add_instance()
    await instance.bind(SESSION, key_id=DEAD)
    cleaning = asyncio.create_task(instance.clean([DEAD]))
    await answering.reached.wait()
    with pytest.raises(UpstreamError) as refused:
        await other.bind(SESSION, key_id=ALSO_DEAD)
    assert refused.value.reason is Reason.UPSTREAM_SESSION_CONFLICT
    answering.open.set()
    await cleaning
    await other.bind(SESSION, key_id=ALSO_DEAD)
    assert await scene.count_rows() == 1


# Race 5: two instances ending one session; the claimant crashing half way.


async def test_a_session_that_one_instance_is_ending_is_left_alone_by_the_others(scene: Scene) -> None:
    answering = Barrier()
    await scene.play(hold_answers(answering))
    instance, other = scene.add_instance(), scene.add_instance()
    await instance.bind(SESSION)
    cleaning = asyncio.create_task(instance.clean([DEAD]))
    await answering.reached.wait()
    rounds = [asyncio.create_task(other.clean(keys)) for keys in ([DEAD], None)]
    while scene.list_ended() == [SESSION] and not all(task.done() for task in rounds):
        await asyncio.sleep(0)
    assert scene.list_ended() == [SESSION]
    answering.open.set()
    await asyncio.gather(cleaning, *rounds)
    assert await scene.count_rows() == 0


async def test_an_instance_that_crashes_before_the_upstream_answered_leaves_the_session_to_another(
    scene: Scene,
) -> None:
    answering = Barrier()
    await scene.play(hold_answers(answering))
    crashing, other = scene.add_instance(), scene.add_instance()
    await crashing.bind(SESSION)
    cleaning = asyncio.create_task(crashing.clean([DEAD]))
    await answering.reached.wait()
    assert await scene.count_rows() == 1, "the row goes when the upstream has answered, not when it was asked"
    for task in tuple(crashing.cleanup._tasks):
        task.cancel()
    await cleaning
    answering.open.set()
    await other.clean([DEAD])
    assert scene.list_ended() == [SESSION], "the claim has not lapsed yet"
    await scene.let_claims_lapse()
    await other.clean([DEAD])
    assert scene.list_ended() == [SESSION, SESSION]
    assert await scene.count_rows() == 0
