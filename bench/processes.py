"""Starting what is measured, each on its own core: the proxy on the first, everything else on the second."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CORES = sorted(os.sched_getaffinity(0))
MEASURED, OTHERS = CORES[0], CORES[-1]


@contextlib.contextmanager
def start(
    module: str, *arguments: str, core: int | None = None, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module`, pinned to a core if one is named, ended with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, CORES if core is None else {core}),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def read_port(process: subprocess.Popen[bytes]) -> int:
    """The port that a benchmark's server prints first."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def read_listening(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The proxy's log line `listening`."""
    assert process.stdout is not None
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if said["event"] == "listening":
            return said
    raise RuntimeError("the proxy never listened")


def drain_output(process: subprocess.Popen[bytes]) -> None:
    """Have a log read away, as a collector would: a full pipe stops who writes it. By a process of its own, since a
    thread would come to it only when this process, busy being the clients, gives way."""
    reader = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    threading.Thread(target=reader.wait, daemon=True).start()


def read_cpu_seconds(pid: int) -> float:
    """User and system time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(pid: int, port: int, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    """One measurement of the process `pid`: rate, latencies, and the processor time each request cost it."""
    before = read_cpu_seconds(pid)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", str(port), str(connections), str(seconds)],
        input=request,
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + 30,
        preexec_fn=lambda: os.sched_setaffinity(0, {OTHERS}),
    )
    result: dict[str, float] = json.loads(done.stdout)
    result["cpu_us"] = (read_cpu_seconds(pid) - before) / result["requests"] * 1e6
    return result


def form_request(port: int, token: str) -> bytes:
    """A `tools/call` as a 2026-07-28 client sends it, about 600 bytes with its headers."""
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "aegis.workflow.run",
                "arguments": {"name": "nightly-etl"},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        },
        separators=(",", ":"),
    ).encode()
    head = (
        f"POST /mcp/v1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\nUser-Agent: bench\r\n"
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: aegis.workflow.run\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
