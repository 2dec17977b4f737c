"""A recording upstream: keeps every byte it ever received, and answers simple JSON.

What must not reach an upstream must not be in `received`; what did arrive is in `requests`, taken apart without any
HTTP library that could tidy it up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it stood on the wire."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes
    raw: bytes = field(repr=False)

    def fold(self) -> dict[str, list[str]]:
        """The fields as CGI and WSGI see them: names in capitals, everything but letters and digits an underscore."""
        folded: dict[str, list[str]] = {}
        for name, value in self.fields:
            folded.setdefault("".join(c if c.isalnum() else "_" for c in name.upper()), []).append(value)
        return folded


Answer = Callable[[Received], bytes]


def form_answer(body: bytes, *fields: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """One whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer_politely(received: Received) -> bytes:
    """An empty result for a request, a session for `initialize`, 202 for what has no id, 200 for GET and DELETE."""
    message = json.loads(received.body) if received.body else {"id": None}
    if "id" not in message:
        return form_answer(b"", status="202 Accepted")
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}).encode()
    session = ["Mcp-Session-Id: session-of-the-canary"] if message.get("method") == "initialize" else []
    return form_answer(body, *session)


class CanaryUpstream:
    """Use as an async context manager; `answer` may be changed at any time."""

    def __init__(self, answer: Answer = answer_politely) -> None:
        self.answer = answer
        self.received = bytearray()
        self.requests: list[Received] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> CanaryUpstream:
        self._server = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unread = b""
        try:
            while chunk := await reader.read(65536):
                self.received += chunk
                unread += chunk
                while (taken := take_request(unread)) is not None:
                    request, unread = taken
                    self.requests.append(request)
                    writer.write(self.answer(request))
                    await writer.drain()
        except ConnectionError:
            pass  # the proxy hung up; what it had sent is kept
        finally:
            writer.transport.abort()


def take_request(buffer: bytes) -> tuple[Received, bytes] | None:
    """The first whole request and what follows it; None while it is not complete. Only Content-Length is understood."""
    head, end, rest = buffer.partition(b"\r\n\r\n")
    if not end:
        return None
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name, value.strip()) for name, _, value in (text.partition(":") for text in lines)]
    length = next((int(value) for name, value in fields if name.lower() == "content-length"), 0)
    if len(rest) < length:
        return None
    method, target, _ = line.split(" ")
    return Received(method, target, fields, rest[:length], buffer[: len(head) + 4 + length]), rest[length:]
