"""Connections beyond the number that is served: told to come back later, or closed; nothing of them goes further."""

from __future__ import annotations

import asyncio
import contextlib
import resource

import pytest

from proxy.client_connection import MAX_SHED
from proxy.errors import ConfigError, Reason
from proxy.fittings import find_max_connections
from proxy.settings import load_settings
from tests.canary_upstream import CanaryUpstream
from tests.raw_client import form_request, open_raw
from tests.staging import GUARD_SECONDS, Stage
from tests.wire_scene import PING

SERVED = 3


async def test_a_connection_too_many_is_told_so_and_makes_room_for_the_next(stage: Stage) -> None:
    token = (await stage.mint()).token
    request = form_request(token=token, body=PING)
    async with (
        CanaryUpstream() as canary,
        stage.proxy(canary.url, server={"max_connections": SERVED}) as proxy,
        contextlib.AsyncExitStack() as stack,
    ):
        served = [await stack.enter_async_context(open_raw(proxy.data_address)) for _ in range(SERVED)]
        for client in served:
            await client.send(request)
            assert (await client.read_answer()).status == 200
        async with open_raw(proxy.data_address) as refused:
            await refused.send(request)
            answer = await refused.read_answer()
            assert (answer.status, answer.reason) == (503, Reason.TOO_MANY_CONNECTIONS)
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["Connection"] == "close"
            assert await refused.read_rest() == b""
        assert len(canary.requests) == SERVED, "nothing of a refused request goes further"
        served[0].half_close()
        assert await served[0].read_rest() == b""
        async with open_raw(proxy.data_address) as next_one:
            await next_one.send(request)
            assert (await next_one.read_answer()).status == 200


async def test_a_crowd_beyond_those_who_are_told_is_closed_without_a_word(stage: Stage) -> None:
    async with (
        CanaryUpstream() as canary,
        stage.proxy(canary.url, server={"max_connections": SERVED}) as proxy,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(SERVED + MAX_SHED):
            await stack.enter_async_context(open_raw(proxy.data_address))
        async with asyncio.timeout(GUARD_SECONDS):
            async with open_raw(proxy.data_address) as crowd:
                assert await crowd.read_rest() == b""


def test_the_limit_of_open_files_says_how_many_are_served() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = load_settings(None, {})
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
        assert find_max_connections(settings) == (1024 - 32 - MAX_SHED - 10 - 64) // 2
        few = settings.model_copy(update={"server": settings.server.model_copy(update={"max_connections": 7})})
        assert find_max_connections(few) == 7
        many = settings.model_copy(update={"server": settings.server.model_copy(update={"max_connections": 1000})})
        with pytest.raises(ConfigError, match=r"room for 443 clients.*ulimit -n.*max_connections"):
            find_max_connections(many)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        with pytest.raises(ConfigError, match="room for 0 clients"):
            find_max_connections(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
