"""What upstreams are told about who is asking: signed, current, and only by us."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import jwt as pyjwt
import pytest
from joserfc import jwk, jwt

from proxy.errors import Reason
from proxy.headers import fold_header
from proxy.policy import parse_policy
from proxy.server import Proxy
from proxy.settings import find_shipped
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.platform_stage import ISSUER, Rest, form_upstreams, open_platform
from tests.raw_client import ask_raw
from tests.staging import GUARD_SECONDS, Stage, connect, get_mcp_url
from tests.wire_scene import LENGTH, Scene

HEADER = "X-Zaru-User-Token"
PLAIN = {"profile": "headers", "headers": {"X-Who": "sub", "X-Whose-Tenant": "tenant_id", "X-May": "scopes"}}


@pytest.fixture
async def canary() -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream() as canary:
        yield canary


def spell(name: str) -> list[str]:
    """The ways to write a name that some server may take for it."""
    words = name.split("-")
    marks = ("-", "_", ".", "--", "-_", "", "~", "!", "+", "|", "'", "^")
    joined = [mark.join(words) for mark in marks]
    cases: list[Callable[[str], str]] = [str.lower, str.upper, str.title, str.swapcase, str]
    return sorted({case(text) for text in joined for case in cases} | {f"{name}-", f"-{name}"})


def open_front(
    stage: Stage, canary: CanaryUpstream, identity: dict[str, Any]
) -> contextlib.AbstractAsyncContextManager[Proxy]:
    return stage.proxy(canary.url, upstreams=form_upstreams(canary.url, None, identity))


@pytest.mark.parametrize(
    ("identity", "names"),
    [
        ({"profile": "assertion"}, [HEADER]),
        ({"profile": "assertion", "header": "X-Caller-Token"}, ["X-Caller-Token"]),
        (PLAIN, list(PLAIN["headers"])),
    ],
)
async def test_no_spelling_of_an_identity_of_a_client_reaches_the_upstream(
    identity: dict[str, Any], names: list[str], stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint()
    spellings = [spelling for name in names for spelling in spell(name)]
    assert len(names) * 40 < len(spellings)
    async with open_front(stage, canary, identity) as front:
        scene = Scene(canary, front, key.token)
        for start in range(0, len(spellings), 20):
            batch = spellings[start : start + 20]
            struck = ", ".join(names)  # and none of ours can be struck out as hop-by-hop
            status, _ = await scene.ask(*(f"{name}: forged" for name in batch), f"Connection: {struck}")
            assert status == 200
            seen = [(fold_header(name), value) for name, value in canary.requests[-1].fields]
            for name in names:
                (value,) = [value for folded, value in seen if folded == fold_header(name)]
                assert value
    assert b"forged" not in canary.received
    assert key.token.encode() not in canary.received


async def test_more_than_two_hundred_spellings_are_tried() -> None:
    assert len({*spell(HEADER), *spell("X-Caller-Token"), *(s for name in PLAIN["headers"] for s in spell(name))}) > 200


async def test_an_assertion_says_who_asks_to_whom_and_until_when(
    stage: Stage, canary: CanaryUpstream, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint(scopes=("workflow:run:nightly-etl",), tier="business")
    async with open_front(stage, canary, {"profile": "assertion"}) as front:
        status, _ = await Scene(canary, front, key.token).ask()
        assert status == 200
        async with http.get(f"http://{front.ops_address}/.well-known/jwks.json") as answer:
            keys = jwk.KeySet.import_key_set(await answer.json())
    token = dict(canary.requests[-1].fields)[HEADER]
    read = jwt.decode(token, keys, algorithms=["RS256"])
    assert read.header["typ"] == "aegis-identity+jwt"
    expected = {
        "iss": ISSUER,
        "aud": "mcp",
        "sub": "ada",
        "zaru_tier": "business",
        "scopes": ["workflow:run:nightly-etl"],
        "key_id": key.summary.id,
    }
    assert {name: read.claims[name] for name in expected} == expected
    assert 0 < read.claims["exp"] - read.claims["iat"] <= 60


async def test_in_authorization_it_takes_the_place_of_the_key(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint()
    async with open_front(stage, canary, {"profile": "assertion", "header": "Authorization"}) as front:
        await Scene(canary, front, key.token).ask()
    (value,) = [value for name, value in canary.requests[-1].fields if name.lower() == "authorization"]
    assert value.startswith("Bearer ey")


async def test_plain_headers_say_who_asks(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint(scopes=("workflow:run:à la carte", "agent:list"), owner="ada lovelace\u00e9")
    async with open_front(stage, canary, PLAIN) as front:
        await Scene(canary, front, key.token).ask()
    seen = dict(canary.requests[-1].fields)
    assert seen["X-Who"] == "ada lovelace%C3%A9"
    assert seen["X-May"] == "agent:list workflow:run:%C3%A0%20la%20carte"


async def test_nothing_is_refused_while_signing_keys_change_and_another_instance_comes(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    """The platform's library keeps keys and asks for unknown ones only now and then: here after half a second, the
    proxies publish theirs a second ahead, and change them every two."""
    async with open_platform(stage) as behind:
        for check in behind.checks.values():
            check.cooldown_seconds = 0.5
        timing = {"publish_ahead_seconds": 1.0, "rotate_seconds": 2.0}
        first = await behind.start_proxy(**timing)
        key = await stage.mint("execution")
        seen: set[str] = set()

        async def ask_on(proxy: Proxy) -> None:
            rest = Rest(http, f"http://{proxy.data_address}", key.token)
            status, body = await rest.ask("GET", "/v1/workflows")
            assert status == 200, body
            assert proxy.signing_keys is not None
            seen.add(proxy.signing_keys.current().kid)

        async with asyncio.timeout(3 * GUARD_SECONDS):
            while len(seen) < 3:
                await ask_on(first)
            second = await behind.start_proxy(**timing)
            assert "assertions" in second.find_faults()
            while "assertions" in second.find_faults():
                await ask_on(first)
            mine = len(seen)
            while len(seen) < mine + 4:
                await ask_on(first)
                await ask_on(second)


async def test_after_a_revocation_no_assertion_is_made_and_the_last_one_dies_within_a_minute(
    stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint()
    async with open_front(stage, canary, {"profile": "assertion"}) as front:
        scene = Scene(canary, front, key.token)
        await scene.ask()
        await stage.revoke_by_sql(key)
        revoked_at = time.time()
        async with asyncio.timeout(GUARD_SECONDS):
            while (await ask_raw(front.data_address, scene.form(LENGTH))).status != 401:
                pass
        sent = len(canary.requests)
        for _ in range(5):
            answer = await ask_raw(front.data_address, scene.form(LENGTH))
            assert (answer.status, answer.reason) == (401, Reason.KEY_REVOKED)
        assert len(canary.requests) == sent
    tokens = {dict(request.fields)[HEADER] for request in canary.requests}
    latest = max(pyjwt.decode(token, options={"verify_signature": False})["exp"] for token in tokens)
    assert latest <= revoked_at + 60


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_an_upstream_that_does_not_believe_us_is_no_fault_of_the_client(
    status: str, stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint()
    canary.answer = lambda _: form_answer(b'{"error":"who are you"}', status=status)
    async with open_front(stage, canary, {"profile": "assertion"}) as front:
        answer = await ask_raw(front.data_address, Scene(canary, front, key.token).form(LENGTH))
    assert (answer.status, answer.reason) == (502, Reason.UPSTREAM_CREDENTIAL)
    assert "WWW-Authenticate" not in answer.headers
    assert b"who are you" not in answer.body


async def test_sessions_of_dead_keys_are_ended_in_the_proxys_own_name(stage: Stage) -> None:
    async with open_platform(stage) as behind:
        front = await behind.start_proxy()
        key = await stage.mint("execution")
        async with connect(get_mcp_url(front), key.token, "legacy") as client:
            await client.list_tools()
            await stage.revoke_by_sql(key)
            async with asyncio.timeout(GUARD_SECONDS):
                while behind.platform.callers_seen[-1].subject != ISSUER:
                    await asyncio.sleep(0.01)


async def test_public_keys_are_on_the_data_listener_where_that_is_wanted(
    stage: Stage, canary: CanaryUpstream, http: aiohttp.ClientSession
) -> None:
    path = "/.well-known/jwks.json"
    for publish in (True, False):
        async with open_platform(stage) as behind:
            front = await behind.start_proxy(publish=publish)
            async with (
                http.get(f"http://{front.ops_address}{path}") as on_ops,
                http.get(f"http://{front.data_address}{path}") as on_data,
            ):
                assert on_ops.status == 200
                if publish:
                    assert await on_data.json() == await on_ops.json()
                else:
                    assert on_data.status == 404


PUBLIC = """
  - { id: webhooks, path: "/v1/webhooks/{source}", methods: [POST], upstream: mcp, allow: anyone,
      query: { kind: { absent_or: push } } }
  - { id: health, path: /health, methods: [GET], upstream: mcp, allow: anyone }
