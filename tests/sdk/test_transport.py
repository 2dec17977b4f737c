"""Asking, against servers that answer otherwise than they should; and where the key does not go."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from aegis_sdk import (
    AegisClient,
    AegisError,
    AsyncAegisClient,
    ConnectionFailedError,
    KeyRevokedError,
    RequestTimeoutError,
    Retry,
    StreamInterruptedError,
    UnavailableError,
    UnexpectedAnswerError,
)
from tests.hostile_origin import HostileOrigin, Peer, answering

KEY = "aegis_000000000000_C4n4ry" + "x" * 44
QUICK = Retry(first_wait=0.001, longest_wait=0.01)
AGENT = {"id": "i", "name": "n", "description": "d", "scope": "tenant", "revision": 1, "manifest_yaml": "m"}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'event: log\ndata: {"line": "one"}\n\n'


def form(status: int, body: object = None, *headers: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(text)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + text


def chunk(text: bytes) -> bytes:
    return f"{len(text):x}\r\n".encode() + text + b"\r\n"


def client_of(port: int, **settings: Any) -> AsyncAegisClient:
    return AsyncAegisClient(KEY, f"http://127.0.0.1:{port}", **{"retry": QUICK, **settings})


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """Everything anybody logs, at the lowest level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.NOTSET)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def check_kept(error: AegisError, heard: io.StringIO) -> None:
    """The key stands neither in the error, nor in the locals of any frame but this file's own, nor in the log."""
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(error, capture_locals=True)
    while told is not None:
        frames = [frame for frame in told.stack if frame.filename != __file__]
        assert "C4n4ry" not in f"{told}{[frame.locals for frame in frames]}"
        told = told.__cause__ or told.__context__
    assert "C4n4ry" not in heard.getvalue()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (form(302, None, "Location: http://127.0.0.1:1/"), UnexpectedAnswerError),
        (form(304), UnexpectedAnswerError),
        (form(200, b"<html>"), UnexpectedAnswerError),
        (form(200, {"id": "i", "key": "C4n4ry"}), UnexpectedAnswerError),
        (form(200, b'{"manifest_yaml": "C4n4ry'), UnexpectedAnswerError),
        (form(200, AGENT)[:-5], ConnectionFailedError),
        (form(503, b"{}")[:-1], ConnectionFailedError),
        (b"not HTTP\r\n\r\n", ConnectionFailedError),
        (b"", ConnectionFailedError),
    ],
)
async def test_an_answer_that_is_none_is_an_error_that_shows_nothing(
    answer: bytes, kind: type[AegisError], heard: io.StringIO
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(answer)
        await peer.close()

    async with HostileOrigin(script) as origin, client_of(origin.port) as client:
        with pytest.raises(kind) as failed:
            await client.agents.get("i")
    assert type(failed.value) is kind
    assert len(origin.requests) == 1
    check_kept(failed.value, heard)


async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else() -> None:
    async with HostileOrigin(answering(form(200, AGENT))) as elsewhere:
        location = f"Location: http://127.0.0.1:{elsewhere.port}/"
        async with HostileOrigin(answering(form(307, None, location))) as origin:
            for follows in (False, True):
                async with httpx2.AsyncClient(follow_redirects=follows) as http:
                    with pytest.raises(UnexpectedAnswerError, match="307"):
                        await client_of(origin.port, http_client=http).agents.get("i")
        assert not elsewhere.requests
        assert not elsewhere.peers


async def test_the_key_is_sent_as_a_bearer_and_stands_nowhere_else() -> None:
    async with HostileOrigin(answering(form(200, AGENT))) as origin, client_of(origin.port) as client:
        assert (await client.agents.get("a b")).name == "n"
    head, _, rest = origin.requests[0].partition(f"Authorization: Bearer {KEY}\r\n".encode())
    assert head.startswith(b"GET /v1/agents/a%20b HTTP/1.1\r\n")
    assert b"User-Agent: aegis-sdk-python/" in origin.requests[0]
    assert b"C4n4ry" not in head + rest


async def test_members_of_tomorrow_are_kept() -> None:
    async with (
        HostileOrigin(answering(form(200, {**AGENT, "mood": "good"}))) as origin,
        client_of(origin.port) as client,
    ):
        assert (await client.agents.get("i")).model_dump()["mood"] == "good"


def count_waits(heard: io.StringIO) -> int:
    return heard.getvalue().count("is tried again")


async def test_where_nobody_listens_what_may_be_done_twice_is_tried_again(heard: io.StringIO) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with client_of(port) as client:
        with pytest.raises(ConnectionFailedError) as failed:
            await client.agents.get("i")
        assert count_waits(heard) == 2
        with pytest.raises(ConnectionFailedError):
            await client.workflows.run("i")
    assert count_waits(heard) == 2
    check_kept(failed.value, heard)


async def test_a_get_whose_answer_broke_is_not_tried_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        peer.reset()

    async with HostileOrigin(script) as origin, client_of(origin.port) as client:
        with pytest.raises(ConnectionFailedError):
            await client.agents.get("i")
    assert len(origin.requests) == 1


async def test_silence_has_an_end(heard: io.StringIO) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()

    async with HostileOrigin(script) as origin, client_of(origin.port, timeout=0.05) as client:
        with pytest.raises(RequestTimeoutError) as failed:
            await client.agents.get("i")
        with pytest.raises(RequestTimeoutError):
            await anext(client.executions.stream("i"))
    assert len(origin.requests) == 2
    check_kept(failed.value, heard)


async def test_whoever_asks_for_more_patience_than_there_is_gets_none() -> None:
    answers = answering(form(503, {"error": "later"}, "Retry-After: 1"))
    async with HostileOrigin(answers) as origin, client_of(origin.port) as client:
        with pytest.raises(UnavailableError) as failed:
            await client.agents.get("i")
    assert failed.value.retry_after == 1.0
    assert len(origin.requests) == 1


async def test_the_end_of_a_key_is_told_once_by_whatever_answer() -> None:
    told: list[datetime] = []
    header = "API-Key-Expires-At: 2026-12-01T00:00:00Z"
    answers = answering(form(404, {"error": "no"}, header), form(200, AGENT, header))
    async with HostileOrigin(answers) as origin, client_of(origin.port, on_key_expiry=told.append) as client:
        with pytest.raises(AegisError):
            await client.agents.get("i")
        await client.agents.get("i")
    assert len(told) == 1


async def test_what_the_callback_raises_is_its_callers_and_closes_the_answer() -> None:
    def refuse(_: datetime) -> None:
        raise KeyError("not this one")

    async with HostileOrigin(answering(form(200, AGENT, "API-Key-Expires-At: 2026-12-01T00:00:00Z"))) as origin:
        async with client_of(origin.port, on_key_expiry=refuse) as client:
            with pytest.raises(KeyError, match="not this one"):
                await client.agents.get("i")
            assert (await client.agents.get("i")).name == "n"


def breaking_off(validated: bytes) -> Any:
    """A stream that breaks after its first event; whoever then asks who they are is answered so."""

    async def script(peer: Peer) -> None:
        request = await peer.read_request()
        if request.startswith(b"POST /v1/api-keys/validate "):
            await peer.send(validated)
            return
        await peer.send(STREAM, chunk(EVENT), b"7f\r\nda")
        peer.reset()

    return script


REVOKED = {"code": "key_revoked", "detail": "The API key has been revoked.", "status": 401}


@pytest.mark.parametrize(
    ("validated", "kind"),
    [
        (form(401, REVOKED), KeyRevokedError),
        (form(200, {}), StreamInterruptedError),
        (form(404, {}), StreamInterruptedError),
        (b"HTTP/1.1 x\r\n\r\n", StreamInterruptedError),
    ],
)
async def test_a_stream_that_breaks_off_says_why_if_the_key_is_why(
    validated: bytes, kind: type[AegisError], heard: io.StringIO
) -> None:
    async with HostileOrigin(breaking_off(validated)) as origin, client_of(origin.port) as client:
        events = aiter(client.executions.stream("i"))
        assert (await anext(events)).type == "log"
        with pytest.raises(kind) as failed:
            await anext(events)
    assert len(origin.requests) == 2
    check_kept(failed.value, heard)


async def test_the_blocking_client_says_so_too() -> None:
    def iterate(port: int) -> None:
        with AegisClient(KEY, f"http://127.0.0.1:{port}", retry=QUICK) as client:
            events = iter(client.executions.stream("i"))
            assert next(events).type == "log"
            with pytest.raises(KeyRevokedError):
                next(events)

    async with HostileOrigin(breaking_off(form(401, REVOKED))) as origin:
        await asyncio.to_thread(iterate, origin.port)


async def test_a_stream_that_the_server_ends_ends_the_loop() -> None:
    async with (
        HostileOrigin(answering(STREAM + chunk(EVENT + b"event: nothing\nid: 5\n\n") + b"0\r\n\r\n")) as origin,
        client_of(origin.port) as client,
    ):
        stream = client.executions.stream("i")
        assert [event.type async for event in stream] == ["log"]
        assert [event.type async for event in stream] == []
    assert len(origin.requests) == 1


async def test_what_is_no_stream_is_said_to_be_none() -> None:
    async with HostileOrigin(answering(form(200, {}))) as origin, client_of(origin.port) as client:
        with pytest.raises(UnexpectedAnswerError):
            await anext(aiter(client.executions.stream("i")))


async def test_leaving_a_stream_early_closes_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(STREAM, chunk(EVENT))

    async with HostileOrigin(script) as origin, client_of(origin.port) as client:
        async with client.executions.stream("i") as events:
            assert [(await anext(events)).data] == [{"line": "one"}]
        await origin.peers[0].wait_gone()
        assert [event async for event in events] == []


async def test_a_stream_may_be_silent_for_longer_than_an_answer() -> None:
    released = asyncio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.read_request()
        if b"/stream " in request:
            await peer.send(STREAM, chunk(EVENT))
            await released.wait()
            await peer.send(chunk(EVENT), b"0\r\n\r\n")

    async with HostileOrigin(script) as origin, client_of(origin.port, timeout=0.05) as client:
        async with client.executions.stream("i") as events:
            assert (await anext(events)).type == "log"
            waiting = asyncio.create_task(anext(events))
            for _ in range(2):
                with pytest.raises(RequestTimeoutError):
                    await client.agents.get("i")
            assert not waiting.done()
            released.set()
            assert (await waiting).type == "log"


async def test_an_upload_goes_as_it_comes() -> None:
    stored = {"volume_id": "v", "path": "p", "size_bytes": 2, "sha256": "s"}

    async def give() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async with HostileOrigin(answering(form(200, stored))) as origin, client_of(origin.port) as client:
        await client.volumes.upload("v", "a b&c.txt", give())
        await client.volumes.upload("v", "p", [b"ab"])
        await client.volumes.upload("v", "p", "ab")
    assert origin.requests[0].startswith(b"POST /v1/volumes/v/files/upload?path=a+b%26c.txt HTTP/1.1\r\n")
    assert origin.requests[0].endswith(b"\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    assert b"Content-Length: 2\r\n" in origin.requests[2]
    assert origin.requests[2].endswith(b"\r\n\r\nab")
    assert all(b"Content-Type: application/octet-stream\r\n" in request for request in origin.requests)


async def test_a_client_that_was_given_stays_its_givers_to_close() -> None:
    async with httpx2.AsyncClient() as given:
        async with client_of(1, http_client=given):
            pass
        assert not given.is_closed
