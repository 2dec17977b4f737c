"""Every state of the page, at two widths, light and dark: kept as pictures, and checked for accessibility."""

from __future__ import annotations

from datetime import timedelta

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.conftest import Open, picture
from tests.console.visiting import Visitor

LOOKS = [(size, scheme) for size in ("wide", "phone") for scheme in ("light", "dark")]
LEVELS = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
pytestmark = pytest.mark.parametrize(("size", "scheme"), LOOKS)


async def look(page: Page, name: str) -> None:
    await picture(page, name)
    found = await Axe().run(page, options=LEVELS)
    assert found.violations_count == 0, found.generate_report()


async def fill(visitor: Visitor) -> str:
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
    return key.summary.id


async def test_the_list(visitor: Visitor, open_page: Open, size: str, scheme: str) -> None:
    await fill(visitor)
    async with open_page("/settings/api-keys", size, scheme) as page:
        await page.get_by_role("heading", name="API keys").wait_for()
        await look(page, f"list-{size}-{scheme}")


async def test_nothing_there_yet(visitor: Visitor, open_page: Open, size: str, scheme: str) -> None:
    key = await visitor.stage.mint("read-only", name="gone")
    await visitor.stage.sql("DELETE FROM api_keys WHERE id = $1", key.summary.id)
    await visitor.sign_in()
    async with open_page("/settings/api-keys", size, scheme) as page:
        await page.get_by_role("heading", name="No API keys yet").wait_for()
        await look(page, f"empty-{size}-{scheme}")


async def test_connecting(visitor: Visitor, open_page: Open, size: str, scheme: str) -> None:
    await fill(visitor)
    async with open_page("/settings/api-keys/connect", size, scheme) as page:
        await page.get_by_role("heading", name="Connect a client").wait_for()
        await look(page, f"connect-{size}-{scheme}")


async def test_a_page_that_is_not_there(visitor: Visitor, open_page: Open, size: str, scheme: str) -> None:
    await fill(visitor)
    async with open_page("/settings/nothing", size, scheme, may_fail=("404",)) as page:
        await page.get_by_role("heading", name="Not found").wait_for()
        await look(page, f"refused-{size}-{scheme}")
