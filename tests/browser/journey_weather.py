"""A slow network, one that breaks, and ten thousand keys."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, Request, Route

from tests.browser.conftest import Open
from tests.console.visiting import Visitor

ROOT = "/settings/api-keys"
KEYS = 10_000
FIRST_LOAD_BYTES = 100_000
FILL = f"""
INSERT INTO api_keys (id, owner_id, name, preset, scopes, created_by, created_at, status, expires_at)
SELECT lpad(n::text, 12, '0'), (SELECT id FROM owners), 'service ' || n, CASE WHEN n % 2 = 0 THEN 'read-only' END,
       '{{agent:list,agent:read,workflow:run:nightly-etl,volume:list}}', 'test', now() - n * interval '1 minute',
       CASE WHEN n % 10 = 0 THEN 'revoked' ELSE 'active' END, now() + interval '30 days'
  FROM generate_series(1, {KEYS}) AS n
"""


async def slow_down(page: Page) -> None:
    """As on a train: half a second to the server and back, 50 kB a second."""
    client = await page.context.new_cdp_session(page)
    await client.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 500, "downloadThroughput": 50_000, "uploadThroughput": 20_000},
    )


async def test_on_a_slow_network_a_press_shows_at_once_and_counts_once(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/new?rights=developer") as page:
        asked: list[str] = []

        def note(request: Request) -> None:
            if request.method != "GET":
                asked.append(f"{request.method} {request.url.rpartition('/')[2]}")

        page.on("request", note)
        await slow_down(page)
        await page.get_by_label("Name", exact=True).fill("from a train")
        create = page.get_by_role("button", name="Create key")
        await create.click()
        assert await create.get_attribute("aria-busy") == "true"
        await create.click()
        await page.get_by_label("Name", exact=True).press("Enter")
        visitor.stage.note_secret(await page.get_by_label("The whole key").inner_text())
        assert await create.get_attribute("aria-busy") is None
        test = page.get_by_role("button", name="Test now")
        await test.click()
        assert await test.get_attribute("aria-busy") == "true"
        await test.click()
        await page.get_by_text("It works: ada").wait_for()
        await page.get_by_role("button", name="I saved it", exact=True).click()
        await page.get_by_role("heading", name="from a train", exact=True).wait_for()
        await page.get_by_role("button", name="Revoke").click()
        revoke = page.get_by_role("button", name="Revoke for good")
        await revoke.click()
        assert await revoke.get_attribute("aria-busy") == "true"
        await revoke.click()
        await page.get_by_text("Refused on 1 of 1 instances").wait_for()
        assert [one.partition(" ")[0] for one in asked] == ["POST", "POST", "DELETE"]
        assert asked[1] == "POST validate"


async def test_a_late_answer_does_not_overtake_what_was_typed_since(visitor: Visitor, open_page: Open) -> None:
    for name in ("laptop", "ci"):
        await visitor.stage.mint("developer", name=name)
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        held, released = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            held.set()
            await released.wait()
            await route.continue_()

        await page.route("**/api-keys?q=lap", hold, times=1)
        await page.get_by_label("Search by name or id").fill("lap")
        await held.wait()
        assert await page.locator("#results").get_attribute("aria-busy") == "true"
        await page.get_by_label("Search by name or id").fill("ci")
        await page.get_by_role("link", name="laptop").wait_for(state="detached")
        released.set()
        await page.wait_for_load_state("networkidle")
        assert await page.get_by_role("link", name="ci", exact=True).count() == 1
        assert await page.get_by_role("link", name="laptop").count() == 0
        assert page.url.endswith("?q=ci")


async def test_an_answer_that_breaks_off_makes_no_second_key(visitor: Visitor, open_page: Open) -> None:
    """Its head came, and said that it was done."""
    await visitor.stage.mint("developer")
    await visitor.sign_in()

    async def cut(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=(await answer.text())[:40])

    async with open_page(f"{ROOT}/new?rights=developer") as page:
        await page.route("**/settings/v1/api-keys", cut, times=1)
        await page.get_by_label("Name", exact=True).fill("cut off")
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("The server cannot be reached.").wait_for()
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("It was done, but the answer").wait_for()
    assert len(await visitor.stage.database.fetch("SELECT FROM api_keys WHERE name = 'cut off'")) == 1


async def test_without_a_network_every_deed_says_so_and_can_be_done_again(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}", may_fail=("ERR_INTERNET_DISCONNECTED",)) as page:
        await page.get_by_role("link", name="Edit").wait_for()
        await page.context.set_offline(True)
        await page.get_by_role("button", name="Disable").click()
        await page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
        await page.get_by_role("button", name="Revoke").click()
        await page.get_by_role("button", name="Revoke for good").click()
        await page.get_by_role("dialog").get_by_text("cannot be reached").wait_for()
        await page.context.set_offline(False)
        await page.get_by_role("button", name="Revoke for good").click()
        await page.get_by_text("Refused on 1 of 1 instances").wait_for()


async def test_ten_thousand_keys_are_listed_searched_and_paged(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer", name="the newest")
    await visitor.stage.sql(FILL)
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        names = page.locator("#results .name")
        sizes = await page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map(entry => entry.transferSize)"
        )
        assert 10_000 < sum(sizes) < FIRST_LOAD_BYTES, sizes
        seen = await names.all_inner_texts()
        for number in (50, 100, 150):
            await page.get_by_role("link", name="Older keys").click()
            await page.get_by_role("link", name=f"service {number}", exact=True).wait_for()
            seen += await names.all_inner_texts()
        assert seen == ["the newest", *(f"service {number}" for number in range(1, 200))]
        await page.get_by_role("link", name="Newest").click()
        await page.get_by_role("link", name="the newest").wait_for()
        await page.get_by_label("Search by name or id").fill("VICE 9999")
        await page.get_by_role("link", name="the newest").wait_for(state="detached")
        assert await names.all_inner_texts() == ["service 9999"]
        await page.get_by_label("Search by name or id").fill("000000004321")
        await page.get_by_role("link", name="service 4321").wait_for()
        assert await names.count() == 1
        await page.get_by_label("Search by name or id").fill("")
        await page.get_by_label("State").select_option("Revoked")
        await page.get_by_label("Preset").select_option("Read-Only")
        await page.get_by_role("link", name="service 10", exact=True).wait_for()
        await page.get_by_role("link", name="Older keys").click()
        await page.get_by_role("link", name="service 510", exact=True).wait_for()
        assert await names.all_inner_texts() == [f"service {number}" for number in range(510, 1010, 10)]
