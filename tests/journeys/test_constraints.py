"""Where a key may be used from, how fast and how much at once: over real sockets, and nothing of what is refused
reaches the upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.client_address import parse_network
from tests.canary_upstream import CanaryUpstream
from tests.raw_client import ask_raw, form_request
from tests.refusal_tables import PING
from tests.staging import Stage

LOOPBACK = {"trusted_proxies": (parse_network("127.0.0.0/8"),)}


@pytest.fixture
async def canary() -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream() as canary:
        yield canary


async def test_a_chain_that_a_trusted_proxy_vouches_for_and_nobody_can_read_is_refused(
    stage: Stage, canary: CanaryUpstream
) -> None:
    key = await stage.mint()
    asked = form_request("POST", token=key.token, body=PING, x_forwarded_for="unknown")
    async with stage.proxy(canary.url, server=LOOPBACK) as proxy:
        answer = await ask_raw(proxy.data_address, asked)
        assert (answer.status, answer.reason) == (400, "header_invalid")
        assert canary.connections == 0
    async with stage.proxy(canary.url) as proxy:
        assert (await ask_raw(proxy.data_address, asked)).status == 200  # nobody is trusted: it is not even read
    assert len(canary.requests) == 1
    assert "X_FORWARDED_FOR" not in canary.requests[0].fold()
