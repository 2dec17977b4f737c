"""The page behind a proxy that takes a part of the path away, as `server.public_url` says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from proxy.demo.sample_server import SampleServer
from proxy.identity import KeyId
from proxy.server import Proxy
from tests.browser.conftest import Open
from tests.staging import Stage

PREFIX = "/gate/keys"
HOME = f"{PREFIX}/settings/api-keys"
KEPT = (
    "Content-Type",
    "Content-Encoding",
    "Location",
    "Set-Cookie",
    "Content-Security-Policy",
    "Cache-Control",
    "ETag",
)


class Gate:
    """What stands before: everything below the prefix is ours, and nothing else is there. `url`: its own."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.proxy: Proxy | None = None
        self.strays: list[str] = []
        self.url = ""

    async def start(self) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self._handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if not request.raw_path.startswith(f"{PREFIX}/"):
            self.strays.append(request.raw_path)
            return web.Response(status=404)
        assert self.proxy is not None
        url = f"http://{self.proxy.data_address}{request.raw_path.removeprefix(PREFIX)}"
        body = await request.read()
        async with self._http.request(
            request.method, url, headers=request.headers, data=body or None, allow_redirects=False
        ) as answer:
            relayed = web.Response(status=answer.status, body=await answer.read())
            for name in KEPT:
                for value in answer.headers.getall(name, ()):
                    relayed.headers.add(name, value)
            return relayed


@pytest.fixture
async def gate(http: aiohttp.ClientSession, stage: Stage, sample: SampleServer) -> AsyncIterator[Gate]:
    gate = Gate(http)
    runner = await gate.start()
    async with stage.proxy(sample.url, server={"public_url": gate.url + PREFIX}) as gate.proxy:
        yield gate
    await runner.cleanup()
    assert gate.strays == []


async def test_a_key_is_made_tried_edited_and_revoked_behind_a_prefix(
    gate: Gate, stage: Stage, open_page: Open
) -> None:
    admin = await stage.mint("full-access", name="admin")
    async with open_page(f"{HOME}/new?rights=developer", at=gate.url, may_fail=("401",)) as page:
        await page.get_by_label("API key that may manage keys").fill(admin.token)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_label("Name", exact=True).fill("ci")
        await page.get_by_role("button", name="Create key").click()
        stage.note_secret(await page.get_by_label("The whole key").inner_text())
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Test now").click()
        await dialog.get_by_text("It works: ada").wait_for()
        await dialog.get_by_role("tab", name="curl").click()
        assert f"{gate.url}{PREFIX}/mcp/v1" in await dialog.get_by_role("tabpanel").inner_text()
        await dialog.get_by_role("button", name="I saved it", exact=True).click()
        await page.get_by_role("heading", name="ci", exact=True).wait_for()
        assert page.url.startswith(f"{gate.url}{HOME}/")
        await page.get_by_role("link", name="Edit").click()
        await page.get_by_label("Name", exact=True).fill("cd")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_role("heading", name="cd", exact=True).wait_for()
        await page.get_by_role("button", name="Revoke").click()
        await page.get_by_role("button", name="Revoke for good").click()
        await page.get_by_text("Refused on 1 of 1 instances").wait_for()
        await page.get_by_role("button", name="Done").click()
        await page.locator("#head", has_text="Revoked").wait_for()

        await page.goto(HOME)
        await page.get_by_label("Search by name or id").type("cd")
        await page.get_by_role("link", name="admin", exact=True).wait_for(state="detached")
        await page.goto(f"{HOME}/new")
        await stage.sql("DELETE FROM sign_ins")
        await page.get_by_label("Name", exact=True).fill("late")
        await page.get_by_role("radio", name="Read-Only").check()
        await page.get_by_role("button", name="Create key").click()
        async with page.expect_popup() as opened:
            await page.get_by_role("link", name="Sign in again").click()
        again = await opened.value
        await again.get_by_label("API key that may manage keys").fill(admin.token)
        await again.get_by_role("button", name="Sign in").click()
        await again.get_by_role("heading", name="New API key").wait_for()
        assert again.url == f"{gate.url}{HOME}/new"
        await again.get_by_role("button", name="Sign out", exact=True).click()
        await again.get_by_role("heading", name="Sign in").wait_for()


async def test_the_link_that_signs_in_once_leads_behind_the_prefix(gate: Gate, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access", name="admin")
    assert gate.proxy is not None
    link = gate.proxy.office.links.make(KeyId(admin.summary.id), 1)
    async with open_page(f"{PREFIX}/settings/sign-in/link?once={link}", at=gate.url) as page:
        await page.get_by_role("link", name="admin", exact=True).wait_for()
        assert page.url == gate.url + HOME
