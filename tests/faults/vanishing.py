"""A peer that is gone without a word: no FIN, no RST, no acknowledgement of anything it is sent.  [io]

In goes an open TCP socket. From then on the kernel throws away every segment that arrives for it, before TCP sees it:
what the other end observes is a cable pulled out. Linux only, and no privilege is needed. The socket must stay open as
long as that is to last; closing it would send a FIN.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from asyncio.trsock import TransportSocket

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
BPF_RET_K = 0x06  # linux/bpf_common.h: return a constant, the number of bytes to keep


class _Instruction(ctypes.Structure):
    """`struct sock_filter`."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("constant", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def find_obstacle() -> str | None:
    return None if sys.platform == "linux" else "socket filters are Linux's"


def vanish(connected: socket.socket | TransportSocket) -> None:
    """From now on this end hears nothing, and so answers nothing."""
    keep_nothing = _Instruction(BPF_RET_K, 0, 0, 0)
    program = _Program(1, ctypes.pointer(keep_nothing))
    connected.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))
