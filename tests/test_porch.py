"""The porch: what an address beyond its budget costs no longer, and what it still gets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest

from proxy.client_address import parse_network
from proxy.errors import Reason
from proxy.failures import LOCAL, FailureLimiter
from proxy.identity import KeyId
from proxy.keys.minting import MintedKey
from proxy.keys.token import SECRET_LENGTH, form_token
from proxy.porch import MAX_HELD, STANDING_SHARE, Newcomer, Porch
from proxy.server import Proxy
from proxy.settings_management import IdentityProviderSettings
from tests.canary_upstream import CanaryUpstream
from tests.ear import Ear
from tests.raw_client import RawAnswer, RawClient, ask_raw, form_request, open_raw
from tests.records import form_key_id, form_legacy_token, form_secret_token
from tests.staging import GUARD_SECONDS, Stage
from tests.wire_scene import PING

FEW = {"burst": 1, "per_second": 0.01}
GARBAGE = "garbage"
PROVIDER = IdentityProviderSettings(issuer="https://id.example", audience="aegis-proxy")


@dataclass(frozen=True, slots=True)
class Flooded:
    """A proxy that has had enough of invalid keys from loopback, and a key that it has served."""

    proxy: Proxy
    canary: CanaryUpstream
    good: MintedKey

    async def ask(self, token: str, client: RawClient | None = None) -> RawAnswer:
        request = form_request(token=token, body=PING)
        async with asyncio.timeout(GUARD_SECONDS):
            if client is None:
                return await ask_raw(self.proxy.data_address, request)
            await client.send(request)
            return await client.read_answer()

    def form_wrong(self) -> dict[str, str]:
        """A token of each kind that opens nothing."""
        return {
            "garbage": GARBAGE,
            "unknown": form_secret_token(form_key_id(7)).text,
            "wrong secret": form_token(KeyId(self.good.summary.id), "S" * SECRET_LENGTH).text,
            "legacy": form_legacy_token(7).text,
        }


@contextlib.asynccontextmanager
async def flood(stage: Stage, **sections: dict[str, Any]) -> AsyncIterator[Flooded]:
    good = await stage.mint()
    async with CanaryUpstream() as canary, stage.proxy(canary.url, failures=FEW, **sections) as proxy:
        flooded = Flooded(proxy, canary, good)
        assert (await flooded.ask(good.token)).status == 200
        assert (await flooded.ask(GARBAGE)).status == 401
        canary.requests.clear()
        yield flooded


@pytest.fixture
async def flooded(stage: Stage) -> AsyncIterator[Flooded]:
    async with flood(stage) as flooded:
        yield flooded


async def read_metrics(http: aiohttp.ClientSession, proxy: Proxy) -> dict[str, float]:
    async with http.get(f"http://{proxy.ops_address}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.mark.parametrize("kind", ["garbage", "unknown", "wrong secret", "legacy"])
async def test_a_wrong_token_is_answered_429_on_a_new_connection(kind: str, flooded: Flooded) -> None:
    answer = await flooded.ask(flooded.form_wrong()[kind])
    assert (answer.status, answer.reason) == (429, Reason.TOO_MANY_FAILURES)
    assert answer.line == "HTTP/1.1 429 Too Many Requests"
    headers = answer.headers
    assert (headers["Retry-After"], headers["Cache-Control"]) == ("100", "no-store")
    assert headers["X-Request-Id"] == answer.json["request_id"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "WWW-Authenticate" not in headers
    assert not flooded.canary.requests


async def test_neither_database_nor_argon2_is_asked_for_what_is_known_to_fail(
    flooded: Flooded, http: aiohttp.ClientSession
) -> None:
    """The tables are locked: whoever reads them gets 503 when the database's time is up."""
    for token in flooded.form_wrong().values():
        await flooded.ask(token)  # once, so that memory knows
    hashes = (await read_metrics(http, flooded.proxy))["aegis_argon2_seconds_count"]
    async with lock_keys(flooded):
        for kind in ("garbage", "unknown", "wrong secret"):
            assert (await flooded.ask(flooded.form_wrong()[kind])).status == 429
        assert (await flooded.ask(flooded.good.token)).status == 200
        assert (await flooded.ask(form_secret_token(form_key_id(8)).text)).status == 503, "the lock does hold"
    assert (await read_metrics(http, flooded.proxy))["aegis_argon2_seconds_count"] == hashes


