"""What others try against whoever uses the page, each tried in the browser that has to withstand it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote

import pytest
from aiohttp import web
from playwright.async_api import Page

from proxy.server import Proxy
from tests.browser.conftest import Open
from tests.browser.leftovers import find_leftovers
from tests.console.visiting import Visitor
from tests.staging import Stage

ROOT, SIGN_IN = "/settings/api-keys", "/settings/sign-in"
HOSTILE = (
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 1">',
    "javascript:window.pwned=1",
    "{{ 7 + 7 }} ${7 + 7} </title><svg onload=window.pwned=1>",
)


class OtherSite:
    """`pages`: what stands where. It is called `localhost`, which is another site than 127.0.0.1."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request.path_qs)
        body = self.pages.get(request.path, "<title>theirs</title>")
        return web.Response(text=f'<!doctype html><link rel="icon" href="data:,">{body}', content_type="text/html")


@pytest.fixture
async def evil() -> AsyncIterator[OtherSite]:
    site = OtherSite()
    runner = web.ServerRunner(web.Server(site.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://localhost:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


@pytest.fixture
def at(proxy: Proxy) -> str:
    return f"http://{proxy.data_address}"


async def sign_in(page: Page, token: str) -> None:
    await page.get_by_label("API key that may manage keys").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="API keys").wait_for()


async def get_cookie(page: Page) -> str:
    return next(str(one["value"]) for one in await page.context.cookies() if one["name"] == "aegis-sign-in")


async def test_another_sites_forms_and_requests_change_nothing(
    at: str, evil: OtherSite, stage: Stage, open_page: Open
) -> None:
    admin, theirs = await stage.mint("full-access", name="admin"), await stage.mint("full-access", owner="mallory")
    forms = {
        "/out": (f"{at}/settings/sign-out", {"csrf": "a" * 43, "everywhere": "yes"}),
        "/in": (f"{at}{SIGN_IN}", {"csrf": "a" * 43, "key": theirs.token}),
        "/start": (f"{at}{SIGN_IN}/start", {}),
    }
    for path, (action, members) in forms.items():
        fields = "".join(f'<input name="{name}" value="{value}">' for name, value in members.items())
        evil.pages[path] = f'<form method="post" action="{action}">{fields}<button>Win a prize</button></form>'
    async with open_page(ROOT, at=at, may_ask=evil.url, may_fail=("403", "404", "405", "CORS", "ERR_FAILED")) as page:
        await sign_in(page, admin.token)
        cookie = await get_cookie(page)
        for path in forms:
            await page.goto(evil.url + path)
            await page.get_by_role("button", name="Win a prize").click()
            await page.wait_for_url(f"{at}/**")
            await page.get_by_text("Requests from this origin are not allowed").first.wait_for()
        await page.goto(evil.url)
        for method, path in (("POST", "/api-keys"), ("DELETE", f"/api-keys/{admin.summary.id}"), ("GET", "/api-keys")):
            said = await page.evaluate(
                """([url, method]) => fetch(url, {
                    method, credentials: "include", headers: {"X-CSRF-Token": "guessed"},
                    body: method === "POST" ? JSON.stringify({name: "theirs", preset: "full-access"}) : undefined,
                }).then(answer => answer.text(), () => "refused")""",
                [f"{at}/settings/v1{path}", method],
            )
            assert said == "refused"
        await page.goto(f"{at}{ROOT}/{admin.summary.id}")
        await page.get_by_text("Active").first.wait_for()
        assert await get_cookie(page) == cookie
    assert len(await stage.database.fetch("SELECT FROM api_keys")) == 2


async def test_a_page_of_ours_stands_in_no_frame(at: str, evil: OtherSite, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access")
    framed = [f"{at}{ROOT}", f"{at}{ROOT}/{admin.summary.id}", f"{at}{SIGN_IN}", f"{at}/settings/nothing"]
    evil.pages["/frames"] = "".join(f'<iframe src="{url}" style="opacity: 0.1"></iframe>' for url in framed)
    async with open_page(ROOT, at=at, may_ask=evil.url, may_fail=("frame", "404", "ERR_BLOCKED_BY_RESPONSE")) as page:
        await sign_in(page, admin.token)
        await page.goto(f"{evil.url}/frames")
        await page.wait_for_load_state("networkidle")
        frames = [frame for frame in page.frames if frame is not page.main_frame]
        assert len(frames) == len(framed)
        for frame in frames:
            assert "Aegis" not in await frame.content()


@pytest.mark.parametrize(
    "onward",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/settings/api-keys/../../mcp/v1",
     "javascript:alert(1)", "/settings/api-keys@evil.example", "%2F%2Fevil.example", "/settings/api-keys\t//evil"],
)  # fmt: skip
async def test_no_sign_in_leads_away(onward: str, at: str, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access")
    async with open_page(SIGN_IN, at=at) as page:
        await page.evaluate("next => location.search = new URLSearchParams({next})", onward)
        await page.wait_for_url(f"{at}{SIGN_IN}?**")
        await sign_in(page, admin.token)
        assert page.url == at + ROOT


async def test_a_sign_in_that_was_planted_is_not_the_victims(at: str, stage: Stage, open_page: Open) -> None:
    """Whoever can write a cookie into another's browser plants one that they know."""
    ada, mallory = await stage.mint("full-access", name="ada's"), await stage.mint("full-access", owner="mallory")
    async with open_page(ROOT, at=at) as theirs, open_page(ROOT, at=at) as victim:
        await sign_in(theirs, mallory.token)
        planted = await get_cookie(theirs)
        await victim.context.add_cookies([{"name": "aegis-sign-in", "value": planted, "url": at}])
        await victim.goto(SIGN_IN)
        await sign_in(victim, ada.token)
        await victim.get_by_role("link", name="ada's").wait_for()
        assert await get_cookie(victim) != planted
        await theirs.reload()
        await theirs.get_by_role("heading", name="Sign in").wait_for()


async def test_a_made_up_sign_in_is_none(at: str, stage: Stage, open_page: Open) -> None:
    admin = await stage.mint("full-access")
    async with open_page(ROOT, at=at) as page:
        await page.context.add_cookies([{"name": "aegis-sign-in", "value": "a" * 43, "url": at}])
        await page.goto(ROOT)
        await sign_in(page, admin.token)
        assert await get_cookie(page) != "a" * 43


async def test_going_back_shows_no_secret(visitor: Visitor, open_page: Open) -> None:
    """Neither does a page that the browser kept whole, as it stood when it was left."""
    await visitor.stage.mint("developer")
    await visitor.sign_in()
    async with open_page(f"{ROOT}/connect") as page:
        page.on("dialog", lambda asked: asked.accept())
        for leave in (f"{ROOT}/connect", "about:blank"):
            await page.goto(f"{ROOT}/new?rights=read-only")
            await page.get_by_label("Name", exact=True).fill(f"left for {leave}")
            await page.get_by_role("button", name="Create key").click()
            output = page.get_by_label("The whole key")
            token = await output.inner_text()
            visitor.stage.note_secret(token)
            await output.click()  # without a touch, browsers ask nobody whether to leave
            await page.goto(leave) if leave != "about:blank" else await page.evaluate("location.href = 'about:blank'")
            await page.wait_for_url(f"**{leave}")
            await page.go_back()
            await page.get_by_role("heading", name="New API key").wait_for()
            assert await find_leftovers(page, token) == []
            assert await page.get_by_role("dialog").count() == 0


async def test_hostile_names_and_scopes_are_text(visitor: Visitor, open_page: Open) -> None:
    stage = visitor.stage
    keys = [
        await stage.mint(scopes=(f"volume:read:{text}", "agent:list"), name=text[:64], lifetime=timedelta(days=9))
        for text in HOSTILE
    ]
    for key, text in zip(keys, HOSTILE, strict=True):
        await stage.sql(
            "INSERT INTO key_last_uses (key_id, secret_version, at, address, user_agent, what, count)"
            " VALUES ($1, 1, now(), '203.0.113.7', $2, $2, 1)", key.summary.id, text,
        )  # fmt: skip
        await stage.sql("UPDATE api_keys SET created_by = $1 WHERE id = $2", text, key.summary.id)
    await visitor.sign_in()
    async with open_page(ROOT) as page:
        for key in keys:
            await page.goto(f"{ROOT}?q={key.summary.id}")
            await page.get_by_role("main").get_by_role("link").first.wait_for()
            await check_inert(page)
            await page.goto(f"{ROOT}/{key.summary.id}")
            await check_inert(page)
            await page.get_by_role("link", name="Edit").click()
            await page.get_by_role("heading", name="Edit").wait_for()
            await check_inert(page)
            await page.goto(f"{ROOT}/{key.summary.id}")
            await page.get_by_role("button", name="Revoke").click()
            await page.get_by_label("Reason").fill(HOSTILE[1])
            await page.get_by_role("button", name="Revoke for good").click()
            await page.get_by_role("button", name="Done").click()
            await page.locator("#head", has_text="Revoked").wait_for()
            await check_inert(page)
        await page.goto(f"{ROOT}?q={quote(HOSTILE[0])}")
        await check_inert(page)


async def check_inert(page: Page) -> None:
    """Nothing of it ran, nor became part of the page: only our own files may be loaded by it."""
    found = await page.evaluate("""() => [
        window.pwned,
        document.querySelectorAll("main img, main iframe, [onload], [onerror], [href^='javascript:']").length,
        [...document.scripts].filter(one => !one.src).length,
        document.title,
    ]""")
    assert found[:3] == [None, 0, 0]
    assert found[3].endswith(" · Aegis")
