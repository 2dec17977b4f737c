"""Signing in with an API key, as a browser does it, and what others try with it."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import aiohttp
import pytest

from proxy.client_address import parse_network
from proxy.demo.sample_server import SampleServer
from proxy.keys.changes import KeyChanges
from proxy.keys.rights import form_operator
from proxy.server import Proxy
from proxy.settings import FailuresSettings
from tests.canary_upstream import CanaryUpstream
from tests.canary_upstream import form_answer as form_upstream_answer
from tests.console.asking import Asker
from tests.console.browser import SIGN_IN, SIGN_OUT, Browser
from tests.ear import Ear
from tests.staging import GUARD_SECONDS, Stage, Wire, get_mcp_url, scrape
from tests.wire_scene import PING

HOME = "/settings/api-keys"
PROXIES = (parse_network("127.0.0.1"),)


async def test_a_key_that_manages_keys_signs_in(stage: Stage, browser: Browser, asker: Asker) -> None:
    key = await stage.mint("full-access")
    page = await browser.sign_in(key.token)
    assert (page.status, page.place) == (303, HOME)
    assert (await asker.ask(browser)).actor == f"key:{key.summary.id}"
    morsel = browser.written["aegis-sign-in"]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["secure"]) == (True, "Strict", "/", "")
    assert (morsel["domain"], morsel["max-age"]) == ("", "")
    assert key.token not in page.text + str(page.headers)
    assert "aegis-sign-in-form" not in browser.cookies


async def test_over_tls_the_cookies_say_so(stage: Stage, sample: SampleServer, http: aiohttp.ClientSession) -> None:
    key = await stage.mint("full-access")
    async with stage.proxy(sample.url, server={"public_url": "https://aegis.example"}) as proxy:
        browser = Browser(http, proxy)
        await browser.sign_in(key.token)
        assert set(browser.written) == {"__Host-aegis-sign-in", "__Host-aegis-sign-in-form"}
        assert all(morsel["secure"] for morsel in browser.written.values())


@pytest.mark.parametrize(
    ("server", "enabled", "warned"),
    [
        ({"trusted_proxies": PROXIES}, True, True),
        ({"trusted_proxies": PROXIES}, False, False),
        ({"trusted_proxies": PROXIES, "public_url": "https://aegis.example"}, True, False),
        ({}, True, False),
    ],
)
async def test_a_cookie_that_cannot_be_secure_behind_a_proxy_is_warned_of(
    stage: Stage, sample: SampleServer, ear: Ear, server: dict[str, object], enabled: bool, warned: bool
) -> None:
    before = ear.heard.tell()
    async with stage.proxy(sample.url, server=server, console={"enabled": enabled}):
        heard = ear.heard.getvalue()[before:]
    assert (b'"sign_in_cookie_not_secure"' in heard) is warned


async def test_it_leads_to_the_page_that_was_asked_for_and_to_no_other_place(stage: Stage, browser: Browser) -> None:
    key = await stage.mint("full-access")
    assert (await browser.sign_in(key.token, f"{HOME}/0123456789ab")).place == f"{HOME}/0123456789ab"
    for place in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/mcp/v1"):
        assert (await browser.sign_in(key.token, place)).place == HOME
        page = await browser.get(SIGN_IN)
        assert (await browser.post(SIGN_IN, {**page.hidden, "next": place, "key": key.token})).place == HOME


async def test_whoever_fails_first_still_gets_where_they_wanted_to_go(stage: Stage, browser: Browser) -> None:
    key = await stage.mint("full-access")
    place = f"{HOME}/new?rights=one"
    failed = await browser.post(
        SIGN_IN, {**(await browser.get(f"{SIGN_IN}?next={quote(place, '')}")).hidden, "key": "x"}
    )
    assert (failed.status, failed.hidden["next"]) == (401, place)
    assert (await browser.post(SIGN_IN, {**failed.hidden, "key": key.token})).place == place
    for evil in ("https://evil.example", "//evil.example", f"{HOME}/../../evil"):
        failed = await browser.post(SIGN_IN, {**(await browser.get(SIGN_IN)).hidden, "next": evil, "key": "x"})
        assert (failed.status, failed.hidden["next"], "evil" in failed.text) == (401, HOME, False)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "aegis_", "nonsense", "<script>alert(1)</script>", "a" * 3000, "eyJ.eyJ.x"])
async def test_what_is_no_key_signs_nobody_in(browser: Browser, text: str) -> None:
    page = await browser.sign_in(text)
    assert page.status == 401
    assert "aegis-sign-in" not in browser.cookies
    assert 'role="alert"' in page.text
    assert "<script" not in page.text


async def test_a_revoked_key_is_told_so_and_a_foreign_secret_is_not(stage: Stage, browser: Browser) -> None:
    revoked = await stage.mint("full-access")
    await stage.revoke_by_sql(revoked)
    told = await browser.sign_in(revoked.token)
    assert (told.status, "revoked" in told.text) == (401, True)
    assert "aegis-sign-in" not in browser.cookies


async def test_the_owner_of_a_retired_secret_that_is_tried_here_is_told(
    stage: Stage, browser: Browser, proxy: Proxy
) -> None:
    key = await stage.mint("full-access")
    changes = KeyChanges(stage.database, stage.hasher)
    rotated = await changes.rotate(form_operator("test"), key.summary.id, stage.policy, grace="now")
    stage.note_secret(rotated.token)
    assert (await browser.sign_in(key.token)).status == 401
    async with asyncio.timeout(GUARD_SECONDS):  # the alarm is raised beside the answer
        while b'aegis_alarms_total{alarm="secret.replayed"} 1.0' not in await scrape(proxy):
            await asyncio.sleep(0.01)


async def test_a_key_without_a_right_to_manage_keys_is_told_so(stage: Stage, browser: Browser) -> None:
    key = await stage.mint("execution")
    page = await browser.sign_in(key.token)
    assert page.status == 403
    assert "key:list" in page.text
    assert "aegis-sign-in" not in browser.cookies


async def test_guessing_keys_is_limited_as_everywhere(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access")
    async with stage.proxy(sample.url, failures=FailuresSettings(burst=3).model_dump()) as proxy:
        browser = Browser(http, proxy)
        statuses = [(await browser.sign_in(f"guess {number}")).status for number in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await browser.sign_in(key.token)).status == 303


async def test_a_form_from_elsewhere_signs_nobody_in(
    stage: Stage, browser: Browser, proxy: Proxy, http: aiohttp.ClientSession
) -> None:
    """Else somebody could be signed in as another, and leave secrets with them."""
    key = await stage.mint("full-access")
    attacker = Browser(http, proxy)
    form = {**(await browser.get(SIGN_IN)).hidden, "key": key.token}
    theirs = {**(await attacker.get(SIGN_IN)).hidden, "key": key.token}
    for sent, headers in (
        (form, {"Origin": "https://evil.example"}),
        (form, {"Origin": "null", "Sec-Fetch-Site": "cross-site"}),
        (form, {"Sec-Fetch-Site": "cross-site"}),
        (form, {"Sec-Fetch-Site": "same-site"}),
        (theirs, {}),
        ({**form, "csrf": ""}, {}),
        ({"key": key.token}, {}),
        ({**form, "csrf": form["csrf"][:-1]}, {}),
        (form, {"Cookie": "a=b"}),
        (form, {"Cookie": "; ".join(f"aegis-sign-in-form={value}" for value in ("a" * 43, "b" * 43))}),
    ):
        page = await browser.post(SIGN_IN, sent, **headers)
        assert page.status == 403, (sent.keys(), headers)
        assert "aegis-sign-in" not in browser.cookies
    assert (await browser.post(SIGN_IN, {**(await browser.get(SIGN_IN)).hidden, "key": key.token})).status == 303


async def test_a_cookie_that_was_fixed_before_is_not_the_one_of_the_sign_in(
    stage: Stage, browser: Browser, proxy: Proxy, http: aiohttp.ClientSession, asker: Asker
) -> None:
    key = await stage.mint("full-access")
    attacker = Browser(http, proxy)
    await attacker.sign_in(key.token)
    for fixed in ("f" * 43, attacker.cookies["aegis-sign-in"]):
        browser.cookies["aegis-sign-in"] = fixed
        await browser.sign_in(key.token)
        assert browser.cookies["aegis-sign-in"] != fixed
        stranger = Browser(http, proxy)
        stranger.cookies["aegis-sign-in"] = fixed
        assert (await asker.ask(stranger)).actor is None


async def test_forged_sign_outs_do_nothing(
    stage: Stage, browser: Browser, proxy: Proxy, http: aiohttp.ClientSession, asker: Asker
) -> None:
    key = await stage.mint("full-access")
    await browser.sign_in(key.token)
    other = Browser(http, proxy)
    await other.sign_in(key.token)
    csrf, foreign = (await asker.ask(browser)).csrf or "", (await asker.ask(other)).csrf or ""
    for token, headers in (
        ("", {}),
        (foreign, {}),
        (csrf, {"Origin": "https://evil.example"}),
        (csrf, {"Sec-Fetch-Site": "cross-site"}),
    ):
        assert (await browser.post(SIGN_OUT, {"csrf": token, "everywhere": "1"}, **headers)).status == 403
    assert (await browser.get(f"{SIGN_OUT}?csrf={csrf}")).status == 405
    assert (await asker.ask(browser)).actor is not None
    assert (await asker.ask(other)).actor is not None


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"key=a&key=b", {}, 400),
        (b"\xff", {}, 400),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"key=" + b"a" * 5000, {}, 413),
        (b"", {}, 403),
    ],
)
async def test_what_is_no_form_of_ours_is_refused(
    browser: Browser, body: bytes, headers: dict[str, str], status: int
) -> None:
    await browser.get(SIGN_IN)
    assert (await browser.post(SIGN_IN, body, **headers)).status == status


@pytest.mark.parametrize("query", ["x=1", "next=/settings/api-keys&next=/x", "key=a", "NEXT=/settings/api-keys"])
async def test_what_the_page_does_not_take_in_its_query_is_refused(browser: Browser, query: str) -> None:
    assert (await browser.get(f"{SIGN_IN}?{query}")).status == 400


async def test_every_answer_is_cached_nowhere_framed_nowhere_and_runs_nothing(stage: Stage, browser: Browser) -> None:
    key = await stage.mint("full-access")
    pages = [
        await browser.get(SIGN_IN),
        await browser.sign_in("nonsense"),
        await browser.sign_in(key.token),
        await browser.get(SIGN_OUT),
    ]
    for page in pages:
        assert page.headers["Cache-Control"] == "no-store"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Server"] == "aegis-proxy"


# --- what the cookie does not open ---------------------------------------------------------------------------------


async def test_the_cookie_opens_no_route_and_does_not_travel_upstream(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access")
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        browser = Browser(http, proxy)
        await browser.sign_in(key.token)
        cookie = f"aegis-sign-in={browser.cookies['aegis-sign-in']}"
        wire = Wire(http, get_mcp_url(proxy))
        for path in ("/mcp/v1", "/v1/api-keys", "/v1/agents"):
            answer = await http.get(browser.origin + path, headers={"Cookie": cookie})
            assert answer.status == 401
        assert (await wire.post(None, PING, Cookie=cookie)).status == 401
        assert canary.requests == []
        canary.answer = lambda received: form_upstream_answer(
            json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode(), "Set-Cookie: aegis-sign-in=evil; Path=/"
        )
        answer = await wire.post(key.token, PING, Cookie=cookie)
        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers
        assert canary.requests
        assert browser.cookies["aegis-sign-in"].encode() not in canary.received


async def test_without_a_page_there_is_no_sign_in(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    async with stage.proxy(sample.url, console={"enabled": False}) as proxy:
        assert (await Browser(http, proxy).get(SIGN_IN)).status == 404


async def test_cookies_and_keys_stand_in_no_log(stage: Stage, browser: Browser, ear: Ear) -> None:
    key = await stage.mint("full-access")
    await browser.sign_in(key.token)
    assert browser.cookies["aegis-sign-in"].encode() not in ear.heard.getvalue()
    lines = [json.loads(line) for line in ear.heard.getvalue().splitlines() if b'"sign_in"' in line]
    assert [(line["status"], line["outcome"], line["key_id"]) for line in lines][-1] == (
        303, "managed", key.summary.id,
    )  # fmt: skip
