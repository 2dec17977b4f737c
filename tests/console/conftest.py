"""The page in front of a real proxy, a browser that signs in at it, and a page that only says who is signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.console.asking import Asker, run_asker
from tests.console.browser import Browser
from tests.console.visiting import Visitor, visit
from tests.staging import Stage


@pytest.fixture
async def visitor(http: aiohttp.ClientSession, stage: Stage, sample: SampleServer) -> AsyncIterator[Visitor]:
    async with visit(http, stage, sample.url) as visitor:
        yield visitor


@pytest.fixture
def browser(http: aiohttp.ClientSession, proxy: Proxy) -> Browser:
    return Browser(http, proxy)


@pytest.fixture
async def asker(http: aiohttp.ClientSession, proxy: Proxy) -> AsyncIterator[Asker]:
    async with run_asker(http, proxy) as asker:
        yield asker
