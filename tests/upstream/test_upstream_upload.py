"""Request bodies that pass through in pieces: what stands on the wire, and beside which answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Reason, UpstreamError
from proxy.upstream_upload import UploadLengthError, carry
from tests.hostile_origin import Peer, answering
from tests.uploads import Faucet, Flood, ReadRequest
from tests.upstream_stage import (
    CHUNKED,
    HEADERS,
    HELLO,
    OK,
    UpstreamStage,
    begin,
    fetch,
    is_crowded,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

T = TypeVar("T")
BLOCK = b"x" * 65536
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n"
REFUSED = b"HTTP/1.1 413 L\r\nContent-Length: 5\r\n\r\nlarge"
PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


# The framing.


class Wire:
    """Takes what is put on it without ever being crowded."""

    def __init__(self) -> None:
        self.sent = b""

    async def put(self, part: bytes) -> None:
        self.sent += part


def run_at_once(work: Coroutine[Any, Any, T]) -> T:
    """To its end, which it must reach without waiting for anything."""
    with pytest.raises(StopIteration) as end:
        work.send(None)
    result: T = end.value.value
    return result


@given(PIECES)
def test_a_body_without_a_length_is_read_as_it_was_brought_and_ends_with_its_last_chunk(pieces: list[bytes]) -> None:
    wire = Wire()
    last = run_at_once(carry(HEAD % b"Transfer-Encoding: chunked", Flood(iter(pieces)), wire.put))
    assert not ReadRequest(wire.sent).complete
    read = ReadRequest(wire.sent + last)
    assert (read.complete, read.body) == (True, b"".join(pieces))


@given(PIECES)
def test_a_body_with_a_length_is_complete_only_when_its_end_has_been_confirmed(pieces: list[bytes]) -> None:
    wire, body = Wire(), b"".join(pieces)
    head = HEAD % (b"Content-Length: %d" % len(body))
    last = run_at_once(carry(head, Flood(iter(pieces), len(body)), wire.put))
    assert not ReadRequest(wire.sent).complete
    assert wire.sent + last == head + body


@given(PIECES, st.integers(0, 300))
def test_a_body_of_another_length_than_announced_never_makes_a_complete_request(
    pieces: list[bytes], length: int
) -> None:
    if length == sum(map(len, pieces)):
        length += 1
    wire = Wire()
    with pytest.raises(UploadLengthError):
        carry(HEAD % (b"Content-Length: %d" % length), Flood(iter(pieces), length), wire.put).send(None)
    assert not ReadRequest(wire.sent).complete


# On the wire.


@pytest.mark.parametrize(
    ("length", "framing", "body"),
    [
        (None, b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        (5, b"Content-Length: 5", b"hello"),
    ],
)
async def test_an_upload_on_the_wire_is_exactly_this_and_its_connection_is_used_again(
    stage: UpstreamStage, length: int | None, framing: bytes, body: bytes
) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    for _ in range(3):
        _, sending = begin(upstream, Faucet(b"he", b"llo", b"", length=length))
        response = await sending
        assert await response.read_all(5) == b"hello"
        response.release()
        assert await fetch(upstream) == b"hello"
    expected = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % origin.port
    expected += b"Content-Type: application/json\r\nX-Nonce: n1\r\n%b\r\n\r\n%b" % (framing, body)
    assert origin.requests[::2] == [expected] * 3
    assert len(origin.peers) == 1


@pytest.mark.parametrize(("length", "body"), [(None, b"0\r\n\r\n"), (0, b"")])
async def test_an_empty_upload_is_a_complete_request(stage: UpstreamStage, length: int | None, body: bytes) -> None:
    origin = await stage.start(answering(HELLO))
    _, sending = begin(stage.make(origin.port), Faucet(b"", length=length))
    (await sending).release()
    assert origin.requests[0].partition(b"\r\n\r\n")[2] == body


async def test_a_length_below_nothing_is_not_sent(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    with pytest.raises(ValueError, match="length"):
        await stage.make(origin.port).open().send("POST", "/", HEADERS, Faucet(length=-1))
    assert origin.peers == []


async def test_the_head_goes_out_before_the_body_is_there_and_each_piece_as_it_comes(stage: UpstreamStage) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        arrived.put_nowait(b"")
        for _ in range(3):
            arrived.put_nowait(await peer.read_exactly(2))
        await peer.send(HELLO)

    upload = Faucet(length=6)
    _, sending = begin(stage.make((await stage.start(script)).port), upload)
    async with asyncio.timeout(10):
        assert await arrived.get() == b""
        for piece in (b"ab", b"cd"):
            upload.put(piece)
            assert await arrived.get() == piece
        upload.put(b"ef", b"")
        (await sending).release()


async def test_a_body_that_is_all_there_lets_others_run_between_its_pieces(stage: UpstreamStage) -> None:
    ticks = 0
    seen: list[int] = []

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    origin = await stage.start(answering(HELLO))
    ticking = asyncio.create_task(tick())
    upload = Flood(itertools.repeat(b"x", 50), look=lambda: seen.append(ticks))
    _, sending = begin(stage.make(origin.port), upload)
    (await sending).release()
    ticking.cancel()
    assert len(set(seen)) == len(seen)


# Beside the answer.


async def test_an_early_answer_is_handed_on_and_ends_the_upload_and_the_connection(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(REFUSED if peer.number == 0 else HELLO)

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    upload = Faucet(b"he")
    _, sending = begin(upstream, upload)
    response = await sending
    assert (response.status, await response.read_all(5)) == (413, b"large")
    assert not upload.waiting
    await origin.peers[0].wait_gone()
    response.release()
    assert await fetch(upstream) == b"hello"
    assert len(origin.peers) == 2
    assert not ReadRequest(origin.requests[0] + origin.peers[0].stray_bytes).complete


async def test_an_early_answer_comes_through_while_the_upstream_takes_nothing(stage: UpstreamStage) -> None:
    answer = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await answer.wait()
        await peer.send(REFUSED)
        await asyncio.Event().wait()

    origin = await stage.start(script)
    call, sending = begin(stage.make(origin.port), Flood(itertools.repeat(BLOCK)))
    await wait_until(lambda: is_crowded(call))
    answer.set()
    response = await sending
    assert (response.status, response.try_read_all()) == (413, b"large")
    response.release()


async def test_an_upload_goes_on_beside_the_reading_of_the_answer(stage: UpstreamStage) -> None:
    async def echo(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED)
        for _ in range(3):
            await peer.send(await peer.read_exactly(len(b"2\r\nab\r\n")))
        await peer.send(await peer.read_exactly(len(b"0\r\n\r\n")))
        await answering(HELLO)(peer)

    origin = await stage.start(echo)
    upstream = stage.make(origin.port)
    upload = Faucet()
    _, sending = begin(upstream, upload)
    response = await sending
    for piece in (b"ab", b"cd", b"ef"):
        upload.put(piece)
        assert await response.read_chunk() == piece
    upload.put(b"")
    assert await response.read_chunk() == b""
    response.release()
    assert await fetch(upstream) == b"hello"
    assert len(origin.peers) == 1


async def test_after_an_early_head_a_reader_is_not_kept_waiting_by_an_upstream_that_neither_takes_nor_gives(
    stage: UpstreamStage,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED)
        await asyncio.Event().wait()

    origin = await stage.start(script)
    _, sending = begin(stage.make(origin.port, idle_timeout_seconds=0.1), Flood(itertools.repeat(BLOCK)))
    response = await sending
    with pytest.raises(UpstreamError) as error:
        await response.read_chunk()
    assert error.value.reason is Reason.UPSTREAM_TIMEOUT
    response.release()


async def test_an_answer_never_leans_into_the_next_however_it_meets_the_upload(stage: UpstreamStage) -> None:
    poison = OK + b"Content-Length: 6\r\n\r\npoison"

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(REFUSED + poison if peer.number == 0 else HELLO)

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    _, sending = begin(upstream, Faucet(b"he"))
    response = await sending
    assert await response.read_all(5) == b"large"
    response.release()
    assert await fetch(upstream) == b"hello"
    assert [len(peer.requests) for peer in origin.peers] == [1, 1]
