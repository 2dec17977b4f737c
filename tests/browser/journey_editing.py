"""Choosing with names of the platform's own, changing a key that is there, and asking what it may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from playwright.async_api import Page

from proxy.identity import KeyId
from proxy.keys.minting import MintedKey
from proxy.server import Proxy
from tests.browser.conftest import Open
from tests.browser.looks import look
from tests.canary_upstream import CanaryUpstream, form_answer
from tests.console.visiting import Visitor
from tests.platform_stage import PlatformStage, form_upstreams, open_platform
from tests.staging import Stage

ROOT = "/settings/api-keys"
CONSTRAINTS = "Constraints: from where, how fast, how much at once"


@asynccontextmanager
async def sign_in(proxy: Proxy, key: MintedKey, open_page: Open, place: str) -> AsyncIterator[Page]:
    """With a key that may manage others, by a link that works once."""
    link = f"/settings/sign-in/link?once={proxy.office.links.make(KeyId(key.summary.id), 1)}"
    async with open_page(link, at=f"http://{proxy.data_address}") as page:
        await page.get_by_role("heading", name="API keys", exact=True).wait_for()
        await page.goto(place)
        yield page


async def read_key(stage: Stage, name: str) -> dict[str, object]:
    rows = await stage.database.fetch("SELECT * FROM api_keys WHERE name = $1", name)
    return dict(rows[0])


async def create(page: Page, stage: Stage) -> None:
    await page.get_by_role("button", name="Create key").click()
    stage.note_secret(await page.get_by_label("The whole key").inner_text())
    await page.get_by_role("button", name="I saved it", exact=True).click()


# --- names that the platform lists ----------------------------------------------------------------------------------


@pytest.fixture
async def platform(stage: Stage) -> AsyncIterator[PlatformStage]:
    async with open_platform(stage, database={"query_timeout_seconds": 10.0}) as platform:
        await platform.start_proxy()
        yield platform


async def test_the_names_offered_are_the_ones_that_the_platform_lists(
    platform: PlatformStage, stage: Stage, open_page: Open
) -> None:
    admin = await stage.mint("full-access", name="admin")
    async with sign_in(platform.proxies[0], admin, open_page, f"{ROOT}/new?rights=one") as page:
        await page.locator("#workflow-names", has_text="The platform lists").wait_for()
        offered = await page.locator("#workflows option").evaluate_all("options => options.map(one => one.value)")
        assert offered == [one.name for one in platform.platform.list_definitions("workflow")]
        await look(page, "new-one-listed")
        await page.get_by_label("Name", exact=True).fill("listed")
        await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        await create(page, stage)
        await page.get_by_role("heading", name="listed", exact=True).wait_for()
        assert (await read_key(stage, "listed"))["scopes"] == ["workflow:run:nightly-etl"]

        await page.goto(f"{ROOT}/new?rights=custom")
        await page.get_by_label("Name", exact=True).fill("narrow")
        await page.get_by_role("checkbox", name="List and read files").check()
        volume = next(iter(platform.platform.volumes))
        picked = page.get_by_label("List and read files: only these, one per line: add one that is listed")
        await picked.select_option(volume)
        assert (
            await page.get_by_label("List and read files: only these, one per line", exact=True).input_value() == volume
        )
        await look(page, "new-custom-listed")
        await create(page, stage)
        await page.get_by_role("heading", name="narrow", exact=True).wait_for()
        assert (await read_key(stage, "narrow"))["scopes"] == [f"volume:read:{volume}"]


async def test_whoever_may_not_list_is_told_so_and_types(
    platform: PlatformStage, stage: Stage, open_page: Open
) -> None:
    maker = await stage.mint(scopes=("key:create", "key:list", "key:read", "workflow:run"), name="maker")
    async with sign_in(platform.proxies[0], maker, open_page, f"{ROOT}/new?rights=one") as page:
        await page.get_by_text("No names can be offered: key").wait_for()
        assert "does not hold workflow:list. Type the name." in await page.locator("#workflow-names").inner_text()
        assert await page.locator("#workflows option").count() == 0
        await look(page, "new-one-not-listed")
        await page.get_by_label("Name", exact=True).fill("typed")
        await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        await create(page, stage)
        await page.get_by_role("heading", name="typed", exact=True).wait_for()
    assert not [method for method, _ in platform.platform.requests_seen if method == "GET"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"", "the platform does not answer in time"), (form_answer(b"<html>"), "its answer cannot be read")],
)
async def test_a_platform_that_fails_keeps_nobody_from_typing(
    answer: bytes, words: str, stage: Stage, open_page: Open
) -> None:
    admin = await stage.mint("full-access", name="admin")
    async with (
        CanaryUpstream(lambda _received: answer) as canary,
        stage.proxy(canary.url, upstreams=form_upstreams(canary.url, canary.url, {"profile": "none"})) as proxy,
        sign_in(proxy, admin, open_page, f"{ROOT}/new?rights=one") as page,
    ):
        await page.get_by_label("Name", exact=True).fill("typed")
        await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        await page.get_by_text(f"No names can be offered: {words}. Type the name.").wait_for()
        assert await page.get_by_label("Workflow", exact=True).input_value() == "nightly-etl"
        canary.answer = lambda _received: form_answer(b'{"workflows": [{"name": "weekly"}]}')
        await page.get_by_role("button", name="Ask again").click()
        await page.get_by_text("The platform lists 1 for you").wait_for()
        assert await page.get_by_role("button", name="Ask again").count() == 0
        await create(page, stage)
        await page.get_by_role("heading", name="typed", exact=True).wait_for()


async def test_hostile_names_of_the_platform_are_text(stage: Stage, open_page: Open) -> None:
    hostile = '<img src=x onerror="alert(1)">'
    body = f'{{"workflows": [{{"name": {hostile.replace(chr(34), "")!r}, "description": "x"}}]}}'.replace("'", '"')
    admin = await stage.mint("full-access", name="admin")
    async with (
        CanaryUpstream(lambda _received: form_answer(body.encode())) as canary,
        stage.proxy(canary.url, upstreams=form_upstreams(canary.url, canary.url, {"profile": "none"})) as proxy,
        sign_in(proxy, admin, open_page, f"{ROOT}/new?rights=custom") as page,
    ):
        await page.get_by_role("checkbox", name="Run workflows").check()
        await page.get_by_label("Run workflows: only these, one per line: add one that is listed").wait_for()
        assert await page.locator("img").count() == 0


# --- a key is changed -----------------------------------------------------------------------------------------------


async def test_everything_of_a_key_can_be_changed_but_its_secret(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop", constraints={"requests_per_second": 5, "max_calls": 2})
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}") as page:
        await page.get_by_role("link", name="Edit").click()
        assert await page.get_by_role("radio", name="As they are").is_checked()
        assert await page.get_by_label("Calls under way at once").input_value() == "2"
        await look(page, "edit-all")
        await page.get_by_label("Name", exact=True).fill("ci")
        await page.get_by_role("radio", name="One workflow only").check()
        await page.get_by_label("Workflow", exact=True).fill("nightly-etl")
        await page.locator("[data-list=can]", has_text="Run workflows: only nightly-etl").wait_for()
        await page.get_by_role("radio", name="In 30 days").check()
        await page.get_by_label("Only from these addresses").fill("10.0.0.0/8\n203.0.113.7")
        await page.get_by_label("Calls under way at once").fill("")
        await page.get_by_label("Streams open at once").fill("3")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_role("heading", name="ci", exact=True).wait_for()
        row = await read_key(visitor.stage, "ci")
        assert (row["preset"], row["scopes"]) == (None, ["workflow:run:nightly-etl"])
        assert row["expires_at"] is not None
        await page.locator("#facts", has_text="10.0.0.0/8, 203.0.113.7/32").wait_for()
        await page.locator("#facts", has_text="Streams open").wait_for()
        assert await page.locator("#facts", has_text="Calls under way").count() == 0
        await page.get_by_role("link", name="Edit").click()
        await page.get_by_role("radio", name="Custom").check()
        assert await page.get_by_role("checkbox", name="Run workflows").is_checked()
        only = page.get_by_label("Run workflows: only these, one per line", exact=True)
        assert await only.input_value() == "nightly-etl"
        await page.get_by_role("radio", name="Read-Only").check()
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.locator("#facts", has_text="Read-Only").wait_for()


async def test_nothing_is_sent_where_nothing_was_touched(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint("developer", name="laptop", constraints={"sources": ["10.0.0.0/8"]})
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}/edit") as page:
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_role("heading", name="laptop", exact=True).wait_for()
        assert (await read_key(visitor.stage, "laptop"))["version"] == key.summary.version


async def test_a_key_that_another_has_changed_meanwhile_shows_what(visitor: Visitor, open_page: Open) -> None:
    stage, key = visitor.stage, await visitor.stage.mint("developer", name="laptop")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}/edit", may_fail=("412",)) as page:
        await page.get_by_label("Name", exact=True).fill("mine")
        rename = "UPDATE api_keys SET name = 'theirs', scopes = '{agent:list}', preset = NULL WHERE id = $1"
        await stage.sql(rename, key.summary.id)
        await page.get_by_role("button", name="Save", exact=True).click()
        told = page.get_by_role("alert").filter(has_text="This key was changed while you edited it")
        await told.get_by_text("Name: laptop → theirs").wait_for()
        await told.get_by_text("Rights: no longer agent:read, agent:logs").wait_for()
        assert await page.evaluate("document.activeElement.id") == "conflict"
        await page.locator("[data-count=can]", has_text="1").wait_for()  # as it is there now
        await look(page, "edit-conflict")
        assert (await read_key(stage, "theirs"))["id"] == key.summary.id
        await told.get_by_role("button", name="Save mine all the same").click()
        await page.get_by_role("heading", name="mine", exact=True).wait_for()
        assert (await read_key(stage, "mine"))["scopes"] == ["agent:list"]  # what was not touched is theirs

        await page.get_by_role("link", name="Edit").click()
        await page.get_by_label("Name", exact=True).fill("mine again")
        await stage.sql("UPDATE api_keys SET name = 'theirs again' WHERE id = $1", key.summary.id)
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_role("button", name="Start again from what is there now").click()
        await page.get_by_role("heading", name="Edit theirs again").wait_for()
        assert await page.get_by_label("Name", exact=True).input_value() == "theirs again"


async def test_a_constraint_that_another_has_set_meanwhile_is_not_taken_away(visitor: Visitor, open_page: Open) -> None:
    """They are sent whole; of those, too, only what was touched is the reader's."""
    stage = visitor.stage
    key = await stage.mint("developer", name="laptop", constraints={"max_calls": 9, "max_streams": 2})
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}/edit", may_fail=("412",)) as page:
        tied = '{"sources": ["10.0.0.0/8"], "max_calls": 9, "max_streams": 2}'
        await stage.sql("UPDATE api_keys SET constraints = $2::text::jsonb WHERE id = $1", key.summary.id, tied)
        await page.get_by_label("Calls under way at once").fill("5")
        await page.get_by_label("Streams open at once").fill("")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_role("button", name="Save mine all the same").click()
        await page.locator("#facts", has_text="10.0.0.0/8").wait_for()
        held = json.loads(str((await read_key(stage, "laptop"))["constraints"]))
        assert held == {"sources": ["10.0.0.0/8"], "max_calls": 5}


