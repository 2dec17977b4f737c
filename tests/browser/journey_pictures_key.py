"""Pictures of one key, from its first day to after its end, and of everything that is done to it."""

from __future__ import annotations

from datetime import timedelta

from tests.browser.conftest import Open
from tests.browser.looks import look
from tests.browser.scenes import fill, note_days
from tests.console.visiting import Visitor
from tests.staging import connect, get_mcp_url

ROOT = "/settings/api-keys"
CONSTRAINTS = {"sources": ["203.0.113.0/24", "2001:db8::/32"], "requests_per_second": 5, "burst": 10, "max_streams": 2}


async def test_keys_that_nobody_uses_now(visitor: Visitor, open_page: Open) -> None:
    await fill(visitor)
    stage = visitor.stage
    fresh = await stage.mint("developer", name="fresh", lifetime=timedelta(days=90))
    bound = await stage.mint("read-only", name="office only", constraints=CONSTRAINTS, lifetime=timedelta(days=90))
    shown = {"fresh": fresh.summary.id, "constrained": bound.summary.id}
    rows = await stage.database.fetch("SELECT name, id FROM api_keys")
    ids = {str(row["name"]): str(row["id"]) for row in rows}
    for name in ("admin console", "backup", "spare", "trial", "paused", "laptop", "dashboards"):
        shown[name.replace(" ", "-")] = ids[name]
    async with open_page(ROOT) as page:
        for name, key_id in shown.items():
            await page.goto(f"{ROOT}/{key_id}")
            await page.get_by_role("heading", name="Facts").wait_for()
            await look(page, f"key-{name}")


async def test_the_key_one_is_signed_in_with(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("full-access", name="mine", tier="enterprise", lifetime=timedelta(days=60))
    await visitor.sign_in_by_key(key.summary.id)
    async with open_page(f"{ROOT}/{key.summary.id}") as page:
        await page.get_by_text("You are signed in with this key").wait_for()
        await look(page, "key-of-the-sign-in")


async def test_the_life_of_a_key(visitor: Visitor, open_page: Open) -> None:
    key = await fill(visitor)
    stage = visitor.stage
    await note_days(stage, key)
    async with (
        connect(get_mcp_url(visitor.proxy), key.token, "legacy"),
        open_page(f"{ROOT}/{key.summary.id}") as page,
    ):
        await page.get_by_role("cell", name="mcp", exact=True).wait_for()
        await look(page, "key-used")
        await page.get_by_text("By rule").click()
        await page.get_by_label("Tool", exact=True).fill("aegis.workflow.delete")
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_text("Refused.").wait_for()
        await page.get_by_text("How the policy got there").click()
        await look(page, "key-explained-denied")
        await page.get_by_label("Tool", exact=True).fill("aegis.workflow.run")
        await page.get_by_label("Arguments").fill('{"name": "nightly-etl"}')
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_text("Allowed.").wait_for()
        await page.get_by_text("How the policy got there").click()
        await look(page, "key-explained-allowed")
        await page.get_by_label("Arguments").fill("{")
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_text("This is not JSON, or no object").wait_for()
        await look(page, "key-explained-no-json")
        await page.get_by_role("link", name="Edit").click()
        await look(page, "edit")
        await page.get_by_label("Name", exact=True).fill("ci of billing")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_role("heading", name="ci of billing", exact=True).wait_for()
        await page.get_by_role("button", name="Rotate").click()
        await look(page, "rotate")
        await page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        stage.note_secret(await page.get_by_label("The whole key").inner_text())
        await look(page, "rotate-secret")
        await page.get_by_role("button", name="I saved it", exact=True).click()
        await page.get_by_role("heading", name="The old secret still works").wait_for()
        await look(page, "key-rotated")
        await page.get_by_role("button", name="Disable").click()
        await page.get_by_role("button", name="Enable").wait_for()
        await look(page, "key-disabled")
        await page.get_by_role("button", name="Revoke").click()
        await look(page, "revoke")
        await page.get_by_label("Reason").fill("left with a contractor")
        await page.get_by_role("button", name="Revoke for good").click()
        await page.get_by_text("Refused on 1 of 1 instances").wait_for()
        await look(page, "receipt")
        await page.get_by_role("button", name="Done").click()
        await page.get_by_text("left with a contractor").first.wait_for()
        await look(page, "key-revoked")


async def test_faults_in_dialogs(visitor: Visitor, open_page: Open) -> None:
    key = await fill(visitor)
    async with open_page(f"{ROOT}/{key.summary.id}", may_fail=("409", "412", "428")) as page:
        await page.get_by_role("link", name="Edit").click()
        await page.get_by_label("Name", exact=True).fill("laptop")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.locator("#edit .fault:not(:empty)").wait_for()
        await look(page, "edit-name-taken")