@contextlib.asynccontextmanager
async def lock_keys(flooded: Flooded) -> AsyncIterator[None]:
    url = flooded.proxy.settings.database.url
    assert url is not None
    connection = await asyncpg.connect(url.get_secret_value())
    try:
        async with connection.transaction():
            await connection.execute("LOCK api_keys, api_key_secrets, owners IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def test_a_right_key_is_served_whether_it_was_seen_before_or_not(flooded: Flooded, stage: Stage) -> None:
    await flooded.ask(GARBAGE)
    for key in (flooded.good, await stage.mint(), await stage.mint(owner="bob")):
        assert (await flooded.ask(key.token)).status == 200
    assert len(flooded.canary.requests) == 3


async def test_a_right_key_that_all_ask_with_at_once_is_hashed_once(
    flooded: Flooded, stage: Stage, http: aiohttp.ClientSession
) -> None:
    """Among a crowd of wrong ones, each on a connection of its own, none of which is hashed."""
    unseen, wrong = await stage.mint(), flooded.form_wrong()
    hashes = (await read_metrics(http, flooded.proxy))["aegis_argon2_seconds_count"]
    answers = await asyncio.gather(
        *(flooded.ask(token) for token in [unseen.token] * 40),
        *(flooded.ask(token) for token in [*wrong.values()] * 10),
    )
    assert [answer.status for answer in answers] == [200] * 40 + [429] * 40
    assert (await read_metrics(http, flooded.proxy))["aegis_argon2_seconds_count"] == hashes + 1


async def test_a_right_key_whose_row_holds_a_hostile_argon2_string_is_refused_unhashed_and_never_limited(
    flooded: Flooded, stage: Stage, http: aiohttp.ClientSession
) -> None:
    """Its secret is right by its tag: it is the row that is wrong."""
    key = await stage.mint()
    hostile = "$argon2id$v=19$m=1048576,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
    await stage.sql("UPDATE api_key_secrets SET hash = $2 WHERE key_id = $1", key.summary.id, hostile)
    hashes = (await read_metrics(http, flooded.proxy))["aegis_argon2_seconds_count"]
    answers = [await flooded.ask(key.token) for _ in range(3)]
    assert [(answer.status, answer.reason) for answer in answers] == [(401, Reason.CREDENTIAL_INVALID)] * 3
    assert (await read_metrics(http, flooded.proxy))["aegis_argon2_seconds_count"] == hashes


async def test_a_right_key_is_served_while_the_porch_is_full_of_others(stage: Stage) -> None:
    """They keep their connections, and those who stand there longest make room."""
    standing = 50
    wrong = [form_secret_token(form_key_id(number)).text for number in range(standing + 2)]
    limits = {"max_connections": int(standing / STANDING_SHARE)}
    async with flood(stage, server=limits) as flooded, contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(open_raw(flooded.proxy.data_address)) for _ in wrong]
        answers = await asyncio.gather(*(flooded.ask(*one) for one in zip(wrong, crowd, strict=True)))
        assert {answer.status for answer in answers} == {429}
        unseen = await stage.mint()
        assert [(await flooded.ask(key.token)).status for key in (unseen, flooded.good)] == [200, 200]
        async with asyncio.timeout(GUARD_SECONDS):
            gone = [client for client in crowd if client.has_ended()]
            while len(gone) < 2:
                await asyncio.sleep(0)
                gone = [client for client in crowd if client.has_ended()]
        assert len(gone) == 2


async def test_a_connection_that_was_refused_may_try_again_with_a_right_key(flooded: Flooded) -> None:
    """It is served as any other from then on; another invalid one has to wait until it has rested."""
    async with open_raw(flooded.proxy.data_address) as client:
        answers = [await flooded.ask(token, client) for token in (GARBAGE, GARBAGE, *[flooded.good.token] * 2)]
        assert [answer.status for answer in answers] == [429, 429, 200, 200]
        last = await flooded.ask(GARBAGE, client)
        assert (last.status, last.headers["Connection"]) == (429, "close"), "served by the front door"