async def test_what_is_wrong_with_a_change_stands_beside_its_field(visitor: Visitor, open_page: Open) -> None:
    await visitor.stage.mint("developer", name="taken")
    key = await visitor.stage.mint("developer", name="laptop")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}/edit", may_fail=("409", "422")) as page:
        await page.get_by_label("Name", exact=True).fill("")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_text("Give it a name.").wait_for()
        await page.get_by_label("Name", exact=True).fill("taken")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.locator("#name-fault", has_text="taken").wait_for()
        await page.get_by_label("Name", exact=True).fill("free")
        await page.get_by_text(CONSTRAINTS).click()
        await page.get_by_label("Requests at once (burst)").fill("5")
        await page.get_by_label("Only from these addresses").fill("not an address")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.locator("[data-for='constraints.sources']:not(:empty)").wait_for()
        assert (await read_key(visitor.stage, "laptop"))["version"] == key.summary.version


async def test_whoever_signed_in_by_a_key_that_ends_soon_makes_one_that_ends_with_it(
    platform: PlatformStage, stage: Stage, open_page: Open
) -> None:
    """None of the usual ends is left to choose, and what the key may have is chosen already."""
    admin = await stage.mint("full-access", name="admin", lifetime=timedelta(days=1))
    async with sign_in(platform.proxies[0], admin, open_page, f"{ROOT}/new?rights=execution") as page:
        await page.get_by_label("Name", exact=True).fill("brief")
        own = page.get_by_role("radio", name="As long as your own key")
        assert await own.is_checked()
        assert await page.get_by_role("radio", name="In 7 days").count() == 0
        await look(page, "new-own-end")
        await create(page, stage)
        await page.get_by_role("heading", name="brief", exact=True).wait_for()
    made, maker = [(await read_key(stage, name))["expires_at"] for name in ("brief", "admin")]
    assert isinstance(made, datetime)
    assert isinstance(maker, datetime)
    assert made == maker.replace(microsecond=0)


