"""The sample platform in front of the tests: its state, its REST API, a client of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from proxy.demo.sample_api import SampleApi, run_sample_api
from proxy.demo.sample_platform import Platform
from tests.demo.callers import Rest


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    """Its workflows take no time, unless a test says so."""
    platform = Platform(tmp_path, run_seconds=0, steps=3)
    yield platform
    await platform.close()


@pytest.fixture
async def api(platform: Platform) -> AsyncIterator[SampleApi]:
    async with run_sample_api(platform) as running:
        yield running


@pytest.fixture
async def rest(api: SampleApi) -> AsyncIterator[Rest]:
    async with aiohttp.ClientSession() as http:
        yield Rest(http, api.url)
