"""The clients of a fault bench: callers and readers of streams that never give up, and write everything down.

In go keys, proxies and dice, out come the journal's client events. A caller asks, waits for the answer and asks again,
whatever the answer was, because what matters is what happens to those who are not let in any more. Every call has an
id of its own but all share one JSON-RPC id, so that whoever mapped answers by that would mix them up.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from proxy.clock import SystemClock
from proxy.keys.minting import MintedKey
from tests.faults.journal import (
    NONCE_ARGUMENT,
    Answered,
    Chunk,
    Ended,
    Event,
    Failed,
    Sent,
    find_emitted_at,
    find_nonces,
    find_reason,
    form_nonce,
)
from tests.staging import ACCEPT, MODERN, MODERN_META, form_call

boot = SystemClock().boot

TOOL = "aegis.workflow.run"
WORKFLOWS = ("alpha", "beta")
MAX_PAUSE_SECONDS = 0.5
TAIL_BYTES = 4096
PATIENCE_SECONDS = 60.0
"""A caller gives a frozen proxy up after this long. Longer than any freeze of the quick part."""

CLIENT_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(slots=True)
class Journal:
    """What this process has seen so far, and the numbers of the requests in it."""

    events: list[Event] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def note(self, event: Event) -> None:
        self.events.append(event)


@dataclass(frozen=True, slots=True)
class Door:
    """A proxy as clients know it: its name, and where it is found now."""

    name: str
    get_url: Callable[[], str]


@dataclass(slots=True)
class Load:
    """Clients of several proxies. `admitted` holds when the last admitted call of each key through each was sent."""

    http: aiohttp.ClientSession
    journal: Journal
    dice: random.Random
    admitted: dict[tuple[str, str], float] = field(default_factory=dict)
    _clients: set[asyncio.Task[None]] = field(default_factory=set)

    def send_calls(self, key: MintedKey, door: Door) -> None:
        """A caller with this key, from now on."""
        self._begin(self._keep_calling(key, door))

    def read_streams(self, key: MintedKey, door: Door) -> None:
        """A reader with this key, from now on: whenever its stream ends, it opens another."""
        self._begin(self._keep_streaming(key, door))

    def _begin(self, client: Any) -> None:
        task = asyncio.create_task(client)
        self._clients.add(task)

    async def stop(self) -> None:
        """No more requests; whatever is under way is left by its client, streams are closed."""
        clients, self._clients = self._clients, set()
        for client in clients:
            client.cancel()
        for outcome in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _keep_calling(self, key: MintedKey, door: Door) -> None:
        while True:
            await self.call(key, door, self._choose())
            await asyncio.sleep(self.dice.uniform(0.0, MAX_PAUSE_SECONDS))

    async def _keep_streaming(self, key: MintedKey, door: Door) -> None:
        while True:
            await self.stream(key, door, self._choose())
            await asyncio.sleep(self.dice.uniform(0.0, MAX_PAUSE_SECONDS))

    def _choose(self) -> dict[str, Any]:
        return {"name": self.dice.choice(WORKFLOWS)}

    async def call(self, key: MintedKey, door: Door, arguments: Mapping[str, Any]) -> Answered | Failed:
        """One call, to its end."""
        asked = self._ask(key, door, arguments, stream=False)
        try:
            async with self._post(key, door, asked) as answer:
                body = await answer.read()
        except CLIENT_ERRORS as error:
            return self._note_failure(asked, error)
        except asyncio.CancelledError as error:
            self._note_failure(asked, error)
            raise
        return self._note_answer(asked, answer, body)

    async def stream(
        self, key: MintedKey, door: Door, arguments: Mapping[str, Any], opened: asyncio.Event | None = None
    ) -> None:
        """One call that is answered as a stream, read to its end."""
        asked = self._ask(key, door, {**arguments, "behaviour": "stream"}, stream=True)
        began = False
        try:
            async with self._post(key, door, asked) as answer:
                if answer.content_type != "text/event-stream":
                    self._note_answer(asked, answer, await answer.read())
                    return
                began = True
                self._note_answer(asked, answer, b"")
                if opened is not None:
                    opened.set()
                await self._read_chunks(asked, answer)
        except (*CLIENT_ERRORS, asyncio.CancelledError) as error:
            if began:
                self.journal.note(Ended(boot(), asked.id, clean=False))
            else:
                self._note_failure(asked, error)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _read_chunks(self, asked: Sent, answer: aiohttp.ClientResponse) -> None:
        rest = tail = b""
        async for chunk in answer.content.iter_any():
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                tail = (tail + lines + newline)[-TAIL_BYTES:]
                self.journal.note(Chunk(boot(), asked.id, find_nonces(lines), find_emitted_at(lines)))
        self.journal.note(Ended(boot(), asked.id, clean=True, reason=find_reason(tail + rest)))

    def _ask(self, key: MintedKey, door: Door, arguments: Mapping[str, Any], *, stream: bool) -> Sent:
        """The stamp is taken before anything is written."""
        nonce = form_nonce(next(self.journal.numbers))
        asked = Sent(boot(), nonce, key.summary.id, door.name, TOOL, {**arguments, NONCE_ARGUMENT: nonce}, stream)
        self.journal.note(asked)
        return asked

    @asynccontextmanager
    async def _post(self, key: MintedKey, door: Door, asked: Sent) -> AsyncIterator[aiohttp.ClientResponse]:
        message = form_call(TOOL, dict(asked.arguments))
        message["params"]["_meta"] = MODERN_META
        headers = {
            "Accept": ACCEPT,
            "Authorization": f"Bearer {key.token}",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": TOOL,
        }
        async with self.http.post(f"{door.get_url()}/mcp/v1", json=message, headers=headers) as answer:
            yield answer

    def _note_answer(self, asked: Sent, answer: aiohttp.ClientResponse, body: bytes) -> Answered:
        request_id = answer.headers.get("X-Request-Id")
        nonces, emitted_at = find_nonces(body), find_emitted_at(body)
        answered = Answered(boot(), asked.id, answer.status, find_reason(body), request_id, nonces, emitted_at)
        self.journal.note(answered)
        if answered.admitted:
            self.admitted[asked.key, asked.proxy] = asked.at
        return answered

    def _note_failure(self, asked: Sent, error: BaseException) -> Failed:
        failed = Failed(boot(), asked.id, f"{type(error).__name__}: {error}")
        self.journal.note(failed)
        return failed


@asynccontextmanager
async def run_load(journal: Journal, dice: random.Random) -> AsyncIterator[Load]:
    """Clients that are stopped at the end."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_SECONDS, sock_read=PATIENCE_SECONDS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        load = Load(http, journal, dice)
        try:
            yield load
        finally:
            await load.stop()
