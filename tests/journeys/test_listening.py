"""A stream that listens for changes of lists hears of those that are the key's own doing: other rights, other lists."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from mcp.client.subscriptions import ToolsListChanged

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from proxy.sse import get_values
from tests.staging import GUARD_SECONDS, MODERN, MODERN_META, Stage, Wire, connect, get_mcp_url

Json = dict[str, Any]
WIDEN = "UPDATE api_keys SET scopes = scopes || '{agent:delete}'::text[] WHERE id = $1"
TOUCH = "UPDATE api_keys SET name = 'another' WHERE id = $1"


class Listener:
    """A listen stream by hand; its request's id is 9."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self._heard = b""

    async def next_message(self) -> Json:
        while True:
            event, end, rest = self._heard.replace(b"\r\n", b"\n").partition(b"\n\n")
            if end:
                self._heard = rest
                data = b"\n".join(get_values(event, b"data"))
                if data:
                    message: Json = json.loads(data)
                    return message
                continue
            chunk = await self._answer.content.readany()
            assert chunk, f"it ended after {self._heard!r}"
            self._heard += chunk


async def listen(wire: Wire, token: str, **notifications: bool) -> Listener:
    params = {"_meta": MODERN_META, "notifications": notifications}
    message = {"jsonrpc": "2.0", "id": 9, "method": "subscriptions/listen", "params": params}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
    listener = Listener(await wire.post(token, message, **headers))
    assert (await listener.next_message())["method"] == "notifications/subscriptions/acknowledged"
    return listener


@pytest.fixture(autouse=True)
async def _no_waiting_for_long() -> Any:
    async with asyncio.timeout(GUARD_SECONDS):
        yield


async def test_the_official_client_hears_that_its_tools_are_others_and_sees_them(stage: Stage, proxy: Proxy) -> None:
    key = await stage.mint()
    async with connect(get_mcp_url(proxy), key.token, MODERN) as client:
        before = {tool.name for tool in (await client.list_tools()).tools}
        async with client.listen(tools_list_changed=True) as subscription:
            await stage.sql(WIDEN, key.summary.id)
            async for event in subscription:
                assert event == ToolsListChanged()
                break
        after = {tool.name for tool in (await client.list_tools()).tools}
    assert after - before == {"aegis.agent.delete"}


async def test_a_notice_bears_the_id_of_its_subscription_and_comes_once_for_each_change(
    stage: Stage, proxy: Proxy, wire: Wire, sample: SampleServer
) -> None:
    key, other = await stage.mint(), await stage.mint(owner="bob")
    listener, his = await listen(wire, key.token, toolsListChanged=True), await listen(wire, other.token)
    for statement in (TOUCH, WIDEN, TOUCH, "UPDATE api_keys SET scopes = '{agent:list}' WHERE id = $1"):
        await stage.sql(statement, key.summary.id)
    tagged = {"_meta": {"io.modelcontextprotocol/subscriptionId": 9}}
    notice = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": tagged}
    assert await listener.next_message() == notice
    assert proxy.registry.count_kinds()["stream"] == 2
    await stage.revoke_by_sql(key)
    while (message := await listener.next_message()) == notice:  # news that come together are read together
        pass
    assert message["error"]["data"]["reason"] == "key_revoked"
    await stage.revoke_by_sql(other)
    assert (await his.next_message())["error"]["data"]["reason"] == "key_revoked"


async def test_a_key_that_only_changed_its_name_is_no_news_to_those_who_listen(
    stage: Stage, proxy: Proxy, wire: Wire
) -> None:
    key = await stage.mint()
    listener = await listen(wire, key.token, toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True)
    await stage.sql(TOUCH, key.summary.id)
    await stage.revoke_by_sql(key)
    assert (await listener.next_message())["error"]["data"]["reason"] == "key_revoked"
