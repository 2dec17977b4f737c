"""One decision for every revision and transport: how a message comes changes how it is answered, never whether."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import product

import aiohttp
import pytest

from proxy.policy import Policy
from proxy.settings import UpstreamSettings
from proxy.sse import get_values
from proxy.upstream_address import parse_upstream_address
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.revision_clients import RevisionClient, form_message, form_mirrors, open_client
from tests.revision_tables import (
    ALLOWED,
    EXCEPTIONS,
    KEYS,
    KINDS,
    MAY,
    OTHERS,
    OURS,
    PROMPT,
    REVISIONS,
    REVOKED,
    RUN,
    STREAMABLE,
    TRANSPORTS,
    UNKNOWN,
    Combination,
    Decision,
    Json,
    Kind,
    get_answers,
    load_policy_with_prompts,
)
from tests.speaking_upstream import SpeakingUpstream
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire, get_mcp_url

FAILURES = (AssertionError, KeyError, ValueError, OSError, aiohttp.ClientError)
PLACES = list(product(REVISIONS, TRANSPORTS))
EVERYTHING: frozenset[Combination] = frozenset(product(REVISIONS, TRANSPORTS, KINDS, KEYS))


def test_every_combination_is_walked_or_missing_for_a_reason() -> None:
    walked = {(*place, kind, key) for place in PLACES for kind, key in find_kinds(*place)}
    missing = {combination for missing in EXCEPTIONS for combination in missing.expand()}
    assert not walked & missing
    assert walked | missing == EVERYTHING


@pytest.mark.parametrize("place", range(len(EXCEPTIONS)))
def test_no_exception_is_idle(place: int) -> None:
    others = (other for number, other in enumerate(EXCEPTIONS) if number != place)
    assert set(EXCEPTIONS[place].expand()) - {combination for other in others for combination in other.expand()}


def test_every_method_that_the_shipped_policy_knows_is_walked(policy: Policy) -> None:
    rules = next(route.rules for route in policy.routes if route.protocol == "mcp")
    spoken = {kind.method for kind in KINDS.values()}
    named = {*rules.rpc.exact, *rules.http, *rules.uris, "tools/call", "prompts/get"}
    assert named <= spoken
    assert {pattern.text for pattern, _ in rules.rpc.patterns} == {"notifications/*"}


def find_kinds(revision: str, transport: str) -> list[tuple[str, str]]:
    """What exists there, with each key."""
    kinds = [name for name, kind in KINDS.items() if kind.exists(revision, transport)]
    return list(product(kinds, KEYS))


@dataclass(frozen=True, slots=True)
class Scene:
    """One place in the table: a client of each key, and what they speak to."""

    revision: str
    transport: str
    upstream: SpeakingUpstream
    clients: Mapping[str, RevisionClient]
    task_id: str

    async def walk(self, kind: Kind, key: str) -> Decision | None:
        """Send, and read the decision from the answer; None: it was refused in a way that decides nothing. What is not
        allowed sends not a byte upstream, what is allowed just itself."""
        received, requests = len(self.upstream.received), len(self.upstream.requests)
        sent, reply = await self.clients[key].send(kind, self.task_id)
        decision = get_answers(self.revision, self.transport, kind.form).get(reply.said)
        assert ("invalid_token" in (reply.challenge or "")) == (decision is Decision.UNAUTHENTICATED)
        if decision is ALLOWED:
            (arrived,) = self.upstream.requests[requests:]
            assert arrived.method == (kind.method if kind.form == "bare" else "POST")
            assert (json.loads(arrived.body) if arrived.body else None) == sent
        else:
            assert bytes(self.upstream.received[received:]) == b""
            assert decision is not None or reply.status >= 400 or reply.said[1] is not None, f"it was {reply}"
        return decision

    def may_not_know(self, decision: Decision | None, kind: Kind, key: str) -> bool:
        """What does not exist here may be unknown to whoever has a key."""
        return decision is UNKNOWN and key != REVOKED and not kind.exists(self.revision, self.transport)


@pytest.fixture(params=PLACES, ids=" ".join)
async def scene(
    request: pytest.FixtureRequest, stage: Stage, http: aiohttp.ClientSession
) -> AsyncIterator[Scene]:  # fmt: skip
    revision, transport = request.param
    stage = dataclasses.replace(stage, policy=load_policy_with_prompts())
    minted = {key: await stage.mint(scopes=scopes, owner=key) for key, scopes in KEYS.items()}
    upstream = SpeakingUpstream()
    async with upstream, stage.proxy(upstream.url) as proxy, asyncio.timeout(3 * GUARD_SECONDS):
        clients = {
            key: await open_client(http, proxy, minted[key].token, revision, transport) for key in minted
        }  # fmt: skip
        task_id = await clients[MAY].make_task()
        await stage.revoke_by_sql(minted[REVOKED])
        await wait_ended(clients[REVOKED], upstream, has_session=transport == STREAMABLE and revision != "E")
        yield Scene(revision, transport, upstream, clients, task_id)
        for client in clients.values():
            client.transport.leave()


async def wait_ended(client: RevisionClient, upstream: SpeakingUpstream, *, has_session: bool) -> None:
    """Return once a revoked key is refused, and the upstream has heard all that it hears of it."""
    while (await client.send(KINDS["list of tools"], ""))[1].status != 401:
        pass
    while has_session and upstream.requests[-1].method != "DELETE":
        await asyncio.sleep(0.01)


async def test_the_same_call_by_the_same_key_gets_the_same_decision_everywhere(scene: Scene) -> None:
    """And what the protocol does not have there is refused, or judged as where it exists."""
    failures: list[Exception] = []
    before, allowed = len(scene.upstream.requests), 0
    for name, key in product(KINDS, KEYS):
        kind = KINDS[name]
        try:
            decision = await scene.walk(kind, key)
            allowed += decision is ALLOWED
            if decision is not None or kind.exists(scene.revision, scene.transport):
                assert decision == kind.expect(key) or scene.may_not_know(decision, kind, key)
        except FAILURES as error:
            error.add_note(f"for the kind {name!r} and the key that {key!r}")
            failures.append(error)
    if failures:
        raise ExceptionGroup("decisions that are not as elsewhere", failures)
    assert len(scene.upstream.requests) == before + allowed, "something was sent late"


# Lists, in every channel.


@dataclass(frozen=True, slots=True)
class Listed:
    """The entries of a list that a key which may see something sees, and those that it does not."""

    member: str
    shown: list[Json]
    hidden: list[Json]

    def form_answer(self, *, filtered: bool = False) -> Json:
        entries = self.shown if filtered else [*self.hidden, *self.shown, *self.hidden]
        cached = {"cacheScope": "private" if filtered else "public", "ttlMs": 60000}
        return {"jsonrpc": "2.0", "id": 1, "result": {self.member: entries, "nextCursor": "a-cursor", **cached}}


LISTS = {
    "list of tools": Listed("tools", [{"name": RUN}], [{"name": "aegis.agent.delete"}]),
    "list of prompts": Listed("prompts", [{"name": PROMPT}], [{"name": "aegis.no.such"}]),
    "list of resources": Listed("resources", [{"uri": OURS}], [{"uri": OTHERS}]),
    "list of resources/templates": Listed(
        "resourceTemplates", [{"uriTemplate": "aegis://volumes/v1/{file}"}], [{"uriTemplate": "aegis://secrets/{name}"}]
    ),
    "list of tasks": Listed("tasks", [], [{"taskId": "nobody's"}]),
}
NOTICE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "nearly there"}}
CACHED = "Cache-Control: public, max-age=60"


def test_every_list_of_the_table_is_filtered_in_every_channel() -> None:
    assert set(LISTS) == {name for name in KINDS if name.startswith("list of ")}


def form_events(*messages: Json, first_id: int | None = None) -> bytes:
    """A comment, and an event for each message, with ids when the first one is given."""
    text = ": hello\n\n"
    for number, message in enumerate(messages, first_id or 0):
        text += f"id: {number}\n" if first_id is not None else ""
        text += f"data: {json.dumps(message)}\n\n"
    return text.encode()


def find_messages(body: bytes) -> list[Json]:
    return [json.loads(data) for data in get_values(body, b"data") if data.startswith(b"{")]


@dataclass(frozen=True, slots=True)
class Channel:
    """A key that may, and a proxy in front of a server that says what a test likes."""

    wire: Wire
    token: str
    canary: CanaryUpstream

    async def ask(self, kind: str, revision: str) -> aiohttp.ClientResponse:
        message = form_message(KINDS[kind], revision, 1, "")
        return await self.wire.post(self.token, message, **form_mirrors(message, revision))

    async def begin(self) -> dict[str, str]:
        """The headers of a session of 2025-11-25."""
        async with await self.wire.post(self.token, INITIALIZE) as begun:
            return {"Mcp-Session-Id": begun.headers["Mcp-Session-Id"], "MCP-Protocol-Version": REVISIONS["D"]}

    def answer(self, body: bytes, content_type: str = "text/event-stream") -> None:
        self.canary.answer = lambda _: form_answer(body, CACHED, content_type=content_type)


@pytest.fixture
async def channel(stage: Stage, http: aiohttp.ClientSession) -> AsyncIterator[Channel]:
    stage = dataclasses.replace(stage, policy=load_policy_with_prompts())
    key = await stage.mint(scopes=KEYS[MAY])
    async with CanaryUpstream() as canary, asyncio.timeout(GUARD_SECONDS):
        address = UpstreamSettings(url=parse_upstream_address(canary.url), resumable=True)
        async with stage.proxy(canary.url, upstreams={"mcp": address}) as proxy:
            yield Channel(Wire(http, get_mcp_url(proxy)), key.token, canary)


ASKED = [(kind, revision) for kind, revision in product(LISTS, REVISIONS) if KINDS[kind].exists(revision, STREAMABLE)]
ALL_LISTS = [listed.form_answer() for listed in LISTS.values()]
ALL_FILTERED = [NOTICE, *(listed.form_answer(filtered=True) for listed in LISTS.values())]


async def test_a_list_in_json_is_filtered_and_private_in_every_revision(channel: Channel) -> None:
    for kind, revision in ASKED:
        channel.answer(json.dumps(LISTS[kind].form_answer()).encode(), "application/json")
        answer = await channel.ask(kind, revision)
        assert await answer.json() == LISTS[kind].form_answer(filtered=True)
        assert answer.headers.getall("Cache-Control") == ["no-store"]


async def test_a_list_after_notifications_is_filtered_and_private_in_every_revision(channel: Channel) -> None:
    for kind, revision in ASKED:
        channel.answer(form_events(NOTICE, LISTS[kind].form_answer()))
        answer = await channel.ask(kind, revision)
        assert find_messages(await answer.read()) == [NOTICE, LISTS[kind].form_answer(filtered=True)]
        assert answer.headers.getall("Cache-Control") == ["no-store"]


async def test_a_list_on_the_stream_of_a_session_is_filtered_and_private(channel: Channel) -> None:
    session = await channel.begin()
    channel.answer(form_events(NOTICE, *ALL_LISTS))
    stream = await channel.wire.request("GET", channel.token, **session)
    assert find_messages(await stream.read()) == ALL_FILTERED
    assert stream.headers.getall("Cache-Control") == ["no-store"]


async def test_a_list_that_is_replayed_is_filtered_and_private(channel: Channel) -> None:
    session = await channel.begin()
    channel.answer(form_events(NOTICE, first_id=7))
    broken_off = await channel.wire.post(channel.token, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, **session)
    (last_id,) = get_values(await broken_off.read(), b"id")
    channel.answer(form_events(NOTICE, *ALL_LISTS, first_id=8))
    replayed = await channel.wire.request("GET", channel.token, **session, **{"Last-Event-ID": last_id.decode()})
    assert channel.canary.requests[-1].fold()["LAST_EVENT_ID"] == ["7"]
    body = await replayed.read()
    assert find_messages(body) == ALL_FILTERED
    assert replayed.headers.getall("Cache-Control") == ["no-store"]
    assert [int(event_id.partition(b".")[0]) for event_id in get_values(body, b"id")] == [*range(8, 14)]


async def test_a_list_by_http_with_events_is_filtered_and_private(channel: Channel) -> None:
    channel.answer(b"event: endpoint\ndata: /messages\n\n" + form_events(NOTICE, *ALL_LISTS))
    by_events = Wire(channel.wire.http, f"{channel.wire.url}/sse")
    stream = await by_events.request("GET", channel.token)
    assert find_messages(await stream.read()) == ALL_FILTERED
    assert stream.headers.getall("Cache-Control") == ["no-store"]
