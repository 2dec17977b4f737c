"""The page in a real Chromium: `make test-browser`. Not part of `make test`, which needs no browser."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, Page, async_playwright

from proxy.demo.sample_server import SampleServer
from proxy.policy_files import PolicyFiles
from proxy.server import Proxy
from tests.browser.looks import SIZES
from tests.console.visiting import Visitor, visit
from tests.staging import GUARD_SECONDS, Stage

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
UNWANTED = ["--disable-back-forward-cache"]  # people's browsers keep pages as they stood
Open = Callable[..., Any]
# A browser takes the whole machine for a while, and leases that are lost meanwhile are not what journeys are about.
PATIENT: dict[str, dict[str, Any]] = {
    "database": {"query_timeout_seconds": 10.0},
    "revocation": {"heartbeat_seconds": 0.5, "lease_seconds": 10.0},
}


class PatientStage(Stage):
    """Its proxies put up with a busy machine."""

    @asynccontextmanager
    async def proxy(
        self, upstream_url: str, policy_files: PolicyFiles | None = None, /, **sections: dict[str, Any]
    ) -> AsyncIterator[Proxy]:
        patient = {name: {**PATIENT.get(name, {}), **sections.get(name, {})} for name in {*PATIENT, *sections}}
        async with super().proxy(upstream_url, policy_files, **patient) as proxy:
            yield proxy


@pytest.fixture
def stage(stage: Stage) -> Stage:
    return PatientStage(**{field.name: getattr(stage, field.name) for field in fields(stage)})


@pytest.fixture
async def visitor(http: aiohttp.ClientSession, stage: Stage, sample: SampleServer) -> AsyncIterator[Visitor]:
    async with visit(http, stage, sample.url) as visitor:
        yield visitor


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "there is no Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS, ignore_default_args=UNWANTED)
        yield browser
        await browser.close()


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Open:
    """A fresh visit, of `at` or of the visitor's proxy. What no page of ours may do fails the test at its end: errors
    in the console, other hosts. `may_fail`: words of errors that the test provokes; `may_ask`: another host."""

    @asynccontextmanager
    async def open_page(
        path: str,
        *,
        at: str | None = None,
        size: str = "wide",
        may_fail: tuple[str, ...] = (),
        may_ask: str | None = None,
        **options: Any,
    ) -> AsyncIterator[Page]:
        url = at or request.getfixturevalue("visitor").url
        context = await browser.new_context(
            viewport=SIZES[size],
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
        hosts = (url,) if may_ask is None else (url, may_ask)
        page.on("request", lambda asked: None if asked.url.startswith(hosts) else faults.append(asked.url))
        await page.goto(path)
        yield page
        await context.close()
        assert [fault for fault in faults if not any(word in fault for word in may_fail)] == []

    return open_page
