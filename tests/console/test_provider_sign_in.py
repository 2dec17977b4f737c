"""Signing in at the identity provider: a real one, a browser between, and what others try with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import pytest
from pydantic import SecretStr

from proxy.console.cookies import derive, derive_csrf
from proxy.demo.sample_server import SampleServer
from proxy.keys.owners import Owners
from proxy.keys.rights import form_operator
from proxy.server import Proxy
from proxy.settings import FailuresSettings
from proxy.settings_management import IdentityProviderSettings
from tests.console.asking import Asker
from tests.console.browser import SIGN_IN, SIGN_OUT, Browser, Page
from tests.ear import Ear
from tests.issuer import AUDIENCE, Issuer, answer_with, form_token, make_key, run_issuer
from tests.staging import Stage

HOME, START, CALLBACK = "/settings/api-keys", f"{SIGN_IN}/start", f"{SIGN_IN}/callback"
PUBLIC_URL = "http://127.0.0.1:8080"
CLIENT_ID, SECRET = "the page", "client secret: s3cr3t"
THREE_FAILURES = FailuresSettings(burst=3, per_second=0.01).model_dump()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with run_issuer() as issuer:
        issuer.page = (CLIENT_ID, SECRET, PUBLIC_URL + CALLBACK)
        yield issuer


@asynccontextmanager
async def run_page(
    stage: Stage, sample: SampleServer, issuer: Issuer, **sections: dict[str, Any]
) -> AsyncIterator[Proxy]:
    async with stage.proxy(
        sample.url,
        management={"identity_provider": IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)},
        server={"public_url": PUBLIC_URL},
        console={"client_id": CLIENT_ID, "client_secret": SecretStr(SECRET)},
        **sections,
    ) as proxy:
        yield proxy


@pytest.fixture
async def proxy(stage: Stage, sample: SampleServer, issuer: Issuer) -> AsyncIterator[Proxy]:
    async with run_page(stage, sample, issuer) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
async def owner(stage: Stage, issuer: Issuer) -> str:
    """Ada, whom the provider knows too."""
    added = await Owners(stage.database).add(
        form_operator("test"), stage.policy, issuer=issuer.url, subject="ada", tenant="acme", tier="enterprise"
    )
    return added.id


async def visit_provider(http: aiohttp.ClientSession, page: Page) -> Mapping[str, str]:
    """Where a redirect to the provider leads back to, as the members of the callback's query."""
    async with http.get(page.place, allow_redirects=False) as answer:
        assert answer.status == 302, page.place
        back = urlsplit(answer.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == PUBLIC_URL + CALLBACK
    return dict(parse_qsl(back.query))


async def come_back(browser: Browser, members: Mapping[str, str]) -> Page:
    return await browser.get(f"{CALLBACK}?{urlencode(members)}", Sec_Fetch_Site="cross-site")


async def sign_in(browser: Browser, http: aiohttp.ClientSession, onward: str = HOME) -> Page:
    start = await browser.get(f"{START}?{urlencode({'next': onward})}")
    assert start.status == 303
    return await come_back(browser, await visit_provider(http, start))


async def test_whoever_signs_in_at_the_provider_is_signed_in(
    browser: Browser, http: aiohttp.ClientSession, asker: Asker, issuer: Issuer
) -> None:
    assert START in (await browser.get(SIGN_IN)).text
    page = await sign_in(browser, http, f"{HOME}?q=a")
    assert page.status == 200
    assert f'http-equiv="refresh" content="0; url={HOME}?q=a"' in page.text
    told = await asker.ask(browser)
    assert (told.actor, told.is_admin) == (f"jwt:{issuer.url}|ada", False)
    assert browser.written["aegis-sign-in"]["samesite"] == "Strict"
    assert "aegis-sign-in-flow" not in browser.cookies


async def test_claims_lower_the_tier_and_make_an_admin_as_for_tokens(
    browser: Browser, http: aiohttp.ClientSession, asker: Asker, issuer: Issuer
) -> None:
    issuer.person = {"aegis_role": "aegis:admin"}
    await sign_in(browser, http)
    admin = await asker.ask(browser)
    assert admin.is_admin
    issuer.person = {"zaru_tier": "free"}
    await sign_in(browser, http)
    lowered = await asker.ask(browser)
    assert not lowered.is_admin
    assert "*" in admin.grants
    assert "*" not in lowered.grants


async def test_a_sign_in_ends_with_its_account(
    browser: Browser, http: aiohttp.ClientSession, asker: Asker, stage: Stage
) -> None:
    await sign_in(browser, http)
    await stage.sql("UPDATE owners SET disabled_at = now()")
    assert (await asker.ask(browser)).actor is None
    await stage.sql("UPDATE owners SET disabled_at = NULL")
    assert (await asker.ask(browser)).actor is None


async def test_the_flow_carries_a_challenge_a_nonce_and_a_state_of_its_own(browser: Browser) -> None:
    flows = [dict(parse_qsl(urlsplit((await browser.get(START)).place).query)) for _ in range(2)]
    cookie = browser.written["aegis-sign-in-flow"]
    assert (cookie["samesite"], cookie["httponly"], cookie["max-age"]) == ("Lax", True, "600")
    for flow in flows:
        assert (flow["response_type"], flow["client_id"], flow["scope"]) == ("code", CLIENT_ID, "openid")
        assert flow["code_challenge_method"] == "S256"
        assert browser.cookies["aegis-sign-in-flow"] not in str(flow)
    for member in ("state", "nonce", "code_challenge"):
        assert flows[0][member] != flows[1][member]


async def test_a_public_client_and_one_whose_secret_goes_into_the_form(
    stage: Stage, sample: SampleServer, issuer: Issuer, http: aiohttp.ClientSession
) -> None:
    provider = IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)
    for text in (None, SECRET):
        issuer.page = (CLIENT_ID, text, PUBLIC_URL + CALLBACK)
        issuer.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
        async with stage.proxy(
            sample.url,
            management={"identity_provider": provider},
            server={"public_url": PUBLIC_URL},
            console={"client_id": CLIENT_ID, "client_secret": text and SecretStr(text)},
        ) as proxy:
            assert (await sign_in(Browser(http, proxy), http)).status == 200


