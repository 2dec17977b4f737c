"""Managing keys is constrained like everything else a key does, and counted with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.constrained_keys import BEHIND_A_PROXY
from tests.ear import Ear
from tests.journeys.test_narrowing import open_listen
from tests.management.asking import KEYS, Api
from tests.staging import GUARD_SECONDS, Stage, Wire, get_mcp_url

BODY = {"name": "made", "preset": "read-only"}


async def test_a_key_manages_keys_from_its_sources_only_and_is_not_even_asked_what(
    stage: Stage, api: Api, ear: Ear
) -> None:
    key = await stage.mint("full-access", tier="enterprise", constraints={"sources": ["192.0.2.0/24"]})
    said = await api.ask("POST", KEYS, key.token, b"not even JSON", X_Forwarded_For="192.0.2.1")
    assert (said.status, said.code) == (403, "address_not_allowed")
    assert said.json["type"] == "urn:aegis-proxy:problem:address_not_allowed"
    assert "WWW-Authenticate" not in said.headers
    lines = [json.loads(line) for line in ear.heard.getvalue().splitlines() if b'"request"' in line]
    (line,) = [line for line in lines if line["request_id"] == said.headers["X-Request-Id"]]
    assert (line["outcome"], line["address"], line["key_id"]) == ("address_not_allowed", "127.0.0.1", key.summary.id)
    async with stage.proxy("http://127.0.0.1:1", server=BEHIND_A_PROXY) as proxy:
        there = Api(api.http, proxy, stage)
        assert (await there.ask("POST", KEYS, key.token, BODY, X_Forwarded_For="192.0.2.1")).status == 201
        assert (await there.ask("POST", KEYS, key.token, BODY, X_Forwarded_For="192.0.3.1")).status == 403
    assert len(await stage.database.fetch("SELECT 1 FROM api_keys")) == 2


async def test_managing_and_using_spend_the_same_rate(stage: Stage, api: Api) -> None:
    slow: dict[str, Any] = {"requests_per_second": 0.001, "burst": 3}
    key = await stage.mint("full-access", tier="enterprise", constraints=slow)
    wire = Wire(api.http, get_mcp_url(api.proxy))
    assert (await api.ask("GET", KEYS, key.token)).status == 200
    assert await wire.call(key.token, "aegis.runtime.list") == 200
    assert (await api.ask("GET", KEYS, key.token)).status == 200
    said = await api.ask("POST", KEYS, key.token, BODY)
    assert (said.status, said.code, said.json["burst"]) == (429, "rate_exceeded", 3)
    assert 0 < int(said.headers["Retry-After"]) == said.json["retry_after_seconds"] <= 1000
    assert await wire.call(key.token, "aegis.runtime.list") == 429
    assert len(await stage.database.fetch("SELECT 1 FROM api_keys")) == 1


async def test_a_key_that_asks_what_it_is_is_asked_where_it_is(stage: Stage, api: Api) -> None:
    key = await stage.mint(constraints={"sources": ["192.0.2.0/24"], "requests_per_second": 0.001})
    said = await api.ask("POST", f"{KEYS}/validate", key.token)
    assert (said.status, said.code) == (403, "address_not_allowed")
    async with stage.proxy("http://127.0.0.1:1", server=BEHIND_A_PROXY) as proxy:
        there = Api(api.http, proxy, stage)
        answers = [await there.ask("POST", f"{KEYS}/validate", key.token, X_Forwarded_For="192.0.2.1") for _ in "12"]
    assert [said.status for said in answers] == [200, 429]
    assert answers[1].code == "rate_exceeded"


async def test_a_patch_that_narrows_a_key_ends_what_it_has_open(stage: Stage, api: Api) -> None:
    admin = await stage.mint("full-access", tier="enterprise")
    key = await api.mint(admin.token, name="watcher", preset="execution")
    wire = Wire(api.http, get_mcp_url(api.proxy))
    async with asyncio.timeout(GUARD_SECONDS):
        old, new = [await open_listen(wire, key["key"], []) for _ in range(2)]
        said = await api.ask("PATCH", f"{KEYS}/{key['id']}", admin.token, {"constraints": {"max_streams": 1}})
        assert (said.status, said.json["constraints"]) == (200, {"max_streams": 1})
        assert "streams_exceeded" in await new.text()
        said = await api.ask("PATCH", f"{KEYS}/{key['id']}", admin.token, {"constraints": {"sources": ["192.0.2.1"]}})
        assert said.status == 200
        assert "address_not_allowed" in await old.text()
