"""Keys made each way and lived to their end: at a desk, on a phone, and by keyboard alone."""

from __future__ import annotations

import asyncio

import pytest
from mcp.shared.exceptions import MCPError
from playwright.async_api import Page

from proxy.demo.sample_server import SampleServer
from proxy.server import Proxy
from tests.browser.conftest import Open
from tests.browser.leftovers import find_leftovers
from tests.console.visiting import Visitor
from tests.staging import GUARD_SECONDS, Stage, connect, get_mcp_url

ROOT = "/settings/api-keys"
WAYS = {
    "Read-Only": "read-only",
    "Execution 17": "execution",
    "Developer": "developer",
    "Full Access": "full-access",
    "One workflow only": ["workflow:run:nightly-etl"],
    "Custom": ["agent:list", "volume:read:v-1", "volume:read:v-2"],
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_is_made_each_way(way: str, visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("full-access", tier="enterprise")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/new") as page:
        await page.get_by_label("Name", exact=True).fill("made by hand")
        await page.get_by_role("radio", name=way).check()
        if way == "One workflow only":
            await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        if way == "Custom":
            await page.get_by_role("checkbox", name="List and search agents").check()
            await page.get_by_label("Search rights").fill("volume:read")
            await page.get_by_role("checkbox", name="volume:read").check()
            await page.get_by_label("only these").locator("visible=true").fill("v-1\nv-2")
        can = await page.locator("[data-list=can] li").all_inner_texts()
        await page.get_by_role("radio", name="In 7 days").check()
        await page.get_by_role("button", name="Create key").click()
        token = await page.get_by_label("The whole key").inner_text()
        visitor.stage.note_secret(token)
        await page.get_by_role("button", name="I saved it", exact=True).click()
        await page.get_by_role("heading", name="made by hand", exact=True).wait_for()
    (row,) = await visitor.stage.database.fetch(
        "SELECT preset, scopes, expires_at - created_at AS life FROM api_keys WHERE name = 'made by hand'"
    )
    assert WAYS[way] == (row["preset"] or sorted(row["scopes"]))
    assert row["life"].days in (6, 7)
    if way == "Custom":
        assert can == ["List and search agents", "List and read files: only v-1, v-2"]
    async with connect(get_mcp_url(visitor.proxy), token) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
    assert ("aegis.agent.list" in tools) is (way != "One workflow only")
    assert ("aegis.workflow.run" in tools) is (way not in ("Read-Only", "Custom"))


async def test_a_stream_is_watched_until_its_key_is_revoked(
    visitor: Visitor, sample: SampleServer, open_page: Open
) -> None:
    sample.platform.run_seconds, sample.platform.steps = 600, 6000
    key = await visitor.stage.mint(name="etl")
    await visitor.sign_in()
    running = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        running.set()

    async with open_page(f"{ROOT}/{key.summary.id}") as page:
        await page.get_by_text("None right now.").wait_for()
        async with asyncio.timeout(GUARD_SECONDS), connect(get_mcp_url(visitor.proxy), key.token, "legacy") as client:
            call = asyncio.create_task(
                client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}, progress_callback=hear)
            )
            await running.wait()
            await page.get_by_role("cell", name="mcp", exact=True).wait_for()
            await page.get_by_role("button", name="Revoke").click()
            await page.locator("[data-sessions]", has_text="1").wait_for()
            assert not call.done()
            await page.get_by_role("button", name="Revoke for good").click()
            with pytest.raises(MCPError) as ended:
                await call
            assert ended.value.error.data["reason"] == "key_revoked"
            await page.get_by_text("Refused on 1 of 1 instances").wait_for()
            assert "1 running call" in await page.locator("#receipt").inner_text()
        await page.get_by_role("button", name="Done").click()
        await page.get_by_text("None right now.").wait_for()
        assert await page.get_by_role("button", name="Revoke").count() == 0


