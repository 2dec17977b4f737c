"""A browser that runs no scripts: everything can be read, and a key be stopped."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright

from proxy.identity import KeyId
from proxy.server import Proxy
from tests.browser.conftest import FLAGS
from tests.browser.looks import PICTURES, SIZES
from tests.constrained_keys import mint_child
from tests.staging import GUARD_SECONDS, Stage

ROOT = "/settings/api-keys"
SCRIPTLESS = "--blink-settings=scriptEnabled=false"  # unlike a context without JavaScript, this one shows <noscript>


async def picture(page: Page, name: str) -> None:
    """In every size; what looks at accessibility is a script."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for size, viewport in SIZES.items():
        await page.set_viewport_size(viewport)
        await page.screenshot(path=PICTURES / f"{name}-{size}.png", full_page=True)


@pytest.fixture
async def page(proxy: Proxy) -> AsyncIterator[Page]:
    path = shutil.which("chromium")
    assert path is not None, "there is no Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*FLAGS, SCRIPTLESS])
        context = await browser.new_context(base_url=f"http://{proxy.data_address}", viewport=SIZES["wide"])
        context.set_default_timeout(GUARD_SECONDS * 1000)
        yield await context.new_page()
        await browser.close()


async def test_without_scripts_keys_are_read_and_stopped(page: Page, stage: Stage) -> None:
    admin = await stage.mint("full-access", name="admin")
    await page.goto(f"{ROOT}?q=admin")
    await page.get_by_label("API key that may manage keys").fill(admin.token)
    await page.get_by_role("button", name="Sign in").click()
    assert await page.get_by_label("Search by name or id").input_value() == "admin"
    await page.goto(f"{ROOT}/new?rights=developer")
    told = page.locator("noscript .notice")
    await told.wait_for()
    assert "Creating a key here needs scripts" in await told.inner_text()
    assert await page.locator("main button:visible").count() == 0
    await picture(page, "scriptless-new")


async def test_without_scripts_a_key_is_revoked_for_good(page: Page, stage: Stage, proxy: Proxy) -> None:
    admin = await stage.mint("full-access", name="admin")
    link = proxy.office.links.make(KeyId(admin.summary.id), 1)
    await page.goto(f"/settings/sign-in/link?once={link}")
    await page.get_by_role("heading", name="API keys", exact=True).wait_for()
    child = (await mint_child(stage, admin)).summary.id
    await page.get_by_label("Search by name or id").fill(f"aegis_{child}")
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("link", name="child").click()
    await page.locator("noscript h2").wait_for()
    await picture(page, "scriptless-key")
    await page.locator("form[action$='/disable'] button").click()
    await page.locator("#head", has_text="Disabled").wait_for()
    await page.locator("form[action$='/enable'] button").click()
    await page.locator("#head", has_text="Active").wait_for()
    revoke = page.locator("form[action$='/revoke']")
    await revoke.locator("button").click()  # the browser wants the box ticked first
    assert await revoke.locator("[name=sure]:invalid").count() == 1
    await revoke.locator("[name=reason]").fill("left with a contractor")
    await revoke.locator("[name=sure]").check()
    await revoke.locator("button").click()
    await page.locator("#head", has_text="Revoked").wait_for()
    await page.locator("#facts", has_text="left with a contractor").wait_for()
    assert await page.locator("main button:visible").count() == 0
    await page.goto(f"{ROOT}/{child}/edit")
    await page.get_by_text("This key cannot be changed").wait_for()
