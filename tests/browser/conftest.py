"""The page in a real Chromium: `make test-browser`. Not part of `make test`, which needs no browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from proxy.demo.sample_server import SampleServer
from tests.console.visiting import Visitor, visit
from tests.staging import GUARD_SECONDS, Stage

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PICTURES = Path(os.environ.get("AEGIS_PICTURES", ".venv/pictures"))
SIZES: dict[str, ViewportSize] = {
    "wide": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}
Open = Callable[..., Any]
Scheme = Literal["light", "dark"]


@pytest.fixture
async def visitor(http: aiohttp.ClientSession, stage: Stage, sample: SampleServer) -> AsyncIterator[Visitor]:
    async with visit(http, stage, sample.url) as visitor:
        yield visitor


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "there is no Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Open:
    """A fresh visit, of `at` or of the visitor's proxy. What no page of ours may do fails the test at its end: errors
    in the console, other hosts."""

    @asynccontextmanager
    async def open_page(
        path: str,
        size: str = "wide",
        scheme: Scheme = "light",
        *,
        at: str | None = None,
        may_fail: tuple[str, ...] = (),
        **options: Any,
    ) -> AsyncIterator[Page]:
        url = at or request.getfixturevalue("visitor").url
        context = await browser.new_context(
            viewport=SIZES[size],
            color_scheme=scheme,
            base_url=url,
            locale="en-GB",
            timezone_id="Europe/Berlin",
            **options,
        )
        context.set_default_timeout(GUARD_SECONDS * 1000)
        page = await context.new_page()
        faults: list[str] = []
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(url) else None)
        await page.goto(path)
        yield page
        await context.close()
        assert [fault for fault in faults if not any(word in fault for word in may_fail)] == []

    return open_page


async def picture(page: Page, name: str) -> None:
    """Kept for whoever looks at them one by one; nothing may be wider than the window."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
