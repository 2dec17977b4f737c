"""What only our own pool promises, II: that every call can be ended at any moment, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from proxy.errors import Reason
from proxy.upstream import UpstreamAborted, UpstreamResponse
from tests.hostile_origin import Peer, answering
from tests.upstream_stage import (
    CHUNKED,
    HEADERS,
    HELLO,
    UpstreamStage,
    count_open_sockets,
    fetch,
    pass_ticks,
    post,
    refusal,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')


async def test_idle_connections_expire(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port, keepalive_seconds=0.05)
    await fetch(upstream)
    assert (upstream.idle_connections, upstream.active_connections) == (1, 0)
    await origin.peers[0].wait_gone()
    await wait_until(lambda: upstream.idle_connections == 0)


async def test_no_more_connections_are_kept_than_wanted_and_the_youngest_is_used_first(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port, max_idle_connections=2)
    responses = [await post(upstream) for _ in range(3)]
    assert upstream.active_connections == 3
    for response in responses:
        response.release()
    assert upstream.idle_connections == 2
    await origin.peers[2].wait_gone()
    await fetch(upstream)
    await fetch(upstream)
    assert [len(peer.requests) for peer in origin.peers] == [1, 3, 1]


async def test_after_abort_not_even_what_had_arrived_is_handed_on(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    call = stage.make(origin.port).open()
    response = await call.send("POST", "/", HEADERS, b"{}")
    call.abort()
    assert response.try_read_all() is None
    with pytest.raises(UpstreamAborted):
        await response.read_chunk()
    response.release()
    await origin.peers[0].wait_gone()


async def test_abort_after_release_leaves_the_next_call_on_the_connection_alone(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    first = upstream.open()
    response = await first.send("POST", "/", HEADERS, b"{}")
    response.release()
    response.release()
    second = await post(upstream)
    first.abort()
    response.release()
    with pytest.raises(RuntimeError):
        await response.read_chunk()
    assert await second.read_all(5) == b"hello"
    second.release()
    assert len(origin.peers) == 1


async def test_two_readers_of_one_answer_are_a_mistake(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED)

    response = await post(stage.make((await stage.start(script)).port))
    reading = asyncio.create_task(response.read_chunk())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await response.read_chunk()
    with pytest.raises(UpstreamAborted):
        await reading
    response.release()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that accepts no connection: its backlog is full, so that the next SYN stays unanswered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


async def test_connecting_times_out(stage: UpstreamStage, deaf_port: int) -> None:
    assert await refusal(stage.make(deaf_port, connect_timeout_seconds=0.05)) is Reason.UPSTREAM_TIMEOUT


@pytest.mark.parametrize("ticks", range(12))
async def test_abort_while_connecting_ends_the_wait_and_leaks_nothing(
    stage: UpstreamStage, deaf_port: int, ticks: int
) -> None:
    answering_port = (await stage.start(answering(HELLO))).port
    open_sockets = count_open_sockets()
    for port in (deaf_port, answering_port):
        upstream = stage.make(port)
        call = upstream.open()
        sending = asyncio.create_task(call.send("POST", "/", HEADERS, b"{}"))
        await pass_ticks(ticks)
        call.abort()
        (end,) = await asyncio.gather(sending, return_exceptions=True)
        assert isinstance(end, UpstreamAborted | UpstreamResponse)
        await wait_until(lambda upstream=upstream: upstream.active_connections == 0)  # type: ignore[misc]
    await wait_until(lambda: count_open_sockets() <= open_sockets)


@pytest.mark.parametrize("ticks", range(12))
async def test_cancelling_while_sending_takes_the_connection_along_and_leaks_nothing(
    stage: UpstreamStage, deaf_port: int, ticks: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()

    silent_port = (await stage.start(script)).port
    open_sockets = count_open_sockets()
    for port in (deaf_port, silent_port):
        upstream = stage.make(port)
        sending = asyncio.create_task(post(upstream))
        await pass_ticks(ticks)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await wait_until(lambda upstream=upstream: upstream.active_connections == 0)  # type: ignore[misc]
        assert upstream.idle_connections == 0
    await wait_until(lambda: count_open_sockets() <= open_sockets)


async def test_cancelling_a_read_takes_the_connection_along(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED)

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    response = await post(upstream)
    reading = asyncio.create_task(response.read_chunk())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await origin.peers[0].wait_gone()
    await wait_until(lambda: upstream.active_connections == 0)
    response.release()
    assert upstream.idle_connections == 0


async def test_closing_the_pool_while_it_connects_ends_that_too(stage: UpstreamStage, deaf_port: int) -> None:
    open_sockets = count_open_sockets()
    upstream = stage.make(deaf_port)
    sending = asyncio.create_task(post(upstream))
    await pass_ticks(3)
    await upstream.aclose()
    with pytest.raises(UpstreamAborted):
        await sending
    assert upstream.active_connections == 0
    await wait_until(lambda: count_open_sockets() <= open_sockets)


async def test_the_timer_of_a_long_wait_gives_way_to_a_shorter_one(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port, headers_timeout_seconds=60, keepalive_seconds=0.1)
    for _ in range(3):
        await fetch(upstream)
    assert len(origin.peers) == 1
    await origin.peers[0].wait_gone()
