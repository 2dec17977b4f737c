"""Request bodies that pass through in pieces: every way to end one, and that none makes a complete request."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from proxy.errors import Reason, RequestError, UpstreamError
from proxy.upstream import UploadLengthError, UpstreamAborted, UpstreamResponse
from tests.hostile_origin import HostileOrigin, Peer, answering
from tests.uploads import Faucet, Flood, ReadRequest
from tests.upstream_stage import (
    CHUNKED,
    HEADERS,
    HELLO,
    OK,
    UpstreamStage,
    begin,
    count_open_sockets,
    get_outflow,
    is_crowded,
    pass_ticks,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

BLOCK = b"x" * 65536


@pytest.fixture(autouse=True)
async def nothing_complained() -> AsyncIterator[None]:
    """No exception that nobody fetched, no task that was lost."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
    yield
    assert complaints == []


async def listen_only(peer: Peer) -> None:
    await peer.read_head()


async def answer_head_only(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(CHUNKED + b"2\r\nhi\r\n")


async def get_whole_request(origin: HostileOrigin) -> ReadRequest:
    """All that ever came on the one connection, once that has ended."""
    (peer,) = origin.peers
    await peer.wait_gone()
    return ReadRequest(b"".join(peer.requests) + peer.stray_bytes)


async def read_answer(sending: asyncio.Task[UpstreamResponse]) -> bytes:
    response = await sending
    return await response.read_all(1 << 20)


# Whoever brings the body gives up.

FAULTS = [
    RequestError(Reason.BODY_TIMEOUT, "too slow"),
    ConnectionResetError("the client has left"),
    UpstreamAborted(),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("length", [None, 4, 5])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_what_reading_raises_before_the_head_is_raised_by_send(
    stage: UpstreamStage, fault: BaseException, length: int | None
) -> None:
    origin = await stage.start(listen_only)
    upstream = stage.make(origin.port)
    with pytest.raises(type(fault)) as error:
        await upstream.open().send("POST", "/", HEADERS, Faucet(b"he", b"ll", fault, length=length))
    assert error.value is fault
    read = await get_whole_request(origin)
    assert not read.complete
    await wait_until(lambda: upstream.active_connections == 0)


@pytest.mark.parametrize("fault", FAULTS[:2], ids=lambda fault: type(fault).__name__)
async def test_what_reading_raises_after_the_head_is_raised_by_the_reader_of_the_answer(
    stage: UpstreamStage, fault: BaseException
) -> None:
    origin = await stage.start(answer_head_only)
    upload = Faucet(b"he")
    response = await stage.make(origin.port).open().send("POST", "/", HEADERS, upload)
    assert await response.read_chunk() == b"hi"
    reading = asyncio.create_task(response.read_chunk())
    await asyncio.sleep(0)
    upload.put(fault)
    for again in (reading, response.read_chunk()):
        with pytest.raises(type(fault)) as error:
            await again
        assert error.value is fault
    assert response.try_read_all() is None
    response.release()
    assert not (await get_whole_request(origin)).complete


async def test_after_reading_failed_not_even_what_had_arrived_is_handed_on(stage: UpstreamStage) -> None:
    origin = await stage.start(answer_head_only)
    upload = Faucet()
    response = await stage.make(origin.port).open().send("POST", "/", HEADERS, upload)
    upload.put(FAULTS[0])
    await origin.peers[0].wait_gone()
    with pytest.raises(RequestError):
        await response.read_chunk()
    response.release()


@pytest.mark.parametrize(("length", "pieces"), [(0, [b"x"]), (2, [b"hel"]), (2, [b"he", b"l"]), (6, [b"hello"])])
async def test_a_body_of_another_length_is_its_bringers_fault_and_no_complete_request(
    stage: UpstreamStage, length: int, pieces: list[bytes]
) -> None:
    origin = await stage.start(answering(HELLO))
    with pytest.raises(UploadLengthError) as error:
        await stage.make(origin.port).open().send("POST", "/", HEADERS, Faucet(*pieces, b"", length=length))
    assert isinstance(error.value, ValueError)
    assert origin.requests == []
    assert not (await get_whole_request(origin)).complete


async def test_a_body_that_defies_its_cancellation_ends_with_its_next_piece(stage: UpstreamStage) -> None:
    class Stubborn(Faucet):
        async def read(self) -> bytes:
            while True:
                with suppress(asyncio.CancelledError):
                    return await super().read()

    origin = await stage.start(listen_only)
    upload = Stubborn()
    call, sending = begin(stage.make(origin.port), upload)
    await wait_until(lambda: upload.waiting)
    carrying = get_outflow(call)._task
    call.abort()
    with pytest.raises(UpstreamAborted):
        await sending
    assert not (await get_whole_request(origin)).complete
    assert not carrying.done()
    upload.put(b"and on")
    await wait_until(carrying.done)


# The upstream gives up.


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", Reason.UPSTREAM_UNREACHABLE),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Reason.UPSTREAM_PROTOCOL),
        (OK, Reason.UPSTREAM_PROTOCOL),
        (CHUNKED + b"5\r\nhel", Reason.UPSTREAM_PROTOCOL),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("crowded", [False, True])
async def test_an_upstream_that_hangs_up_in_the_middle_of_an_upload_fails_once_and_is_not_asked_again(
    stage: UpstreamStage, said: bytes, reason: Reason, how: str, crowded: bool
) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await go.wait()
        await peer.send(said)
        peer.reset() if how == "reset" else await peer.close()

    origin = await stage.start(script)
    upload = Flood(itertools.repeat(BLOCK)) if crowded else Faucet(b"he")
    call, sending = begin(stage.make(origin.port), upload)
    await wait_until(lambda: upload.reads == 2 or is_crowded(call))
    await wait_until(lambda: len(origin.peers) == 1)
    go.set()
    with pytest.raises(UpstreamError) as error:
        await read_answer(sending)
    assert error.value.reason is reason
    assert len(origin.peers) == 1
    assert not getattr(upload, "waiting", False)


@pytest.mark.parametrize("garbage", [b"220 smtp\r\n", b"\x16\x03\x01\0", OK + b"X: a\0\r\n\r\n"])
async def test_an_upstream_that_talks_nonsense_into_an_upload_ends_it(stage: UpstreamStage, garbage: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(garbage)

    origin = await stage.start(script)
    upload = Faucet(b"he")
    with pytest.raises(UpstreamError) as error:
        await stage.make(origin.port).open().send("POST", "/", HEADERS, upload)
    assert error.value.reason is Reason.UPSTREAM_PROTOCOL
    assert not upload.waiting
    assert not (await get_whole_request(origin)).complete


# We give up.


@pytest.mark.parametrize("how", ["abort", "cancel", "close"])
@pytest.mark.parametrize("ticks", [*range(12), 20, 40])
@pytest.mark.parametrize("kind", ["slow", "flood"])
async def test_an_upload_can_be_ended_at_any_moment_and_leaves_nothing_behind(
    stage: UpstreamStage, how: str, ticks: int, kind: str
) -> None:
    origin = await stage.start(answer_head_only if ticks % 2 else listen_only)
    open_sockets = count_open_sockets()
    upstream = stage.make(origin.port)
    tasks = asyncio.all_tasks()
    upload = Faucet(b"he") if kind == "slow" else Flood(itertools.repeat(BLOCK))
    call, sending = begin(upstream, upload)
    await pass_ticks(ticks)
    if how == "abort":
        call.abort()
    elif how == "cancel":
        sending.cancel()
    else:
        await upstream.aclose()
    (end,) = await asyncio.gather(sending, return_exceptions=True)
    assert isinstance(end, UpstreamAborted | UpstreamResponse | asyncio.CancelledError)
    call.abort()
    await wait_until(lambda: upstream.active_connections == 0)
    await wait_until(lambda: count_open_sockets() <= open_sockets)
    ours = {task for task in asyncio.all_tasks() - tasks if "HostileOrigin" not in repr(task.get_coro())}
    assert ours == set()
    assert not getattr(upload, "waiting", False)
    for peer in origin.peers:
        await peer.wait_gone()
        assert not ReadRequest(b"".join(peer.requests) + peer.stray_bytes).complete
