"""Links that sign in once, as the demo prints them."""

from __future__ import annotations

import aiohttp

from proxy.console.links import LIFE_SECONDS, Links
from proxy.identity import KeyId
from proxy.server import Proxy
from tests.clocks import ManualClock
from tests.console.asking import Asker
from tests.console.browser import SIGN_IN, Browser
from tests.ear import Ear
from tests.staging import Stage

LINK = f"{SIGN_IN}/link?once="
KEY = KeyId("0123456789ab")


def test_a_link_is_good_once_and_for_a_while() -> None:
    clock = ManualClock()
    links = Links(clock.boot)
    one, other = links.make(KEY, 1), links.make(KEY, 2)
    assert links.take(one) == (KEY, 1)
    assert links.take(one) is None
    assert links.take("made up") is None
    clock.advance(LIFE_SECONDS)
    assert links.take(other) is None


async def test_a_link_signs_in_by_its_key_once(
    stage: Stage, proxy: Proxy, browser: Browser, http: aiohttp.ClientSession, asker: Asker, ear: Ear
) -> None:
    key = await stage.mint("full-access")
    token = proxy.office.links.make(KeyId(key.summary.id), 1)
    page = await browser.get(LINK + token)
    assert page.status == 200
    assert 'http-equiv="refresh"' in page.text
    assert (await asker.ask(browser)).actor == f"key:{key.summary.id}"
    again = Browser(http, proxy)
    assert (await again.get(LINK + token)).status == 401
    assert "aegis-sign-in" not in again.cookies
    assert token.encode() not in ear.heard.getvalue()


async def test_another_site_cannot_make_a_visitor_follow_it(stage: Stage, proxy: Proxy, browser: Browser) -> None:
    key = await stage.mint("full-access")
    token = proxy.office.links.make(KeyId(key.summary.id), 1)
    assert (await browser.get(LINK + token, Sec_Fetch_Site="cross-site")).status == 403
    assert "aegis-sign-in" not in browser.cookies
    assert (await browser.get(LINK + token)).status == 200


async def test_a_link_opens_no_more_than_its_key(stage: Stage, proxy: Proxy, browser: Browser) -> None:
    weak, dead = await stage.mint("read-only"), await stage.mint("full-access")
    await stage.revoke_by_sql(dead)
    assert (await browser.get(LINK + proxy.office.links.make(KeyId(weak.summary.id), 1))).status == 403
    assert (await browser.get(LINK + proxy.office.links.make(KeyId(dead.summary.id), 1))).status == 401
    assert (await browser.get(f"{SIGN_IN}/link")).status == 401
    assert "aegis-sign-in" not in browser.cookies
