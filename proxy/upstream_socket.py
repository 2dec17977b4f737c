"""The socket under a connection to the upstream.  [io]

In: a transport. Out: a kernel that watches the peer, and at the end the bytes of an answer it still holds.
Refuses to know: requests, deadlines of ours, what an answer means.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Final

from proxy.upstream_answer import Answer

# A peer that vanished is noticed within 45 seconds: first probe after 15, then two more, then the end. TCP_USER_TIMEOUT
# replaces the count of probes and is compared when one is due, hence a little less; it also bounds unacknowledged data.
_USER_TIMEOUT_MS: Final = 44_000
_TCP_OPTIONS: Final = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": _USER_TIMEOUT_MS,
}
_READ_BYTES: Final = 64 * 1024


def watch_peer(transport: asyncio.BaseTransport) -> None:
    connected: socket.socket = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # some systems refuse on a socket already reset: its end is told separately
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP_OPTIONS.items():
            option = getattr(socket, name, None)  # not every system has them all
            if option is not None:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)


def allow_silence(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Beyond what a peer is granted anyway.

    TCP_USER_TIMEOUT also ends a connection whose peer is alive and takes nothing (measured on Linux 6.18: 2.5 seconds
    after a window closed, with 2 allowed). How long an upstream may do that, and what it is then called, is not the
    kernel's to say.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        with contextlib.suppress(OSError):
            milliseconds = _USER_TIMEOUT_MS + int(seconds * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, milliseconds)


def read_rest(transport: asyncio.BaseTransport, answer: Answer, limit_bytes: int) -> None:
    """At the end of a connection, what has come and nobody read, up to about the limit.

    An upstream that refuses a request and closes without reading the rest of it resets the connection. Where writing
    meets the reset before the loop comes to read, the answer is still in the kernel; while `connection_lost` runs, the
    socket is still open, in asyncio and in uvloop. Not under TLS: what is there would have to be decrypted.
    """
    if transport.get_extra_info("ssl_object") is not None:
        return
    descriptor = transport.get_extra_info("socket").fileno()
    with contextlib.suppress(OSError):
        while not (answer.complete or answer.broken) and answer.buffered_bytes <= limit_bytes:
            received = os.read(descriptor, _READ_BYTES)
            if not received:
                return  # no orderly end: after a reset this says nothing
            answer.feed(received)


def ended_orderly(transport: asyncio.BaseTransport) -> bool:
    """False for TLS cut off underneath: asyncio tells it like an end, but anyone can do it (RFC 9112 section 9.8).

    After close_notify the TLS object reads as empty; without, it wants more.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    try:
        return tls is None or not tls.read(1)
    except ssl.SSLError:
        return False
