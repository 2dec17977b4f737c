"""A process that has imported the command, and forks one for everybody who asks: what it imports takes half a second.

What is forked runs `python -m proxy` with arguments, an environment and streams of its own, and ends as that does.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MESSAGE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Nursery:
    """Our end of its socket: each message is what one command is given."""

    control: socket.socket

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes, timeout_seconds: float
    ) -> tuple[int, bytes, bytes]:
        """Exit code, stdout and stderr of a command; blocks until it has ended. Raises TimeoutError."""
        with (
            tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told,
            open_ends() as (here, there),
        ):  # fmt: skip
            given.write(stdin)
            given.seek(0)
            message = json.dumps([list(arguments), dict(environment)]).encode()
            socket.send_fds(self.control, [message], [given.fileno(), said.fileno(), told.fileno(), there.fileno()])
            there.close()
            here.settimeout(timeout_seconds)
            code = int(here.recv(MESSAGE_BYTES))
            for stream in (said, told):
                stream.seek(0)
            return code, said.read(), told.read()


@contextmanager
def open_ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of a socket that keeps messages apart."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        yield here, there


@contextmanager
def run_nursery(environment: Mapping[str, str]) -> Iterator[Nursery]:
    """`environment` is what there is while the command is imported."""
    with open_ends() as (here, there):
        command = (sys.executable, "-m", "tests.cli.nursery", str(there.fileno()))
        with subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=(there.fileno(),)) as process:
            there.close()
            try:
                yield Nursery(here)
            finally:
                here.close()
                process.wait()


def serve(control: socket.socket) -> None:
    """Until nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        message, streams, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            run(*json.loads(message), *streams)
        for stream in streams:
            os.close(stream)


def run(arguments: list[str], environment: dict[str, str], stdin: int, stdout: int, stderr: int, end: int) -> None:
    """In one process the command, which returns as any program ends; in another who waits for it and tells its code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number)
    for stream in (stdin, stdout, stderr, end):
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    runpy.run_module("proxy", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    import proxy.cli  # noqa: F401

    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
