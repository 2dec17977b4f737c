"""An address that presents too many invalid keys is told to wait; the right ones from there are not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from proxy.client_address import parse_network
from proxy.errors import Reason
from proxy.identity import KeyId
from proxy.keys.token import SECRET_LENGTH, form_token
from tests.canary_upstream import CanaryUpstream
from tests.raw_client import ask_raw, form_request, open_raw
from tests.staging import Stage
from tests.wire_scene import PING

BURST = 3
FEW = {"burst": BURST, "per_second": 0.01}
UNKNOWN = form_token(KeyId("0123456789ab"), "S" * SECRET_LENGTH).text


@pytest.fixture
def wrong_tokens() -> dict[str, str]:
    """One of each kind; they are never told apart."""
    return {"malformed": "garbage", "unknown": UNKNOWN, "mistyped": UNKNOWN[:-1]}


@pytest.mark.parametrize("kind", ["malformed", "unknown", "mistyped", "wrong secret"])
async def test_beyond_the_budget_invalid_keys_are_answered_429_and_right_ones_as_ever(
    kind: str, wrong_tokens: dict[str, str], stage: Stage
) -> None:
    good, expired = await stage.mint(), await stage.mint(lifetime=timedelta(hours=1))
    await stage.sql("UPDATE api_keys SET expires_at = now() WHERE id = $1", expired.summary.id)
    wrong = wrong_tokens.get(kind) or form_token(KeyId(good.summary.id), "S" * SECRET_LENGTH).text
    async with CanaryUpstream() as canary, stage.proxy(canary.url, failures=FEW) as proxy:
        for _ in range(BURST):
            assert (await ask_raw(proxy.data_address, form_request(token=wrong, body=PING))).status == 401
        for token in (wrong, *wrong_tokens.values()):
            answer = await ask_raw(proxy.data_address, form_request(token=token, body=PING))
            assert (answer.status, answer.reason) == (429, Reason.TOO_MANY_FAILURES)
            assert (answer.headers["Retry-After"], answer.headers["Cache-Control"]) == ("100", "no-store")
            assert "WWW-Authenticate" not in answer.headers
        assert canary.connections == 0, "nothing of a refused request goes further"
        answers = [
            await ask_raw(proxy.data_address, form_request(token=key.token, body=PING)) for key in (good, expired, good)
        ]
        assert [answer.status for answer in answers] == [200, 401, 200]
        assert answers[1].reason == Reason.KEY_EXPIRED


async def test_keys_whose_secret_is_right_count_never_whatever_became_of_them(stage: Stage) -> None:
    """A mass expiry must not lock a site out."""
    keys = [await stage.mint() for _ in range(3 * BURST)]
    await stage.sql("UPDATE api_keys SET expires_at = now()")
    async with CanaryUpstream() as canary, stage.proxy(canary.url, failures=FEW) as proxy:
        for key in keys:
            answer = await ask_raw(proxy.data_address, form_request(token=key.token, body=PING))
            assert (answer.status, answer.reason) == (401, Reason.KEY_EXPIRED)
        assert (await ask_raw(proxy.data_address, form_request(token=UNKNOWN, body=PING))).status == 401


async def test_a_connection_on_which_a_key_is_limited_is_closed(stage: Stage) -> None:
    """It was served by a good key before, and stands in no porch any more."""
    good = await stage.mint()
    async with CanaryUpstream() as canary, stage.proxy(canary.url, failures=FEW) as proxy:
        async with open_raw(proxy.data_address) as client:
            for token, status in ((good.token, 200), *[(UNKNOWN, 401)] * BURST, (good.token, 200)):
                await client.send(form_request(token=token, body=PING))
                assert (await client.read_answer()).status == status
            await client.send(form_request(token=UNKNOWN, body=PING))
            answer = await client.read_answer()
            assert (answer.status, answer.headers["Connection"]) == (429, "close")
            assert await client.read_rest() == b""


async def test_behind_a_trusted_proxy_the_address_is_its_client_s(stage: Stage) -> None:
    async with (
        CanaryUpstream() as canary,
        stage.proxy(canary.url, failures=FEW, server={"trusted_proxies": (parse_network("127.0.0.1"),)}) as proxy,
    ):

        async def ask(address: str) -> int:
            request = form_request("POST", "/mcp/v1", f"X-Forwarded-For: {address}", token=UNKNOWN, body=PING)
            return (await ask_raw(proxy.data_address, request)).status

        flood = [await ask(f"2001:db8:1:2::{number}") for number in range(BURST + 2)]
        assert flood == [401, 401, 401, 429, 429]
        assert await ask("2001:db8:1:3::1") == 401