# --- what is refused -----------------------------------------------------------------------------------------------


async def test_what_was_begun_in_another_browser_ends_in_none(
    browser: Browser, proxy: Proxy, http: aiohttp.ClientSession, issuer: Issuer
) -> None:
    """Else a victim could be signed in as the attacker, by a link to the attacker's callback."""
    attacker = Browser(http, proxy)
    theirs = await visit_provider(http, await attacker.get(START))
    for prepare in (False, True):
        if prepare:
            await browser.get(START)
        assert (await come_back(browser, theirs)).status == 401
        assert "aegis-sign-in" not in browser.cookies
    assert issuer.asked["/token"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"state": ""},
        {"state": "a" * 43},
        {"state": None},
        {"code": None},
        {"code": ""},
        {"code": "made up"},
        {"code": "c" * 3000},
        {"iss": "https://evil.example"},
        {"error": "access_denied", "code": None},
        {"error": "<script>alert(1)</script>"},
    ],
)
async def test_a_callback_that_is_not_the_flows_own_signs_nobody_in(
    browser: Browser, http: aiohttp.ClientSession, change: dict[str, str | None]
) -> None:
    members = await visit_provider(http, await browser.get(START))
    changed = {name: value for name, value in {**members, **change}.items() if value is not None}
    page = await come_back(browser, changed)
    assert page.status == 401
    assert "aegis-sign-in" not in browser.cookies
    assert "<script" not in page.text


@pytest.mark.parametrize("change", [{"error": "access_denied", "code": ""}, {"code": "made up"}])
async def test_whoever_fails_at_the_provider_may_try_again_and_gets_where_they_wanted_to_go(
    browser: Browser, http: aiohttp.ClientSession, change: dict[str, str]
) -> None:
    place = f"{HOME}?q=a"
    members = await visit_provider(http, await browser.get(f"{START}?{urlencode({'next': place})}"))
    failed = await come_back(browser, {**members, **change})
    assert (failed.status, failed.hidden["next"]) == (401, place)
    assert f"{START}?{urlencode({'next': place})}" in failed.text
    for evil in ("https://evil.example", "//evil.example", f"{HOME}/../../evil"):
        state = f"{members['state'].partition('.')[0]}.{evil}"
        failed = await come_back(browser, {**members, **change, "state": state})
        assert (failed.status, failed.hidden["next"], "evil" in failed.text) == (401, HOME, False)


async def test_whoever_moved_to_another_tenant_can_still_sign_out_everywhere(
    stage: Stage, browser: Browser, http: aiohttp.ClientSession
) -> None:
    """The sign-in is nobody's any more; its cookie and its row go all the same."""
    assert (await sign_in(browser, http)).status == 200
    await stage.sql("UPDATE owners SET tenant_id = 'elsewhere'")
    csrf = derive_csrf(browser.cookies["aegis-sign-in"])
    left = await browser.post(SIGN_OUT, {"csrf": csrf, "everywhere": "1"})
    assert (left.status, "aegis-sign-in" in browser.cookies) == (303, False)
    assert await stage.database.fetch("SELECT FROM sign_ins") == []


async def test_a_code_is_good_once(browser: Browser, http: aiohttp.ClientSession) -> None:
    members = await visit_provider(http, await browser.get(START))
    flow = dict(browser.cookies)
    assert (await come_back(browser, members)).status == 200
    browser.cookies = flow
    assert (await come_back(browser, members)).status == 401