async def test_a_request_that_comes_in_pieces_is_answered_once_it_is_whole(flooded: Flooded) -> None:
    request = form_request(token=GARBAGE, body=PING)
    async with asyncio.timeout(GUARD_SECONDS), open_raw(flooded.proxy.data_address) as client:
        for start in range(0, len(request), 16):
            await client.send(request[start : start + 16])
        assert (await client.read_answer()).status == 429


async def test_a_right_key_does_not_wait_here_for_its_body(flooded: Flooded, http: aiohttp.ClientSession) -> None:
    """It is verified while the body is still to come, and that may come as slowly as anybody's."""
    request, name = form_request(token=flooded.good.token, body=PING), 'aegis_verifications_total{by="memory"}'
    before = (await read_metrics(http, flooded.proxy))[name]
    async with asyncio.timeout(GUARD_SECONDS), open_raw(flooded.proxy.data_address) as client:
        await client.send(request[:-1])
        while (await read_metrics(http, flooded.proxy))[name] == before:
            pass
        await client.send(request[-1:])
        assert (await client.read_answer()).status == 200


async def test_a_right_key_that_is_still_being_read_is_served_however_long_its_body(stage: Stage) -> None:
    """The tables are locked until the body is there; another's 429 says that all before it has been looked at."""
    body = json.dumps(PING).encode().ljust(4 * MAX_HELD)
    request = form_request(token=(await stage.mint()).token, body=body)  # before there is anybody to hear of it
    async with asyncio.timeout(GUARD_SECONDS), flood(stage) as flooded, open_raw(flooded.proxy.data_address) as client:
        async with lock_keys(flooded):
            for piece in (request[: -len(body)], body):
                await client.send(piece)
                assert (await flooded.ask(GARBAGE)).status == 429
            assert not client.has_ended()
        assert (await client.read_answer()).status == 200


async def test_what_comes_for_a_queued_request_stays_with_the_kernel(flooded: Flooded) -> None:
    """Beyond what is held, until it has been answered."""
    heart, limiter = flooded.proxy.heart, FailureLimiter(burst=1, per_second=0.01)
    limiter.count(LOCAL, heart.clock.boot())
    porch = Porch(
        limiter=limiter, screen=heart.screen, clock=heart.clock, realm="test", trusted_proxies=(), takes_tokens=False,
        head_timeout_seconds=GUARD_SECONDS, max_connections=4, count=lambda: None,
    )  # fmt: skip
    loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
    transport, newcomer = await loop.connect_accepted_socket(
        lambda: Newcomer(porch, asyncio.Protocol, lambda: False), ours
    )
    with theirs, contextlib.closing(porch):
        theirs.setblocking(False)
        newcomer.data_received(form_request(token=GARBAGE, body=b"x" * MAX_HELD))
        assert not transport.is_reading()
        async with asyncio.timeout(GUARD_SECONDS):
            assert (await loop.sock_recv(theirs, 2**12)).startswith(b"HTTP/1.1 429")
        assert transport.is_reading()


async def test_empty_lines_without_end_do_not_keep_the_request_behind_them_away(flooded: Flooded) -> None:
    async with asyncio.timeout(GUARD_SECONDS), open_raw(flooded.proxy.data_address) as client:
        await client.send(b"\r\n" * MAX_HELD)
        assert (await flooded.ask(GARBAGE)).status == 429
        assert (await flooded.ask(flooded.good.token, client)).status == 200


