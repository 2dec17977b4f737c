"""Every state of the page, at two widths, light and dark: kept as pictures, and checked for accessibility."""

from __future__ import annotations

from datetime import timedelta

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from proxy.keys.minting import MintedKey
from proxy.server import Proxy
from tests.browser.conftest import Open, Scheme, picture
from tests.console.visiting import Visitor
from tests.staging import Stage, connect, get_mcp_url

LOOKS = [(size, scheme) for size in ("wide", "phone") for scheme in ("light", "dark")]
LEVELS = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
pytestmark = pytest.mark.parametrize(("size", "scheme"), LOOKS)


async def look(page: Page, name: str) -> None:
    await picture(page, name)
    found = await Axe().run(page, options=LEVELS)
    assert found.violations_count == 0, found.generate_report()


async def fill(visitor: Visitor) -> MintedKey:
    """A list as one finds it after a while."""
    stage = visitor.stage
    await stage.mint("full-access", name="admin console", tier="enterprise")
    await stage.mint("developer", name="laptop", lifetime=timedelta(days=5))
    await stage.mint(scopes=("workflow:run:nightly-etl",), name="nightly etl", lifetime=timedelta(days=300))
    await stage.mint(
        scopes=("agent:list", "agent:read", "volume:read:v-1", "volume:list", "execution:read"), name="dashboards"
    )
    gone = await stage.mint("read-only", name="old reports")
    await stage.revoke_by_sql(gone)
    await stage.mint("read-only", name='<img src=x onerror="alert(1)"> "quoted" & long')
    key = await stage.mint("execution", name="ci", lifetime=timedelta(days=80))
    await visitor.sign_in()
    return key


async def test_the_list(visitor: Visitor, open_page: Open, size: str, scheme: Scheme) -> None:
    await fill(visitor)
    async with open_page("/settings/api-keys", size, scheme) as page:
        await page.get_by_role("heading", name="API keys").wait_for()
        await look(page, f"list-{size}-{scheme}")


async def test_nothing_there_yet(visitor: Visitor, open_page: Open, size: str, scheme: Scheme) -> None:
    key = await visitor.stage.mint("read-only", name="gone")
    await visitor.stage.sql("DELETE FROM api_keys WHERE id = $1", key.summary.id)
    await visitor.sign_in()
    async with open_page("/settings/api-keys", size, scheme) as page:
        await page.get_by_role("heading", name="No API keys yet").wait_for()
        await look(page, f"empty-{size}-{scheme}")


async def test_connecting(visitor: Visitor, open_page: Open, size: str, scheme: Scheme) -> None:
    await fill(visitor)
    async with open_page("/settings/api-keys/connect", size, scheme) as page:
        await page.get_by_role("heading", name="Connect a client").wait_for()
        await look(page, f"connect-{size}-{scheme}")


async def test_a_page_that_is_not_there(visitor: Visitor, open_page: Open, size: str, scheme: Scheme) -> None:
    await fill(visitor)
    async with open_page("/settings/nothing", size, scheme, may_fail=("404",)) as page:
        await page.get_by_role("heading", name="Not found").wait_for()
        await look(page, f"refused-{size}-{scheme}")


async def test_a_new_key(visitor: Visitor, open_page: Open, size: str, scheme: Scheme) -> None:
    await fill(visitor)
    async with open_page("/settings/api-keys/new?rights=read-only", size, scheme) as page:
        await page.get_by_label("Name", exact=True).fill("laptop of ada")
        await look(page, f"new-{size}-{scheme}")
        await page.get_by_role("radio", name="Custom").check()
        await page.get_by_label("Search rights").fill("workflow")
        await page.get_by_role("checkbox", name="Run workflows").check()
        await page.get_by_role("radio", name="On a date").check()
        await page.get_by_text("Constraints: from where").click()
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Choose the last day.").wait_for()
        await look(page, f"custom-{size}-{scheme}")
        await page.get_by_role("radio", name="One workflow only").check()
        await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        await page.get_by_role("radio", name="In 30 days").check()
        await page.get_by_role("button", name="Create key").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Test now").click()
        await dialog.get_by_text("It works: ada").wait_for()
        visitor.stage.note_secret(await dialog.get_by_label("The whole key").inner_text())
        await look(page, f"secret-{size}-{scheme}")
        await page.keyboard.press("Escape")
        await dialog.get_by_text("Did you save it?").wait_for()
        await dialog.get_by_role("tab", name="Claude Desktop").click()
        await look(page, f"sure-{size}-{scheme}")
        await dialog.get_by_role("button", name="Discard it").click()
        await page.get_by_role("heading", name="API keys", exact=True).wait_for()
        await page.locator("td", has_text="Revoked").first.wait_for()


async def test_one_key(visitor: Visitor, open_page: Open, size: str, scheme: Scheme) -> None:
    key = await fill(visitor)
    key_id = key.summary.id
    stage = visitor.stage
    await stage.sql(
        "INSERT INTO key_usage (key_id, day, use, rule, scopes, allowed, count, last_at)"
        " SELECT $1, current_date - d, sha256(d::text::bytea), 'mcp/' || d % 3, ARRAY['workflow:run'],"
        " d % 5 > 0, d * 7 % 40 + 1, now()"
        " FROM generate_series(0, 25) d", key_id,
    )  # fmt: skip
    async with (
        connect(get_mcp_url(visitor.proxy), key.token, "legacy"),
        open_page(f"/settings/api-keys/{key_id}", size, scheme) as page,
    ):
        await page.get_by_label("Tool").fill("aegis.workflow.delete")
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_text("Refused.").wait_for()
        await page.get_by_text("How the policy got there").click()
        await look(page, f"key-{size}-{scheme}")
        await page.get_by_role("button", name="Edit").click()
        await look(page, f"edit-{size}-{scheme}")
        await page.get_by_label("Name").fill("ci of billing")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_role("heading", name="ci of billing", exact=True).wait_for()
        await page.get_by_role("button", name="Rotate").click()
        await look(page, f"rotate-{size}-{scheme}")
        await page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        stage.note_secret(await page.get_by_label("The whole key").inner_text())
        await page.get_by_role("button", name="I saved it", exact=True).click()
        await page.get_by_role("heading", name="The old secret still works").wait_for()
        await page.get_by_role("button", name="Disable").click()
        await page.get_by_role("button", name="Enable").wait_for()
        await look(page, f"rotated-{size}-{scheme}")
        await page.get_by_role("button", name="Revoke").click()
        await look(page, f"revoke-{size}-{scheme}")
        await page.get_by_label("Reason").fill("left with a contractor")
        await page.get_by_role("button", name="Revoke for good").click()
        await page.get_by_text("Refused on 1 of 1 instances").wait_for()
        await look(page, f"receipt-{size}-{scheme}")
        await page.get_by_role("button", name="Done").click()
        await page.get_by_text("left with a contractor").first.wait_for()
        await look(page, f"revoked-{size}-{scheme}")


async def test_signing_in(proxy: Proxy, stage: Stage, open_page: Open, size: str, scheme: Scheme) -> None:
    key = await stage.mint("read-only")
    async with open_page(
        "/settings/api-keys", size, scheme, at=f"http://{proxy.data_address}", may_fail=("403",)
    ) as page:
        await look(page, f"sign-in-{size}-{scheme}")
        await page.get_by_label("API key that may manage keys").fill(key.token)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("alert").wait_for()
        await look(page, f"sign-in-refused-{size}-{scheme}")