async def test_made_up_codes_count_against_their_address_and_then_go_nowhere(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, issuer: Issuer
) -> None:
    async with run_page(stage, sample, issuer, failures=THREE_FAILURES) as proxy:
        browser = Browser(http, proxy)
        browser.cookies["aegis-sign-in-flow"] = "a" * 43
        made_up = {"state": derive("a" * 43, "state"), "code": "junk"}
        statuses = [(await come_back(browser, made_up)).status for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert issuer.asked["/token"] == 3


async def test_invalid_keys_from_the_same_address_keep_nobody_from_signing_in_at_the_provider(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, issuer: Issuer
) -> None:
    """A client behind the same NAT that goes on with a wrong key."""
    async with run_page(stage, sample, issuer, failures=THREE_FAILURES) as proxy:
        browser = Browser(http, proxy)
        statuses = [(await browser.sign_in("no key")).status for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert (await sign_in(browser, http)).status == 200


async def test_no_state_leads_away(browser: Browser, http: aiohttp.ClientSession) -> None:
    for place in ("https://evil.example/", "//evil.example", "/mcp/v1"):
        members = dict(await visit_provider(http, await browser.get(START)))
        members["state"] = f"{members['state'].partition('.')[0]}.{place}"
        page = await come_back(browser, members)
        assert f"url={HOME}" in page.text
        assert "evil" not in page.text


@pytest.mark.parametrize(
    "person",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": AUDIENCE},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
    ],
)
async def test_an_id_token_of_another_flow_or_for_somebody_else_is_refused(
    browser: Browser, http: aiohttp.ClientSession, issuer: Issuer, person: dict[str, object]
) -> None:
    issuer.person = person
    assert (await sign_in(browser, http)).status == 401
    assert "aegis-sign-in" not in browser.cookies


async def test_an_id_token_for_us_among_others_is_ours(
    browser: Browser, http: aiohttp.ClientSession, issuer: Issuer
) -> None:
    issuer.person = {"aud": ["another", CLIENT_ID], "azp": CLIENT_ID}
    assert (await sign_in(browser, http)).status == 200


async def test_a_forged_id_token_is_refused(browser: Browser, http: aiohttp.ClientSession, issuer: Issuer) -> None:
    members = await visit_provider(http, await browser.get(START))
    claims = issuer.form_claims(aud=CLIENT_ID, nonce=issuer.codes[members["code"]]["nonce"])
    forged = form_token(make_key("RS256", "forger"), claims)
    issuer.answers["/token"] = answer_with(f'{{"id_token": "{forged}"}}'.encode())
    assert (await come_back(browser, members)).status == 401


@pytest.mark.parametrize(
    ("path", "status", "body", "told"),
    [
        ("/token", 500, b"", 503),
        ("/token", 302, b"", 503),
        ("/token", 200, b"<html>", 503),
        ("/token", 200, b'{"access_token": "x"}', 503),
        ("/token", 400, b'{"error": "invalid_grant"}', 401),
        ("/token", 401, b'{"error": "invalid_client"}', 503),
        ("/keys", 500, b"", 503),
    ],
)
async def test_a_provider_that_fails_signs_nobody_in(
    browser: Browser, http: aiohttp.ClientSession, issuer: Issuer, path: str, status: int, body: bytes, told: int
) -> None:
    members = await visit_provider(http, await browser.get(START))
    issuer.answers[path] = answer_with(body, status)
    assert (await come_back(browser, members)).status == told
    assert "aegis-sign-in" not in browser.cookies


async def test_a_provider_that_is_away_cannot_be_gone_to(browser: Browser, issuer: Issuer) -> None:
    await issuer.stop()
    page = await browser.get(START)
    assert (page.status, page.headers["Retry-After"]) == (503, "10")


@pytest.mark.parametrize("change", ["stranger", "tenant"])
async def test_an_account_that_is_not_known_here_is_told_so(
    browser: Browser, http: aiohttp.ClientSession, issuer: Issuer, change: str
) -> None:
    issuer.person = {"sub": "stranger"} if change == "stranger" else {"tenant_id": "other"}
    page = await sign_in(browser, http)
    assert page.status == 403
    assert "account" in page.text


async def test_the_way_to_the_provider_is_there_only_where_it_is_configured(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    async with stage.proxy(sample.url) as proxy:
        browser = Browser(http, proxy)
        assert START not in (await browser.get(SIGN_IN)).text
        assert (await browser.get(START)).status == (await browser.get(CALLBACK)).status == 404


async def test_nothing_of_a_flow_is_logged(
    browser: Browser, http: aiohttp.ClientSession, issuer: Issuer, ear: Ear
) -> None:
    members = await visit_provider(http, await browser.get(START))
    flow = browser.cookies["aegis-sign-in-flow"]
    await come_back(browser, members)
    await come_back(browser, {**members, "code": "another"})
    heard = ear.heard.getvalue()
    for secret in (
        members["code"],
        members["state"].partition(".")[0],
        flow,
        browser.cookies["aegis-sign-in"],
        "s3cr3t",
    ):
        assert secret.encode() not in heard
