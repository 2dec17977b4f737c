"""The contract of the upstream pool, which aiohttp's ClientSession fulfils as well."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.errors import Reason, UpstreamError
from proxy.upstream import Upstream, UpstreamAborted
from tests.hostile_origin import Peer, answering
from tests.uploads import Faucet, ReadRequest
from tests.upstream_reference import ReferenceUpstream
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


@pytest.fixture(params=[Upstream, ReferenceUpstream], ids=["own", "reference"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[UpstreamStage]:
    async with UpstreamStage(request.param) as stage:
        yield stage


async def test_a_request_reaches_the_origin_and_its_answer_comes_back(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(OK + b"X-A: 1\r\nx-a: 2\r\nX-B: \xe9\r\nContent-Length: 5\r\n\r\nhello"))
    response = await stage.make(origin.port).open().send("POST", "/a/%7eb?q=%2F..&r=+", HEADERS, b'{"a":1}')
    assert response.status == 200
    assert response.headers.getall("X-A") == ["1", "2"]
    assert response.headers["x-b"] == "\xe9"
    assert await response.read_all(5) == b"hello"
    assert await response.read_chunk() == b""
    response.release()
    (request,) = origin.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a/%7eb?q=%2F..&r=+ HTTP/1.1"
    assert b"Host: 127.0.0.1:%d" % origin.port in lines
    assert {b"Content-Type: application/json", b"X-Nonce: n1", b"Content-Length: 7"} <= set(lines)
    assert body == b'{"a":1}'


async def test_a_request_without_a_body_has_no_body(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    response = await stage.make(origin.port).open().send("GET", "/", [], b"")
    assert await response.read_all(5) == b"hello"
    response.release()
    assert b"content-length" not in origin.requests[0].lower()
    assert b"transfer-encoding" not in origin.requests[0].lower()


@pytest.mark.parametrize("length", [None, 5])
async def test_an_upload_reaches_the_origin_piece_by_piece(stage: UpstreamStage, length: int | None) -> None:
    origin = await stage.start(answering(HELLO))
    upload = Faucet(b"he", b"llo", b"", length=length)
    response = await stage.make(origin.port).open().send("POST", "/", HEADERS, upload)
    assert await response.read_all(5) == b"hello"
    response.release()
    read = ReadRequest(origin.requests[0])
    assert (read.complete, read.body) == (True, b"hello")
    assert (b"Content-Length" in read.headers) is (length is not None)


async def test_the_answer_to_an_upload_is_there_as_soon_as_its_head_is(stage: UpstreamStage) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await go_on.wait()
        assert await peer.read_exactly(12) == b"2\r\nhe\r\n0\r\n\r\n"
        await peer.send(b"0\r\n\r\n")

    origin = await stage.start(script)
    upload = Faucet(b"he")
    response = await stage.make(origin.port).open().send("POST", "/", HEADERS, upload)
    assert await response.read_chunk() == b"hi"
    upload.put(b"")
    go_on.set()
    assert await response.read_chunk() == b""
    response.release()


async def test_a_call_aborted_during_its_upload_makes_no_complete_request(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upload = Faucet(b"he")
    call = stage.make(origin.port).open()
    sending = asyncio.create_task(call.send("POST", "/", HEADERS, upload))
    await wait_until(lambda: upload.waiting)
    call.abort()
    with pytest.raises(UpstreamAborted):
        await sending
    await origin.peers[0].wait_gone()
    assert origin.requests == []


async def test_a_small_answer_that_has_arrived_is_read_without_waiting(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    response = await post(stage.make(origin.port))
    assert response.try_read_all() == b"hello"
    response.release()


async def test_an_answer_still_on_its_way_is_not_read_early(stage: UpstreamStage) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HELLO[:-2])
        await go_on.wait()
        await peer.send(HELLO[-2:])

    response = await post(stage.make((await stage.start(script)).port))
    assert response.try_read_all() is None
    go_on.set()
    assert await response.read_all(5) == b"hello"
    response.release()


async def test_each_event_of_a_stream_is_readable_before_the_next_is_sent(stage: UpstreamStage) -> None:
    read: asyncio.Queue[None] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED)
        for _ in range(3):
            await peer.send(b"9\r\ndata: x\n\n\r\n")
            await read.get()
        await peer.send(b"0\r\nX-Trailer: dropped\r\n\r\n")

    response = await post(stage.make((await stage.start(script)).port))
    for _ in range(3):
        assert await response.read_chunk() == b"data: x\n\n"
        read.put_nowait(None)
    assert await response.read_chunk() == b""
    assert "X-Trailer" not in response.headers
    response.release()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_without_a_length_lasts_until_the_origin_closes(stage: UpstreamStage, version: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/" + version + b" 200 OK\r\n\r\nhel", b"lo")
        await peer.close()

    assert await fetch(stage.make((await stage.start(script)).port)) == b"hello"


@pytest.mark.parametrize("sent", [HELLO[:-2], CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n"])
async def test_a_truncated_body_is_an_error_and_never_a_clean_end(stage: UpstreamStage, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(sent)
        await peer.close()

    assert await refusal(stage.make((await stage.start(script)).port)) is Reason.UPSTREAM_PROTOCOL


async def test_interim_answers_are_skipped(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\n" + HELLO))
    response = await post(stage.make(origin.port))
    assert response.status == 200
    assert "Link" not in response.headers
    assert await response.read_all(5) == b"hello"
    response.release()


async def test_an_answer_to_head_has_no_body(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(OK + b"Content-Length: 5\r\n\r\n"))
    response = await stage.make(origin.port).open().send("HEAD", "/", [], b"")
    assert await response.read_chunk() == b""
    assert response.headers["Content-Length"] == "5"
    response.release()


async def test_redirects_are_not_followed_and_cookies_not_kept(stage: UpstreamStage) -> None:
    origin = await stage.start(
        answering(b"HTTP/1.1 307 T\r\nLocation: /b\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    )
    upstream = stage.make(origin.port)
    for _ in range(2):
        response = await post(upstream)
        assert (response.status, response.headers["Location"], response.headers["Set-Cookie"]) == (307, "/b", "a=b")
        response.release()
    assert len(origin.requests) == 2
    assert b"cookie" not in b"".join(origin.requests).lower()


async def test_a_compressed_body_stays_compressed(stage: UpstreamStage) -> None:
    packed = gzip.compress(b"hello")
    origin = await stage.start(
        answering(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
    )
    assert await fetch(stage.make(origin.port)) == packed


async def test_an_answer_longer_than_the_limit_is_refused(stage: UpstreamStage) -> None:
    response = await post(stage.make((await stage.start(answering(HELLO))).port))
    with pytest.raises(UpstreamError) as error:
        await response.read_all(4)
    assert error.value.reason is Reason.UPSTREAM_ANSWER_TOO_LARGE
    response.release()


async def test_a_port_where_nobody_listens_is_unreachable(stage: UpstreamStage) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert await refusal(stage.make(closed.getsockname()[1])) is Reason.UPSTREAM_UNREACHABLE


async def test_an_origin_that_never_answers_times_out(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\nX: ")

    origin = await stage.start(script)
    assert await refusal(stage.make(origin.port, headers_timeout_seconds=0.05)) is Reason.UPSTREAM_TIMEOUT
    await origin.peers[0].wait_gone()


async def test_a_stream_that_falls_silent_times_out_after_what_had_come(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(HELLO[:-2])

    origin = await stage.start(script)
    response = await post(stage.make(origin.port, idle_timeout_seconds=0.05))
    assert await response.read_chunk() == b"hel"
    with pytest.raises(UpstreamError) as error:
        await response.read_chunk()
    assert error.value.reason is Reason.UPSTREAM_TIMEOUT
    await origin.peers[0].wait_gone()
    response.release()


async def test_a_connection_is_used_again_after_a_clean_end_and_not_otherwise(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO, HELLO, OK + b"Content-Length: 99\r\n\r\nhello", HELLO))
    upstream = stage.make(origin.port)
    assert await fetch(upstream) == await fetch(upstream) == b"hello"
    assert len(origin.peers) == 1
    response = await post(upstream)
    response.release()
    await origin.peers[0].wait_gone()
    assert await fetch(upstream) == b"hello"
    assert [len(peer.requests) for peer in origin.peers] == [3, 1]


async def test_open_streams_never_share_a_connection(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED + b"1\r\n%d\r\n" % peer.number)

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    streams = [await post(upstream) for _ in range(5)]
    assert {await stream.read_chunk() for stream in streams} == {b"0", b"1", b"2", b"3", b"4"}
    assert len(origin.peers) == 5
    for stream in streams:
        stream.release()


async def test_a_call_aborted_before_it_is_sent_sends_nothing(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    call = stage.make(origin.port).open()
    call.abort()
    with pytest.raises(UpstreamAborted):
        await call.send("POST", "/", HEADERS, b"{}")
    assert origin.peers == []


async def test_abort_before_the_head_ends_the_wait_and_the_connection(stage: UpstreamStage) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_request()
        asked.set()

    origin = await stage.start(script)
    call = stage.make(origin.port).open()
    sending = asyncio.create_task(call.send("POST", "/", HEADERS, b"{}"))
    await asked.wait()
    call.abort()
    call.abort()
    with pytest.raises(UpstreamAborted):
        await sending
    await origin.peers[0].wait_gone()


async def test_abort_in_the_middle_of_the_body_ends_the_wait_and_the_connection(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED + b"2\r\nhi\r\n")

    origin = await stage.start(script)
    call = stage.make(origin.port).open()
    response = await call.send("POST", "/", HEADERS, b"{}")
    assert await response.read_chunk() == b"hi"
    reading = asyncio.create_task(response.read_chunk())
    await asyncio.sleep(0)
    call.abort()
    with pytest.raises(UpstreamAborted):
        await reading
    await origin.peers[0].wait_gone()
    with pytest.raises(UpstreamAborted):
        await response.read_chunk()
    response.release()


async def test_closing_the_pool_ends_every_call_and_refuses_new_ones(stage: UpstreamStage) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(CHUNKED)

    origin = await stage.start(script)
    upstream = stage.make(origin.port)
    response = await post(upstream)
    reading = asyncio.create_task(response.read_chunk())
    await asyncio.sleep(0)
    await upstream.aclose()
    with pytest.raises(UpstreamAborted):
        await reading
    with pytest.raises(UpstreamAborted):
        await post(upstream)
    await origin.peers[0].wait_gone()
