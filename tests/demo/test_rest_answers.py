"""How the REST API takes requests and words its answers, whatever they are about."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import aiohttp
import pytest

from proxy.demo.sample_api import MAX_JSON_BYTES, SampleApi
from proxy.demo.sample_platform import Platform
from tests.demo.callers import GUARD_SECONDS, Rest


async def test_lists_come_in_pages(rest: Rest) -> None:
    names = [agent["name"] for agent in (await rest.ask("GET", "/v1/agents"))["agents"]]
    page = await rest.ask("GET", "/v1/agents?limit=1&offset=1")
    assert [agent["name"] for agent in page.pop("agents")] == names[1:2]
    assert page == {"total": 3, "limit": 1, "offset": 1}
    assert (await rest.ask("GET", "/v1/agents?offset=3"))["agents"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=٣", "offset=x", "offset=1e3"])
async def test_a_page_that_makes_no_sense_is_refused(rest: Rest, query: str) -> None:
    assert "must be a number" in await rest.ask_in_vain("GET", f"/v1/agents?{query}", 400)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "not a text"),
        (b"", "'label' is needed"),
        (b'{"label": 7}', "'label' is needed"),
        (b'{"label": "x", "size_limit_bytes": true}', "must be a number of bytes"),
        (b'{"label": "x", "size_limit_bytes": -1}', "must be a number of bytes"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused(rest: Rest, body: bytes, why: str) -> None:
    assert why in await rest.ask_in_vain("POST", "/v1/volumes", 400, data=body)


async def test_a_body_in_an_unknown_charset_is_refused(rest: Rest) -> None:
    headers = {"Content-Type": "application/json; charset=klingon"}
    assert "not a text" in await rest.ask_in_vain("POST", "/v1/volumes", 400, data=b"{}", headers=headers)


async def test_what_is_not_there_is_said_in_json_too(rest: Rest) -> None:
    assert await rest.ask_in_vain("GET", "/v1/nothing", 404) == "Not Found"
    assert await rest.ask_in_vain("POST", "/v1/volumes", 413, data=io.BytesIO(b" " * (MAX_JSON_BYTES + 1)))
    async with rest.http.put(f"{rest.url}/v1/agents") as answer:
        assert (answer.status, await answer.json()) == (405, {"error": "Method Not Allowed"})
        assert {"GET", "POST"} <= {*answer.headers["Allow"].split(",")}


async def test_only_names_of_headers_are_remembered(rest: Rest, platform: Platform) -> None:
    assert await rest.ask("GET", "/health", headers={"X-Canary": "sings"}) == {"status": "ok"}
    (method, names) = platform.requests_seen[-1]
    assert method == "GET"
    assert "x-canary" in names
    assert "sings" not in repr(platform)


async def test_whoever_follows_a_stream_and_leaves_is_forgotten(rest: Rest, api: SampleApi) -> None:
    def find_handlers() -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)}

    before = find_handlers()
    async with asyncio.timeout(GUARD_SECONDS), aiohttp.ClientSession() as http:
        async with http.get(f"{api.url}/v1/agents/release-notes/events") as answer:
            assert (await answer.content.readline()).startswith(b"event: start")
            (handler,) = find_handlers() - before
        answer.close()
        await asyncio.wait({handler})


async def test_it_refuses_what_it_was_told_to_and_is_as_new_when_it_is_reset(platform: Platform, rest: Rest) -> None:
    platform.refusals.extend([503, 502])
    assert "told to refuse" in (await rest.ask("GET", "/v1/agents", 503))["error"]
    await rest.ask("DELETE", "/v1/agents/release-notes", 502)
    await rest.ask("DELETE", "/v1/agents/release-notes")
    assert (await rest.ask("GET", "/v1/agents"))["total"] == 2
    platform.refusals.append(500)
    platform.reset()
    assert not platform.requests_seen
    assert (await rest.ask("GET", "/v1/agents"))["total"] == 3
