"""Every way of being refused, over real sockets; what was refused never reaches the upstream, not a byte of it."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import functools
import json
import re
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from multidict import CIMultiDict

from proxy.errors import Reason
from proxy.identity import KeyId
from proxy.keys.token import SECRET_LENGTH, form_token, parse_token
from proxy.policy import RouteMatch, parse_policy
from proxy.server import Proxy
from proxy.settings import UpstreamSettings
from proxy.upstream_address import parse_upstream_address
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.ear import Ear
from tests.raw_client import RawAnswer, ask_raw, form_request, open_raw
from tests.refusal_tables import (
    AFTER,
    BEFORE,
    INTERNALS,
    INVALID_TOKEN,
    MAX_BODY_BYTES,
    PING,
    RUN,
    Row,
    check_refusal,
    go,
    post,
)
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage

ROOT = Path(__file__).parents[2]
SERVER = {"max_body_bytes": MAX_BODY_BYTES, "body_timeout_seconds": 0.3, "max_answer_bytes": 65536}
# Reasons with a test of their own in this file.
HERE = {
    Reason.ROUTE_DENIED: "a REST route",
    Reason.STATE_UNKNOWN: "the key's row cannot be read",
    Reason.INTERNAL: "a policy that falls over",
    Reason.DRAINING: "while shutting down",
    Reason.RIGHTS_CHANGED: "while the upstream thinks",
    Reason.UPSTREAM_UNREACHABLE: "nobody listens",
    Reason.UPSTREAM_SESSION_CONFLICT: "one session for two keys",
}
# Reasons this walk cannot be brought to give on demand.
ELSEWHERE = {
    Reason.TOO_MANY_CONNECTIONS: "tests/test_client_connection.py",
    Reason.TOO_MANY_FAILURES: "tests/journeys/test_failures.py",
    Reason.HASHING_BUSY: "tests/keys/test_hashing.py",
    Reason.DATABASE_SILENT: "tests/faults/test_lost_news.py",
    **dict.fromkeys(
        (Reason.INPUT_INVALID, Reason.SCOPE_MISSING, Reason.RIGHTS_EXCEEDED, Reason.EXPIRY_EXCEEDED,
         Reason.CONSTRAINTS_EXCEEDED, Reason.NOT_A_DESCENDANT, Reason.NOT_THE_OWNER, Reason.TOO_MANY_GENERATIONS,
         Reason.ROLE_MISSING, Reason.OWNER_NOT_FOUND,
         Reason.OWNER_UNKNOWN, Reason.TENANT_MISMATCH, Reason.KEY_NOT_FOUND, Reason.KEY_CONFLICT, Reason.KEY_CHANGED),
        "tests/management/test_faults.py",
    ),
    Reason.TOKEN_INVALID: "tests/management/test_callers.py",
    Reason.TOKEN_EXPIRED: "tests/management/test_callers.py",
    Reason.PROVIDER_UNREACHABLE: "tests/management/test_callers.py",
    Reason.ADDRESS_NOT_ALLOWED: "tests/journeys/test_constraints.py",
    Reason.RATE_EXCEEDED: "tests/journeys/test_constraints.py",
    Reason.CALLS_EXCEEDED: "tests/journeys/test_concurrency.py",
    Reason.STREAMS_EXCEEDED: "tests/journeys/test_concurrency.py",
}  # fmt: skip


@pytest.fixture
async def canary() -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream() as canary:
        yield canary


@pytest.fixture
async def door(stage: Stage, canary: CanaryUpstream) -> AsyncIterator[Proxy]:
    async with stage.proxy(canary.url, server=SERVER) as proxy:
        yield proxy


async def make_key(stage: Stage, kind: str | None) -> str | None:
    """The token of a key of this kind; None for None."""
    if kind is None:
        return None
    if kind in ("read-only", "full-access"):
        return (await stage.mint(kind)).token
    lifetime = timedelta(seconds=-1) if kind == "expired" else None
    key = await stage.mint(owner="bob" if kind == "of a disabled owner" else "ada", lifetime=lifetime)
    key_id = key.summary.id
    match kind:
        case "unknown":
            return form_token(KeyId("0" * 12), parse_token(key.token).secret).text
        case "wrong secret":
            return form_token(KeyId(key_id), "0" * SECRET_LENGTH).text
        case "revoked" | "disabled":
            await stage.sql("UPDATE api_keys SET status = $2 WHERE id = $1", key_id, kind)
        case "rotated":
            await stage.sql("UPDATE api_key_secrets SET not_after = now() - interval '1 s' WHERE key_id = $1", key_id)
        case "of a disabled owner":
            await stage.sql("UPDATE owners SET disabled_at = now() WHERE subject = 'bob'")
        case _:
            assert kind in ("good", "expired")
    return key.token


def find_lines(ear: Ear, request_id: str) -> list[dict[str, object]]:
    """The decision lines of one request; an alarm has a line of its own beside."""
    lines = [json.loads(line) for line in ear.heard.getvalue().splitlines() if request_id.encode() in line]
    return [line for line in lines if line["event"] == "request"]


@pytest.mark.parametrize("table", BEFORE)
async def test_a_refusal_is_answered_as_the_table_says_and_nothing_reaches_the_upstream(
    table: str, stage: Stage, canary: CanaryUpstream, door: Proxy, ear: Ear
) -> None:
    tokens = {kind: await make_key(stage, kind) for kind in {row.key for row in BEFORE[table].values()}}
    failures: list[Exception] = []
    for name, row in BEFORE[table].items():
        try:
            await walk(row, tokens[row.key], door, ear)
            assert (bytes(canary.received), canary.connections) == (b"", 0)
        except (AssertionError, KeyError, ValueError, OSError, EOFError) as error:
            error.add_note(f"in the row {name!r}")
            failures.append(error)
    if failures:
        raise ExceptionGroup("rows that are not as they should be", failures)


async def walk(row: Row, token: str | None, door: Proxy, ear: Ear) -> None:
    """One request of the table, its answer, and its line in the log."""
    async with asyncio.timeout(GUARD_SECONDS), open_raw(door.data_address) as client:
        await client.send(row.ask(token))
        answer = await client.read_answer()
        if row.closes:
            assert await client.read_rest() == b""
    check_refusal(answer, row)
    ear.hear_answer(answer.status, answer.body)
    (line,) = (line for line in find_lines(ear, answer.headers["X-Request-Id"]) if line["event"] == "request")
    assert (line["outcome"], line["status"]) == (row.reason, row.status)
    if row.reason.startswith("key_") or row.reason is Reason.CREDENTIAL_INVALID:
        assert token is not None
        assert line["key_id"] == parse_token(token).key_id


def test_every_reason_has_a_row_or_says_where_else_it_is_tested() -> None:
    rows = {row.reason for table in BEFORE.values() for row in table.values()}
    rows |= {row.reason for row in AFTER.values()}
    others = [set(HERE), set(ELSEWHERE)]
    assert rows.union(*others) == set(Reason)
    assert len(rows) + sum(len(other) for other in others) == len(Reason)
    for reason, file in ELSEWHERE.items():
        assert re.search(rf"{reason.name}|{reason.value}|\b503\b", (ROOT / file).read_text()), reason


def test_every_reason_is_given_by_some_room() -> None:
    rooms = [room for room in (ROOT / "proxy").rglob("*.py") if room.name not in ("errors.py", "challenges.py")]
    given = {
        node.attr
        for room in rooms
        for node in ast.walk(ast.parse(room.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }
    assert given == {reason.name for reason in Reason}


async def test_an_unknown_key_and_a_wrong_secret_get_the_same_answer(stage: Stage, door: Proxy) -> None:
    answers = [
        await ask_raw(door.data_address, post()(await make_key(stage, kind))) for kind in ("unknown", "wrong secret")
    ]
    assert answers[0].anonymous_body == answers[1].anonymous_body
    assert hide(answers[0]) == hide(answers[1])


def hide(answer: RawAnswer) -> tuple[str, CIMultiDict[str], bytes]:
    """An answer without what may differ between two that must not be told apart."""
    headers = answer.headers.copy()
    for name in ("X-Request-Id", "Date"):
        headers.popall(name)
    return answer.line, headers, answer.anonymous_body


@pytest.mark.parametrize(
    "ask",
    [
        lambda token, session: post(mcp_session_id=session)(token),
        lambda token, session: post({"jsonrpc": "2.0", "id": 1, "result": {}}, mcp_session_id=session)(token),
        lambda token, session: go("GET", mcp_session_id=session)(token),
        lambda token, session: go("DELETE", mcp_session_id=session)(token),
    ],
    ids=["POST", "a response", "GET", "DELETE"],
)
async def test_the_session_of_another_key_is_refused_as_if_it_never_was(
    ask: object, stage: Stage, canary: CanaryUpstream, door: Proxy
) -> None:
    assert callable(ask)
    owner, other = (await stage.mint(owner="ada")).token, (await stage.mint(owner="bob")).token
    begun = await ask_raw(door.data_address, post(INITIALIZE)(owner))
    session = begun.headers["Mcp-Session-Id"]
    received = bytes(canary.received)
    foreign = await ask_raw(door.data_address, ask(other, session))
    unknown = await ask_raw(door.data_address, ask(other, "of-nobody"))
    assert (foreign.status, foreign.reason) == (404, Reason.SESSION_UNKNOWN)
    assert hide(foreign) == hide(unknown)
    assert bytes(canary.received) == received
    assert (await ask_raw(door.data_address, ask(owner, session))).status in (200, 202)
    assert canary.requests[-1].fold()["MCP_SESSION_ID"] == [session]


async def test_a_denial_says_what_was_missing_and_what_would_suffice(stage: Stage, door: Proxy) -> None:
    key = await stage.mint(scopes=("workflow:list", "workflow:run:other"))
    answer = await ask_raw(door.data_address, post(RUN)(key.token))
    error = answer.json["error"]
    assert "aegis.workflow.run" in error["message"]
    assert error["data"]["required"] == error["data"]["missing"] == ["workflow:run:nightly-etl"]
    assert error["data"]["held"] == ["workflow:list", "workflow:run:other"]
    assert error["data"]["smallest_sufficient"] == "workflow:run:nightly-etl"
    assert error["data"]["rule"] == "mcp/tool:aegis.workflow.run"


async def test_precise_reasons_are_for_those_who_prove_the_secret(stage: Stage, door: Proxy) -> None:
    """Whoever knows only the public id of a revoked key learns nothing about it."""
    revoked = await make_key(stage, "revoked")
    assert revoked is not None
    forged = form_token(parse_token(revoked).key_id, "0" * SECRET_LENGTH).text
    assert (await ask_raw(door.data_address, post()(forged))).reason == Reason.CREDENTIAL_INVALID
    answer = await ask_raw(door.data_address, post()(revoked))
    assert answer.headers["WWW-Authenticate"] == INVALID_TOKEN
    assert "revoked" in answer.json["error"]["message"].lower()


POLICY_OF_ROUTES = """
version: 1
default_tier: pro
scopes: { workflow:run: { title: Run workflows, selector: workflow name }, workflow:list: { title: List them } }
presets: { execution: { title: Execution, scopes: [workflow:list] } }
tiers: { pro: ["*"] }
routes:
  - { id: run, path: "/v1/workflows/{name}", methods: [GET], upstream: mcp, protocol: http,
      require: "workflow:run:{name}" }
