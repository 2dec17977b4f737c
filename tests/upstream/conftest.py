"""Every test of the upstream pool runs on both event loops, with a stage of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.upstream import Upstream
from tests.upstream_stage import LOOP_POLICIES, UpstreamStage


@pytest.fixture(params=LOOP_POLICIES)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy


@pytest.fixture
async def stage() -> AsyncIterator[UpstreamStage]:
    async with UpstreamStage(Upstream) as stage:
        yield stage
