"""Clients by hand: one for each revision and transport, that send whatever they are told and hear what comes of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urljoin

import aiohttp

from proxy.server import Proxy
from proxy.sse import get_values
from tests.revision_tables import BY_EVENTS, NIGHTLY, REVISIONS, RUN, TASK_ID, Form, Json, Kind
from tests.staging import ACCEPT, MODERN_META

CAPABLE: Json = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
_NAMED = frozenset({"name", "uri", "taskId"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a message. `answer`: in JSON-RPC, wherever it was heard."""

    status: int
    answer: Json | None = None
    challenge: str | None = None

    @property
    def said(self) -> tuple[int, int | None, str | None]:
        """(status, JSON-RPC code, our word for it)."""
        error = (self.answer or {}).get("error", {})
        return self.status, error.get("code"), error.get("data", {}).get("reason")


def form_message(kind: Kind, revision: str, rpc_id: int, task_id: str) -> Json:
    """The message as this revision sends it."""
    message: Json = {"jsonrpc": "2.0"}
    if kind.form != "notification":
        message["id"] = rpc_id
    if kind.form == "response":
        return message | {"result": {}}
    params: Json = json.loads(json.dumps(kind.params).replace(TASK_ID, task_id))
    if kind.method == "initialize":
        params["protocolVersion"] = REVISIONS[revision]
    if revision == "E":
        params["_meta"] = MODERN_META | CAPABLE
    return message | {"method": kind.method, "params": params}


def form_mirrors(message: Json, revision: str) -> dict[str, str]:
    """The headers in which a revision of streamable HTTP repeats itself."""
    if revision in "AB":
        return {}
    headers = {"MCP-Protocol-Version": REVISIONS[revision]}
    if revision == "E" and "method" in message:
        headers["Mcp-Method"] = message["method"]
        for member in _NAMED & message["params"].keys():
            headers["Mcp-Name"] = message["params"][member]
    return headers


class Transport(Protocol):
    """`say` sends a message, `go` a bare method; `leave` hangs up."""

    async def begin(self) -> None: ...

    async def say(self, message: Json, form: Form) -> Reply: ...

    async def go(self, method: str) -> Reply: ...

    def leave(self) -> None: ...


@dataclass
class StreamableHttp:
    http: aiohttp.ClientSession
    url: str
    token: str
    revision: str
    session: dict[str, str] = field(default_factory=dict)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": ACCEPT, **self.session}

    async def begin(self) -> None:
        if self.revision == "E":
            return
        params = {"protocolVersion": REVISIONS[self.revision], "capabilities": {}, "clientInfo": {"name": "a test"}}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        async with self.http.post(self.url, json=message, headers=self._headers) as begun:
            self.session = {"Mcp-Session-Id": begun.headers["Mcp-Session-Id"]}

    async def say(self, message: Json, form: Form) -> Reply:
        headers = self._headers | form_mirrors(message, self.revision)
        async with self.http.post(self.url, json=message, headers=headers) as answer:
            return await _read(answer)

    async def go(self, method: str) -> Reply:
        async with self.http.request(method, self.url, headers=self._headers | form_mirrors({}, self.revision)) as got:
            return await _read(got)

    def leave(self) -> None:
        """Nothing of it stays open."""


@dataclass
class HttpWithEvents:
    http: aiohttp.ClientSession
    url: str
    token: str
    _messages: str = ""
    _heard: bytes = b""
    _stream: aiohttp.ClientResponse | None = None

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def begin(self) -> None:
        self._stream = await self.http.get(self.url, headers=self._headers)
        self._messages = urljoin(self.url, (await self._next_data()).decode())

    async def _next_data(self) -> bytes:
        assert self._stream is not None
        while b"\n\n" not in self._heard:
            chunk = await self._stream.content.readany()
            assert chunk, f"it ended after {self._heard!r}"
            self._heard += chunk
        event, _, self._heard = self._heard.partition(b"\n\n")
        (data,) = get_values(event, b"data")
        return data

    async def say(self, message: Json, form: Form) -> Reply:
        async with self.http.post(self._messages, json=message, headers=self._headers) as answer:
            reply = await _read(answer)
        if reply.status != 202 or form != "request":
            return reply
        heard: Json = json.loads(await self._next_data())
        assert heard["id"] == message["id"], "it is the answer to something else"
        return Reply(202, heard)

    async def go(self, method: str) -> Reply:
        async with self.http.request(method, self.url, headers=self._headers) as got:
            return await _read(got)

    def leave(self) -> None:
        if self._stream is not None:
            self._stream.close()


async def _read(answer: aiohttp.ClientResponse) -> Reply:
    streams = answer.content_type == "text/event-stream"
    body = b"" if streams else await answer.read()
    parsed: Json | None = json.loads(body) if body and answer.content_type == "application/json" else None
    return Reply(answer.status, parsed, answer.headers.get("WWW-Authenticate"))


@dataclass
class RevisionClient:
    """One key's, of one revision, by one transport."""

    transport: Transport
    revision: str
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, kind: Kind, task_id: str) -> tuple[Json | None, Reply]:
        """What was sent, None for a bare method, and what came of it."""
        if kind.form == "bare":
            return None, await self.transport.go(kind.method)
        message = form_message(kind, self.revision, next(self._ids), task_id)
        return message, await self.transport.say(message, kind.form)

    async def make_task(self) -> str:
        """Its id, in a revision that has tasks; any other text elsewhere."""
        if self.revision not in "DE":
            return "nobody's"
        asked = {"task": {"ttl": 60000}} if self.revision == "D" else {}
        params = {"name": RUN, "arguments": NIGHTLY | ({} if asked else {"wait": False}), **asked}
        _, reply = await self.send(Kind("tools/call", params), "")
        assert reply.answer is not None
        result = reply.answer["result"]
        task_id: str = result.get("task", result)["taskId"]
        return task_id


async def open_client(
    http: aiohttp.ClientSession, proxy: Proxy, token: str, revision: str, transport: str
) -> RevisionClient:
    """A client that has begun, as its revision begins by this transport."""
    url = f"http://{proxy.data_address}/mcp/v1"
    speaks: Transport = StreamableHttp(http, url, token, revision)
    if transport == BY_EVENTS:
        speaks = HttpWithEvents(http, f"{url}/sse", token)
    await speaks.begin()
    return RevisionClient(speaks, revision)