...
"""


async def test_a_route_the_key_may_not_use_is_a_403_that_names_the_scope(
    stage: Stage, canary: CanaryUpstream, ear: Ear
) -> None:
    stage = dataclasses.replace(stage, policy=parse_policy(POLICY_OF_ROUTES, "policy of routes"))
    key = await stage.mint()
    row = Row(
        Reason.ROUTE_DENIED, 403, go("GET", "/v1/workflows/nightly"), plain=True,
        challenge='Bearer realm="aegis", error="insufficient_scope", scope="workflow:run:nightly"',
    )  # fmt: skip
    async with stage.proxy(canary.url) as proxy:
        answer = await ask_raw(proxy.data_address, row.ask(key.token))
        check_refusal(answer, row)
        assert answer.json["required"] == ["workflow:run:nightly"]
        assert answer.json["held"] == ["workflow:list"]
        assert not canary.connections
        allowed = await stage.mint(scopes=("workflow:run:nightly",))
        assert (await ask_raw(proxy.data_address, row.ask(allowed.token))).status == 200


async def test_a_key_whose_row_cannot_be_read_is_neither_good_nor_bad(stage: Stage, canary: CanaryUpstream) -> None:
    key = await stage.mint()
    async with stage.proxy(canary.url) as proxy:
        await stage.sql("ALTER TABLE api_keys RENAME TO elsewhere")
        answer = await ask_raw(proxy.data_address, post()(key.token))
    check_refusal(answer, Row(Reason.STATE_UNKNOWN, 503, post()))
    assert not canary.connections


async def test_while_shutting_down_new_requests_are_sent_elsewhere(
    stage: Stage, canary: CanaryUpstream, door: Proxy
) -> None:
    key = await stage.mint()
    await door.drain()
    row = Row(Reason.DRAINING, 503, post(), closes=True)
    check_refusal(await ask_raw(door.data_address, row.ask(key.token)), row)
    assert not canary.connections


class FallenRoutes(dict[str, RouteMatch]):
    """Routes that cannot be looked up."""

    def get(self, *_: object) -> None:  # type: ignore[override]
        raise ZeroDivisionError("nobody foresaw this")


async def test_a_check_that_falls_over_refuses_and_says_nothing_of_why(
    stage: Stage, canary: CanaryUpstream, ear: Ear
) -> None:
    key = await stage.mint()
    fallen = dataclasses.replace(stage, policy=dataclasses.replace(stage.policy, exact_routes=FallenRoutes()))
    async with fallen.proxy(canary.url) as proxy:
        answer = await ask_raw(proxy.data_address, post()(key.token))
    check_refusal(answer, Row(Reason.INTERNAL, 503, post(), plain=True))
    assert b"nobody foresaw" not in answer.body
    assert b"nobody foresaw" in ear.heard.getvalue()
    assert not canary.connections


async def test_a_call_whose_right_is_taken_while_the_upstream_thinks_is_refused(
    stage: Stage, canary: CanaryUpstream, door: Proxy
) -> None:
    key = await stage.mint()
    asked = asyncio.Event()

    def think(_: object) -> bytes:
        asked.set()
        return b""

    canary.answer = think
    async with asyncio.timeout(GUARD_SECONDS), open_raw(door.data_address) as client:
        await client.send(post(RUN)(key.token))
        await asked.wait()
        await stage.sql("UPDATE api_keys SET scopes = ARRAY['workflow:list'] WHERE id = $1", key.summary.id)
        answer = await client.read_answer()
    check_refusal(answer, Row(Reason.RIGHTS_CHANGED, 200, post(), code=-31403, rpc_id=1))


# The upstream.


def check_upstream_refusal(answer: RawAnswer, reason: Reason, status: int) -> None:
    rpc_id = answer.json["id"]
    assert rpc_id in (0, 1)
    check_refusal(answer, Row(reason, status, post(), rpc_id=rpc_id))
    shown = answer.line + str(list(answer.headers.items())) + answer.body.decode()
    assert INTERNALS not in shown
    assert not {"Location", "Set-Cookie", "WWW-Authenticate", "Mcp-Session-Id"} & {*map(str.title, answer.headers)}


def say(answer: bytes, _: object) -> bytes:
    return answer


async def test_what_is_wrong_with_the_upstream_is_a_gateway_error_without_its_internals(
    stage: Stage, canary: CanaryUpstream
) -> None:
    token = (await stage.mint()).token
    address = UpstreamSettings(url=parse_upstream_address(canary.url), headers_timeout_seconds=0.2)
    async with stage.proxy(canary.url, server=SERVER, upstreams={"mcp": address}) as proxy:
        for asked, (name, row) in enumerate(AFTER.items()):
            canary.answer = functools.partial(say, row.answer)
            answer = await ask_raw(proxy.data_address, row.ask(token))
            try:
                check_upstream_refusal(answer, row.reason, row.status)
                assert len(canary.requests) == asked + 1, "it was not sent just once"
            except AssertionError as error:
                error.add_note(f"when {name}")
                raise


async def test_an_upstream_that_is_not_there_is_a_bad_gateway(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    key = await stage.mint()
    async with stage.proxy(f"http://127.0.0.1:{port}") as proxy:
        answer = await ask_raw(proxy.data_address, post()(key.token))
    check_upstream_refusal(answer, Reason.UPSTREAM_UNREACHABLE, 502)
    assert str(port).encode() not in answer.body


async def test_a_session_the_upstream_gives_to_two_keys_is_given_to_the_first(
    stage: Stage, canary: CanaryUpstream, door: Proxy
) -> None:
    first, second = (await stage.mint(owner="ada")).token, (await stage.mint(owner="bob")).token
    assert (await ask_raw(door.data_address, post(INITIALIZE)(first))).headers["Mcp-Session-Id"]
    answer = await ask_raw(door.data_address, post(INITIALIZE)(second))
    check_upstream_refusal(answer, Reason.UPSTREAM_SESSION_CONFLICT, 502)


async def test_an_error_of_the_upstream_s_own_is_passed_on_with_harmless_headers_only(
    stage: Stage, canary: CanaryUpstream, door: Proxy
) -> None:
    key = await stage.mint()
    canary.answer = lambda _: form_answer(
        b'{"its":"own"}', "Set-Cookie: a=b", "Location: /x", "X-Powered-By: y", "Server: z",
        status="500 Internal Server Error",
    )  # fmt: skip
    answer = await ask_raw(door.data_address, form_request(token=key.token, body=PING))
    assert (answer.status, answer.body) == (500, b'{"its":"own"}')
    names = {name.lower() for name in answer.headers}
    assert not names & {"set-cookie", "location", "x-powered-by"}
    assert answer.headers.getall("Server") == ["aegis-proxy"]
