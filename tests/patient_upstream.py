"""An upstream that answers for as long as it is let, and everything a key can have open through a proxy to it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.staging import INITIALIZE, MODERN, MODERN_META, Wire, form_call

RUN = "aegis.workflow.run"
MODERN_CALL = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": RUN}
BROKEN = (aiohttp.ClientError, ConnectionError)


@dataclass
class PatientUpstream:
    """Answers a GET and a tool call with events, for ever, or keeps silent, as the workflow's name asks; keeps count of
    what is open, by name, and of the sessions it was told to end."""

    url: str = ""
    open: dict[str, asyncio.StreamWriter] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"Content-Length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            name = self._answer(head, json.loads(body) if body else {}, writer)
            try:
                await reader.read()
            finally:
                if name is not None:
                    del self.open[name]
        self._connections.discard(writer)
        writer.close()

    def _answer(self, head: str, message: dict[str, Any], writer: asyncio.StreamWriter) -> str | None:
        """Begin to answer; the name under which it stays open, if it does."""
        session = re.search(r"Mcp-Session-Id: (.+?)\r\n", head)
        if head.startswith("DELETE"):
            assert session is not None
            self.deleted.append(session[1])
            self.reply(writer, b"{}")
            return None
        if head.startswith("GET"):
            assert session is not None
            return self._begin_events(f"{session[1]} stream", writer)
        if message["method"] == "initialize":
            self.reply(writer, form_result(0), f"Mcp-Session-Id: {message['params']['clientInfo']['name']}\r\n")
            return None
        if message["method"] != "tools/call":
            self.reply(writer, form_result(message["id"]))
            return None
        name: str = message["params"]["arguments"].get("name", "")
        if name.endswith("silence"):
            self.open[name] = writer
        elif name.endswith("events"):
            self._begin_events(name, writer)
        else:
            self.reply(writer, form_result(message["id"]))
            return None
        return name

    def _begin_events(self, name: str, writer: asyncio.StreamWriter) -> str:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        self.open[name] = writer
        self.say(name, "begun")
        return name

    def say(self, name: str, text: str) -> None:
        """One more event."""
        notice = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}
        self.open[name].write(b"event: message\ndata: " + json.dumps(notice).encode() + b"\n\n")

    def reply(self, writer: asyncio.StreamWriter, body: bytes, fields: str = "") -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{fields}"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)

    def close(self) -> None:
        for writer in self._connections:
            writer.transport.abort()


def form_result(rpc_id: int) -> bytes:
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "patient", "version": "1"}}
    return json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": result}).encode()


@contextlib.asynccontextmanager
async def run_patient_upstream() -> AsyncIterator[PatientUpstream]:
    upstream = PatientUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        upstream.close()
        await server.wait_closed()


@dataclass(frozen=True, slots=True)
class Open:
    """Everything a key can have under way: the GET stream of a session of 2025-11-25, a call of 2026-07-28 answered in
    events, and one that has no answer yet."""

    name: str
    token: str
    wire: Wire
    upstream: PatientUpstream
    stream: aiohttp.ClientResponse
    events: aiohttp.ClientResponse
    silence: asyncio.Task[aiohttp.ClientResponse]

    @property
    def session(self) -> dict[str, str]:
        return {"Mcp-Session-Id": self.name}

    async def check_flowing(self, *kinds: str) -> None:
        """What the upstream says now arrives; the call without an answer still waits for one."""
        for kind, answer in (("stream", self.stream), ("events", self.events)):
            if kind in kinds:
                assert f"{self.name} {kind}" in self.upstream.open, "it ended"
                self.upstream.say(f"{self.name} {kind}", f"to {self.name} afterwards")
                await read_until(answer, f"to {self.name} afterwards")
        if "silence" in kinds:
            assert not self.silence.done()
            self.upstream.reply(self.upstream.open[f"{self.name} silence"], form_result(1))
            assert (await (await self.silence).json(content_type=None))["result"]

    async def check_calls_ended(self, reason: str) -> None:
        """The one in events with an error as its last event, the other with the refusal itself."""
        assert read_error(read_last_event(await self.events.read())) == reason
        answer = await self.silence
        assert answer.status == (200 if reason == "rights_changed" else 401)
        assert read_error(await answer.json(content_type=None)) == reason

    async def check_stream_ended(self, status: int, reason: str | None) -> None:
        """And the next attempt says why."""
        with contextlib.suppress(*BROKEN):
            await self.stream.read()
        again = await self.wire.request("GET", self.token, **self.session)
        assert again.status == status
        if status != 404:
            assert read_error(await again.json(content_type=None)) == reason

    async def wait_upstream(self, *kinds: str) -> None:
        """Return once the upstream sees no more than these open."""
        names = {f"{self.name} {kind}" for kind in kinds}
        while {name for name in self.upstream.open if name.startswith(self.name)} != names:
            await asyncio.sleep(0.01)

    async def wait_session_ended(self) -> None:
        """Return once the upstream was told to end it."""
        while self.name not in self.upstream.deleted:
            await asyncio.sleep(0.01)


async def open_all(name: str, token: str, wire: Wire, upstream: PatientUpstream) -> Open:
    """All three, flowing; the session's id is the name."""
    opened = await wire.post(token, form_initialize(name))
    assert opened.headers["Mcp-Session-Id"] == name
    silence = asyncio.create_task(begin_call(wire, token, f"{name} silence"))
    stream, events = await asyncio.gather(
        wire.request("GET", token, **{"Mcp-Session-Id": name}), begin_call(wire, token, f"{name} events")
    )
    for answer in (stream, events):
        await read_until(answer, "begun")
    opened_all = Open(name, token, wire, upstream, stream, events, silence)
    await opened_all.wait_upstream("stream", "events", "silence")
    return opened_all


def form_initialize(client: str) -> dict[str, Any]:
    message: dict[str, Any] = copy.deepcopy(INITIALIZE)
    message["params"]["clientInfo"]["name"] = client
    return message


async def begin_call(wire: Wire, token: str, workflow: str) -> aiohttp.ClientResponse:
    message = form_call(RUN, {"name": workflow})
    message["params"]["_meta"] = MODERN_META
    return await wire.post(token, message, **MODERN_CALL)


async def read_until(answer: aiohttp.ClientResponse, words: str) -> None:
    heard = b""
    while words.encode() not in heard:
        chunk = await answer.content.readany()
        assert chunk, f"it ended after {heard!r}"
        heard += chunk


def read_last_event(body: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(body.rstrip().rpartition(b"data: ")[2])
    return event


def read_error(message: dict[str, Any]) -> str:
    assert message["jsonrpc"] == "2.0"
    return str(message["error"]["data"]["reason"])
