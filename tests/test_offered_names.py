"""Names for a selector, asked of a real platform in the name of whoever chooses; and what happens when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from proxy.demo.assertion_check import Caller as Identified
from proxy.identity import KeyId
from proxy.keys.owners import Owners
from proxy.keys.rights import Caller, form_caller_of_claims, form_caller_of_key
from proxy.live_policy import LivePolicy
from proxy.offered_names import MAX_BYTES, MAX_UNDER_WAY, OfferedNames
from proxy.policy.names import OfferedName
from proxy.policy.scopes import NameList
from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream, Received, form_answer
from tests.management.asking import Api
from tests.platform_stage import PlatformStage, form_upstreams, open_platform
from tests.staging import Stage

NAMES = "/v1/scopes/names"
WORKFLOWS = {"scope": "workflow:run"}


@pytest.fixture
async def platform(stage: Stage) -> AsyncIterator[PlatformStage]:
    async with open_platform(stage, database={"query_timeout_seconds": 10.0}) as platform:
        await platform.start_proxy()
        yield platform


@pytest.fixture
def api(platform: PlatformStage, stage: Stage, http: aiohttp.ClientSession) -> Api:
    return Api(http, platform.proxies[0], stage)


def get_list(stage: Stage, scope: str = "workflow:run") -> NameList:
    names = stage.policy.catalogue[scope].names
    assert names is not None
    return names


async def find_owner(stage: Stage, tier: str | None = None) -> Caller:
    """An owner signed in without a key; `tier`: what the provider's token says."""
    record = await Owners(stage.database).find("local", "ada")
    return form_caller_of_claims(record, stage.policy, tenant_id=None, tier=tier, role=None)


# --- whom they are told --------------------------------------------------------------------------------------------


async def test_names_are_the_ones_that_the_platform_lists_for_this_owner(api: Api, platform: PlatformStage) -> None:
    key = await platform.stage.mint("execution", tenant="acme")
    said = await api.ask("GET", NAMES, key.token, query=WORKFLOWS)
    assert said.status == 200
    assert (said.json["scope"], said.json["selector"], said.json["why_not"]) == ("workflow:run", "workflow name", None)
    listed = [(one.name, one.description) for one in platform.platform.list_definitions("workflow")]
    assert [(one["name"], one["title"]) for one in said.json["names"]] == listed
    assert "nightly-etl" in dict(listed)
    assert list(platform.platform.callers_seen) == [Identified("ada", "pro", "acme")]
    volumes = await api.ask("GET", NAMES, key.token, query={"scope": "volume:read"})
    assert {one["name"] for one in volumes.json["names"]} == platform.platform.volumes.keys()


async def test_whoever_may_not_list_them_gets_none_and_the_platform_is_not_asked(
    api: Api, platform: PlatformStage
) -> None:
    key = await platform.stage.mint(scopes=("key:create", "workflow:run"))
    said = await api.ask("GET", NAMES, key.token, query=WORKFLOWS)
    assert (said.status, said.json["names"]) == (200, [])
    assert said.json["why_not"] == f"key {key.summary.id} does not hold workflow:list"
    assert not platform.platform.requests_seen


async def test_a_dead_key_is_told_nothing(api: Api, platform: PlatformStage) -> None:
    key = await platform.stage.mint("execution")
    await platform.stage.revoke_by_sql(key)
    assert (await api.ask("GET", NAMES, key.token, query=WORKFLOWS)).status == 401
    assert (await api.ask("GET", NAMES, None, query=WORKFLOWS)).status == 401


@pytest.mark.parametrize("scope", ["workflow:list", "workflow:run:nightly-etl", "nothing", "*"])
async def test_what_takes_no_selector_has_no_names(scope: str, api: Api, platform: PlatformStage) -> None:
    key = await platform.stage.mint("execution")
    said = await api.ask("GET", NAMES, key.token, query={"scope": scope})
    assert (said.status, said.fields) == (422, ["scope"])


