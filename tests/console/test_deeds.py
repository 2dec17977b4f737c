"""What can be done to a key by a plain form of its page, and what others try with it."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from urllib.parse import urlencode

import aiohttp
import pytest

from proxy.keys.minting import MintedKey
from tests.console.visiting import CSRF, Visitor
from tests.management.test_shutdown import SILENT
from tests.staging import GUARD_SECONDS

ROOT = "/settings/api-keys"
SURE = {"csrf": CSRF, "sure": "yes"}


async def post(
    visitor: Visitor, key: MintedKey, deed: str, form: dict[str, str], **headers: str
) -> aiohttp.ClientResponse:
    """As the browser sends a form of ours; headers may say something else."""
    sent = {"Origin": visitor.url, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    url, data = f"{visitor.url}{ROOT}/{key.summary.id}/{deed}", urlencode(form).encode()
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await visitor.http.post(url, data=data, headers=sent, allow_redirects=False)
    await answer.read()
    return answer


async def get_status(visitor: Visitor, key: MintedKey) -> tuple[str, str | None]:
    rows = await visitor.stage.database.fetch(
        "SELECT status, revoked_reason FROM api_keys WHERE id = $1", key.summary.id
    )
    return rows[0]["status"], rows[0]["revoked_reason"]


async def test_a_key_is_disabled_enabled_and_revoked_by_plain_forms(visitor: Visitor) -> None:
    key = await visitor.stage.mint("execution")
    await visitor.sign_in()
    for deed, form, expected in (
        ("disable", {"csrf": CSRF}, ("disabled", None)),
        ("enable", {"csrf": CSRF}, ("active", None)),
        ("revoke", {**SURE, "reason": "it leaked"}, ("revoked", "it leaked")),
    ):
        answer = await post(visitor, key, deed, form)
        assert (answer.status, answer.headers["Location"]) == (303, f"{ROOT}/{key.summary.id}")
        assert answer.headers["Cache-Control"] == "no-store"
        assert await get_status(visitor, key) == expected


async def test_the_page_holds_the_forms_that_are_taken_and_no_others(visitor: Visitor) -> None:
    key, admin = await visitor.stage.mint("execution"), await visitor.stage.mint("full-access")
    await visitor.sign_in()
    _, text = await visitor.ask(f"{ROOT}/{key.summary.id}")
    plain = text.partition("<noscript>")[2].partition("</noscript>")[0]
    assert re.findall(r'action="([^"]+)"', plain) == [
        f"{ROOT}/{key.summary.id}/{deed}" for deed in ("disable", "revoke")
    ]
    assert [unescape(one) for one in re.findall(r'name="csrf" value="([^"]*)"', plain)] == [CSRF, CSRF]
    await visitor.sign_in_by_key(admin.summary.id)
    _, text = await visitor.ask(f"{ROOT}/{admin.summary.id}")
    assert "<noscript>" not in text


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        ({"sure": "yes"}, {}, 403),
        ({"sure": "yes", "csrf": "another"}, {}, 403),
        (SURE, {"Origin": "https://evil.example"}, 403),
        (SURE, {"Origin": "null", "Sec_Fetch_Site": "cross-site"}, 403),
        (SURE, {"Sec_Fetch_Site": "cross-site"}, 403),
        (SURE, {"Content_Type": "application/json"}, 415),
        (SURE, {"Content_Type": "text/plain"}, 415),
        ({"csrf": CSRF}, {}, 422),
        ({"csrf": CSRF, "sure": "no"}, {}, 422),
        ({**SURE, "reason": "x" * 256}, {}, 422),
        ({**SURE, "reason": "x" * 5000}, {}, 413),
    ],
)
async def test_what_is_no_form_of_ours_changes_nothing(
    form: dict[str, str], headers: dict[str, str], status: int, visitor: Visitor
) -> None:
    key = await visitor.stage.mint("execution")
    await visitor.sign_in()
    answer = await post(visitor, key, "revoke", form, **headers)
    assert answer.status == status
    assert await get_status(visitor, key) == ("active", None)


async def test_only_whoever_may_do_it_does_it(visitor: Visitor) -> None:
    key, admin = await visitor.stage.mint("execution"), await visitor.stage.mint("full-access")
    foreign = await visitor.stage.mint("execution", owner="bob")
    await visitor.sign_in()
    assert (await post(visitor, foreign, "revoke", SURE)).status == 404
    await visitor.sign_in_by_key(admin.summary.id)
    assert (await post(visitor, key, "revoke", SURE)).status == 404  # not made by it
    reader = await visitor.stage.mint(scopes=("key:read", "key:list"))
    await visitor.sign_in_by_key(reader.summary.id)
    answer = await post(visitor, key, "disable", SURE)
    assert (answer.status, answer.content_type) == (403, "text/html")
    visitor.caller = None
    answer = await post(visitor, key, "revoke", SURE)
    assert answer.status == 303
    assert answer.headers["Location"] == f"/settings/sign-in?next=%2Fsettings%2Fapi-keys%2F{key.summary.id}"
    assert await get_status(visitor, key) == ("active", None)


async def test_a_shutdown_waits_for_what_a_form_has_begun(visitor: Visitor) -> None:
    key = await visitor.stage.mint("execution")
    await visitor.sign_in()
    (silent,) = await visitor.stage.database.fetch(SILENT)
    async with asyncio.timeout(GUARD_SECONDS):
        revocation = asyncio.create_task(post(visitor, key, "revoke", SURE))
        while (await get_status(visitor, key))[0] == "active":
            await asyncio.sleep(0)
        leaving = asyncio.create_task(visitor.proxy.drain())
        answer = await post(visitor, key, "disable", SURE)
        assert (answer.status, answer.content_type) == (503, "text/html")
        assert not leaving.done()
        await visitor.stage.sql("DELETE FROM instances WHERE id = $1", silent["id"])
        assert (await revocation).status == 303
        await leaving


@pytest.mark.parametrize("deed", ["rotate", "delete", "edit"])
async def test_nothing_else_is_done_by_a_form(deed: str, visitor: Visitor) -> None:
    key = await visitor.stage.mint("execution")
    await visitor.sign_in()
    assert (await post(visitor, key, deed, SURE)).status in (404, 405)
    assert (await visitor.send(f"{ROOT}/{key.summary.id}/revoke")).status == 405
