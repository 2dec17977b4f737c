"""Questions to the identity provider, over real sockets: answers come whole, in time, in bounds, or not at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from proxy.provider_client import MAX_ANSWER_BYTES, ProviderClient
from proxy.provider_documents import ProviderError
from tests.certificates import make_certificate
from tests.hostile_origin import HostileOrigin, answering
from tests.issuer import Issuer, answer_with, hold_until, run_issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with run_issuer() as issuer:
        yield issuer


@pytest.fixture
async def client() -> AsyncIterator[ProviderClient]:
    client = ProviderClient(timeout_seconds=20, ssl_context=None)
    yield client
    await client.aclose()


async def fail(client: ProviderClient, url: str) -> str:
    with pytest.raises(ProviderError) as caught:
        await client.get(url)
    return str(caught.value)


async def test_an_answer_comes_whole(issuer: Issuer, client: ProviderClient) -> None:
    issuer.answers["/keys"] = answer_with(b"x" * MAX_ANSWER_BYTES)
    assert await client.get(f"{issuer.url}/keys") == b"x" * MAX_ANSWER_BYTES


async def test_an_answer_without_end_is_left_alone(issuer: Issuer, client: ProviderClient) -> None:
    async def pour(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    issuer.answers["/keys"] = pour
    assert "more than" in await fail(client, f"{issuer.url}/keys")


async def test_an_answer_that_does_not_come_is_given_up(issuer: Issuer) -> None:
    issuer.answers["/keys"] = hold_until(asyncio.Event(), answer_with(b"{}"))
    client = ProviderClient(timeout_seconds=0.1, ssl_context=None)
    assert "within 0.1 s" in await fail(client, f"{issuer.url}/keys")
    await client.aclose()


async def test_an_answer_that_stops_in_the_middle_is_given_up(issuer: Issuer) -> None:
    async def stall(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    issuer.answers["/keys"] = stall
    client = ProviderClient(timeout_seconds=0.1, ssl_context=None)
    assert "within 0.1 s" in await fail(client, f"{issuer.url}/keys")
    await client.aclose()


@pytest.mark.parametrize("status", [204, 301, 302, 307, 401, 404, 500, 503])
async def test_only_200_is_an_answer(issuer: Issuer, client: ProviderClient, status: int) -> None:
    """A redirect is not followed: its target could be anybody's."""
    issuer.answers["/keys"] = answer_with(b"", status, {"Location": f"{issuer.url}/elsewhere"})
    assert await fail(client, f"{issuer.url}/keys") == f"answered {status}"
    assert issuer.asked["/elsewhere"] == 0


async def test_a_small_answer_that_unfolds_is_refused(issuer: Issuer, client: ProviderClient) -> None:
    issuer.answers["/keys"] = answer_with(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert "coding" in await fail(client, f"{issuer.url}/keys")


async def test_what_is_no_http_is_told_without_its_bytes(client: ProviderClient) -> None:
    async with HostileOrigin(answering(b"SSH-2.0-secret\r\n")) as origin:
        text = await fail(client, f"http://127.0.0.1:{origin.port}/")
    assert "protocol" in text
    assert "secret" not in text


async def test_what_speaks_no_tls_is_told_so(issuer: Issuer, client: ProviderClient) -> None:
    assert "TLS" in await fail(client, issuer.url.replace("http://", "https://"))


async def test_a_provider_that_is_gone_is_told_so(issuer: Issuer, client: ProviderClient) -> None:
    await issuer.stop()
    assert await fail(client, f"{issuer.url}/keys") == "cannot be reached: Connection refused"


async def test_nothing_is_remembered_between_questions(issuer: Issuer, client: ProviderClient) -> None:
    cookies: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    issuer.answers["/keys"] = answer
    await client.get(f"{issuer.url}/keys")
    await client.get(f"{issuer.url}/keys")
    assert cookies == [None, None]


async def test_whom_to_trust_is_the_operators_to_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    pem = make_certificate(tmp_path_factory.mktemp("tls"))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(pem)
    async with run_issuer(shown) as issuer:
        stranger = ProviderClient(timeout_seconds=20, ssl_context=None)
        assert "certificate" in await fail(stranger, f"{issuer.url}/keys")
        assert await fail(stranger, "https://provider.invalid/") == "its name leads nowhere"
        await stranger.aclose()
        trusting = ProviderClient(timeout_seconds=20, ssl_context=ssl.create_default_context(cafile=pem))
        assert b"keys" in await trusting.get(f"{issuer.url}/keys")
        await trusting.aclose()
