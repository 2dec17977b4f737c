"""The management API of a proxy in front of the sample server."""

from __future__ import annotations

import aiohttp
import pytest

from proxy.server import Proxy
from tests.management.asking import Api
from tests.staging import Stage


@pytest.fixture
def api(http: aiohttp.ClientSession, proxy: Proxy, stage: Stage) -> Api:
    return Api(http, proxy, stage)
