"""A key that ends soon says so in the header of every answer, and its clients notice nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import aiohttp
import pytest

from proxy.keys.changes import KeyChanges
from proxy.keys.rights import form_operator
from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.platform_stage import form_upstreams
from tests.staging import INITIALIZE, Stage, Wire, connect, form_call, get_mcp_url

HEADER = "API-Key-Expires-At"


def read(answer: aiohttp.ClientResponse) -> datetime:
    (value,) = answer.headers.getall(HEADER)
    assert value.endswith("Z")
    return datetime.fromisoformat(value)


async def test_answers_warn_in_the_last_14_days_and_not_before(stage: Stage, wire: Wire) -> None:
    near = await stage.mint("read-only", lifetime=timedelta(days=13))
    far, endless = await stage.mint("read-only", lifetime=timedelta(days=15)), await stage.mint("read-only")
    answer = await wire.post(near.token, INITIALIZE)
    assert answer.status == 200
    assert near.summary.expires_at is not None
    assert timedelta(0) <= near.summary.expires_at - read(answer) < timedelta(seconds=1)
    denied = await wire.post(near.token, form_call("aegis.workflow.delete", {"name": "x"}))
    unreadable = await wire.post(near.token, b"{")
    assert (unreadable.status, read(denied), read(unreadable)) == (400, read(answer), read(answer))
    for key in (far, endless):
        assert HEADER not in (await wire.post(key.token, INITIALIZE)).headers
    assert HEADER not in (await wire.post(None, INITIALIZE)).headers


async def test_an_ancestors_end_and_an_old_secrets_count(stage: Stage, wire: Wire) -> None:
    parent, child = await stage.mint("read-only", lifetime=timedelta(days=3)), await stage.mint("read-only")
    await stage.sql("ALTER TABLE api_keys DISABLE TRIGGER aegis_1_guard")
    await stage.sql("UPDATE api_keys SET parent_id = $1 WHERE id = $2", parent.summary.id, child.summary.id)
    assert parent.summary.expires_at is not None
    answer = await wire.post(child.token, INITIALIZE)
    assert timedelta(0) <= parent.summary.expires_at - read(answer) < timedelta(seconds=1)
    key = await stage.mint("read-only")
    rotated = await KeyChanges(stage.database, stage.hasher).rotate(
        form_operator("test"), key.summary.id, stage.policy, grace="24h"
    )
    stage.note_secret(rotated.token)
    assert rotated.summary.old_secret_until is not None
    old, new = await wire.post(key.token, INITIALIZE), await wire.post(rotated.token, INITIALIZE)
    assert timedelta(0) <= rotated.summary.old_secret_until - read(old) < timedelta(seconds=1)
    assert HEADER not in new.headers


async def test_the_management_api_warns_too(stage: Stage, proxy: Proxy, http: aiohttp.ClientSession) -> None:
    key = await stage.mint("full-access", tier="enterprise", lifetime=timedelta(days=2))
    headers = {"Authorization": f"Bearer {key.token}"}
    for path, status in (("/v1/api-keys", 200), ("/v1/api-keys/Unknown00000", 404)):
        answer = await http.get(f"http://{proxy.data_address}{path}", headers=headers)
        assert answer.status == status
        assert read(answer) > datetime.now(UTC)


async def test_an_answer_that_caches_may_give_to_others_does_not_tell_them_of_this_key(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("read-only", lifetime=timedelta(days=1))
    headers = {"Authorization": f"Bearer {key.token}"}
    async with CanaryUpstream() as upstream:
        upstreams = form_upstreams(upstream.url, upstream.url, {"profile": "none"})
        async with stage.proxy(upstream.url, upstreams=upstreams) as proxy:
            for control, told in (("private, max-age=60", True), ("public, max-age=60", False)):
                whole = form_answer(b"{}", f"Cache-Control: {control}")
                upstream.answer = partial(lambda whole, _received: whole, whole)
                answer = await http.get(f"http://{proxy.data_address}/v1/agents", headers=headers)
                assert (answer.status, answer.headers["Cache-Control"]) == (200, control)
                assert (HEADER in answer.headers) == told


@pytest.mark.parametrize("era", ["auto", "legacy", "2026-07-28"])
async def test_an_mcp_client_notices_nothing(era: str, stage: Stage, proxy: Proxy) -> None:
    key = await stage.mint("read-only", lifetime=timedelta(days=1))
    async with connect(get_mcp_url(proxy), key.token, era) as client:
        assert (await client.list_tools()).tools
        assert not (await client.call_tool("aegis.workflow.list", {})).is_error
