"""The socket under a connection to the upstream: whom the kernel watches, and what it still holds at the end."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest

from proxy.errors import Reason, UpstreamError
from proxy.upstream import UpstreamCall
from tests.hostile_origin import answering
from tests.uploads import Faucet, Flood
from tests.upstream_stage import HEADERS, HELLO, UpstreamStage, begin, get_transport, wait_until

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

BLOCK = b"x" * 65536


def get_user_timeout_ms(call: UpstreamCall) -> int:
    connected = get_transport(call).get_extra_info("socket")
    return int(connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))


async def test_the_kernel_watches_for_a_peer_that_vanished(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    call = stage.make(origin.port).open()
    response = await call.send("POST", "/", HEADERS, b"{}")
    connected = get_transport(call).get_extra_info("socket")
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    options = {
        name: connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    }
    assert options["TCP_NODELAY"] == 1
    assert options["TCP_KEEPIDLE"] + options["TCP_KEEPINTVL"] * options["TCP_KEEPCNT"] <= 45
    assert 40_000 <= options["TCP_USER_TIMEOUT"] <= 45_000
    response.release()


async def test_the_kernel_is_more_patient_during_an_upload_and_no_longer(stage: UpstreamStage) -> None:
    origin = await stage.start(answering(HELLO))
    upload = Faucet()
    call, sending = begin(stage.make(origin.port, headers_timeout_seconds=100), upload)
    await wait_until(lambda: upload.waiting)
    assert get_user_timeout_ms(call) == 144_000
    upload.put(b"")
    response = await sending
    assert get_user_timeout_ms(call) == 44_000
    response.release()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An origin without a loop: what it does has reached the other side's kernel when it returns."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


@pytest.mark.parametrize("rest", [b"", b"y" * 180_000], ids=["small", "large"])
async def test_an_answer_whose_connection_was_reset_before_the_loop_could_read_it_is_not_lost(
    stage: UpstreamStage, listener: socket.socket, rest: bytes
) -> None:
    """As from a server that refuses a body and closes without reading it. A large one is lost in part, and says so."""

    def refuse() -> None:
        if upload.reads == 0:  # so that the kernel holds all of it
            get_transport(call).get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if upload.reads == 1:
            peer, _ = listener.accept()
            peer.sendall(b"HTTP/1.1 413 L\r\nContent-Length: %d\r\n\r\nlarge%b" % (5 + len(rest), rest))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()

    upload = Flood(itertools.repeat(BLOCK), look=refuse)
    call, sending = begin(stage.make(listener.getsockname()[1]), upload)
    response = await sending
    assert response.status == 413
    if not rest:
        assert await response.read_all(5) == b"large"
    else:
        with pytest.raises(UpstreamError) as error:
            await response.read_all(1 << 20)
        assert error.value.reason is Reason.UPSTREAM_PROTOCOL
    response.release()
