"""The page in front of a real proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from tests.console.visiting import Visitor, visit
from tests.staging import Stage


@pytest.fixture
async def visitor(http: aiohttp.ClientSession, stage: Stage, sample: SampleServer) -> AsyncIterator[Visitor]:
    async with visit(http, stage, sample.url) as visitor:
        yield visitor
