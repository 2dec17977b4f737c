"""What a hostile client does to the wire: framing, targets, headers; and what leaks through, which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import posixpath
import re
from collections.abc import AsyncIterator
from urllib.parse import unquote

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from proxy.errors import Reason
from proxy.headers import WITHHELD, WITHHELD_PREFIXES
from proxy.policy import load_policy, parse_policy
from proxy.server import Proxy
from proxy.settings import UpstreamSettings, find_shipped
from proxy.upstream_address import parse_upstream_address
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.conftest import Ear
from tests.raw_client import ask_raw, form_chunks, form_request, open_raw
from tests.staging import GUARD_SECONDS, INITIALIZE, MODERN, MODERN_META, Stage

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
BODY = json.dumps(PING).encode()
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
MARK = "seen-nowhere-but-in-the-request"


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    canary: CanaryUpstream
    proxy: Proxy
    token: str

    def form(self, *lines: str, body: bytes = BODY, line: str = "POST /mcp/v1 HTTP/1.1") -> bytes:
        """A request with a good key whose framing is up to the test."""
        fields = ["Host: localhost", "Content-Type: application/json", f"Authorization: Bearer {self.token}"]
        return "\r\n".join([line, *fields, *lines, "", ""]).encode("latin-1") + body

    async def ask(self, *lines: str, body: bytes = BODY) -> tuple[int, dict[str, list[str]]]:
        """A request that must pass; the status of its answer, and its fields as the upstream saw them."""
        answer = await ask_raw(self.proxy.data_address, self.form(LENGTH, *lines, body=body))
        return answer.status, self.canary.requests[-1].fold()


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    token = (await stage.mint()).token
    limits = {"header_timeout_seconds": 0.3, "body_timeout_seconds": GUARD_SECONDS}
    async with CanaryUpstream() as canary, stage.proxy(canary.url, server=limits) as proxy:
        yield Scene(canary, proxy, token)


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
    "a coding in two lines": (501, ["Transfer-Encoding: gzip", CHUNKED], form_chunks(BODY)),
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
            await client.send(scene.form(LENGTH, *lines) + tunnelled)
            assert [(await client.read_answer()).status for _ in range(2)] == [200, 401]
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


# Headers.

IDENTITIES = sorted(
    {*WITHHELD, *(f"{prefix}id" for prefix in WITHHELD_PREFIXES), "x-forwarded-for", "x-forwarded-host",
     "x-forwarded-proto", "x-forwarded-uri", "x-forwarded-prefix", "x-aegis-identity", "x-aegis-key-id", "x-key-id"}
    - {"authorization", "host", "content-length", "expect", "origin"}  # refused when forged, or ours to read
)  # fmt: skip


def spell(name: str) -> set[str]:
    """A name, and the names another implementation may fold into it."""
    words = name.split("-")
    cases = [name, name.upper(), name.title(), name.swapcase(), name[:1].upper() + name[1:]]
    joined = [mark.join(words) for mark in ("_", ".", "!", "~", "'", "^", "`", "|", "+", "*", "$")]
    mixed = ["_".join(words[:2]) + "-" + "-".join(words[2:])] if len(words) > 2 else []
    return {*cases, *joined, *(text.title() for text in joined), *mixed}


async def test_no_spelling_of_an_identity_reaches_the_upstream(scene: Scene) -> None:
    spellings = sorted(itertools.chain.from_iterable(map(spell, IDENTITIES)))
    assert len(spellings) > 500
    for batch in itertools.batched(spellings, 40) if hasattr(itertools, "batched") else _batch(spellings, 40):
        status, seen = await scene.ask(*(f"{name}: forged" for name in batch), "X-Harmless: passes")
        assert status == 200, batch
        assert seen["X_HARMLESS"] == ["passes"]
        assert len(seen["X_REQUEST_ID"]) == 1
    assert b"forged" not in scene.canary.received


def _batch(names: list[str], size: int) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


async def test_connection_strikes_out_what_is_the_client_s_and_nothing_else(scene: Scene) -> None:
    begun = await ask_raw(scene.proxy.data_address, form_request(token=scene.token, body=INITIALIZE))
    session = begun.headers["Mcp-Session-Id"]
    struck = "X-Harmless, X-Request-Id, Accept-Encoding, Content-Length, Host, Authorization, Mcp-Session-Id, Content-Type"
    status, seen = await scene.ask(f"Connection: keep-alive, {struck}", "X-Harmless: a", f"Mcp-Session-Id: {session}")
    assert status == 200
    assert not seen.keys() & {"X_HARMLESS", "CONNECTION"}
    assert seen["MCP_SESSION_ID"] == [session]
    assert seen["CONTENT_TYPE"] == ["application/json"]
    assert seen["ACCEPT_ENCODING"] == ["identity"]
    assert seen["CONTENT_LENGTH"] == [str(len(BODY))]
    assert len(seen["X_REQUEST_ID"]) == len(seen["HOST"]) == 1


async def test_connection_cannot_send_the_upstream_another_revision_than_was_judged(scene: Scene) -> None:
    body = json.dumps({**PING, "params": {"_meta": MODERN_META}}).encode()
    request = form_request(
        "POST", "/mcp/v1", "Connection: MCP-Protocol-Version, mcp-method", token=scene.token, body=body,
        mcp_protocol_version=MODERN, mcp_method="ping",
    )  # fmt: skip
    assert (await ask_raw(scene.proxy.data_address, request)).status == 200
    seen = scene.canary.requests[-1].fold()
    assert (seen["MCP_PROTOCOL_VERSION"], seen["MCP_METHOD"]) == ([MODERN], ["ping"])


async def test_hop_by_hop_fields_end_here(scene: Scene) -> None:
    status, seen = await scene.ask(
        "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: trailers", "Proxy-Authorization: Basic YTpi"
    )
    assert status == 200
    assert not seen.keys() & {"KEEP_ALIVE", "PROXY_CONNECTION", "TE", "PROXY_AUTHORIZATION", "CONNECTION"}


async def test_the_client_s_credentials_end_here_and_the_upstream_gets_its_own(stage: Stage) -> None:
    key = await stage.mint()
    async with CanaryUpstream() as canary:
        upstream = UpstreamSettings(url=parse_upstream_address(canary.url), bearer_token=SecretStr("the-upstream-s-own"))
        async with stage.proxy(canary.url, upstreams={"mcp": upstream}) as proxy:
            request = form_request("POST", "/mcp/v1", "Cookie: a=secret-cookie", token=key.token, body=PING)
            answer = await ask_raw(proxy.data_address, request)
    assert answer.status == 200
    assert canary.requests[-1].fold()["AUTHORIZATION"] == ["Bearer the-upstream-s-own"]
    assert key.token[:18].encode() not in canary.received
    assert b"secret-cookie" not in canary.received
    assert b"the-upstream-s-own" not in answer.body + str(answer.headers).encode()


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/html"])
async def test_the_upstream_tells_the_client_nothing_of_itself(content_type: str, scene: Scene) -> None:
    leaks = ["Set-Cookie", "Location", "Server", "WWW-Authenticate", "Via", "X-Powered-By", "Link", "Refresh",
             "Access-Control-Allow-Origin", "Content-Encoding", "Keep-Alive", "Proxy-Authenticate", "Alt-Svc",
             "Clear-Site-Data", "Strict-Transport-Security", "X-Request-Id", "Mcp-Session-Id"]  # fmt: skip
    fields = [f"{name}: {MARK}" for name in leaks]
    scene.canary.answer = lambda _: form_answer(b"data: {}\n\n", *fields, "ETag: kept", content_type=content_type)
    answer = await ask_raw(scene.proxy.data_address, scene.form(LENGTH))
    assert (answer.status, answer.body) == (200, b"data: {}\n\n")
    assert MARK not in str(list(answer.headers.items()))
    assert answer.headers["ETag"] == "kept"
    assert answer.headers.getall("Server") == ["aegis-proxy"]
    assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"]
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Request-Id"] == scene.canary.requests[-1].fold()["X_REQUEST_ID"][0]


# Paths.

PATHS = """
version: 1
default_tier: pro
scopes: { workflow:read: { title: Read workflows, selector: workflow name } }
presets: { execution: { title: Execution, scopes: ["workflow:read:mine"] } }
tiers: { pro: ["*"] }
routes:
  - { id: workflow, path: "/v1/workflows/{name}", methods: [GET], upstream: mcp, protocol: http,
      require: "workflow:read:{name}" }
  - { id: files, path: "/files/**", methods: [GET], upstream: mcp, protocol: http, allow: any-key }
