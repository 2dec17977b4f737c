"""What a key's owner learns of its use: by which secret, from where, for what, and what it was last refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import aiohttp

from proxy.demo.sample_server import SampleServer
from proxy.keys.changes import KeyChanges
from proxy.keys.minting import MintedKey
from proxy.keys.rights import form_operator
from proxy.keys.store import KeySummary
from proxy.keys.token import Token, form_token, parse_token
from tests.staging import MODERN, MODERN_META, Stage, Wire, form_call, get_mcp_url

HERE = {"server": {"trusted_proxies": (ip_network("127.0.0.1"),)}}
NIGHTLY = {"name": "nightly-etl"}


async def call(wire: Wire, token: str, tool: str, address: str = "192.0.2.1", user_agent: str = "agent/1.0") -> int:
    """A call as a proxy of ours would bring it from that address."""
    message = form_call(tool, NIGHTLY)
    message["params"]["_meta"] = MODERN_META
    headers = {
        "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool, "X-Forwarded-For": address,
        "User-Agent": user_agent,
    }  # fmt: skip
    async with await wire.post(token, message, **headers) as answer:
        await answer.read()
        return answer.status


async def find(stage: Stage, key: MintedKey) -> KeySummary:
    found = await stage.store.find_key(key.summary.id)
    assert found is not None
    return found


def forge(token: Token) -> str:
    """The key's id with a secret that nobody drew."""
    return form_token(token.key_id, "0" * 43).text


async def read_new_addresses(stage: Stage) -> list[dict[str, Any]]:
    rows = await stage.database.fetch("SELECT after FROM audit_events WHERE action = 'key.new_address' ORDER BY id")
    return [json.loads(row["after"]) for row in rows]


async def test_the_last_use_and_the_last_refusal_are_told_with_the_key(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key, began = await stage.mint("read-only"), datetime.now(UTC)
    async with stage.proxy(sample.url, **HERE) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        assert await call(wire, key.token, "aegis.workflow.list") == 200
        assert await call(wire, key.token, "aegis.workflow.export", "2001:db8::7", "agent/2.0 (\u202e)") == 200
        assert await call(wire, key.token, "aegis.workflow.delete", "192.0.2.66") == 200  # the no is in the answer
    found = await find(stage, key)
    assert found.last_used is not None
    assert found.last_used_at == found.last_used.at >= began
    used = found.last_used
    assert (used.address, used.tool, used.count) == ("2001:db8::7", "aegis.workflow.export", 2)
    assert used.user_agent == "agent/2.0 (\\u202e)"
    assert found.last_refused is not None
    assert found.last_refused.reason == "message_denied"


async def test_a_refused_key_is_told_of_only_when_its_secret_was_right(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key, other = await stage.mint("read-only"), await stage.mint("read-only")
    async with stage.proxy(sample.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        await stage.revoke_by_sql(key)
        await stage.sql("UPDATE api_keys SET status = 'disabled' WHERE id = $1", other.summary.id)
        assert await wire.call(key.token, "aegis.workflow.list") == 401
        assert await wire.call(forge(parse_token(other.token)), "aegis.workflow.list") == 401
    refused, untouched = await find(stage, key), await find(stage, other)
    assert refused.last_refused is not None
    assert refused.last_refused.reason == "key_revoked"
    assert (refused.last_used, untouched.last_used, untouched.last_refused) == (None, None, None)


async def test_after_a_rotation_its_owner_sees_when_the_old_secret_falls_silent(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("read-only")
    async with stage.proxy(sample.url) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        changes = KeyChanges(stage.database, stage.hasher)
        rotated = await changes.rotate(form_operator("test"), key.summary.id, stage.policy, grace="24h")
        stage.note_secret(rotated.token)
        for token in (key.token, rotated.token, rotated.token):
            assert await wire.call(token, "aegis.workflow.list") == 200
    found = await find(stage, key)
    assert found.last_used is not None
    assert found.last_used.count == 3
    assert found.old_secret_last_used_at is not None
    assert found.old_secret_last_used_at < found.last_used.at


async def test_a_new_address_is_told_once_on_all_instances_and_after_a_restart(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("read-only")
    for addresses in (("192.0.2.1", "192.0.2.1"), ("192.0.2.1", "198.51.100.9")):
        async with stage.proxy(sample.url, **HERE) as proxy:
            wire = Wire(http, get_mcp_url(proxy))
            for address in addresses:
                assert await call(wire, key.token, "aegis.workflow.list", address) == 200
    told = await read_new_addresses(stage)
    assert [(one["address"], one["user_agent"], one["secret_version"]) for one in told] == [
        ("192.0.2.1", "agent/1.0", 1),
        ("198.51.100.9", "agent/1.0", 1),
    ]
