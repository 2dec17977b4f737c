"""What crosses the wall, seen from its other side: which headers, which paths, in which spelling."""

from __future__ import annotations

import dataclasses
import itertools
import json
import posixpath
import re
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from proxy.headers import WITHHELD, WITHHELD_PREFIXES
from proxy.policy import parse_policy
from proxy.server import Proxy
from proxy.settings import UpstreamSettings
from proxy.upstream_address import parse_upstream_address
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.raw_client import ask_raw, form_request
from tests.staging import INITIALIZE, MODERN, MODERN_META, Stage
from tests.wire_scene import LENGTH, PING, Scene, open_scene

MARK = "said-by-the-upstream-only"


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    async with open_scene(stage) as scene:
        yield scene


# Headers.

IDENTITIES = sorted(
    {*WITHHELD, *(f"{prefix}id" for prefix in WITHHELD_PREFIXES), "x-forwarded-for", "x-forwarded-host",
     "x-forwarded-proto", "x-forwarded-uri", "x-forwarded-prefix", "x-aegis-identity", "x-aegis-key-id", "x-key-id"}
    - {"authorization", "host", "content-length", "expect", "origin"}  # refused when forged, or ours to read
)  # fmt: skip


def spell(name: str) -> list[str]:
    """A name, and the names another implementation may fold into it."""
    words = name.split("-")
    cases = [name, name.upper(), name.title(), name.swapcase(), name[:1].upper() + name[1:]]
    joined = [mark.join(words) for mark in ("_", ".", "!", "~", "'", "^", "`", "|", "+", "*", "$")]
    mixed = ["_".join(words[:2]) + "-" + "-".join(words[2:])] if len(words) > 2 else []
    return sorted({*cases, *joined, *(text.title() for text in joined), *mixed})


async def test_no_spelling_of_an_identity_reaches_the_upstream(scene: Scene) -> None:
    batches = [*itertools.zip_longest(*map(spell, IDENTITIES))]  # one spelling of each, then the next
    assert sum(map(len, batches)) > 500
    for batch in batches:
        status, seen = await scene.ask(*(f"{name}: forged" for name in batch if name), "X-Harmless: passes")
        assert status == 200, batch
        assert seen["X_HARMLESS"] == ["passes"]
        assert len(seen["X_REQUEST_ID"]) == 1
    assert b"forged" not in scene.canary.received


async def test_connection_strikes_out_what_is_the_client_s_and_nothing_else(scene: Scene) -> None:
    begun = await ask_raw(scene.proxy.data_address, form_request(token=scene.token, body=INITIALIZE))
    session = begun.headers["Mcp-Session-Id"]
    struck = "X-Harmless, X-Request-Id, Accept-Encoding, Content-Length, Host, Mcp-Session-Id, Content-Type"
    status, seen = await scene.ask(f"Connection: keep-alive, {struck}", "X-Harmless: a", f"Mcp-Session-Id: {session}")
    assert status == 200
    assert not seen.keys() & {"X_HARMLESS", "CONNECTION"}
    assert seen["MCP_SESSION_ID"] == [session]
    assert seen["CONTENT_TYPE"] == ["application/json"]
    assert seen["ACCEPT_ENCODING"] == ["identity"]
    assert seen["CONTENT_LENGTH"] == [str(len(scene.canary.requests[-1].body))]
    assert len(seen["X_REQUEST_ID"]) == len(seen["HOST"]) == 1


async def test_connection_cannot_send_the_upstream_another_revision_than_was_judged(scene: Scene) -> None:
    body = json.dumps({**PING, "method": "tools/list", "params": {"_meta": MODERN_META}}).encode()
    request = form_request(
        "POST", "/mcp/v1", "Connection: MCP-Protocol-Version, mcp-method", token=scene.token, body=body,
        mcp_protocol_version=MODERN, mcp_method="tools/list",
    )  # fmt: skip
    assert (await ask_raw(scene.proxy.data_address, request)).status == 200
    seen = scene.canary.requests[-1].fold()
    assert (seen["MCP_PROTOCOL_VERSION"], seen["MCP_METHOD"]) == ([MODERN], ["tools/list"])


async def test_hop_by_hop_fields_end_here(scene: Scene) -> None:
    status, seen = await scene.ask(
        "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: trailers", "Proxy-Authorization: Basic YTpi"
    )
    assert status == 200
    assert not seen.keys() & {"KEEP_ALIVE", "PROXY_CONNECTION", "TE", "PROXY_AUTHORIZATION", "CONNECTION"}


async def test_the_client_s_credentials_end_here_and_the_upstream_gets_its_own(stage: Stage) -> None:
    key = await stage.mint()
    async with CanaryUpstream() as canary:
        upstream = UpstreamSettings(
            url=parse_upstream_address(canary.url), bearer_token=SecretStr("the-upstream-s-own")
        )
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
             "Access-Control-Allow-Origin", "Keep-Alive", "Proxy-Authenticate", "Alt-Svc",
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
TRICKS = [
    "/",
    "//",
    "/.",
    "/..",
    "/../",
    "%2e",
    "%2E%2E",
    ".%2e",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    ";",
    ";x=y",
    "%3B",
    "%00",
    "%c0%af",
    "%C0%AF",
    "%E0%80%AF",
    "%25",
    "%252F",
    "%252e",
    "#",
    "?",
    "?x=/v1/workflows/mine",
    "%20",
    "%",
    "%zz",
    "%u002f",
    "é",
    "%C3%A9",
    "@",
    ":80",
    "%6D",
    "%4d",
    "mine",
    "other",
    "files",
    "*",
    "%2A",
    "..;",
    "\x7f",
    "|",
]
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
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        for target in draw_targets():
            await walk(target, token, canary, proxy)
        assert canary.requests, "nothing ever passed"


def draw_targets() -> list[str]:
    """Hypothesis runs no event loop: its examples are drawn first, then walked."""
    drawn: set[str] = set()

    @settings(max_examples=500, database=None)
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
    assert unquote(path).count("/") == path.count("/"), target
