"""The platform's REST API and its MCP server behind one proxy: one grant, seen from both sides."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from proxy.errors import Reason
from proxy.keys.minting import MintedKey
from proxy.server import Proxy
from tests.platform_stage import PlatformStage, Rest, open_platform
from tests.staging import GUARD_SECONDS, Stage, connect, get_mcp_url

MANIFEST = "apiVersion: aegis/v1\nkind: Workflow\nmetadata:\n  name: fresh\n  version: 1.0.0\nspec:\n  description: d\n"


@pytest.fixture
async def behind(stage: Stage) -> AsyncIterator[PlatformStage]:
    async with open_platform(stage) as platform_stage:
        await platform_stage.start_proxy()
        yield platform_stage


@pytest.fixture
def front(behind: PlatformStage) -> Proxy:
    return behind.proxies[0]


def rest_of(http: aiohttp.ClientSession, proxy: Proxy, key: MintedKey | None) -> Rest:
    return Rest(http, f"http://{proxy.data_address}", key.token if key is not None else None)


async def find_ids(http: aiohttp.ClientSession, behind: PlatformStage) -> dict[str, str]:
    """What there is on the platform, by the names that paths of these tests use."""
    platform = behind.platform
    agent = platform.get_definition("agent", "invoice-reader")
    volume = next(iter(platform.volumes.values()))
    return {"agent": agent.id, "volume": volume.id, "execution": platform.start("task", agent.name, {}).id}


# What each preset may do of this, by the promise of the key page. {names} are filled in by `find_ids`.
JOURNEYS: list[tuple[str, str, dict[str, Any], str]] = [
    # read: every preset; run: all but Read-Only; build: Developer and Full Access; full: Full Access alone
    ("GET", "/v1/agents", {}, "read"),
    ("GET", "/v1/agents/{agent}", {}, "read"),
    ("GET", "/v1/agents/lookup/invoice-reader", {}, "read"),
    ("GET", "/v1/workflows", {}, "read"),
    ("GET", "/v1/workflows/nightly-etl", {}, "read"),
    ("GET", "/v1/workflows/nightly-etl/yaml", {}, "read"),
    ("GET", "/v1/executions", {}, "read"),
    ("GET", "/v1/executions/{execution}", {}, "read"),
    ("GET", "/v1/volumes", {}, "read"),
    ("GET", "/v1/volumes/{volume}/files", {}, "read"),
    ("GET", "/v1/volumes/{volume}/files/download?path=README.md", {}, "read"),
    ("POST", "/v1/workflows/nightly-etl/run", {"json": {}}, "run"),
    ("POST", "/v1/agents/{agent}/execute", {"json": {"input": "x"}}, "run"),
    ("POST", "/v1/executions/{execution}/cancel", {}, "run"),
    ("POST", "/v1/workflows", {"json": {"manifest_yaml": MANIFEST}}, "build"),
    ("POST", "/v1/volumes", {"json": {"label": "mine"}}, "build"),
    ("POST", "/v1/volumes/{volume}/files/upload?path=a.txt", {"data": b"hello"}, "build"),
    ("DELETE", "/v1/workflows/fresh", {}, "full"),
    ("DELETE", "/v1/volumes/{volume}", {}, "full"),
]
MAY = {
    "read-only": {"read"},
    "execution": {"read", "run"},
    "developer": {"read", "run", "build"},
    "full-access": {"read", "run", "build", "full"},
}


@pytest.mark.parametrize("preset", MAY)
async def test_a_preset_does_over_rest_what_it_promises(
    preset: str, stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    rest = rest_of(http, front, await stage.mint(preset, tier="enterprise"))
    ids = await find_ids(http, behind)
    if "full" in MAY[preset]:
        behind.platform.deploy("workflow", MANIFEST.replace("fresh", "other"), replace=True)
    for method, path, sent, kind in JOURNEYS:
        status, body = await rest.ask(method, path.format(**ids), **sent)
        if kind in MAY[preset]:
            assert 200 <= status < 300, (method, path, body)
        else:
            assert (status, body["code"]) == (403, Reason.ROUTE_DENIED), (method, path)
            assert body["smallest_sufficient"] in body["error"]


async def test_a_key_for_one_workflow_runs_it_from_both_sides_and_sees_one_tool(
    stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint(scopes=("workflow:run:nightly-etl",))
    rest = rest_of(http, front, key)
    assert (await rest.ask("POST", "/v1/workflows/nightly-etl/run", json={}))[0] in range(200, 300)
    assert (await rest.ask("POST", "/v1/workflows/report-weekly/run", json={}))[0] == 403
    async with connect(get_mcp_url(front), key.token) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["aegis.workflow.run"]
        ran = await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"})
        assert not ran.is_error
    assert {caller.subject for caller in behind.platform.callers_seen} == {"ada"}


async def test_a_name_that_has_to_be_escaped_is_the_same_grant(
    stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint(scopes=("workflow:run:à la carte",))
    rest = rest_of(http, front, key)
    status, body = await rest.ask("POST", "/v1/workflows/%C3%A0%20la%20carte/run", json={})
    assert (status, body) != (403, body)
    assert "à la carte" in body["error"]  # the platform's own answer: it has no such workflow


async def test_nobody_gets_to_the_platform_but_through_the_proxy(
    stage: Stage, behind: PlatformStage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access", tier="enterprise")
    for url in (f"{behind.api.url}/v1/agents", f"{behind.mcp.url}/mcp/v1"):
        for headers in ({}, {"Authorization": f"Bearer {key.token}"}, {"X-Zaru-User-Token": key.token}):
            async with http.get(url, headers=headers) as answer:
                assert answer.status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/agents/{agent}/events",
        "/v1/executions/{execution}/stream",
        "/v1/executions/{execution}/events",
        "/v1/workflows/executions/{run}/logs/stream",
        "/proxy/v1/executions/{execution}/stream",
    ],
)
async def test_revocation_ends_every_stream_and_says_why(
    path: str, stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("read-only")
    platform = behind.platform
    platform.run_seconds = 60.0
    ids = await find_ids(http, behind)
    ids["run"] = platform.start("workflow", "nightly-etl", {}).id
    subject = platform.get_execution(ids["run"] if "{run}" in path else ids["execution"])
    async with rest_of(http, front, key).open("GET", path.format(**ids)) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        subject.write("one line, to be told")
        async with asyncio.timeout(GUARD_SECONDS):
            heard = b""
            while b"to be told" not in heard:
                heard += await answer.content.readany()
            await stage.revoke_by_sql(key)
            while not heard.endswith(b"\n\n") or b"event: error" not in heard:
                piece = await answer.content.readany()
                assert piece, heard
                heard += piece
            assert await answer.content.read() == b""
    last = heard.split(b"event: error\ndata: ")[1]
    problem = json.loads(last)
    assert (problem["status"], problem["code"]) == (401, Reason.KEY_REVOKED)


async def test_a_large_file_goes_up_and_comes_down_again(
    stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    rest = rest_of(http, front, await stage.mint("developer"))
    volume = next(iter(behind.platform.volumes))
    content = bytes(range(256)) * (32 << 12)  # 32 MiB

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1 << 16):
            yield content[start : start + (1 << 16)]

    for number, data in enumerate((io.BytesIO(content), in_pieces())):  # with a length, and in chunks
        path = f"/v1/volumes/{volume}/files"
        status, body = await rest.ask("POST", f"{path}/upload?path=large-{number}", data=data)
        assert (status, body["size_bytes"]) == (200, len(content))
        assert await rest.ask("GET", f"{path}/download?path=large-{number}") == (200, content)


async def test_an_upload_ends_with_its_key_and_nothing_is_stored(
    stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("developer")
    volume = next(iter(behind.platform.volumes.values()))
    more = asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b"the first half"
        await more.wait()
        yield b"the second half"

    path = f"/v1/volumes/{volume.id}/files/upload?path=half.txt"
    upload = asyncio.create_task(rest_of(http, front, key).ask("POST", path, data=drip()))
    async with asyncio.timeout(GUARD_SECONDS):
        while not len(front.registry):
            await asyncio.sleep(0.01)
        await stage.revoke_by_sql(key)
        while len(front.registry):
            await asyncio.sleep(0.01)
        more.set()
        try:
            status, body = await upload
            assert (status, body["code"]) == (401, Reason.KEY_REVOKED)
        except aiohttp.ClientError:
            pass  # told while it was still sending
    assert "half.txt" not in volume.files


@pytest.mark.parametrize("declared", [True, False])
async def test_an_upload_beyond_the_limit_is_refused_and_not_stored(
    declared: bool, stage: Stage, http: aiohttp.ClientSession
) -> None:
    async with open_platform(stage, server={"max_upload_bytes": 100_000}) as behind:
        front = await behind.start_proxy()
        rest = rest_of(http, front, await stage.mint("developer"))
        volume = next(iter(behind.platform.volumes.values()))

        async def in_pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(10_000)

        data: object = bytes(200_000) if declared else in_pieces()
        try:
            status, body = await rest.ask("POST", f"/v1/volumes/{volume.id}/files/upload?path=big", data=data)
            assert (status, body["code"]) == (413, Reason.BODY_TOO_LARGE)
        except aiohttp.ClientError:
            pass  # the connection ends with the refusal, which a client that is still sending may not see
        assert "big" not in volume.files


@pytest.mark.parametrize(
    "query",
    [
        "%5Btenant_id%5D=other",
        "%5B%5D=x",
        "tenant_id=other",
        "user_id=eve",
        "tenant=x",
        "limit=1&limit=2",
        "Tenant_ID=other",
    ],
)
async def test_a_query_speaks_for_nobody_else_and_says_nothing_twice(
    query: str, stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    rest = rest_of(http, front, await stage.mint("full-access", tier="enterprise"))
    seen = len(behind.platform.requests_seen)
    status, body = await rest.ask("GET", f"/v1/workflows?{query}")
    assert status in (400, 403), body
    assert len(behind.platform.requests_seen) == seen


async def test_a_get_has_no_body(
    stage: Stage, behind: PlatformStage, front: Proxy, http: aiohttp.ClientSession
) -> None:
    rest = rest_of(http, front, await stage.mint("read-only"))
    status, body = await rest.ask("GET", "/v1/agents", data=b"{}")
    assert (status, body["code"]) == (400, Reason.BODY_UNEXPECTED)
