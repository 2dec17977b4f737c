"""Receipts: who was alive, who confirmed, who is silent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from proxy.database import Database
from proxy.demo.sample_server import SampleServer
from proxy.identity import KeyId
from proxy.receipts import Ended, Receipts, read_receipt, wait_receipt
from tests.staging import GUARD_SECONDS, Stage, connect, get_mcp_url

ROOT = Path(__file__).parent.parent
BOUND_SECONDS = 3.0


async def add_instance(database: Database, *, seen_seconds_ago: float = 0.0) -> UUID:
    """An instance that was last seen so long ago."""
    instance = uuid4()
    await database.fetch(
        "INSERT INTO instances (id, version, bound_seconds, seen_at)"
        " VALUES ($1, 'test', $2, clock_timestamp() - make_interval(secs => $3))",
        instance,
        BOUND_SECONDS,
        seen_seconds_ago,
    )
    return instance


def form_receipts(database: Database, instance: UUID) -> Receipts:
    return Receipts(database, instance=instance, version="test", bound_seconds=BOUND_SECONDS)


async def revoke(stage: Stage) -> KeyId:
    key = await stage.mint()
    await stage.revoke_by_sql(key)
    return KeyId(key.summary.id)


async def test_an_instance_that_confirmed_says_when_and_what_it_ended(stage: Stage, database: Database) -> None:
    receipts = form_receipts(database, await add_instance(database))
    key_id = await revoke(stage)
    receipts.confirm([Ended(key_id, 2, 1), Ended(KeyId("another00key"), 0, 0)])
    receipt = await wait_receipt(database, key_id, timeout_seconds=GUARD_SECONDS)
    (one,) = receipt.instances
    assert (one.state, one.streams, one.calls) == ("confirmed", 2, 1)
    assert receipt.confirmed
    assert receipt.milliseconds == one.milliseconds
    assert one.milliseconds is not None
    assert one.milliseconds > 0
    await receipts.aclose()


async def test_what_is_ended_later_is_added_and_the_first_word_stands(stage: Stage, database: Database) -> None:
    receipts = form_receipts(database, await add_instance(database))
    key_id = await revoke(stage)
    receipts.confirm([Ended(key_id, 1, 0)])
    await receipts.aclose()
    first = await read_receipt(database, key_id)
    receipts.confirm([Ended(key_id, 0, 3)])
    await receipts.aclose()
    second = await read_receipt(database, key_id)
    assert second.milliseconds == first.milliseconds
    assert (second.instances[0].streams, second.instances[0].calls) == (1, 3)


async def test_an_instance_that_is_silent_is_unconfirmed_then_fenced(stage: Stage, database: Database) -> None:
    instance = await add_instance(database)
    key_id = await revoke(stage)
    receipt = await wait_receipt(database, key_id, timeout_seconds=0)
    assert [(one.instance, one.state) for one in receipt.instances] == [(str(instance), "unconfirmed")]
    assert not receipt.confirmed
    await database.fetch(
        "UPDATE instances SET seen_at = (SELECT revoked_at FROM api_keys) - interval '1 second',"
        " bound_seconds = extract(epoch FROM clock_timestamp() - (SELECT revoked_at FROM api_keys)) + 1"
    )
    receipt = await wait_receipt(database, key_id, timeout_seconds=GUARD_SECONDS)
    assert [one.state for one in receipt.instances] == ["fenced"]
    assert not receipt.confirmed


async def test_instances_dead_before_the_revocation_are_not_asked(stage: Stage, database: Database) -> None:
    await add_instance(database, seen_seconds_ago=BOUND_SECONDS + 1)
    receipt = await wait_receipt(database, await revoke(stage), timeout_seconds=0)
    assert receipt.instances == ()
    assert receipt.confirmed


async def test_an_instance_is_seen_while_it_runs_and_gone_when_it_leaves(
    stage: Stage, sample: SampleServer, database: Database
) -> None:
    async with stage.proxy(sample.url) as proxy, asyncio.timeout(GUARD_SECONDS):
        while not (rows := await database.fetch("SELECT id FROM instances")):
            await asyncio.sleep(0.01)
        assert [row["id"] for row in rows] == [proxy.heart.instance]
    assert not await database.fetch("SELECT id FROM instances")


async def test_running_instances_confirm_with_what_they_ended(stage: Stage, sample: SampleServer) -> None:
    sample.platform.run_seconds, sample.platform.steps = 600, 6000
    key = await stage.mint()
    async with stage.proxy(sample.url) as one, stage.proxy(sample.url) as other, asyncio.timeout(GUARD_SECONDS):
        while len(await stage.database.fetch("SELECT id FROM instances")) < 2:
            await asyncio.sleep(0.01)
        async with connect(get_mcp_url(one), key.token, "2026-07-28") as client:
            call = asyncio.create_task(client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}))
            await sample.platform.runs.wait_for(started=1)
            await stage.revoke_by_sql(key)
            receipt = await wait_receipt(stage.database, key.summary.id)
            with pytest.raises(Exception, match="revoked"):
                await call
        assert receipt.confirmed
        ended = {instance.instance: instance.calls for instance in receipt.instances}
        assert ended == {str(one.heart.instance): 1, str(other.heart.instance): 0}


async def test_the_command_names_a_frozen_instance_and_exits_with_six(stage: Stage, sample: SampleServer) -> None:
    """A real process, stopped by the kernel: it can neither confirm nor be seen."""
    key = await stage.mint()
    environ = {
        **os.environ,
        "AEGIS_DATABASE_URL": stage.database_url,
        "AEGIS_UPSTREAM_MCP": sample.url,
        "AEGIS_LISTEN": "127.0.0.1:0",
        "AEGIS_OPS_LISTEN": "127.0.0.1:0",
        "AEGIS_SECRET_KEY": "the same secret for every instance of a test",
    }
    frozen = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "serve", env=environ, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(3 * GUARD_SECONDS), stage.proxy(sample.url) as running:
            while len(rows := await stage.database.fetch("SELECT id::text FROM instances")) < 2:
                await asyncio.sleep(0.05)
            (asleep,) = {row["id"] for row in rows} - {str(running.heart.instance)}
            frozen.send_signal(signal.SIGSTOP)
            command = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "proxy", "keys", "revoke", key.summary.id, "--json",
                env=environ, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await command.communicate()
    finally:
        frozen.kill()
        await frozen.wait()
    states = {one["instance"]: one["state"] for one in json.loads(output)["receipt"]["instances"]}
    assert states == {str(running.heart.instance): "confirmed", asleep: "fenced"}
    assert command.returncode == 6
