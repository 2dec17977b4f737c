"""The management API of a proxy in front of the sample server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.management.asking import Api
from tests.staging import Stage


@pytest.fixture
async def proxy(stage: Stage, sample: SampleServer) -> AsyncIterator[Proxy]:
    """One whose changes have time to wait for each other, on however busy a machine."""
    async with stage.proxy(sample.url, database={"query_timeout_seconds": 10.0}) as proxy:
        yield proxy


@pytest.fixture
def api(http: aiohttp.ClientSession, proxy: Proxy, stage: Stage) -> Api:
    return Api(http, proxy, stage)
