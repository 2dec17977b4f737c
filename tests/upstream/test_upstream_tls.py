"""The upstream pool over TLS."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import threading
from pathlib import Path

import pytest

from proxy.errors import Reason, UpstreamError
from proxy.upstream import UpstreamAborted, UpstreamResponse
from proxy.upstream_upload import MAX_UNSENT_BYTES
from tests.certificates import make_certificate
from tests.hostile_origin import Peer, answering
from tests.uploads import Faucet, Flood
from tests.upstream_stage import (
    HEADERS,
    HELLO,
    OK,
    UpstreamStage,
    begin,
    count_open_sockets,
    fetch,
    get_transport,
    is_crowded,
    pass_ticks,
    refusal,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def shown(certificate: Path) -> ssl.SSLContext:
    """What the origin shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path) -> ssl.SSLContext:
    """What the pool trusts."""
    return ssl.create_default_context(cafile=str(certificate))


async def test_tls_connections_are_used_again(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    origin = await stage.start(answering(HELLO), shown)
    upstream = stage.make(origin.port, ssl_context=trusted)
    for _ in range(3):
        assert await fetch(upstream) == b"hello"
    assert len(origin.peers) == 1


async def test_an_origin_with_an_unknown_certificate_is_unreachable(
    stage: UpstreamStage, shown: ssl.SSLContext
) -> None:
    origin = await stage.start(answering(HELLO), shown)
    assert await refusal(stage.make(origin.port, ssl_context=None)) is Reason.UPSTREAM_UNREACHABLE
    assert origin.requests == []


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_body_without_a_length_may_end_only_with_an_orderly_end_of_tls(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext, orderly: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK + b"\r\nhello")
        await peer.close() if orderly else peer.end_at_once()

    origin = await stage.start(script, shown)
    upstream = stage.make(origin.port, ssl_context=trusted)
    if orderly:
        assert await fetch(upstream) == b"hello"
    else:
        assert await refusal(upstream) is Reason.UPSTREAM_PROTOCOL


@pytest.mark.parametrize("ticks", [0, 2, 4, 6, 8, 12, 16, 24])
async def test_abort_during_the_handshake_leaks_nothing(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext, ticks: int
) -> None:
    origin = await stage.start(answering(HELLO), shown)
    open_sockets = count_open_sockets()
    upstream = stage.make(origin.port, ssl_context=trusted)
    call = upstream.open()
    sending = asyncio.create_task(call.send("POST", "/", HEADERS, b"{}"))
    await pass_ticks(ticks)
    call.abort()
    (end,) = await asyncio.gather(sending, return_exceptions=True)
    assert isinstance(end, UpstreamAborted | UpstreamResponse)
    await wait_until(lambda: upstream.active_connections == 0)
    await wait_until(lambda: count_open_sockets() <= open_sockets)


async def test_an_upload_over_tls_waits_for_a_slow_reader_in_flat_memory(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    block, blocks = b"x" * 65536, 512
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await read_on.wait()
        assert await peer.read_exactly(len(block) * blocks) == block * blocks
        await peer.send(HELLO)

    origin = await stage.start(script, shown)
    held: list[int] = []
    upload = Flood(
        itertools.repeat(block, blocks),
        len(block) * blocks,
        look=lambda: held.append(get_transport(call).get_write_buffer_size()),
    )
    upstream = stage.make(origin.port, ssl_context=trusted, headers_timeout_seconds=60)
    call, sending = begin(upstream, upload)
    await wait_until(lambda: is_crowded(call))
    assert upload.reads < blocks
    read_on.set()
    response = await sending
    assert await response.read_all(5) == b"hello"
    response.release()
    assert upstream.idle_connections == 1
    assert max(held) <= MAX_UNSENT_BYTES


async def test_an_early_answer_over_tls_ends_the_upload_and_the_connection(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 413 L\r\nContent-Length: 5\r\n\r\nlarge")

    origin = await stage.start(script, shown)
    upload = Faucet(b"he")
    _, sending = begin(stage.make(origin.port, ssl_context=trusted), upload)
    response = await sending
    assert (response.status, await response.read_all(5)) == (413, b"large")
    await origin.peers[0].wait_gone()
    assert not upload.waiting
    response.release()


async def test_what_reading_an_upload_raises_over_tls_leaves_the_request_incomplete(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    origin = await stage.start(answering(HELLO), shown)
    fault = ConnectionResetError("the client has left")
    with pytest.raises(ConnectionResetError) as error:
        await begin(stage.make(origin.port, ssl_context=trusted), Faucet(b"he", fault))[1]
    assert error.value is fault
    await origin.peers[0].wait_gone()
    assert origin.requests == []


async def test_what_is_injected_beneath_tls_is_no_answer_not_even_at_the_end_of_a_connection(
    stage: UpstreamStage, shown: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    go = threading.Event()

    def serve() -> None:
        connected, _ = listener.accept()
        protected = shown.wrap_socket(connected, server_side=True)
        protected.recv(65536)
        go.wait(10)
        with socket.socket(fileno=protected.detach()) as bare:
            bare.sendall(HELLO)
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def inject() -> None:
        """Before the loop can read: writing meets the reset first."""
        if upload.reads == 1:
            go.set()
            serving.join()

    upload = Flood(itertools.repeat(b"x" * 65536), look=inject)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        _, sending = begin(stage.make(listener.getsockname()[1], ssl_context=trusted), upload)
        with pytest.raises(UpstreamError) as error:
            await sending
    assert error.value.reason is Reason.UPSTREAM_UNREACHABLE
