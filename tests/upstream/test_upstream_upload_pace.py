"""Request bodies that pass through in pieces: at the upstream's pace, in flat memory, under whose deadline."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from proxy.errors import Reason, UpstreamError
from proxy.upstream import UpstreamAborted, UpstreamCall
from proxy.upstream_upload import MAX_UNSENT_BYTES
from tests.hostile_origin import Peer
from tests.uploads import Faucet, Flood
from tests.upstream_stage import (
    CHUNKED,
    HELLO,
    UpstreamStage,
    begin,
    get_outflow,
    get_transport,
    is_crowded,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

BLOCK = b"x" * 65536


async def test_64_mib_pass_a_slow_reader_in_flat_memory_and_nothing_is_lost(stage: UpstreamStage) -> None:
    blocks = 1024
    taken = hashlib.sha256()
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await read_on.wait()
        for _ in range(blocks):
            taken.update(await peer.read_exactly(len(BLOCK)))
        await peer.send(HELLO)

    origin = await stage.start(script)
    held: list[int] = []
    upload = Flood(itertools.repeat(BLOCK, blocks), blocks * len(BLOCK), lambda: held.append(get_unsent_bytes(call)))
    call, sending = begin(stage.make(origin.port), upload)
    await wait_until(lambda: is_crowded(call))
    read_before = upload.reads
    await wait_until_silent(lambda: upload.reads)
    assert upload.reads == read_before < blocks
    assert 0 < get_unsent_bytes(call) <= MAX_UNSENT_BYTES + len(BLOCK)
    read_on.set()
    async with asyncio.timeout(60):
        response = await sending
    assert await response.read_all(5) == b"hello"
    response.release()
    assert taken.digest() == hashlib.sha256(BLOCK * blocks).digest()
    assert len(held) == blocks + 1
    assert max(held) <= MAX_UNSENT_BYTES


async def test_an_upstream_that_takes_nothing_for_long_times_out(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await asyncio.Event().wait()

    origin = await stage.start(script)
    upload = Flood(itertools.repeat(BLOCK))
    _, sending = begin(stage.make(origin.port, headers_timeout_seconds=0.1), upload)
    with pytest.raises(UpstreamError) as error:
        await sending
    assert error.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_an_upstream_that_takes_little_by_little_does_not_time_out_until_it_takes_nothing(
    stage: UpstreamStage,
) -> None:
    read_on: asyncio.Queue[int] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        while True:
            await peer.read_exactly(await read_on.get())

    origin = await stage.start(script)
    size = 48 << 20  # one piece, so that the transport stays crowded whatever the kernel and the origin take
    call, sending = begin(
        stage.make(origin.port, headers_timeout_seconds=600), Faucet(b"x" * size, b"", length=size + 1)
    )
    await wait_until(lambda: is_crowded(call))
    for _ in range(3):
        await wait_until_silent(lambda: get_unsent_bytes(call))
        unsent_bytes = get_unsent_bytes(call)
        read_on.put_nowait(8 << 20)
        await wait_until(lambda before=unsent_bytes: get_unsent_bytes(call) < before)  # type: ignore[misc]
        ring(call)
        await asyncio.sleep(0)
        assert not sending.done()
    await wait_until_silent(lambda: get_unsent_bytes(call))
    get_outflow(call).note_progress()
    ring(call)
    with pytest.raises(UpstreamError) as error:
        await sending
    assert error.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_deadline_of_the_upstream_ends_when_it_has_taken_what_was_there(stage: UpstreamStage) -> None:
    size = 16 << 20
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await read_on.wait()
        await peer.read_exactly(size)

    origin = await stage.start(script)
    upload = Faucet(b"x" * size, length=size + 1)
    call, sending = begin(stage.make(origin.port, headers_timeout_seconds=600), upload)
    await wait_until(lambda: is_crowded(call) and has_deadline(call))
    read_on.set()
    await wait_until(lambda: upload.waiting)
    await wait_until(lambda: not has_deadline(call))
    upload.put(b"y", b"")
    await wait_until(lambda: has_deadline(call))
    call.abort()
    with pytest.raises(UpstreamAborted):
        await sending


async def test_no_deadline_runs_while_the_next_piece_is_awaited(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED)
        await peer.read_exactly(2)

    origin = await stage.start(script)
    upload = Faucet(length=2)
    upstream = stage.make(origin.port, headers_timeout_seconds=0.1, idle_timeout_seconds=0.1)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    _, sending = begin(upstream, upload)
    response = await sending
    reading = asyncio.create_task(response.read_chunk())
    await wait_until(lambda: loop.time() > began_at + 0.3)
    assert not reading.done()
    upload.put(b"hi", b"")
    with pytest.raises(UpstreamError) as error:
        await reading
    assert error.value.reason is Reason.UPSTREAM_TIMEOUT
    assert upload.reads == 2


async def test_the_timeout_of_the_head_runs_from_the_end_of_the_upload(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()

    origin = await stage.start(script)
    upload = Faucet(b"hi")
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    _, sending = begin(stage.make(origin.port, headers_timeout_seconds=0.1), upload)
    await wait_until(lambda: loop.time() > began_at + 0.3)
    assert not sending.done()
    upload.put(b"")
    with pytest.raises(UpstreamError) as error:
        await sending
    assert error.value.reason is Reason.UPSTREAM_TIMEOUT
    assert len(origin.requests) == 1


# Behind the interface, for what has no other witness.


async def wait_until_silent(measure: Callable[[], int]) -> None:
    """Until a number has not changed for a thousand turns of the loop."""
    async with asyncio.timeout(30):
        unchanged, last = 0, measure()
        while unchanged < 1000:
            await asyncio.sleep(0)
            now = measure()
            unchanged, last = (unchanged + 1, now) if now == last else (0, now)


def get_unsent_bytes(call: UpstreamCall) -> int:
    return int(get_transport(call).get_write_buffer_size())


def has_deadline(call: UpstreamCall) -> bool:
    connection: Any = call._connection
    return bool(connection._deadline < math.inf)


def ring(call: UpstreamCall) -> None:
    """The timer of the connection, as if its time had come."""
    connection: Any = call._connection
    connection._timer.cancel()
    connection._deadline = 0.0
    connection._ring()