async def test_an_owner_who_signed_in_without_a_key_is_named_without_one(stage: Stage, platform: PlatformStage) -> None:
    await stage.mint("execution", tenant="acme", tier="business")
    proxy = platform.proxies[0]
    offered = OfferedNames(proxy.destinations, proxy.live)
    assert (await offered.find(await find_owner(stage), get_list(stage))).why_not is None
    assert (await offered.find(await find_owner(stage, "free"), get_list(stage))).why_not is None
    assert (await offered.find(await find_owner(stage, "enterprise"), get_list(stage))).why_not is None
    tiers = [caller.tier for caller in platform.platform.callers_seen]
    assert tiers == ["business", "free", "business"]  # a token's tier lowers, and never raises


class ThinkingPlatform:
    """Answers once it is told to."""

    def __init__(self) -> None:
        self.asked, self.told = asyncio.Event(), asyncio.Event()
        self.url = ""

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self._answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()

    async def _answer(self, _request: web.BaseRequest) -> web.Response:
        self.asked.set()
        await self.told.wait()
        return web.json_response({"workflows": [{"name": "nightly-etl"}]})


@pytest.mark.parametrize(
    ("change", "status", "why_not"),
    [
        ("status = 'revoked'", 401, None),
        ("scopes = '{workflow:run}'", 200, "the rights have changed meanwhile"),
        ("name = 'renamed'", 200, None),
    ],
)
async def test_what_was_taken_away_while_the_platform_thought_is_not_told(
    change: str, status: int, why_not: str | None, stage: Stage, http: aiohttp.ClientSession
) -> None:
    key, platform = await stage.mint("execution"), ThinkingPlatform()
    async with (
        platform.run(),
        stage.proxy(platform.url, upstreams=form_upstreams(platform.url, platform.url, {"profile": "none"})) as proxy,
    ):
        asking = asyncio.create_task(Api(http, proxy, stage).ask("GET", NAMES, key.token, query=WORKFLOWS))
        await platform.asked.wait()
        await stage.sql(f"UPDATE api_keys SET {change} WHERE id = $1", key.summary.id)
        platform.told.set()
        said = await asking
    assert said.status == status
    if status == 200:
        assert said.json["why_not"] == why_not
        assert [one["name"] for one in said.json["names"]] == ([] if why_not else ["nightly-etl"])
    else:
        assert b"nightly-etl" not in said.body


async def test_nobody_is_given_a_tier_that_opens_anything_beside_their_own(
    stage: Stage, platform: PlatformStage
) -> None:
    """Of a policy whose tiers do not contain each other."""
    await stage.mint("execution", tier="free")
    proxy = platform.proxies[0]
    tiers = {**stage.policy.tiers, "pro": stage.policy.tiers["pro"] - {"workflow:signal"}}
    policy = replace(stage.policy, tiers=tiers)
    record = await Owners(stage.database).find("local", "ada")
    for claimed in ("pro", "free", "nothing"):
        caller = form_caller_of_claims(record, policy, tenant_id=None, tier=claimed, role=None)
        await OfferedNames(proxy.destinations, LivePolicy(policy)).find(caller, get_list(stage))
    assert {caller.tier for caller in platform.platform.callers_seen} == {"free"}


# --- what goes there, and what comes back ---------------------------------------------------------------------------


@pytest.fixture
async def canary() -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream(lambda _received: answer_names("nightly-etl")) as canary:
        yield canary


@pytest.fixture
async def front(stage: Stage, canary: CanaryUpstream) -> AsyncIterator[Proxy]:
    headers = {"X-User": "sub", "X-Key": "key_id", "X-Scopes": "scopes"}
    upstreams = form_upstreams(canary.url, canary.url, {"profile": "headers", "headers": headers})
    async with stage.proxy(canary.url, upstreams=upstreams) as front:
        yield front


def answer_names(*names: str) -> bytes:
    return form_answer(json.dumps({"workflows": [{"name": name} for name in names]}).encode())


async def find_key_holder(stage: Stage) -> Caller:
    key = await stage.mint(scopes=("workflow:list", "workflow:run", "key:create"))
    record = (await stage.store.read_keys([KeyId(key.summary.id)]))[KeyId(key.summary.id)]
    return form_caller_of_key(record, stage.policy, 1)


