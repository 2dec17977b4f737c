"""What a hostile client does to the wire: framing, request lines, connections. Nothing of it reaches the upstream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.errors import Reason
from proxy.server import Proxy
from tests.ear import Ear
from tests.raw_client import ask_raw, form_chunks, form_request, open_raw
from tests.staging import GUARD_SECONDS, Stage
from tests.wire_scene import BODY, LENGTH, PING, Scene, open_scene

CHUNKED = "Transfer-Encoding: chunked"
MARK = "seen-nowhere-but-in-the-request"


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    async with open_scene(stage) as scene:
        yield scene


# Framing.

REFUSED = {
    "both framings": (400, [LENGTH, CHUNKED], form_chunks(BODY)),
    "both framings, the other way round": (400, [CHUNKED, LENGTH], form_chunks(BODY)),
    "two equal lengths": (400, [LENGTH, LENGTH], BODY),
    **{
        f"length {length!r}": (400, [f"Content-Length: {length}"], BODY)
        for length in ("", "+40", "-1", "40, 40", "0x28", "40a", "4 0", "1e1", "40;", "٤٠".encode().decode("latin-1"))
    },
    **{
        f"coding {coding!r}": (status, [f"Transfer-Encoding: {coding}"], form_chunks(BODY))
        for coding, status in {
            "gzip, chunked": 501, ",chunked": 501, "identity, chunked": 501, "xchunked": 400, "\x0bchunked": 400,
            "chunked, chunked": 400, "chunked, gzip": 400, "gzip": 400, "identity": 400, "chunked;x=y": 400, "": 400,
        }.items()
    },
    "the coding twice": (400, [CHUNKED, CHUNKED], form_chunks(BODY)),
    "a coding in two lines": (400, ["Transfer-Encoding: gzip", CHUNKED], form_chunks(BODY)),
    "a space before the colon": (400, ["Transfer-Encoding : chunked"], form_chunks(BODY)),
    "a folded line": (400, [LENGTH, "X-A: a\r\n b"], BODY),
    "a bare CR": (400, [LENGTH, "X-A: a\rb"], BODY),
    "a bare LF": (400, [LENGTH, "X-A: a\nX-B: b"], BODY),
    "NUL": (400, [LENGTH, "X-A: a\0b"], BODY),
    "a line without a colon": (400, [LENGTH, "nonsense"], BODY),
    "a name with a space": (400, [LENGTH, "X A: a"], BODY),
    "an empty name": (400, [LENGTH, ": a"], BODY),
    **{
        f"chunks {chunks[:12]!r}": (400, [CHUNKED], chunks)
        for chunks in (
            b"0x2\r\n{}\r\n0\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"2 \r\n{}\r\n0\r\n\r\n",
            b"2\n{}\r\n0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n", b"2;a\nb\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x\r\n0\r\n\r\n",
            b"\r\n{}\r\n0\r\n\r\n", b"g\r\n{}\r\n0\r\n\r\n", b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n",
        )
    },
}  # fmt: skip

LINES = {
    "POST /mcp/v1": 505,  # read as HTTP/0.9
    "POST /mcp/v1 HTTP/0.9": 505,
    "POST /mcp/v1 HTTP/2.0": 505,
    "PRI * HTTP/2.0": 400,
    "POST /mcp/v1 HTTP/1.2": 400,
    "POST /mcp/v1 HTTP/3.0": 400,
    "POST /mcp/v1 http/1.1": 400,
    "POST /mcp/v1 HTTP/1.1 ": 400,
    "POST /mcp/v1 HTTP/01.1": 400,
    "post /mcp/v1 HTTP/1.1": 400,
    "POST\t/mcp/v1\tHTTP/1.1": 400,
    "POST http://localhost/mcp/v1 HTTP/1.1": 400,
    "POST http://evil.example/mcp/v1 HTTP/1.1": 400,
    "POST //evil.example/mcp/v1 HTTP/1.1": 400,
    "POST /mcp/v1#fragment HTTP/1.1": 400,
    "POST /mcp/v1?a=b#fragment HTTP/1.1": 400,
    "POST mcp/v1 HTTP/1.1": 400,
    "OPTIONS * HTTP/1.1": 400,
    "CONNECT localhost:80 HTTP/1.1": 400,
    "CONNECT /mcp/v1 HTTP/1.1": 405,
}


async def test_framing_that_could_be_read_in_two_ways_is_refused_and_ends_the_connection(scene: Scene) -> None:
    for name, (status, lines, body) in REFUSED.items():
        async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
            await client.send(scene.form(*lines, body=body) + scene.form(LENGTH))
            answer = await client.read_answer()
            assert answer.status == status, name
            assert await client.read_rest() == b"", name
        assert not scene.canary.received, name


async def test_request_lines_and_targets_of_another_form_are_refused(scene: Scene) -> None:
    for line, status in LINES.items():
        answer = await ask_raw(scene.proxy.data_address, scene.form(LENGTH, line=line))
        assert answer.status == status, line
        assert answer.line.startswith(("HTTP/1.1 ", "HTTP/1.0 ")), line
        assert not scene.canary.received, line


async def test_unusual_but_sound_framing_reaches_the_upstream_in_one_form(scene: Scene) -> None:
    for request in (
        scene.form(LENGTH),
        scene.form(f"Content-Length:  {len(BODY)} "),
        scene.form("Transfer-Encoding: Chunked", body=form_chunks(BODY)),
        scene.form(CHUNKED, body=form_chunks(BODY[:1], BODY[1:])),
        scene.form(CHUNKED, body=b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
        scene.form(LENGTH, line="POST /mcp/v1 HTTP/1.0"),
        b"\r\n" + scene.form(LENGTH),
    ):
        assert (await ask_raw(scene.proxy.data_address, request)).status == 200
        seen = scene.canary.requests[-1]
        assert seen.raw.startswith(b"POST /mcp/v1 HTTP/1.1\r\n")
        assert seen.fold()["CONTENT_LENGTH"] == [str(len(seen.body))]
        assert "TRANSFER_ENCODING" not in seen.fold()
        assert json.loads(seen.body) == PING
    assert len(scene.canary.requests) == 7


async def test_a_request_may_come_byte_by_byte(scene: Scene) -> None:
    request = scene.form(LENGTH)
    async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
        await client.send(*(request[at : at + 1] for at in range(len(request))))
        assert (await client.read_answer()).status == 200


async def test_what_cannot_be_read_is_reflected_nowhere_and_logged_in_one_short_line(scene: Scene, ear: Ear) -> None:
    before = len(ear.heard.getvalue())
    garbage = [
        f"GET /{MARK} HTTP/9.9\r\n\r\n".encode(),
        f"{MARK}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: a\r\n{MARK}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: a\r\nX: {MARK}\0\r\n\r\n".encode(),
        scene.form(CHUNKED, body=f"{MARK}\r\n".encode()),
        f"GET /{MARK * 300} HTTP/1.1\r\n\r\n".encode(),
    ]
    for request in garbage:
        answer = await ask_raw(scene.proxy.data_address, request)
        assert answer.reason in (Reason.REQUEST_UNREADABLE, Reason.HEAD_TOO_LARGE)
        assert MARK.encode() not in answer.body
    logged = ear.heard.getvalue()[before:]
    lines = [line for line in logged.splitlines() if b'"room":"decision"' in line]
    assert len(lines) == len(logged.splitlines()) == len(garbage)
    assert max(map(len, lines)) < 400
    assert MARK.encode() not in logged
    assert b"Traceback" not in logged


async def test_trailers_are_dropped(scene: Scene) -> None:
    trailers = {"Authorization": "Bearer forged", "Mcp-Session-Id": "forged", "X-Forged": "forged"}
    body = form_chunks(BODY, trailers=trailers)
    answer = await ask_raw(scene.proxy.data_address, scene.form(CHUNKED, "Trailer: Authorization", body=body))
    assert answer.status == 200
    assert b"forged" not in scene.canary.received
    assert "TRAILER" not in scene.canary.requests[-1].fold()


# Connections.


async def test_upgrades_are_never_offered_to_the_upstream_and_tunnel_nothing(scene: Scene) -> None:
    for upgrade in ("websocket", "h2c", "TLS/1.0", "websocket, h2c"):
        lines = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABkAAQAAP__"]
        tunnelled = form_request(body=PING)  # without a key: as a request it is refused, as a tunnel it would pass
        async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
            await client.send(scene.form(LENGTH, *lines))
            assert (await client.read_answer()).status == 200
            await client.send(tunnelled)
            assert (await client.read_answer()).status == 401
            await client.send(form_request("GET", "/mcp/v1", *lines) + tunnelled)
            assert (await client.read_answer()).status == 401
        seen = scene.canary.requests[-1].fold()
        assert not seen.keys() & {"CONNECTION", "UPGRADE", "HTTP2_SETTINGS"}
    assert len(scene.canary.requests) == 4


async def test_no_body_is_asked_for_before_the_credential_is_verified(scene: Scene) -> None:
    expect = {"expect": "100-continue", "content_length": str(len(BODY))}
    refused = form_request(body=b"", **expect)
    async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
        await client.send(refused)
        assert (await client.read_answer()).status == 401
    async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
        await client.send(form_request(token=scene.token, body=b"", **expect))
        assert (await client.read_head())[0] == "HTTP/1.1 100 Continue"
        assert not scene.canary.received
        await client.send(BODY)
        assert (await client.read_answer()).status == 200
    assert "EXPECT" not in scene.canary.requests[-1].fold()


async def test_a_body_that_would_be_refused_is_not_asked_for_either(scene: Scene) -> None:
    for replaced, status in (
        ({"content_length": str(2**40)}, 413),
        ({"content_length": "40", "content_type": "text/plain"}, 415),
    ):
        request = form_request(token=scene.token, body=b"", expect="100-continue", **replaced)
        answer = await ask_raw(scene.proxy.data_address, request)
        assert answer.status == status
        assert answer.headers["Connection"] == "close"


async def test_what_follows_an_early_refusal_with_an_unread_body_is_never_handled(scene: Scene) -> None:
    smuggled = scene.form(LENGTH)
    refused = [
        form_request(body=b"", content_length="1000"),  # no credential
        form_request(token=scene.token, body=b"", content_length=str(2**40)),  # too large
        form_request(token=scene.token, body=b"", content_length="1000", content_type="text/plain"),
        form_request("GET", token=scene.token, content_length="1000"),
        scene.form(CHUNKED, "Content-Encoding: gzip", body=b"3e8\r\n"),
    ]
    for request in refused:
        async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
            await client.send(request)
            assert (await client.read_answer()).headers["Connection"] == "close"
            with contextlib.suppress(ConnectionError):
                await client.send(b"x" * (1000 - len(smuggled)), smuggled, smuggled)
                client.half_close()
            assert await client.read_rest() == b""
    assert not scene.canary.received


async def test_pipelined_requests_are_answered_in_their_order(scene: Scene) -> None:
    messages = [json.dumps({**PING, "id": number}).encode() for number in range(5)]
    async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
        await client.send(b"".join(form_request(token=scene.token, body=message) for message in messages))
        answers = [await client.read_answer() for _ in messages]
    assert [answer.json["id"] for answer in answers] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "begun", [b"", b"P", b"POST /mcp/v1 HTTP/1.1\r\n", b"POST /mcp/v1 HTTP/1.1\r\nHost: localhost\r\n", b"GET /\r\n"]
)
async def test_a_head_that_does_not_come_to_its_end_is_waited_for_only_so_long(begun: bytes, scene: Scene) -> None:
    async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as fresh:
        await fresh.send(begun)
        assert await fresh.read_rest() == b""
    if begun:
        async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as used:
            await used.send(scene.form(LENGTH))
            await used.read_answer()
            await used.send(begun)
            assert await used.read_rest() == b""


async def test_a_head_that_trickles_in_is_not_waited_for_any_longer(scene: Scene) -> None:
    async with asyncio.timeout(GUARD_SECONDS), open_raw(scene.proxy.data_address) as client:
        end = asyncio.ensure_future(client.read_rest())
        with contextlib.suppress(ConnectionError):
            await client.send(b"GET /")
            while not end.done():
                await client.send(b"a")
                await asyncio.wait([end], timeout=0.02)
        assert await end == b""


@pytest.mark.parametrize("manner", ["half_close", "reset"])
async def test_when_a_client_leaves_in_the_middle_of_its_body_nothing_is_sent(
    manner: str, scene: Scene, http: aiohttp.ClientSession
) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        async with open_raw(scene.proxy.data_address) as client:
            await client.send(scene.form(LENGTH, "Expect: 100-continue", body=b""))
            await client.read_head()  # now the body is being read
            await client.send(BODY[:-1])
            getattr(client, manner)()
            await wait_metric(http, scene.proxy, 'aegis_requests_total{outcome="client_left",route="mcp"} 1.0')
    assert not scene.canary.received
    assert (await scene.ask())[0] == 200


async def wait_metric(http: aiohttp.ClientSession, proxy: Proxy, line: str) -> None:
    """Return once the metrics say so."""
    while True:
        async with http.get(f"http://{proxy.ops_address}/metrics") as answer:
            if line in (await answer.text()).splitlines():
                return
