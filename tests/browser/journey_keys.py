"""Whole journeys: a key from its making to its end, and what goes wrong on the way."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, Route

from proxy.server import Proxy
from tests.browser.conftest import Open
from tests.browser.leftovers import find_leftovers
from tests.console.visiting import Visitor
from tests.staging import Stage, connect, get_mcp_url

ROOT = "/settings/api-keys"
FIRST_LOAD_BYTES = 100_000
CLIPBOARD = ["clipboard-read", "clipboard-write"]


async def make_key(page: Page, name: str, workflow: str = "nightly-etl") -> str:
    """By hand, up to the dialog that shows it."""
    await page.goto(f"{ROOT}/new?rights=one")
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Workflow", exact=True).fill(workflow)
    await page.get_by_role("button", name="Create key").click()
    return await page.get_by_label("The whole key").inner_text()


async def test_a_key_is_made_used_watched_and_revoked(proxy: Proxy, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access", name="admin")
    at = f"http://{proxy.data_address}"
    async with open_page(ROOT, at=at, permissions=CLIPBOARD) as page:
        await page.get_by_label("API key that may manage keys").fill(admin.token)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="New API key").click()
        token = await make_key(page, "etl")
        stage.note_secret(token)
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Copy").first.click()
        await dialog.get_by_role("button", name="Copied").wait_for()
        assert await page.evaluate("navigator.clipboard.readText()") == token
        await dialog.get_by_role("button", name="Test now").click()
        await dialog.get_by_text("It works: ada, tier pro, 1 right, until").wait_for()
        await dialog.get_by_role("tab", name="Claude Desktop").click()
        assert token in await dialog.get_by_role("tabpanel").inner_text()
        await dialog.get_by_role("tab", name="Python SDK").click()
        assert f'AegisClient(api_key="{token}")' in await dialog.get_by_role("tabpanel").inner_text()
        await dialog.get_by_role("tab", name="TypeScript SDK").click()
        assert f'new AegisClient({{ apiKey: "{token}" }})' in await dialog.get_by_role("tabpanel").inner_text()
        await dialog.get_by_role("button", name="I saved it", exact=True).click()
        await page.get_by_role("heading", name="etl", exact=True).wait_for()
        assert await find_leftovers(page, token) == []
        await page.go_back()
        assert await find_leftovers(page, token) == []
        await page.go_forward()
        await page.reload()
        assert await find_leftovers(page, token) == []

        async with connect(get_mcp_url(proxy), token, "legacy") as client:
            assert (await client.call_tool("aegis.workflow.run", {"name": "nightly-etl"})).is_error is False
            await page.get_by_role("cell", name="mcp", exact=True).wait_for()
            await page.get_by_role("button", name="Revoke").click()
            await page.get_by_role("button", name="Revoke for good").click()
            await page.get_by_text("Refused on 1 of 1 instances").wait_for()
        await page.get_by_role("button", name="Done").click()
        await page.locator("#head", has_text="Revoked").wait_for()
        await page.get_by_role("button", name="Sign out", exact=True).click()
        await page.get_by_role("heading", name="Sign in").wait_for()
        await page.go_back()
        await page.get_by_role("heading", name="Sign in").wait_for()


async def test_a_key_that_was_not_saved_is_discarded(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        visitor.stage.note_secret(await make_key(page, "lost"))
        dialog = page.get_by_role("dialog")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await dialog.get_by_text("Did you save it?").wait_for()
        await dialog.get_by_role("button", name="Back to the key").click()
        await page.mouse.click(5, 5)
        await dialog.get_by_text("Did you save it?").wait_for()
        await dialog.get_by_role("button", name="Discard it").click()
        await page.get_by_role("row", name="lost").get_by_text("Revoked").wait_for()


async def test_a_blocked_clipboard_leaves_the_key_marked_for_ones_own_hand(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        client = await page.context.new_cdp_session(page)
        told = await client.send("Target.getTargetInfo")
        blocked = {"permission": {"name": "clipboard-write"}, "setting": "denied", "origin": visitor.url}
        whose = {"browserContextId": told["targetInfo"]["browserContextId"]}
        await client.send("Browser.setPermission", {**blocked, **whose})
        token = await make_key(page, "by hand")
        visitor.stage.note_secret(token)
        await page.get_by_role("dialog").get_by_role("button", name="Copy").first.click()
        await page.get_by_role("button", name="Press Ctrl+C").wait_for()
        assert await page.evaluate("getSelection().toString()") == token


async def test_a_sign_in_that_ended_loses_nothing_that_was_typed(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/new?rights=developer", may_fail=("401",)) as page:
        await page.get_by_label("Name", exact=True).fill("typed already")
        visitor.caller = None
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Your sign-in has ended, and nothing was changed.").wait_for()
        assert await page.get_by_label("Name", exact=True).input_value() == "typed already"
        link = page.get_by_role("link", name="Sign in again")
        assert (
            await link.get_attribute("href")
            == f"/settings/sign-in?next={'%2Fsettings%2Fapi-keys%2Fnew%3Frights%3Ddeveloper'}"
        )
        assert await link.get_attribute("target") == "_blank"


async def test_an_answer_that_gets_lost_makes_no_second_key(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    async with open_page(f"{ROOT}/new?rights=developer", may_fail=("ERR_FAILED",)) as page:
        await page.route("**/settings/v1/api-keys", lose, times=1)
        await page.get_by_label("Name", exact=True).fill("twice")
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("The server cannot be reached.").wait_for()
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("It was done, but the answer").wait_for()
        rows = await visitor.stage.database.fetch("SELECT id FROM api_keys WHERE name = 'twice'")
        assert len(rows) == 1
        await page.get_by_role("link", name="Open it, and rotate it").click()
        await page.get_by_role("heading", name="twice").wait_for()


async def test_what_the_server_refuses_stands_beside_its_field(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer", name="taken")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/new?rights=developer", may_fail=("409", "422")) as page:
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Give it a name.").wait_for()
        await page.get_by_label("Name", exact=True).fill("taken")
        await page.get_by_role("button", name="Create key").click()
        await page.locator("#name-fault", has_text="taken").wait_for()
        assert await page.evaluate("document.activeElement.id") == "name"
        await page.get_by_label("Name", exact=True).fill("free")
        await page.get_by_text("Constraints: from where").click()
        await page.get_by_label("Only from these addresses").fill("10.0.0.1/8")
        await page.get_by_role("button", name="Create key").click()
        await page.locator("[data-for='constraints.sources']:not(:empty)").wait_for()


async def test_everything_can_be_done_by_keyboard(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/new") as page:
        await page.get_by_label("Name", exact=True).focus()
        await page.keyboard.type("by keyboard")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Space")
        await page.keyboard.press("Enter")
        output = page.get_by_label("The whole key")
        visitor.stage.note_secret(await output.inner_text())
        for _ in range(12):  # round and round, and never out of the dialog into the page behind it
            await page.keyboard.press("Tab")
            assert await page.evaluate(
                "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
            )
        await page.get_by_role("tab", name="Claude Code").focus()
        await page.keyboard.press("ArrowRight")
        assert await page.evaluate("document.activeElement.textContent") == "Claude Desktop"
        assert "mcpServers" in await page.get_by_role("tabpanel").inner_text()


@pytest.mark.parametrize("place", ["", "/new", "/connect", "/KEY", "/KEY/edit"])
async def test_a_first_visit_is_small(place: str, visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(ROOT + place.replace("KEY", key.summary.id)) as page:
        await page.wait_for_load_state("networkidle")
        sizes = await page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map(entry => entry.transferSize)"
        )
        assert 10_000 < sum(sizes) < FIRST_LOAD_BYTES, sizes


async def test_without_scripts_everything_can_be_read(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop")
    await visitor.sign_in()
    async with open_page(ROOT, java_script_enabled=False) as page:
        await page.get_by_label("Search by name or id").fill("LAP")
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("link", name="laptop").click()
        await page.get_by_text(f"aegis_{key.summary.id}").wait_for()
        await page.get_by_role("heading", name="History").wait_for()
        assert await page.locator("main button:visible:not(noscript button)").count() == 0
        await page.goto(f"{ROOT}/new")
        assert "<noscript>" in await page.content()  # what stands there is tried in journey_scriptless
        assert await page.locator("main button:visible:not(noscript button)").count() == 0


async def test_the_list_follows_what_is_typed(visitor: Visitor, open_page: Open) -> None:
    for name in ("laptop", "ci", "etl"):
        await visitor.stage.mint("developer", name=name)
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        await page.get_by_label("Search by name or id").type("lap")
        await page.get_by_role("link", name="ci", exact=True).wait_for(state="detached")
        assert await page.get_by_role("link", name="laptop").count() == 1
        assert page.url.endswith("?q=lap")
        await page.get_by_label("State").select_option("Revoked")
        await page.get_by_text("Nothing found").wait_for()


async def test_a_pasted_key_is_searched_for_by_its_id(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop")
    await visitor.stage.mint("developer", name="ci")
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.get_by_label("Search by name or id").fill(key.token)
        await page.get_by_role("link", name="ci", exact=True).wait_for(state="detached")
        assert await page.get_by_role("link", name="laptop").count() == 1
        assert [url.partition("?")[2] for url in asked if "?" in url] == [f"q={key.summary.id}"]
        assert key.token[20:50] not in "".join(asked)
        assert await find_leftovers(page, key.token) == []


async def test_a_key_is_edited_after_it_was_disabled_and_enabled(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}") as page:
        await page.get_by_role("button", name="Disable").click()
        await page.get_by_role("button", name="Enable").click()
        await page.get_by_role("button", name="Disable").wait_for()
        assert await page.evaluate("document.activeElement.textContent") == "Disable"
        await page.get_by_role("link", name="Edit").click()
        await page.get_by_role("radio", name="In 30 days").check()
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.locator("#audit", has_text="expires at: none").wait_for()


async def test_searching_rights_makes_no_key(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/new?rights=custom") as page:
        await page.get_by_label("Name", exact=True).fill("not yet")
        await page.get_by_role("checkbox", name="List volumes").check()
        await page.get_by_label("Search rights").fill("volume")
        await page.get_by_label("Search rights").press("Enter")
        assert await page.get_by_role("dialog").count() == 0
        assert await page.get_by_role("checkbox", name="List and search agents").is_visible() is False
        assert await visitor.stage.database.fetch("SELECT 1 FROM api_keys WHERE name = 'not yet'") == []
