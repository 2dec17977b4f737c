"""The REST API as a whole: the other side of the tools, its end, and whom it believes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy.demo.assertion_check import AssertionCheck
from proxy.demo.sample_api import run_sample_api
from proxy.demo.sample_platform import Platform
from proxy.demo.sample_server import run_sample_server
from tests.demo.callers import GUARD_SECONDS, Rest, call, connect
from tests.demo.identities import ADA, ISSUER, Issuer, present, run_issuer


async def test_tools_and_rest_are_two_sides_of_one_platform() -> None:
    async with (
        run_sample_server(run_seconds=0) as server,
        run_sample_api(server.platform) as api,
        connect(server) as client,
        aiohttp.ClientSession() as http,
        asyncio.timeout(GUARD_SECONDS),
    ):
        rest = Rest(http, api.url)
        run = await call(client, "aegis.workflow.run", name="nightly-etl")
        assert (await rest.ask("GET", f"/v1/workflows/executions/{run['execution_id']}"))["status"] == "completed"
        started = await rest.ask("POST", "/v1/workflows/report-weekly/run", 202)
        waited = await call(client, "aegis.workflow.wait", execution_id=started["execution_id"])
        assert (waited["status"], waited["subject"]) == ("completed", "report-weekly")
        await rest.ask("POST", "/v1/volumes/reports/files/upload?path=new.md", data=b"# New")
        assert (await call(client, "aegis.file.read", volume_id="reports", path="new.md"))["content"] == "# New"
        await call(client, "aegis.file.write", volume_id="reports", path="new.md", content="# Newer")
        async with http.get(f"{api.url}/v1/volumes/reports/files/download?path=new.md") as answer:
            assert await answer.read() == b"# Newer"
        await rest.ask("DELETE", "/v1/agents/release-notes")
        assert "release-notes" not in str(await call(client, "aegis.agent.list"))


async def test_it_ends_with_open_streams_and_uploads_and_leaves_no_task_and_no_socket(tmp_path: Path) -> None:
    platform, halfway = Platform(tmp_path, run_seconds=3000), asyncio.Event()

    async def give() -> AsyncIterator[bytes]:
        yield b"some"
        halfway.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http, asyncio.timeout(GUARD_SECONDS):
        async with run_sample_api(platform) as api:
            run = await Rest(http, api.url).ask("POST", "/v1/workflows/nightly-etl/run", 202)
            stream = await http.get(f"{api.url}/v1/executions/{run['execution_id']}/stream")
            assert await stream.content.readline() == b"event: log\n"
            upload = asyncio.create_task(http.post(f"{api.url}/v1/volumes/reports/files/upload?path=x", data=give()))
            await halfway.wait()
        with contextlib.suppress(aiohttp.ClientPayloadError):  # ended or cut: the point is that it is over
            await stream.read()
        with contextlib.suppress(aiohttp.ClientError):
            await upload
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(api.url)
    assert platform.get_execution(run["execution_id"]).outcome is None
    await platform.close()
    assert asyncio.all_tasks() == before
    assert [*tmp_path.iterdir()] == []


async def test_a_port_in_use_is_an_error_not_an_exit(platform: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with run_sample_api(platform, port=taken.getsockname()[1]):
            pytest.fail("it started")


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with run_issuer({"ed": Ed25519PrivateKey.generate()}) as issuer:
        yield issuer


async def test_with_a_check_it_answers_nobody_but_whom_an_assertion_names(platform: Platform, issuer: Issuer) -> None:
    check = AssertionCheck(issuer.jwks_uri, "api", ISSUER)
    async with run_sample_api(platform, check=check) as api, aiohttp.ClientSession() as http:
        rest = Rest(http, api.url)
        assert await rest.ask("GET", "/health") == {"status": "ok"}
        for path in ("/v1/agents", "/v1/volumes/reports/files/download?path=README.md", "/v1/nothing", "/health/x"):
            assert "a token is needed" in await rest.ask_in_vain("GET", path, 401)
        for path in ("/v1/workflows/nightly-etl/run", "/v1/volumes/reports/files/upload?path=x"):
            assert "a token is needed" in await rest.ask_in_vain("POST", path, 401, data=b"{}")
        for token in (issuer.sign("ed", aud="mcp"), issuer.sign("ed", aud="api", exp=1), "nonsense"):
            assert "not valid" in await rest.ask_in_vain("GET", "/v1/agents", 401, headers=present(token))
        assert (platform.executions, [*platform.callers_seen]) == ({}, [])
        found = await rest.ask("GET", "/v1/agents", headers=present(issuer.sign("ed", aud="api")))
        assert found["total"] == 3
    assert [*platform.callers_seen] == [ADA]
