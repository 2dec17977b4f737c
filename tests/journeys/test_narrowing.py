"""A key that loses rights: what rested on them ends, what did not goes on."""

from __future__ import annotations

import asyncio

import aiohttp

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.staging import GUARD_SECONDS, INITIALIZE, MODERN, MODERN_META, Stage, Wire

NARROW = "UPDATE api_keys SET scopes = '{agent:list}' WHERE id = $1"


async def open_listen(wire: Wire, token: str, uris: list[str]) -> aiohttp.ClientResponse:
    """A `subscriptions/listen` stream of revision 2026-07-28 on some resources."""
    message = {
        "jsonrpc": "2.0",
        "id": 9,
        "method": "subscriptions/listen",
        "params": {"_meta": MODERN_META, "notifications": {"toolsListChanged": True, "resourceSubscriptions": uris}},
    }
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
    answer = await wire.post(token, message, **headers)
    assert answer.content_type == "text/event-stream", await answer.text()
    return answer


async def test_a_listen_stream_rests_on_the_scopes_of_every_uri_it_names(
    stage: Stage, proxy: Proxy, wire: Wire
) -> None:
    on_a_volume = await stage.mint(scopes=("volume:read", "agent:list"), name="on a volume")
    on_nothing = await stage.mint(scopes=("volume:read", "agent:list"), name="on nothing")
    async with asyncio.timeout(GUARD_SECONDS):
        ends = await open_listen(wire, on_a_volume.token, ["aegis://volumes/vol-1/report.csv"])
        goes_on = await open_listen(wire, on_nothing.token, [])
        for key in (on_a_volume, on_nothing):
            await stage.sql(NARROW, key.summary.id)
        assert "rights_changed" in await ends.text()
        assert proxy.registry.key_ids == [on_nothing.summary.id]
        goes_on.close()


async def test_a_session_made_under_rights_since_lost_ends_with_its_stream_and_upstream(
    stage: Stage, proxy: Proxy, sample: SampleServer, wire: Wire
) -> None:
    key = await stage.mint("developer")
    opened = await wire.post(key.token, INITIALIZE)
    await opened.read()
    session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
    stream = await wire.request("GET", key.token, **session)
    assert stream.status == 200
    async with asyncio.timeout(GUARD_SECONDS):
        await stage.sql(NARROW, key.summary.id)
        await stream.read()
        while await stage.database.fetch("SELECT 1 FROM mcp_sessions"):
            await asyncio.sleep(0.02)
    assert "DELETE" in [method for method, _ in sample.platform.requests_seen]
    assert (await wire.post(key.token, {"jsonrpc": "2.0", "id": 2, "method": "ping"}, **session)).status == 404


async def test_a_widened_key_keeps_everything(stage: Stage, proxy: Proxy, wire: Wire) -> None:
    key = await stage.mint("read-only")
    opened = await wire.post(key.token, INITIALIZE)
    await opened.read()
    session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
    stream = await wire.request("GET", key.token, **session)
    async with asyncio.timeout(GUARD_SECONDS):
        await stage.sql("UPDATE api_keys SET scopes = scopes || '{workflow:run}'::text[] WHERE id = $1", key.summary.id)
        while await wire.call(key.token, "aegis.workflow.run", {"name": "nightly-etl"}) != 200:
            await asyncio.sleep(0.02)
        ping = await wire.post(key.token, {"jsonrpc": "2.0", "id": 2, "method": "ping"}, **session)
        assert ping.status == 200
    assert proxy.registry.count_kinds()["stream"] == 1
    stream.close()