async def test_on_a_phone(proxy: Proxy, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access", name="admin")
    at = f"http://{proxy.data_address}"
    async with open_page(ROOT, at=at, size="phone", has_touch=True, is_mobile=True) as page:
        await page.get_by_label("API key that may manage keys").fill(admin.token)
        await page.get_by_role("button", name="Sign in").tap()
        await page.get_by_role("link", name="New API key").tap()
        await page.get_by_label("Name", exact=True).fill("pocket")
        await page.get_by_text("Read-Only", exact=True).tap()
        await page.get_by_role("button", name="Create key").tap()
        token = await page.get_by_label("The whole key").inner_text()
        stage.note_secret(token)
        await page.get_by_role("tab", name="curl").tap()
        await page.get_by_role("button", name="Test now").tap()
        await page.get_by_text("It works: ada").wait_for()
        await page.get_by_role("button", name="I saved it", exact=True).tap()
        await page.get_by_role("heading", name="pocket", exact=True).wait_for()
        assert await find_leftovers(page, token) == []
        await check_targets(page)
        await page.get_by_role("button", name="Rotate").tap()
        await page.get_by_text("No longer").tap()
        await page.get_by_role("dialog").get_by_role("button", name="Rotate").tap()
        stage.note_secret(await page.get_by_label("The whole key").inner_text())
        await page.get_by_role("button", name="I saved it", exact=True).tap()
        await page.get_by_role("button", name="Revoke").tap()
        await page.get_by_role("button", name="Revoke for good").tap()
        await page.get_by_role("button", name="Done").tap()
        await page.locator("#head", has_text="Revoked").wait_for()
        await page.get_by_role("link", name="API keys").first.tap()
        await page.get_by_role("link", name="pocket").wait_for()
        await check_targets(page)


async def check_targets(page: Page) -> None:
    """What one presses is large enough for a finger: 24 pixels at least (WCAG 2.2, 2.5.8), buttons 36."""
    small = await page.evaluate("""() => [...document.querySelectorAll("button, .button, input, select, summary")]
        .map(one => [one, (one.closest("label") ?? one).getBoundingClientRect().height])
        .filter(([one, height]) => height > 0 && height < (one.matches("button, .button, select") ? 36 : 24))
        .map(([one]) => one.outerHTML.slice(0, 80))""")
    assert small == []


async def test_by_keyboard_alone(proxy: Proxy, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access", name="admin")
    async with open_page(ROOT, at=f"http://{proxy.data_address}") as page:
        await reach(page, "API key that may manage keys")
        await page.keyboard.insert_text(admin.token)
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="API keys").wait_for()
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
        await reach(page, "New API key")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="New API key").wait_for()
        await reach(page, "Name")
        await page.keyboard.type("by keyboard")
        await page.keyboard.press("Tab")
        await page.keyboard.press("ArrowDown")
        await reach(page, "Create key")
        await page.keyboard.press("Space")
        token = await page.get_by_label("The whole key").inner_text()
        stage.note_secret(token)
        assert await page.evaluate("document.activeElement.textContent.trim()") == "Copy"
        await page.keyboard.press("Escape")
        await page.get_by_text("Did you save it?").wait_for()
        await reach(page, "I saved it: close")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="by keyboard", exact=True).wait_for()
        await reach(page, "Tool")
        await page.keyboard.type("aegis.agent.list")
        await page.keyboard.press("Enter")
        await page.locator("#answer .notice").wait_for()
        await page.keyboard.press("Shift+Tab")
        await reach(page, "Disable", "Shift+Tab")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Enable").wait_for()
        await page.wait_for_function("document.activeElement.textContent === 'Enable'")
        await reach(page, "Revoke")
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog").wait_for()
        await page.keyboard.press("Escape")
        await page.get_by_role("dialog").wait_for(state="hidden")
        await page.wait_for_function("document.activeElement.textContent === 'Revoke'")
        await page.keyboard.press("Enter")
        await reach(page, "Revoke for good")
        await page.keyboard.press("Enter")
        await page.get_by_text("Refused on 1 of 1 instances").wait_for()
        await reach(page, "Done")
        await page.keyboard.press("Enter")
        await page.locator("#head", has_text="Revoked").wait_for()


async def reach(page: Page, name: str, key: str = "Tab") -> None:
    """Press until what is called so has the focus, which can be seen at every step of the way."""
    for _ in range(80):
        label, seen = await page.evaluate("""() => {
            const one = document.activeElement;
            const label = one.labels?.[0]?.textContent ?? one.ariaLabel ?? one.textContent;
            const shown = one.closest(".choice") ?? one;
            const style = getComputedStyle(shown);
            return [label.trim(), one === document.body || style.outlineStyle !== "none" || one.tabIndex < 0];
        }""")
        assert seen, f"nothing shows that the focus is on {label}"
        if label == name:
            return
        await page.keyboard.press(key)
    raise AssertionError(f"{name} is not reached by {key}")