...
"""


async def test_a_public_route_carries_neither_keys_nor_identities(stage: Stage, canary: CanaryUpstream) -> None:
    text = find_shipped("policy.yaml").read_text().rstrip().removesuffix("...") + PUBLIC
    stage = dataclasses.replace(stage, policy=parse_policy(text, "policy with public routes"))
    canary.answer = lambda _: form_answer(b"{}")
    key = await stage.mint()
    async with open_front(stage, canary, {"profile": "assertion"}) as front:
        for token in (None, key.token, "nonsense"):
            lines = [f"Authorization: Bearer {token}"] if token else []
            body = b"hook"
            head = ["POST /v1/webhooks/github HTTP/1.1", "Host: localhost", "X-Hub-Signature-256: sha256=00",
                    f"{HEADER}: forged", f"Content-Length: {len(body)}", *lines, "", ""]  # fmt: skip
            answer = await ask_raw(front.data_address, "\r\n".join(head).encode() + body)
            assert answer.status == 200
            seen = canary.requests[-1]
            assert (seen.method, seen.target, seen.body) == ("POST", "/v1/webhooks/github", body)
            names = {name.lower() for name, _ in seen.fields}
            for wrong in ("kind=pull", "kind=push&kind=pull", "tenant_id=other", "token=x", f"api_key={key.token}"):
                line = head[0].replace(" HTTP", f"?{wrong} HTTP")
                answer = await ask_raw(front.data_address, "\r\n".join([line, *head[1:]]).encode() + body)
                assert answer.status in (400, 403), wrong
                assert canary.requests[-1] is seen
            assert "x-hub-signature-256" in names
            assert not names & {"authorization", HEADER.lower()}
    assert key.token.encode() not in canary.received
    assert b"forged" not in canary.received
