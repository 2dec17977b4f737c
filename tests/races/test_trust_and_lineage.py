"""Races 6, 7 and 9: a flushed memory with thousands of waiters, a process that slept, a child minted too late."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from proxy.clock import SystemClock
from proxy.database import Database
from proxy.errors import DatabaseError
from proxy.identity import KeyId
from proxy.keys.callers import hold, renew
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintedKey
from proxy.keys.rights import CallerError, form_caller_of_key
from proxy.keys.store import KeyStore
from proxy.news import EVERYTHING
from tests.hostile_origin import HostileOrigin, Peer
from tests.races.barriers import connect_client, put_to_sleep, tally_answers
from tests.raw_client import ask_raw, form_request
from tests.records import form_key_id, form_secret_token, make_record, make_secret
from tests.staging import GUARD_SECONDS, Stage, form_call
from tests.test_verification import Hall, Table

CALL = form_call("aegis.runtime.list")
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
RESULT = OK + b'Content-Type: application/json\r\nContent-Length: 36\r\n\r\n{"jsonrpc":"2.0","id":1,"result":{}}'
SECRET = b"data: what nobody may see without trust\n\n"


# Race 6: a flushed memory, with thousands of waiters.


async def test_thousands_who_wait_for_a_flushed_memory_cost_no_more_reads_than_there_are_keys(hasher: Hasher) -> None:
    """Some come before the first statement is sent, most one by one while it runs; none of it costs a hash."""
    table = Table()
    tokens = [form_secret_token(form_key_id(number)) for number in range(10)]
    hall = Hall([], table.read_keys, hasher)
    for token in tokens:
        table.put(make_record(token.key_id, secrets=[make_secret(token, await hasher.hash(token.secret))]))
        await hall.verify(token)
    before = table.reads
    hall.news.add(EVERYTHING)
    table.hold()
    waiting = [asyncio.create_task(hall.verify(token)) for token in tokens * 50]
    await hall.wait_until(lambda: table.reads > before)
    for token in tokens * 250:
        waiting.append(asyncio.create_task(hall.verify(token)))
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    table.answer()
    await asyncio.gather(*waiting)
    assert table.reads - before <= len(tokens)
    assert hasher.pending == 0
    await hall.reader.aclose()


# Race 7: a suspended or stalled process.

# Heartbeats so rare that no timer of the proxy's fires while a test runs: what is not compared inline is not noticed.
DROWSY = {"heartbeat_seconds": 40.0, "lease_seconds": 80.0, "grace_seconds": 10.0, "revalidate_seconds": 3600.0}


async def test_a_chunk_that_lay_waiting_while_the_process_slept_is_not_relayed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, clock, tally = await stage.mint(), put_to_sleep(monkeypatch), tally_answers(monkeypatch)
    before, after = EVENTS + b"8\r\n: well\n\n\r\n", b"%x\r\n%b\r\n" % (len(SECRET), SECRET)

    async def begin(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(before)

    async with (
        HostileOrigin(begin) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", revocation=DROWSY) as proxy,
        connect_client(proxy.data_address) as client,
    ):
        client.send(form_request("POST", "/mcp/v1", "Connection: close", token=key.token, body=CALL))
        await client.wait_for(b": well\n\n")
        clock.asleep_seconds += 100.0
        origin.peers[0].send_at_once(after)
        await tally.wait_taken(before + after, proxy)
        assert SECRET not in client.received
        received = await client.wait_end()
        assert SECRET not in received
        assert b'"reason":"database_silent"' in received


@pytest.mark.parametrize(
    ("slept_seconds", "status", "reason"),
    [(70.0, 200, None), (85.0, 401, "key_revoked"), (100.0, 503, "database_silent")],
    ids=["within the lease", "past it", "past lease and grace"],
)
async def test_whoever_comes_first_after_the_process_slept_is_judged_by_the_time_of_waking(
    slept_seconds: float, status: int, reason: str | None, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked meanwhile, and nobody said so: within the lease memory decides, past it the row, then nobody."""
    key, clock = await stage.mint(), put_to_sleep(monkeypatch)

    async def answer_all(peer: Peer) -> None:
        while True:
            await peer.read_request()
            await peer.send(RESULT)

    async with (
        HostileOrigin(answer_all) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", revocation=DROWSY) as proxy,
    ):
        request = form_request(token=key.token, body=CALL)
        assert (await ask_raw(proxy.data_address, request)).status == 200
        await revoke_untold(stage, key)
        clock.asleep_seconds += slept_seconds
        answer = await ask_raw(proxy.data_address, request)
        assert (answer.status, answer.reason) == (status, reason)


