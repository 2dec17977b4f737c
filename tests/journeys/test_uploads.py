"""Bodies on their way up while answers come down: what happens where the two meet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from proxy.server import Proxy
from proxy.sessions import Exchange, Flow, Registry
from tests.platform_stage import form_upstreams
from tests.raw_client import open_raw
from tests.staging import GUARD_SECONDS, Stage

UPLOAD = "POST /v1/volumes/v1/files/upload HTTP/1.1"
NOBODY = {"profile": "none"}
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BULK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 200000\r\n\r\n"
EARLY = {"bulk": BULK + b"hello", "events": EVENTS + b"d\r\ndata: hello\n\n\r\n"}


class HastyUpstream:
    """Answers as soon as it has read a head, and goes on reading; more may be said at any time."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.received = bytearray()
        self.heard = asyncio.Condition()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> HastyUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.received += await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            while piece := await reader.read(65536):
                async with self.heard:
                    self.received += piece
                    self.heard.notify_all()

    def say(self, piece: bytes) -> None:
        self._writers[-1].write(piece)

    async def wait_received(self, text: bytes) -> None:
        async with asyncio.timeout(GUARD_SECONDS), self.heard:
            await self.heard.wait_for(lambda: text in self.received)


@contextlib.asynccontextmanager
async def open_hasty(stage: Stage, answer: bytes, **server: object) -> AsyncIterator[tuple[HastyUpstream, Proxy]]:
    async with HastyUpstream(answer) as upstream:
        sections = {"upstreams": form_upstreams(upstream.url, upstream.url, NOBODY), "server": server}
        async with stage.proxy(upstream.url, **sections) as proxy:
            yield upstream, proxy


def form_head(token: str, line: str = UPLOAD, framing: str = "Transfer-Encoding: chunked\r\n") -> bytes:
    return f"{line}\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{framing}\r\n".encode()


@pytest.mark.parametrize("kind", EARLY)
@pytest.mark.parametrize(
    "rest",
    [b"fff\r\n" + b"x" * 0xFFF + b"\r\n0\r\n\r\nGET /v1/agents HTTP/1.1\r\nHost: localhost\r\n\r\n", b"zz\r\n", b""],
    ids=["too large", "badly framed", "too slow"],
)
async def test_an_upload_that_fails_behind_its_answer_cuts_it_and_adds_nothing(
    kind: str, rest: bytes, stage: Stage
) -> None:
    key = await stage.mint("developer")
    limits = {"max_upload_bytes": 2000, "body_timeout_seconds": 0.5}
    async with open_hasty(stage, EARLY[kind], **limits) as (upstream, proxy), open_raw(proxy.data_address) as client:
        await client.send(form_head(key.token), b"3\r\nabc\r\n")
        async with asyncio.timeout(GUARD_SECONDS):
            line, _ = await client.read_head()
            assert line == "HTTP/1.1 200 OK"
            await upstream.wait_received(b"abc")
            await client.send(rest)
            body = await client.read_rest()
    assert b"HTTP/1.1" not in body  # no second answer, to this request or to what followed it
    assert kind == "events" or len(body) < 200000
    assert b"x" * 0xFFF not in upstream.received


async def test_news_that_pauses_both_ways_resumes_both(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await stage.mint("developer")
    judge, paused, asked = Registry.judge_flow, False, asyncio.Semaphore(0)

    def judge_flow(registry: Registry, exchange: Exchange, now: float) -> Flow:
        if paused:
            asked.release()
            return Flow.PAUSED
        return judge(registry, exchange, now)

    monkeypatch.setattr(Registry, "judge_flow", judge_flow)
    async with open_hasty(stage, EARLY["events"]) as (upstream, proxy), open_raw(proxy.data_address) as client:
        await client.send(form_head(key.token), b"3\r\nabc\r\n")
        async with asyncio.timeout(GUARD_SECONDS):
            await client.read_head()
            await upstream.wait_received(b"abc")
            paused = True
            await client.send(b"4\r\nMORE\r\n")
            upstream.say(b"d\r\ndata: andon\n\n\r\n")
            await asked.acquire()  # one way waits at its gate, and then the other
            await asked.acquire()
            paused = False
            for exchanges in tuple(proxy.registry._by_key.values()):
                for exchange in exchanges:
                    assert exchange.on_resume is not None
                    exchange.on_resume()
            await upstream.wait_received(b"MORE")
            heard = b""
            while b"andon" not in heard:
                heard += await client._reader.read(4096)


async def test_event_streams_of_rest_end_at_shutdown_without_being_waited_for(stage: Stage) -> None:
    key = await stage.mint("read-only")
    async with open_hasty(stage, EVENTS, drain_seconds=3600.0) as (_, proxy), open_raw(proxy.data_address) as client:
        await client.send(form_head(key.token, "GET /v1/executions/e/stream HTTP/1.1", ""))
        async with asyncio.timeout(GUARD_SECONDS):
            while proxy.registry.count_kinds() != {"call": 0, "stream": 1}:
                await asyncio.sleep(0.01)
            await proxy.drain()
            assert b"event: error" in (await client.read_answer()).body


async def test_an_upload_that_drips_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent for long, and never done: judged by what it brought in the time that was spent waiting for it."""
    monkeypatch.setattr("proxy.request_body.MIN_BYTES_PER_SECOND", 10_000)
    key = await stage.mint("developer")
    async with (
        open_hasty(stage, b"", body_timeout_seconds=0.2) as (_, proxy),
        open_raw(proxy.data_address) as client,
    ):
        await client.send(form_head(key.token))

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await client.send(b"1\r\nx\r\n")
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(GUARD_SECONDS):
            line, _ = await client.read_head()
        dripping.cancel()
    assert line.startswith("HTTP/1.1 408")
