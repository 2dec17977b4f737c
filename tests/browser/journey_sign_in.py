"""Signing in and out: by the identity provider, by a key, and what happens when it does not work or has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.browser.conftest import Open
from tests.browser.looks import look
from tests.browser.provider import run_page
from tests.issuer import Issuer, run_issuer
from tests.staging import Stage

ROOT, SIGN_IN = "/settings/api-keys", "/settings/sign-in"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with run_issuer(host="localhost") as issuer:
        issuer.asks = True
        yield issuer


@pytest.fixture
async def at(stage: Stage, sample: SampleServer, issuer: Issuer) -> AsyncIterator[str]:
    """The address of the page."""
    async with run_page(stage, sample.url, issuer) as proxy:
        yield f"http://{proxy.data_address}"


async def agree(page: Page) -> None:
    await page.get_by_role("link", name="Sign in with your account").click()
    await page.get_by_role("button", name="Agree").click()


async def test_by_the_provider_and_on_to_the_page_that_was_asked_for(at: str, issuer: Issuer, open_page: Open) -> None:
    async with open_page(f"{ROOT}/new?rights=execution", at=at, may_ask=issuer.url) as page:
        await look(page, "sign-in-provider")
        await agree(page)
        await page.get_by_role("heading", name="New API key").wait_for()
        assert page.url == f"{at}{ROOT}/new?rights=execution"
        assert await page.get_by_role("radio", name="Execution 17").is_checked()
        cookies = {cookie["name"]: cookie for cookie in await page.context.cookies(at)}
        assert cookies["aegis-sign-in"]["sameSite"] == "Strict"
        assert cookies["aegis-sign-in"]["httpOnly"] is True
        assert "aegis-sign-in-flow" not in cookies
        assert await page.evaluate("document.cookie") == ""


async def test_whoever_does_not_agree_is_told_and_may_try_again(at: str, issuer: Issuer, open_page: Open) -> None:
    async with open_page(ROOT, at=at, may_ask=issuer.url, may_fail=("401",)) as page:
        await page.get_by_role("link", name="Sign in with your account").click()
        await page.get_by_role("button", name="Deny").click()
        await page.get_by_role("alert").wait_for()
        await look(page, "sign-in-denied")
        await agree(page)
        await page.get_by_role("heading", name="No API keys yet").wait_for()


async def test_anothers_way_back_signs_nobody_in(at: str, issuer: Issuer, open_page: Open) -> None:
    """An attacker signs in as themselves, stops before the end, and gives the last link to a victim."""
    async with open_page(ROOT, at=at, may_ask=issuer.url) as attacker:
        await attacker.get_by_role("link", name="Sign in with your account").click()
        await attacker.get_by_role("button", name="Agree").wait_for()
        agreed = await attacker.context.request.get(f"{attacker.url}&answer=agree", max_redirects=0)
        link = agreed.headers["location"]
    async with open_page(ROOT, at=at, may_ask=issuer.url, may_fail=("401",)) as victim:
        for begun in (False, True):
            if begun:
                await victim.goto(ROOT)
                await victim.get_by_role("link", name="Sign in with your account").click()
                await victim.get_by_role("button", name="Agree").wait_for()
            await victim.goto(link)
            await victim.get_by_role("alert").wait_for()
            await victim.goto(ROOT)
            await victim.get_by_role("heading", name="Sign in").wait_for()


async def test_a_way_back_that_took_too_long_begins_anew(at: str, issuer: Issuer, open_page: Open) -> None:
    async with open_page(ROOT, at=at, may_ask=issuer.url, may_fail=("401",)) as page:
        await page.get_by_role("link", name="Sign in with your account").click()
        await page.get_by_role("button", name="Agree").wait_for()
        await page.context.clear_cookies(name="aegis-sign-in-flow")  # as the browser does after ten minutes
        await page.get_by_role("button", name="Agree").click()
        await page.get_by_role("alert").wait_for()
        await agree(page)
        await page.get_by_role("heading", name="No API keys yet").wait_for()


async def test_who_has_no_account_here_is_told_so(at: str, issuer: Issuer, open_page: Open) -> None:
    issuer.person = {"sub": "stranger"}
    async with open_page(ROOT, at=at, may_ask=issuer.url, may_fail=("403",)) as page:
        await agree(page)
        await page.get_by_role("alert").get_by_text("account").wait_for()
        await look(page, "sign-in-stranger")


async def test_a_provider_that_is_away_is_said_to_be(at: str, issuer: Issuer, open_page: Open) -> None:
    async with open_page(ROOT, at=at, may_fail=("503",)) as page:
        await issuer.stop()
        await page.get_by_role("link", name="Sign in with your account").click()
        await page.get_by_role("alert").wait_for()
        await look(page, "sign-in-provider-away")


async def test_signing_out_everywhere_ends_every_browser(
    at: str, issuer: Issuer, stage: Stage, open_page: Open
) -> None:
    async with (
        open_page(ROOT, at=at, may_ask=issuer.url) as first,
        open_page(f"{ROOT}/new?rights=developer", at=at, may_ask=issuer.url, may_fail=("401", "403")) as second,
    ):
        for page in (first, second):
            await agree(page)
        await second.get_by_label("Name", exact=True).fill("typed already")
        await first.get_by_role("button", name="Sign out everywhere").click()
        await first.get_by_role("heading", name="Sign in").wait_for()
        await look(first, "signed-out")
        await first.go_back()
        await first.get_by_role("heading", name="Sign in").wait_for()
        await second.get_by_role("button", name="Create key").click()
        await second.get_by_text("Your sign-in has ended, and nothing was changed.").wait_for()
        assert await second.get_by_label("Name", exact=True).input_value() == "typed already"
        await look(second, "sign-in-ended")
        async with second.expect_popup() as opened:
            await second.get_by_role("link", name="Sign in again").click()
        again = await opened.value
        await agree(again)
        await again.get_by_role("heading", name="New API key").wait_for()
        await second.get_by_role("button", name="Create key").click()  # as the one who typed it, by the new sign-in
        await second.get_by_role("heading", name="Your new key: typed already").wait_for()
        stage.note_secret(await second.get_by_label("The whole key").inner_text())


async def test_signing_out_here_leaves_other_browsers_alone(at: str, issuer: Issuer, open_page: Open) -> None:
    async with (
        open_page(ROOT, at=at, may_ask=issuer.url) as first,
        open_page(ROOT, at=at, may_ask=issuer.url) as second,
    ):
        for page in (first, second):
            await agree(page)
            await page.get_by_role("heading", name="No API keys yet").wait_for()
        await first.get_by_role("button", name="Sign out", exact=True).click()
        await first.get_by_role("heading", name="Sign in").wait_for()
        await second.reload()
        await second.get_by_role("heading", name="No API keys yet").wait_for()


@pytest.mark.parametrize("column", ["seen_at", "created_at"])
async def test_a_sign_in_that_rested_or_lasted_too_long_ends(
    column: str, at: str, issuer: Issuer, stage: Stage, open_page: Open
) -> None:
    async with open_page(ROOT, at=at, may_ask=issuer.url) as page:
        await agree(page)
        await page.get_by_role("heading", name="No API keys yet").wait_for()
        await stage.sql(f"UPDATE sign_ins SET {column} = {column} - interval '13 hours'")
        await page.get_by_role("link", name="Connect").click()
        await page.get_by_role("heading", name="Sign in").wait_for()
        await agree(page)
        await page.get_by_role("heading", name="Connect a client").wait_for()


async def test_by_a_key_and_with_it_ends(proxy: Proxy, stage: Stage, open_page: Open) -> None:
    admin, reader = await stage.mint("full-access", tier="enterprise"), await stage.mint("read-only")
    async with open_page(ROOT, at=f"http://{proxy.data_address}", may_fail=("401", "403")) as page:
        await look(page, "sign-in")
        await page.get_by_label("API key that may manage keys").fill("aegis_no_key")
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("alert").wait_for()
        await look(page, "sign-in-no-key")
        await page.get_by_label("API key that may manage keys").fill(reader.token)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("alert").get_by_text("right to manage keys").wait_for()
        await look(page, "sign-in-refused")
        await page.get_by_label("API key that may manage keys").fill(admin.token)
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="API keys").wait_for()
        assert admin.token[20:50] not in await page.content()
        await stage.revoke_by_sql(admin)
        await page.reload()
        await page.get_by_role("heading", name="Sign in").wait_for()