def test_boot_time_is_the_clock_that_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that never slept the two clocks agree, so they are told apart here."""
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_MONOTONIC: 1.0, time.CLOCK_BOOTTIME: 2.0}.__getitem__)
    assert SystemClock().boot() == 2.0


async def revoke_untold(stage: Stage, key: MintedKey) -> None:
    """Revoke without news, as if its words were lost."""
    connection = await asyncpg.connect(stage.database_url)
    try:
        async with connection.transaction():
            await connection.execute("ALTER TABLE api_keys DISABLE TRIGGER aegis_4_tell")
            await connection.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", key.summary.id)
            await connection.execute("ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_4_tell")
    finally:
        await connection.close()


# Race 9: a child key minted while its parent is being revoked.


CHILD = """
INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id)
SELECT $1, owner_id, 'child', scopes, 'test', id FROM api_keys WHERE id = $2
"""
WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = $1"


async def wait_for_lock(stage: Stage, connection: asyncpg.Connection) -> None:
    """Return when a statement of this connection stands behind another's lock."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not await stage.database.fetch(WAITING, connection.get_server_pid()):
            pass


async def test_a_child_minted_while_its_parent_is_being_revoked_waits_for_it_and_is_refused(stage: Stage) -> None:
    """The revocation has looked for children before this one was there, and is committed after it was sent."""
    parent = await stage.mint()
    revoking, minting = await asyncpg.connect(stage.database_url), await asyncpg.connect(stage.database_url)
    transaction = revoking.transaction()
    await transaction.start()
    await revoking.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", parent.summary.id)
    inserting = asyncio.create_task(minting.execute(CHILD, form_key_id(1), parent.summary.id))
    await wait_for_lock(stage, minting)
    await transaction.commit()
    with pytest.raises(asyncpg.CheckViolationError, match=r"parent of key .* is revoked"):
        await inserting
    await revoking.close()
    await minting.close()


async def test_a_revocation_sent_while_a_child_is_being_minted_waits_for_it_and_takes_it_along(stage: Stage) -> None:
    parent = await stage.mint()
    revoking, minting = await asyncpg.connect(stage.database_url), await asyncpg.connect(stage.database_url)
    transaction = minting.transaction()
    await transaction.start()
    await minting.execute(CHILD, form_key_id(1), parent.summary.id)
    updating = asyncio.create_task(
        revoking.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", parent.summary.id)
    )
    await wait_for_lock(stage, revoking)
    await transaction.commit()
    await updating
    child = await stage.store.find_key(form_key_id(1))
    assert child is not None
    assert child.status == "revoked"
    await revoking.close()
    await minting.close()


async def test_a_revocation_that_waits_is_not_passed_by_changes_that_come_later(stage: Stage) -> None:
    """A key that changes its child again and again holds its own rows each time: were they only shared, the changes
    that come while a revocation waits would be let in before it, for as long as they come."""
    parent = await stage.mint("full-access", tier="enterprise")
    caller = form_caller_of_key(
        (await stage.store.read_keys([KeyId(parent.summary.id)]))[KeyId(parent.summary.id)], stage.policy
    )
    first, revoking, later = [await asyncpg.connect(stage.database_url) for _ in range(3)]
    transaction = first.transaction()
    await transaction.start()
    await hold(first, caller, None)
    updating = asyncio.create_task(
        revoking.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", parent.summary.id)
    )
    await wait_for_lock(stage, revoking)
    behind = later.transaction()
    await behind.start()
    holding = asyncio.create_task(hold(later, caller, None))
    await wait_for_lock(stage, later)
    await transaction.commit()
    await updating
    await holding
    with pytest.raises(CallerError):
        await renew(later, caller, stage.policy)
    await behind.rollback()
    for connection in (first, revoking, later):
        await connection.close()


async def test_a_revocation_outlasts_what_other_statements_are_given(stage: Stage) -> None:
    """Its tree may be large. What it waits for here is a lock."""
    key = await stage.mint()
    blocking = await asyncpg.connect(stage.database_url)
    transaction = blocking.transaction()
    await transaction.start()
    await blocking.execute("SELECT FROM api_keys WHERE id = $1 FOR NO KEY UPDATE", key.summary.id)
    async with Database.open(
        stage.database_url, min_size=2, max_size=2, connect_timeout_seconds=10, query_timeout_seconds=0.3
    ) as impatient:
        revoking = asyncio.create_task(KeyStore(impatient).revoke_key(key.summary.id, actor="test"))
        async with asyncio.timeout(GUARD_SECONDS):
            while not await stage.database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"):
                pass
        with pytest.raises(DatabaseError):
            await impatient.fetch("SELECT pg_sleep(60)")  # given up: as long has the revocation waited
        assert not revoking.done()
        await transaction.commit()
        summary = await revoking
    assert summary is not None
    assert summary.status == "revoked"
    await blocking.close()