async def test_nothing_goes_upstream_but_who_asks(
    stage: Stage, front: Proxy, canary: CanaryUpstream, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("execution")
    said = await Api(http, front, stage).ask("GET", NAMES, key.token, query=WORKFLOWS, Cookie="a=b", X_User="forged")
    assert [one["name"] for one in said.json["names"]] == ["nightly-etl"]
    (request,) = canary.requests
    assert (request.method, request.target, request.body) == ("GET", "/v1/workflows?limit=1000", b"")
    said_of = dict(request.fields)
    assert said_of.keys() == {"Host", "Accept", "Accept-Encoding", "X-User", "X-Key", "X-Scopes"}
    assert (said_of["X-User"], said_of["X-Key"]) == ("ada", key.summary.id)
    await OfferedNames(front.destinations, front.live).find(await find_owner(stage), get_list(stage))
    assert "X-Key" not in dict(canary.requests[-1].fields)


@pytest.mark.parametrize(
    ("answer", "why_not"),
    [
        (form_answer(b"{}", status="500 Internal Server Error"), "its answer cannot be read"),
        (form_answer(b"{}", status="403 Forbidden"), "refused the proxy's own credential (403)"),
        (form_answer(b"", "Location: http://evil.example/", status="302 Found"), "a redirect, which is not followed"),
        (form_answer(b"not json"), "its answer cannot be read"),
        (form_answer(b'{"workflows": {"name": "nightly-etl"}}'), "its answer cannot be read"),
        (form_answer(b'{"workflows": []}' + b" " * MAX_BYTES), "answer is too large"),
        (b"nonsense\r\n\r\n", "the upstream"),
        (b"", "does not answer in time"),
    ],
    ids=["500", "403", "redirect", "text", "no list", "too large", "no HTTP", "silent"],
)
async def test_a_platform_that_fails_offers_no_names_and_says_why(
    answer: bytes, why_not: str, stage: Stage, front: Proxy, canary: CanaryUpstream
) -> None:
    canary.answer = lambda _received: answer
    offered = OfferedNames(front.destinations, front.live, patience_seconds=0.5)
    offer = await offered.find(await find_key_holder(stage), get_list(stage))
    assert offer.names == ()
    assert why_not in (offer.why_not or "")
    canary.answer = lambda _received: answer_names("nightly-etl")
    assert (await offered.find(await find_key_holder(stage), get_list(stage))).names == (
        OfferedName("nightly-etl", None),
    )


async def test_a_platform_that_is_not_there_offers_no_names(stage: Stage, canary: CanaryUpstream) -> None:
    async with stage.proxy(canary.url) as proxy:
        offer = await OfferedNames(proxy.destinations, proxy.live).find(await find_key_holder(stage), get_list(stage))
    assert offer.why_not == "the upstream of this route is not configured"


async def test_people_who_choose_take_no_more_than_a_few_connections(
    stage: Stage, front: Proxy, canary: CanaryUpstream
) -> None:
    caller, names = await find_key_holder(stage), get_list(stage)
    all_there = asyncio.Event()

    def hold(_received: Received) -> bytes:
        if len(canary.requests) == MAX_UNDER_WAY:
            all_there.set()
        return b""

    canary.answer = hold
    offered = OfferedNames(front.destinations, front.live)
    waiting = [asyncio.create_task(offered.find(caller, names)) for _ in range(MAX_UNDER_WAY)]
    await all_there.wait()
    assert (await offered.find(caller, names)).why_not == "too many ask the platform at once"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    canary.answer = lambda _received: answer_names("nightly-etl")
    assert (await offered.find(caller, names)).why_not is None


async def test_the_policy_in_force_is_asked(stage: Stage, front: Proxy, canary: CanaryUpstream) -> None:
    live = LivePolicy(stage.policy)
    live.enforced = replace(stage.policy, exact_routes={})
    offer = await OfferedNames(front.destinations, live).find(await find_key_holder(stage), get_list(stage))
    assert offer.why_not == "the policy does not let them be listed"
    assert canary.requests == []
