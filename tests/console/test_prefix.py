"""Behind a proxy that takes a part of the path away (`server.public_url` with a path), everything leads back there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.identity import KeyId
from proxy.server import Proxy
from tests.console.browser import SIGN_IN, SIGN_OUT, Browser
from tests.staging import Stage

PREFIX = "/gate/keys"
HOME = "/settings/api-keys"
PLACES = re.compile(r'(?:href|src|action)="([^"]*)"|content="0; url=([^"]*)"')


@pytest.fixture
async def behind(stage: Stage, sample: SampleServer) -> AsyncIterator[Proxy]:
    async with stage.proxy(sample.url, server={"public_url": f"http://aegis.example{PREFIX}/"}) as proxy:
        yield proxy


def find_places(text: str) -> list[str]:
    """Where a page leads, of its own site."""
    places = [one or other for one, other in PLACES.findall(text)]
    return [place for place in places if not place.startswith("#")]


async def test_every_link_form_file_and_redirect_carries_it(
    stage: Stage, behind: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access", name="ci")
    browser = Browser(http, behind)
    assert (await browser.get("/settings")).place == PREFIX + HOME
    asked = await browser.get(f"{HOME}/new")
    assert asked.place == f"{PREFIX}{SIGN_IN}?next=%2Fsettings%2Fapi-keys%2Fnew"
    form = await browser.get(asked.place.removeprefix(PREFIX))
    assert (await browser.post(SIGN_IN, {**form.hidden, "key": key.token})).place == f"{PREFIX}{HOME}/new"
    pages = [
        form,
        *[await browser.get(HOME + place) for place in ("", "?q=c", "/new", "/connect", "/none", "?q=nothing")],
    ]
    pages.append(await browser.get(f"{HOME}/{key.summary.id}"))
    for page in pages:
        places = find_places(page.text)
        assert len(places) > 2
        assert [place for place in places if not place.startswith(f"{PREFIX}/settings/")] == []
    assert f"http://aegis.example{PREFIX}/mcp/v1" in pages[4].text
    out = await browser.post(SIGN_OUT, {"csrf": pages[1].hidden["csrf"]})
    assert out.place == PREFIX + SIGN_IN


async def test_pages_of_that_address_ask_though_the_proxy_writes_another_host(
    stage: Stage, behind: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access", name="ci")
    for origin, status in (("http://aegis.example", 303), ("https://aegis.example", 403), ("http://evil.example", 403)):
        browser = Browser(http, behind)
        form = await browser.get(SIGN_IN)
        signed = await browser.post(SIGN_IN, {**form.hidden, "key": key.token}, Origin=origin, Host="127.0.0.1:1")
        assert signed.status == status


async def test_the_link_that_signs_in_once_leads_on_there(
    stage: Stage, behind: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access")
    token = behind.office.links.make(KeyId(key.summary.id), 1)
    page = await Browser(http, behind).get(f"{SIGN_IN}/link?once={token}")
    assert PREFIX + HOME in find_places(page.text)
