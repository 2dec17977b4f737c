"""Pictures of a key's making: the form with each choice, its faults, and the one sight of the key."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.browser.conftest import Open
from tests.browser.looks import look
from tests.browser.scenes import fill
from tests.console.visiting import Visitor

NEW = "/settings/api-keys/new"


@pytest.mark.parametrize("preset", ["read-only", "execution", "developer", "full-access"])
async def test_each_preset(preset: str, visitor: Visitor, open_page: Open) -> None:
    await fill(visitor)
    async with open_page(f"{NEW}?rights={preset}") as page:
        await page.get_by_label("Name", exact=True).fill("laptop of ada")
        await look(page, f"new-{preset}")


async def test_what_the_tier_does_not_allow(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("read-only", tier="free")
    await visitor.sign_in()
    async with open_page(f"{NEW}?rights=custom") as page:
        await page.get_by_text("Not available").first.wait_for()
        await look(page, "new-free-tier")


async def test_custom_rights_and_faults(visitor: Visitor, open_page: Open) -> None:
    await fill(visitor)
    async with open_page(f"{NEW}?rights=custom", may_fail=("409", "422")) as page:
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Give it a name.").wait_for()
        await look(page, "new-nothing-chosen")
        await page.get_by_label("Name", exact=True).fill("laptop")
        await page.get_by_label("Search rights").fill("workflow")
        await page.get_by_role("checkbox", name="Run workflows").check()
        await page.get_by_label("Run workflows: only these").fill("nightly-etl\nweekly-report")
        await page.get_by_role("radio", name="On a date").check()
        await page.get_by_text("Constraints: from where").click()
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Choose the last day.").wait_for()
        await look(page, "new-custom")
        await page.get_by_role("radio", name="Never").check()
        await page.get_by_role("button", name="Create key").click()
        await page.locator("#name-fault", has_text="laptop").wait_for()
        await look(page, "new-name-taken")
        await page.get_by_label("Name", exact=True).fill("laptop of ada")
        await page.get_by_label("Only from these addresses").fill("10.0.0.1/8")
        await page.get_by_label("Requests per second").fill("many")
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Write a number.").wait_for()
        await page.get_by_label("Requests per second").fill("-1")
        await page.get_by_role("button", name="Create key").click()
        await page.get_by_text("Write a number above 0.").wait_for()
        await page.get_by_label("Requests per second").fill("2")
        await page.get_by_role("button", name="Create key").click()
        await page.locator("[data-for='constraints.sources']:not(:empty)").wait_for()
        await look(page, "new-constraints")


async def test_the_sight_of_a_key(visitor: Visitor, open_page: Open) -> None:
    await fill(visitor)
    async with open_page(f"{NEW}?rights=one") as page:
        await page.get_by_label("Name", exact=True).fill("laptop of ada")
        await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        await page.get_by_role("radio", name="In 30 days").check()
        await look(page, "new-one-workflow")
        await page.get_by_role("button", name="Create key").click()
        dialog = page.get_by_role("dialog")
        visitor.stage.note_secret(await dialog.get_by_label("The whole key").inner_text())
        await look(page, "secret")
        for tab in await dialog.get_by_role("tab").all():
            await tab.click()
            await look(page, f"secret-{await name_tab(page)}", ("light",))  # they differ in their text alone
        await dialog.get_by_role("button", name="Test now").click()
        await dialog.get_by_text("It works: ada").wait_for()
        await look(page, "secret-tested")
        await page.keyboard.press("Escape")
        await dialog.get_by_text("Did you save it?").wait_for()
        await look(page, "secret-question")
        await dialog.get_by_role("button", name="Back to the key").click()
        await dialog.get_by_role("button", name="I did not save it").click()
        await dialog.get_by_role("button", name="Discard it").click()
        await page.get_by_role("heading", name="API keys", exact=True).wait_for()
        await page.locator("td", has_text="Revoked").first.wait_for()


async def name_tab(page: Page) -> str:
    return str(await page.evaluate("document.querySelector('[role=tab][aria-selected=true]').id")).removeprefix("tab-")
