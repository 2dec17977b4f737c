"""The management API of a proxy in front of the sample server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from proxy.settings_management import IdentityProviderSettings
from tests.issuer import AUDIENCE, Issuer, run_issuer
from tests.management.asking import Api
from tests.staging import Stage


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An identity provider, whose tokens manage keys."""
    async with run_issuer() as issuer:
        yield issuer


@pytest.fixture
async def proxy(stage: Stage, sample: SampleServer, issuer: Issuer) -> AsyncIterator[Proxy]:
    """One whose changes have time to wait for each other, on however busy a machine."""
    provider = IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)
    sections: dict[str, dict[str, Any]] = {
        "database": {"query_timeout_seconds": 10.0},
        "management": {"identity_provider": provider},
    }
    async with stage.proxy(sample.url, **sections) as proxy:
        yield proxy


@pytest.fixture
def api(http: aiohttp.ClientSession, proxy: Proxy, stage: Stage) -> Api:
    return Api(http, proxy, stage)
