"""An MCP server that writes down what reaches it, and misbehaves on demand. `python -m tests.faults.upstream PORT`

In go requests; out comes, on stdout, first `{"listening": port}` and then `{"at": …, "id": …}` for every request, by
the nonce in its tool's arguments, written before a byte is answered. Answers and every event of a stream carry the
nonce of their request and `emitted_at`, stamped before they are written. The argument `behaviour` is one of
`BEHAVIOURS`.
It speaks on raw sockets: an HTTP library would refuse to say most of this.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvloop

from proxy.clock import SystemClock
from tests.canary_upstream import Received, form_answer, take_request
from tests.faults.journal import NONCE_ARGUMENT
from tests.faults.vanishing import vanish

boot = SystemClock().boot

CHUNK_BYTES = 65_536
EVENT_SECONDS = 0.05
SLOW_SECONDS = 3600.0
BACKLOG = 8192
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its JSON-RPC message (None: no body) and the tool's arguments, if it has any."""

    received: Received
    message: Mapping[str, Any] | None
    arguments: Mapping[str, Any]

    def form_result(self, rpc_id: object) -> bytes:
        """A whole answer, with the nonce and the stamp."""
        result = {NONCE_ARGUMENT: self.arguments.get(NONCE_ARGUMENT), "emitted_at": boot()}
        session = []
        if self.message is not None and self.message.get("method") == "initialize":
            session = [f"Mcp-Session-Id: {secrets.token_hex(16)}"]
        return form_answer(json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": result}).encode(), *session)

    def form_event(self) -> bytes:
        """One event of a stream, with the nonce and the stamp."""
        params = {NONCE_ARGUMENT: self.arguments.get(NONCE_ARGUMENT), "emitted_at": boot()}
        told = {"jsonrpc": "2.0", "method": "notifications/message", "params": params}
        return b"event: message\ndata: " + json.dumps(told).encode() + b"\n\n"

    @property
    def seconds(self) -> float:
        return float(self.arguments.get("seconds", SLOW_SECONDS))


def parse_call(received: Received) -> Call:
    message = json.loads(received.body) if received.body else None
    params = (message or {}).get("params") or {}
    return Call(received, message, params.get("arguments") or {})


Behaviour = Callable[[Call, asyncio.StreamWriter], Awaitable[None]]


async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
    """As one should: a result for a request, 202 for what has no id, 200 for a DELETE."""
    if call.message is None:
        writer.write(form_answer(b""))
    elif "id" not in call.message:
        writer.write(form_answer(b"", status="202 Accepted"))
    else:
        writer.write(call.form_result(call.message["id"]))


async def stream(call: Call, writer: asyncio.StreamWriter) -> None:
    """Events until the client leaves, or for `seconds` if told so, and then the result; `interval_seconds` apart."""
    writer.write(STREAM_HEAD)
    latest = boot() + call.seconds
    interval_seconds = float(call.arguments.get("interval_seconds", EVENT_SECONDS))
    while boot() < latest:
        writer.write(call.form_event())
        await writer.drain()
        await asyncio.sleep(interval_seconds)
    result = json.dumps({"jsonrpc": "2.0", "id": (call.message or {}).get("id"), "result": {}}).encode()
    writer.write(b"event: message\ndata: " + result + b"\n\n")
    writer.close()


async def think(call: Call, writer: asyncio.StreamWriter) -> None:
    """No header for `seconds`, then the answer."""
    await asyncio.sleep(call.seconds)
    await answer(call, writer)


async def fall_silent(call: Call, writer: asyncio.StreamWriter) -> None:
    """A head, and never a body."""
    writer.write(STREAM_HEAD)
    await asyncio.sleep(SLOW_SECONDS)


async def disappear(call: Call, writer: asyncio.StreamWriter) -> None:
    """One event, and then this end is gone without a word."""
    writer.write(STREAM_HEAD + call.form_event())
    await writer.drain()
    vanish(writer.get_extra_info("socket"))
    await asyncio.sleep(SLOW_SECONDS)


async def trickle(call: Call, writer: asyncio.StreamWriter) -> None:
    """A good answer, one byte each second for `seconds`, and then the rest."""
    head, end, body = call.form_result((call.message or {}).get("id")).partition(b"\r\n\r\n")
    writer.write(head + end)
    slow = min(int(call.seconds), len(body))
    for byte in body[:slow]:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(1)
    writer.write(body[slow:])


async def babble(call: Call, writer: asyncio.StreamWriter) -> None:
    """Anything but HTTP."""
    writer.write(random.randbytes(CHUNK_BYTES))


async def answer_somebody_else(call: Call, writer: asyncio.StreamWriter) -> None:
    """A result under an id that nobody sent."""
    writer.write(call.form_result("nobody asked this"))


async def send_endless_line(call: Call, writer: asyncio.StreamWriter) -> None:
    """A stream whose first line never ends, as fast as it is taken."""
    writer.write(STREAM_HEAD + b"data: ")
    while True:
        writer.write(b"x" * CHUNK_BYTES)
        await writer.drain()


async def send_endless_body(call: Call, writer: asyncio.StreamWriter) -> None:
    """A body in chunks that never ends, as fast as it is taken."""
    writer.write(CHUNKED_HEAD)
    while True:
        writer.write(b"%x\r\n%b\r\n" % (CHUNK_BYTES, b" " * CHUNK_BYTES))
        await writer.drain()


async def send_endless_head(call: Call, writer: asyncio.StreamWriter) -> None:
    """Header fields without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: and more\r\n" * 1000)
        await writer.drain()


async def break_off(call: Call, writer: asyncio.StreamWriter) -> None:
    """Half of what was announced, then a reset."""
    answer = call.form_result((call.message or {}).get("id"))
    writer.write(answer[: len(answer) - 20])
    await writer.drain()
    writer.transport.abort()


async def hang_up(call: Call, writer: asyncio.StreamWriter) -> None:
    """A reset, and no word."""
    writer.transport.abort()


BEHAVIOURS: Mapping[str, Behaviour] = {
    "answer": answer,
    "stream": stream,
    "slow_headers": think,
    "dead_after_headers": fall_silent,
    "half_open": disappear,
    "byte_per_second": trickle,
    "garbage": babble,
    "wrong_id": answer_somebody_else,
    "endless_line": send_endless_line,
    "endless_body": send_endless_body,
    "endless_headers": send_endless_head,
    "half_answer": break_off,
    "reset": hang_up,
}


async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
    """Write down who came, then do as told. A GET opens a stream."""
    call = parse_call(received)
    nonce = call.arguments.get(NONCE_ARGUMENT)
    if nonce is not None:
        say({"at": boot(), "id": nonce})
    default = "stream" if received.method == "GET" else "answer"
    await BEHAVIOURS[call.arguments.get("behaviour", default)](call, writer)
    await writer.drain()


def say(line: Mapping[str, object]) -> None:
    """At once: what is said after this must not outlive it when this process is killed."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, one request at a time. A client that leaves, or speaks out of turn, ends what it asked for."""
    unread = b""
    reading = asyncio.ensure_future(reader.read(CHUNK_BYTES))
    try:
        while chunk := await reading:
            unread += chunk
            reading = asyncio.ensure_future(reader.read(CHUNK_BYTES))
            if (taken := take_request(unread)) is None:
                continue
            request, unread = taken
            behaving = asyncio.ensure_future(behave(request, writer))
            await asyncio.wait({behaving, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not behaving.done():
                behaving.cancel()
                await asyncio.wait({behaving})
                return
            behaving.result()
    except (ConnectionError, RuntimeError):  # the latter is uvloop's word for a transport closed meanwhile
        pass
    finally:
        reading.cancel()
        writer.transport.abort()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=BACKLOG)
    say({"listening": server.sockets[0].getsockname()[1]})
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