@pytest.mark.parametrize(
    "request_",
    [
        form_request(token=GARBAGE, body=b"x" * 2**20),
        form_request("POST", "/mcp/v1", "Transfer-Encoding: chunked", token=GARBAGE) + b"5\r\nhello\r\n0\r\n\r\n",
        form_request(token=GARBAGE, body=PING) + form_request(token=GARBAGE, body=PING),
        form_request(token=GARBAGE, body=PING, version="HTTP/1.0"),
        form_request("GET", "/mcp/v1", "Connection: close", token=GARBAGE),
        form_request("GET", "/mcp/v1", "X: b\nContent-Length: 9", token=GARBAGE),
    ],
    ids=["long", "chunked", "pipelined", "HTTP/1.0", "closing", "bare LF"],
)
async def test_where_the_end_of_a_request_is_not_plain_the_answer_ends_the_connection(
    request_: bytes, flooded: Flooded
) -> None:
    async with asyncio.timeout(GUARD_SECONDS), open_raw(flooded.proxy.data_address) as client:
        await client.send(request_)
        answer = await client.read_answer()
        assert (answer.status, answer.headers["Connection"]) == (429, "close")
        assert await client.read_rest() == b"", "one answer, and no reset that would take it along"


async def test_nothing_gets_past_by_looking_odd(flooded: Flooded) -> None:
    """Empty lines first, two credentials, and words of every case are seen here, too."""
    token = flooded.form_wrong()["unknown"]
    for request in (
        b"\r\n\r\n" + form_request(token=token, body=PING),
        form_request("POST", "/mcp/v1", "Authorization: Bearer x", token=token, body=PING),
        form_request(token=token, body=PING).replace(b"Authorization: Bearer", b"aUTHORIZATION:bEARER"),
    ):
        assert (await ask_raw(flooded.proxy.data_address, request)).headers["Retry-After"] == "100"


async def test_who_presents_nothing_is_answered_by_the_front_door(flooded: Flooded) -> None:
    answer = await ask_raw(flooded.proxy.data_address, form_request(body=PING))
    assert (answer.status, answer.reason) == (401, Reason.CREDENTIAL_MISSING)


@pytest.mark.parametrize(("provider", "closing"), [(PROVIDER, ["close", None]), (None, [None, None])])
async def test_a_token_of_the_identity_provider_is_the_front_door_s_to_judge(
    provider: IdentityProviderSettings | None, closing: list[str | None], stage: Stage
) -> None:
    """Where keys are managed, and where there is a provider: it closes, the porch does not."""
    async with flood(stage, management={"identity_provider": provider}) as flooded:
        answers = [
            await ask_raw(flooded.proxy.data_address, form_request("GET", path, token="head.claims.signature"))
            for path in ("/v1/api-keys", "/mcp/v1")
        ]
    assert [answer.headers.get("Connection") for answer in answers] == closing


async def test_a_proxy_of_ours_does_not_stand_on_the_porch(stage: Stage) -> None:
    """It speaks for many, and one of them must not make the others wait."""
    trusted = {"trusted_proxies": (parse_network("127.0.0.1"),)}
    async with flood(stage, server=trusted) as flooded:
        answer = await flooded.ask(GARBAGE)
        assert (answer.status, answer.headers["Connection"]) == (429, "close")
        assert answer.headers["Content-Type"] == "application/json", "the front door knows the route's dialect"


async def test_what_is_refused_is_counted_exactly_and_logged_in_few_lines(
    stage: Stage, ear: Ear, http: aiohttp.ClientSession
) -> None:
    before = len(ear.heard.getvalue())
    async with flood(stage) as flooded:
        answers = await asyncio.gather(*(flooded.ask(GARBAGE) for _ in range(200)))
        assert {answer.status for answer in answers} == {429}
        metrics = await read_metrics(http, flooded.proxy)
        assert metrics['aegis_requests_total{outcome="too_many_failures",route="none"}'] == 200
    lines = ear.heard.getvalue()[before:]
    said = [json.loads(line) for line in lines.splitlines()]
    begun = [line for line in said if line["event"] == "failures_limited"]
    refused = [line for line in said if line["event"] == "failures_refused"]
    assert [line["source"] for line in begun] == ["127.0.0.1"]
    assert sum(line["count"] for line in refused) == 200, "the last of them when the proxy stops"
    assert len(said) < 100
    named = {answer.headers["X-Request-Id"] for answer in answers}
    assert named == {line["request_id"] for line in refused}, "an answer leads to its line"