# --- what may it do -------------------------------------------------------------------------------------------------


async def test_a_key_is_asked_about_by_tool_by_path_and_by_method(visitor: Visitor, open_page: Open) -> None:
    key = await visitor.stage.mint(scopes=("workflow:run:nightly-etl", "workflow:list"), name="etl")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/{key.summary.id}", may_fail=("422",)) as page:
        answer, ask = page.locator("#answer"), page.get_by_role("button", name="Ask")
        await page.get_by_label("Tool", exact=True).fill("aegis.workflow.run")
        await page.get_by_label("Arguments").fill('{"name": "nightly-etl"}')
        await ask.click()
        await answer.get_by_text("Allowed.").wait_for()

        await page.get_by_role("radio", name="REST request").check()
        await ask.click()
        await page.get_by_text("Write a path, such as").wait_for()
        assert await answer.inner_text() == ""
        await page.get_by_label("Path, with its query").fill("/v1/workflows/nightly-etl/run")
        await page.get_by_label("Method", exact=True).select_option("POST")
        await ask.click()
        await answer.get_by_text("Allowed.").wait_for()
        await page.get_by_label("Path, with its query").fill("/v1/workflows/weekly/run")
        await ask.click()
        await answer.get_by_text("Refused.").get_by_text("needs scope workflow:run:weekly.").wait_for()
        assert "It would take" not in await answer.inner_text()  # that stands there already
        await look(page, "key-explained-path")

        await page.get_by_role("radio", name="MCP method").check()
        await page.get_by_label("JSON-RPC method").fill("tools/list")
        await ask.click()
        await answer.get_by_text("Allowed.").wait_for()
        await page.get_by_label("JSON-RPC method").fill("resources/read")
        await page.get_by_label("Params").fill('{"uri": "aegis://volumes/v-1/report.txt"}')
        await ask.click()
        await answer.get_by_text("Refused.").wait_for()
        await page.get_by_label("Params").fill("[1]")
        await ask.click()
        await page.get_by_text("This is not JSON, or no object").wait_for()
        await look(page, "key-explained-method")
