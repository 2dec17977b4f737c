"""What only our own pool promises, I: what it puts on the wire, and what it takes from a hostile origin."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from proxy.errors import Reason, UpstreamError
from proxy.upstream import UpstreamAborted, UpstreamCall, UpstreamResponse
from proxy.upstream import parse_upstream_address as parse
from proxy.upstream_answer import Answer
from proxy.upstream_connection import PAUSE_ABOVE_BYTES, RECEIVE_BUFFER_BYTES, UpstreamConnection
from tests.hostile_origin import Peer, answering
from tests.upstream_stage import (
    CHUNKED,
    HEADERS,
    HELLO,
    OK,
    UpstreamStage,
    fetch,
    post,
    refusal,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')


async def test_the_request_on_the_wire_is_exactly_this(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    await fetch(upstream)
    response = await upstream.open().send("DELETE", "/%2e%2e//x;y?", [("A", "é\t~"), ("a", "")], b"")
    response.release()
    host = b"Host: 127.0.0.1:%d\r\n" % origin.port
    assert origin.requests == [
        b"POST /mcp HTTP/1.1\r\n%bContent-Type: application/json\r\nX-Nonce: n1\r\nContent-Length: 2\r\n\r\n{}" % host,
        b"DELETE /%%2e%%2e//x;y? HTTP/1.1\r\n%bA: \xe9\t~\r\na: \r\n\r\n" % host,
    ]


async def test_a_gate_is_asked_between_connecting_and_the_first_byte_and_may_close(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)

    async def stay_shut() -> None:
        assert upstream.active_connections == 1
        raise UpstreamAborted

    with pytest.raises(UpstreamAborted):
        await upstream.open().send("POST", "/mcp", HEADERS, b"{}", gate=stay_shut)
    assert origin.requests == []
    await wait_until(lambda: upstream.active_connections == 0)


async def test_a_gate_is_not_asked_when_nothing_had_to_be_waited_for(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    await fetch(upstream)

    async def stay_shut() -> None:
        raise AssertionError("the connection was at hand")

    response = await upstream.open().send("POST", "/mcp", HEADERS, b"{}", gate=stay_shut)
    response.release()


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET ", "/", []),
        ("GET\r\nX: y", "/", []),
        ("CONNECT", "/", []),
        ("get", "/", []),
        ("GET", "", []),
        ("GET", "mcp", []),
        ("GET", "http://evil/mcp", []),
        ("GET", "/ HTTP/1.1\r\nX: y", []),
        ("GET", "/a b", []),
        ("GET", "/é", []),
        ("GET", "/\0", []),
        ("GET", "/\n", []),
        ("GET", "/", [("A", "b\r\nC: d")]),
        ("GET", "/", [("A", "b\r\n")]),
        ("GET", "/", [("A", "b\n")]),
        ("GET", "/", [("A", "b\r")]),
        ("GET", "/", [("A", "b\0")]),
        ("GET", "/", [("A", "b\x7f")]),
        ("GET", "/", [("A", "\u20ac")]),
        ("GET", "/", [("A\r\nB", "c")]),
        ("GET", "/", [("A: b\r\nC", "d")]),
        ("GET", "/", [("A ", "b")]),
        ("GET", "/", [("", "b")]),
        ("GET", "/", [("Host", "evil")]),
        ("GET", "/", [("content-length", "0")]),
        ("GET", "/", [("Transfer-Encoding", "chunked")]),
        ("GET", "/", [("CONNECTION", "close")]),
    ],
)
async def test_what_would_not_be_read_as_this_very_request_is_not_sent(
    stage: UpstreamStage, method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    for _ in range(2):  # a name refused once is not known as good afterwards
        with pytest.raises(ValueError, match=r"not|control|codec"):
            await upstream.open().send(method, target, [*HEADERS, *headers], b"{}")
    assert origin.peers == []


async def test_a_call_sends_only_once(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    call = stage.make(origin.port).open()
    response = await call.send("POST", "/", HEADERS, b"{}")
    with pytest.raises(RuntimeError):
        await call.send("POST", "/", HEADERS, b"{}")
    response.release()
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "broken",
    [
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 103 E\r\n\r\n" * 9 + HELLO,
        b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + HELLO,
        b"HTTP/1.1 204 N\r\nContent-Length: 2\r\n\r\nhi",
        OK + b"X: " + b"a" * 65536 + b"\r\n\r\n",
        OK + b"X: a\n\r\n",
        OK + b"X: a\0\r\n\r\n",
        CHUNKED + b"2\r\nhi\r\nZ\r\n",
    ],
)
async def test_after_a_broken_answer_the_next_client_is_served_on_another_connection(
    stage: UpstreamStage, broken: bytes
) -> None:
    origin = await stage.start(answering(broken, HELLO))
    upstream = stage.make(origin.port)
    assert await refusal(upstream) is Reason.UPSTREAM_PROTOCOL
    assert await fetch(upstream) == b"hello"
    assert [len(peer.requests) for peer in origin.peers] == [1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        HELLO + OK + b"Content-Length: 6\r\n\r\npoison",
        HELLO + b"H",
        HELLO.replace(b"200", b"304"),
        b"HTTP/1.1 204 N\r\n\r\npoison",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\npoison",
    ],
)
async def test_after_surplus_bytes_the_next_client_is_served_on_another_connection(
    stage: UpstreamStage, answer: bytes
) -> None:
    origin = await stage.start(answering(answer, HELLO))
    upstream = stage.make(origin.port)
    assert await fetch(upstream) in (b"hello", b"")
    assert await fetch(upstream) == b"hello"
    assert [len(peer.requests) for peer in origin.peers] == [1, 1]


async def test_surplus_bytes_that_come_late_end_the_idle_connection(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HELLO)

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    assert await fetch(upstream) == b"hello"
    assert upstream.idle_connections == 1
    await origin.peers[0].send(OK + b"Content-Length: 6\r\n\r\npoison")
    await wait_until(lambda: upstream.idle_connections == 0)
    assert await fetch(upstream) == b"hello"
    assert len(origin.peers) == 2


async def test_surplus_bytes_the_loop_has_not_seen_yet_are_found_before_the_connection_is_used(
    stage: UpstreamStage,
) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    assert await fetch(upstream) == b"hello"
    origin.peers[0].send_at_once(OK + b"Content-Length: 6\r\n\r\npoison")
    assert await fetch(upstream) == b"hello"
    assert [len(peer.requests) for peer in origin.peers] == [1, 1]


async def test_a_close_the_loop_has_not_seen_yet_is_found_before_the_connection_is_used(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upstream = stage.make(origin.port)
    assert await fetch(upstream) == b"hello"
    origin.peers[0].end_at_once()
    assert await fetch(upstream) == b"hello"
    assert [len(peer.requests) for peer in origin.peers] == [1, 1]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_request_whose_reused_connection_dies_is_never_sent_again(stage: UpstreamStage, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HELLO)
        await peer.read_request()
        peer.reset() if how == "reset" else await peer.close()

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    assert await fetch(upstream) == b"hello"
    assert await refusal(upstream) is Reason.UPSTREAM_UNREACHABLE
    assert len(origin.requests) == 2
    assert len(origin.peers) == 1


async def test_a_greeting_before_the_request_ends_the_connection_unused(stage: UpstreamStage) -> None:
    connected = asyncio.Event()

    async def script(peer: Peer) -> None:
        await connected.wait()
        await peer.send(OK + b"Content-Length: 6\r\n\r\npoison")

    origin = await stage.start(script)
    connection = UpstreamConnection(memoryview(bytearray(1024)), lambda _: None)
    await connection.connect(parse(f"http://127.0.0.1:{origin.port}"), None, 5)
    connected.set()
    await connection.closed
    with pytest.raises(UpstreamError):
        await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", Answer(to_head=False, max_header_bytes=1024), 5)
    await origin.peers[0].wait_gone()
    assert origin.peers[0].stray_bytes == b""


async def test_an_origin_that_closes_at_once_does_not_keep_anyone_waiting(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        peer.reset()

    upstream = stage.make((await stage.start(script)).port)
    for _ in range(5):
        assert await refusal(upstream) is Reason.UPSTREAM_UNREACHABLE


async def test_a_connection_still_sending_its_request_is_not_used_again(stage: UpstreamStage) -> None:
    released = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 413 L\r\nContent-Length: 0\r\n\r\n")
        await released.wait()

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    response = await post(upstream, b"x" * (32 << 20))
    assert response.status == 413
    response.release()
    released.set()
    assert upstream.idle_connections == 0
    await wait_until(lambda: upstream.active_connections == 0)


async def test_a_slow_reader_holds_the_upstream_back_and_loses_nothing(stage: UpstreamStage) -> None:
    block = b"x" * 65536
    blocks = 1024  # 64 MiB without a line end

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % (blocks * len(block)))
        await peer.send(*[block] * blocks)

    origin = await stage.start(script)
    call = stage.make(origin.port).open()
    response = await call.send("POST", "/", HEADERS, b"{}")
    await wait_until(lambda: is_paused(call) and origin.peers[0].is_held_back())
    digest = hashlib.sha256()
    longest = 0
    while chunk := await response.read_chunk():
        digest.update(chunk)
        longest = max(longest, len(chunk))
    assert digest.digest() == hashlib.sha256(block * blocks).digest()
    assert PAUSE_ABOVE_BYTES < longest <= PAUSE_ABOVE_BYTES + RECEIVE_BUFFER_BYTES
    response.release()


async def test_a_connection_paused_by_an_unread_complete_answer_can_be_used_again(stage: UpstreamStage) -> None:
    size = PAUSE_ABOVE_BYTES + 1000
    origin = await stage.start(answering(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, HELLO))
    upstream = stage.make(origin.port)
    response = await post(upstream)
    await wait_until(lambda: get_answer(response).complete)
    response.release()
    assert await fetch(upstream) == b"hello"
    assert len(origin.peers) == 1


async def test_a_trickle_of_framing_without_content_does_not_count_as_news(stage: UpstreamStage) -> None:
    stop = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED + b"1;")
        while not stop.is_set():
            await peer.send(b"a")
            await asyncio.sleep(0)

    origin = await stage.start(script)
    assert await refusal(stage.make(origin.port, idle_timeout_seconds=0.1)) is Reason.UPSTREAM_TIMEOUT
    stop.set()


# Behind the interface, for what has no other witness.


def get_connection(call: UpstreamCall) -> Any:
    return call._connection


def get_answer(response: UpstreamResponse) -> Any:
    return get_connection(response._call)._answer


def is_paused(call: UpstreamCall) -> bool:
    return bool(get_connection(call)._paused)