...
"""
TRICKS = ["/", "//", "/.", "/..", "/../", "%2e", "%2E%2E", ".%2e", "%2f", "%2F", "%5c", "\\", ";", ";x=y", "%3B", "%00",
          "%c0%af", "%C0%AF", "%E0%80%AF", "%25", "%252F", "%252e", "#", "?", "?x=/v1/workflows/mine", "%20", "%", "%zz",
          "%u002f", "é", "%C3%A9", "@", ":80", "%6D", "%4d", "mine", "other", "files", "*", "%2A", "..;", "\x7f", "|"]
bases = st.sampled_from(["/v1/workflows/mine", "/v1/workflows/other", "/files/a/b", "/files/../v1/workflows/mine"])
edits = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(TRICKS), st.booleans()), max_size=4)


@st.composite
def targets(draw: st.DrawFn) -> str:
    """A path of the policy, or what a crooked client makes of one."""
    target = draw(bases)
    for at, trick, replaces in draw(edits):
        position = at % (len(target) + 1)
        target = target[:position] + trick + target[position + replaces :]
    return target


def read_leniently(path: str) -> str:
    """A path as a careless upstream opens it: decoded twice, back slashes turned, parameters cut, dots resolved."""
    bare = re.sub(r";[^/]*", "", path)
    return posixpath.normpath(unquote(unquote(bare)).replace("\\", "/").replace("//", "/"))


async def test_the_path_that_is_judged_is_the_path_that_is_sent_however_it_is_spelled(stage: Stage) -> None:
    stage = dataclasses.replace(stage, policy=parse_policy(PATHS, "policy of paths"))
    token = (await stage.mint()).token
    loop_safe = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        for target in collect(loop_safe):
            await walk(target, token, canary, proxy)
        assert canary.requests, "nothing ever passed"


def collect(rules: settings) -> list[str]:
    """Hypothesis runs no event loop of ours: its examples are drawn first, then walked."""
    drawn: set[str] = set()

    @rules
    @given(targets())
    def note(target: str) -> None:
        drawn.add(target)

    note()
    return sorted(drawn)


async def walk(target: str, token: str, canary: CanaryUpstream, proxy: Proxy) -> None:
    seen = len(canary.requests)
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    answer = await ask_raw(proxy.data_address, head.encode())
    if answer.status != 200:
        assert answer.status in (400, 403, 404), target
        assert len(canary.requests) == seen, target
        return
    (request,) = canary.requests[seen:]
    assert request.target == target
    path = target.partition("?")[0]
    assert path == "/v1/workflows/mine" or path.startswith("/files/"), target
    assert read_leniently(path) == unquote(path), target


def test_the_shipped_policy_is_met_at_one_spelling_of_its_path() -> None:
    policy = load_policy(find_shipped("policy.yaml"))
    assert [route.path for route in policy.routes if policy.find_route(route.path)] == ["/mcp/v1"]
