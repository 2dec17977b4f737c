"""The ops listener: alive, ready or why not, and how it is doing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.metrics import Metrics
from proxy.ops import build_ops

Ops = TestClient[web.Request, web.Application]


@pytest.fixture
def faults() -> dict[str, str]:
    """What is wrong; a test adds to it."""
    return {}


@pytest.fixture
async def ops(faults: dict[str, str], aiohttp_client: Callable[[web.Application], Awaitable[Ops]]) -> Ops:
    metrics = Metrics("1.2.3")
    metrics.count_request("mcp", "forwarded")
    return await aiohttp_client(build_ops(lambda: faults, lambda: {"version": "1.2.3", "exchanges": 4}, metrics))


async def test_alive_is_alive_however_it_fares(ops: Ops, faults: dict[str, str]) -> None:
    faults["revocation"] = "deaf"
    async with ops.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


async def test_ready_when_nothing_is_wrong(ops: Ops) -> None:
    async with ops.get("/readyz") as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.json() == {"ready": True, "faults": {}, "version": "1.2.3", "exchanges": 4}


async def test_not_ready_says_what_is_wrong_until_it_is_mended(ops: Ops, faults: dict[str, str]) -> None:
    faults["draining"] = "shutting down"
    async with ops.get("/readyz") as answer:
        assert answer.status == 503
        body = await answer.json()
        assert (body["ready"], body["faults"]) == (False, {"draining": "shutting down"})
    faults.clear()
    async with ops.get("/readyz") as answer:
        assert answer.status == 200


async def test_metrics_are_prometheus_text(ops: Ops) -> None:
    async with ops.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert 'aegis_requests_total{outcome="forwarded",route="mcp"} 1.0' in await answer.text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/mcp/v1", 404), ("POST", "/readyz", 405), ("GET", "/healthz/", 404)],
)
async def test_there_is_nothing_else(method: str, path: str, status: int, ops: Ops) -> None:
    async with ops.request(method, path) as answer:
        assert answer.status == status


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/nothing"])
async def test_no_answer_says_what_it_is_built_with(path: str, ops: Ops) -> None:
    async with ops.get(path) as answer:
        assert answer.headers.getall("Server") == ["aegis-proxy"]
