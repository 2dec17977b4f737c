"""Pictures of the list, of what stands in its place, and of the other pages without a key."""

from __future__ import annotations

from datetime import timedelta

from proxy.demo.sample_server import SampleServer
from tests.browser.conftest import Open
from tests.browser.looks import look
from tests.browser.scenes import fill
from tests.console.visiting import Visitor

ROOT = "/settings/api-keys"


async def test_the_list_and_what_it_finds(visitor: Visitor, open_page: Open) -> None:
    await fill(visitor)
    async with open_page(ROOT) as page:
        await page.get_by_role("heading", name="API keys").wait_for()
        await look(page, "list")
        await page.get_by_label("State").select_option("Active")
        await page.get_by_label("Preset").select_option("Execution")
        await page.get_by_role("link", name="laptop").wait_for(state="detached")
        await look(page, "list-filtered")
        await page.get_by_label("Search by name or id").fill("nothing is called so")
        await page.get_by_text("Nothing found").wait_for()
        await look(page, "list-nothing-found")


async def test_pages_of_a_long_list(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer", name="the first")
    await visitor.stage.sql(
        "INSERT INTO api_keys (id, owner_id, name, preset, scopes, created_by, created_at, expires_at)"
        " SELECT lpad(n::text, 12, '0'), (SELECT id FROM owners), 'service ' || n, 'read-only', '{agent:list}', 'test',"
        " now() - n * interval '1 hour', now() + interval '60 days' FROM generate_series(1, 120) AS n"
    )
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        await page.get_by_role("link", name="Older keys").click()
        await page.get_by_role("link", name="Newest").wait_for()
        await look(page, "list-second-page")


async def test_an_admin_sees_whose_keys_they_are(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("full-access", name="mine", tier="enterprise")
    await visitor.stage.mint("developer", name="laptop", owner="grace.hopper@a-rather-long-domain.example")
    await visitor.stage.mint("read-only", name="dashboards", owner="alan", lifetime=timedelta(days=30))
    await visitor.sign_in(role="aegis:admin")
    async with open_page(ROOT) as page:
        await page.get_by_text("Owner: grace").wait_for()
        await look(page, "list-of-an-admin")


async def test_nothing_there_yet(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("read-only", name="gone")
    await visitor.stage.sql("DELETE FROM api_keys WHERE id = $1", key.summary.id)
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        await page.get_by_role("heading", name="No API keys yet").wait_for()
        await look(page, "empty")


async def test_connecting(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("read-only")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/connect") as page:
        await page.get_by_role("heading", name="Connect a client").wait_for()
        await look(page, "connect")
        await page.get_by_text("MCP in TypeScript", exact=True).click()
        await page.get_by_text("StreamableHTTPClientTransport").locator("visible=true").first.wait_for()
        await look(page, "connect-typescript")


async def test_what_is_not_there_or_not_theirs(visitor: Visitor, open_page: Open) -> None:
    lister = await visitor.stage.mint(scopes=("key:list",))
    await visitor.sign_in()
    async with open_page("/settings/nothing", may_fail=("404", "403")) as page:
        await page.get_by_role("heading", name="Not found").wait_for()
        await look(page, "not-found")
        await visitor.sign_in_by_key(lister.summary.id)
        await page.goto(f"{ROOT}/new")
        await page.get_by_text("key:create").wait_for()
        await look(page, "denied")


async def test_the_database_is_away(visitor: Visitor, sample: SampleServer, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}", may_fail=("503",)) as page:
        await page.get_by_role("link", name="Edit").wait_for()
        await visitor.stage.sql("ALTER TABLE api_keys RENAME TO api_keys_away")
        await page.get_by_role("button", name="Disable").click()
        await page.get_by_role("alert").get_by_text("database").wait_for()
        await look(page, "database-away")
        await page.reload()
        await page.get_by_role("heading").first.wait_for()
        await look(page, "database-away-page")
