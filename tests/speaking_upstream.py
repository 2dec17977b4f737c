"""A server of both transports and all revisions that keeps every byte it ever received, and obeys whoever it hears."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.canary_upstream import CanaryUpstream, Received, form_answer, take_request

Json = dict[str, Any]
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class SpeakingUpstream(CanaryUpstream):
    """Under `/mcp/v1/sse` HTTP+SSE, anywhere else streamable HTTP. A call is a task if its client asks for one
    (2025-11-25), or is told to wait for nothing (2026-07-28, where the server decides)."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: dict[str, asyncio.StreamWriter] = {}
        self._given = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unread = b""
        try:
            while chunk := await reader.read(65536):
                self.received += chunk
                unread += chunk
                while (taken := take_request(unread)) is not None:
                    request, unread = taken
                    self.requests.append(request)
                    self._reply(request, writer)
                    await writer.drain()
        except ConnectionError:
            pass  # the proxy hung up; what it had sent is kept
        finally:
            writer.transport.abort()

    def _reply(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET" and request.target.endswith("/sse"):
            session = self._name("stream")
            self._streams[session] = writer
            writer.write(EVENTS + f"event: endpoint\ndata: /messages?s={session}\n\n".encode())
        elif request.method == "GET":
            writer.write(form_answer(b": nothing to say\n\n", content_type="text/event-stream"))
        elif request.method == "DELETE":
            writer.write(form_answer(b""))
        else:
            self._answer(request, json.loads(request.body), writer)

    def _answer(self, request: Received, message: Json, writer: asyncio.StreamWriter) -> None:
        stream = self._streams.get(request.target.partition("?s=")[2])
        asked = "method" in message and "id" in message
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": self._find_result(message)}).encode()
        if stream is not None or not asked:
            writer.write(form_answer(b"", status="202 Accepted"))
        if stream is not None and asked:
            stream.write(b"event: message\ndata: " + body + b"\n\n")
        elif asked:
            begun = [f"Mcp-Session-Id: {self._name('session')}"] if message["method"] == "initialize" else []
            writer.write(form_answer(body, *begun))

    def _find_result(self, message: Json) -> Json:
        params = message.get("params", {})
        if "task" in params:
            return {"task": self._make_task()}
        if params.get("arguments", {}).get("wait") is False:
            return {"resultType": "task", **self._make_task()}
        return {}

    def _make_task(self) -> Json:
        return {"taskId": self._name("task"), "status": "working", "ttl": 60000, "pollInterval": 50}

    def _name(self, what: str) -> str:
        self._given += 1
        return f"{what}-{self._given}"
