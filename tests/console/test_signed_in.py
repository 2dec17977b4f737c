"""Who is signed in: asked anew for every request, so that a sign-in ends with what it rests on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from proxy.client_address import parse_network
from proxy.console.cookies import derive_csrf
from proxy.demo.sample_server import SampleServer
from proxy.keys.minting import MintedKey
from proxy.server import Proxy
from tests.console.asking import Asker, Told, run_asker
from tests.console.browser import SIGN_OUT, Browser
from tests.staging import GUARD_SECONDS, Stage

HOME = "/settings/api-keys"
Change = Callable[[Stage, MintedKey], Awaitable[None]]


async def test_a_sign_in_has_the_rights_of_its_key(stage: Stage, browser: Browser, asker: Asker) -> None:
    key = await stage.mint(scopes=("key:list", "key:read", "agent:list"))
    assert await asker.ask(browser) == type(asker.told)()
    await browser.sign_in(key.token)
    told = await asker.ask(browser)
    assert told.actor == f"key:{key.summary.id}"
    assert told.grants == {"key:list", "key:read", "agent:list"}
    assert not told.is_admin


async def revoke(stage: Stage, key: MintedKey) -> None:
    await stage.revoke_by_sql(key)


async def disable(stage: Stage, key: MintedKey) -> None:
    await stage.sql("UPDATE api_keys SET status = 'disabled' WHERE id = $1", key.summary.id)


async def expire(stage: Stage, key: MintedKey) -> None:
    await stage.sql("UPDATE api_keys SET expires_at = clock_timestamp() WHERE id = $1", key.summary.id)


async def retire(stage: Stage, key: MintedKey) -> None:
    await stage.sql("UPDATE api_key_secrets SET not_after = clock_timestamp() WHERE key_id = $1", key.summary.id)


async def disable_owner(stage: Stage, _key: MintedKey) -> None:
    await stage.sql("UPDATE owners SET disabled_at = now() WHERE subject = 'ada'")


async def delete(stage: Stage, key: MintedKey) -> None:
    await stage.sql("DELETE FROM api_keys WHERE id = $1", key.summary.id)


@pytest.mark.parametrize("change", [revoke, disable, expire, retire, disable_owner, delete])
async def test_a_sign_in_dies_with_its_key_and_does_not_come_back(
    change: Change, stage: Stage, browser: Browser, asker: Asker
) -> None:
    key = await stage.mint("full-access")
    await browser.sign_in(key.token)
    assert (await asker.ask(browser)).actor is not None
    await change(stage, key)
    async with asyncio.timeout(GUARD_SECONDS):
        while (await asker.ask(browser)).actor is not None:  # until the news has come
            pass
    assert await stage.database.fetch("SELECT FROM sign_ins") == []


async def test_a_key_that_is_narrowed_narrows_its_sign_in(stage: Stage, browser: Browser, asker: Asker) -> None:
    key = await stage.mint(scopes=("key:list", "key:create"))
    await browser.sign_in(key.token)
    await stage.sql("UPDATE api_keys SET scopes = '{key:list}' WHERE id = $1", key.summary.id)
    async with asyncio.timeout(GUARD_SECONDS):
        while (told := await asker.ask(browser)).grants != {"key:list"}:
            assert told.actor is not None


async def test_a_sign_in_keeps_the_constraints_of_its_key(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access")
    async with stage.proxy(sample.url, server={"trusted_proxies": (parse_network("127.0.0.1"),)}) as proxy:
        async with run_asker(http, proxy) as asker:
            browser = Browser(http, proxy)
            await browser.sign_in(key.token)
            await stage.sql(
                'UPDATE api_keys SET constraints = \'{"sources": ["10.0.0.0/8"]}\' WHERE id = $1', key.summary.id
            )
            async with asyncio.timeout(GUARD_SECONDS):
                while (await asker.ask(browser, X_Forwarded_For="192.0.2.1")).refused != "address_not_allowed":
                    pass
            assert (await asker.ask(browser, X_Forwarded_For="10.1.2.3")).actor == f"key:{key.summary.id}"
            assert (await Browser(http, proxy).sign_in(key.token)).status == 403


async def test_pages_count_against_the_rate_of_their_key(stage: Stage, browser: Browser, asker: Asker) -> None:
    key = await stage.mint("full-access")
    await stage.sql(
        """UPDATE api_keys SET constraints = '{"requests_per_second": 0.001, "burst": 2}' WHERE id = $1""",
        key.summary.id,
    )
    await browser.sign_in(key.token)
    assert (await asker.ask(browser)).actor == f"key:{key.summary.id}"
    assert (await asker.ask(browser)).refused == "rate_exceeded"


async def test_a_made_up_or_stolen_looking_cookie_is_nobody(stage: Stage, browser: Browser, asker: Asker) -> None:
    key = await stage.mint("full-access")
    await browser.sign_in(key.token)
    value = browser.cookies["aegis-sign-in"]
    rows = await stage.database.fetch("SELECT encode(id_hash, 'hex') AS hex FROM sign_ins")
    for made_up in ("a" * 43, value[:-1] + ("a" if value[-1] != "a" else "b"), value.swapcase(), rows[0]["hex"][:43]):
        browser.cookies["aegis-sign-in"] = made_up
        assert (await asker.ask(browser)).actor is None
    browser.cookies["aegis-sign-in"] = value
    assert (await asker.ask(browser)).actor is not None


async def test_a_made_up_cookie_costs_no_statement(stage: Stage, browser: Browser, asker: Asker) -> None:
    key = await stage.mint("full-access")
    await browser.sign_in(key.token)
    made_up = "a" * 43
    await stage.sql("ALTER TABLE sign_ins RENAME TO gone")
    assert (await asker.ask(browser)).refused == "database_silent"
    browser.cookies = {"aegis-sign-in": made_up}
    assert await asker.ask(browser) == Told()
    left = await browser.post(SIGN_OUT, {"csrf": derive_csrf(made_up), "everywhere": "1"})
    assert left.status == 303


async def test_the_database_does_not_know_the_cookie(stage: Stage, browser: Browser) -> None:
    key = await stage.mint("full-access")
    await browser.sign_in(key.token)
    rows = await stage.database.fetch("SELECT s::text AS text FROM sign_ins s")
    assert browser.cookies["aegis-sign-in"] not in rows[0]["text"]
    assert browser.cookies["aegis-sign-in"].encode().hex() not in rows[0]["text"]


async def test_signing_out_everywhere_ends_what_the_key_opened_elsewhere(
    stage: Stage, proxy: Proxy, http: aiohttp.ClientSession, asker: Asker
) -> None:
    key, other = await stage.mint("full-access"), await stage.mint("full-access")
    here, there, apart = (Browser(http, proxy) for _ in range(3))
    for browser, token in ((here, key.token), (there, key.token), (apart, other.token)):
        await browser.sign_in(token)
    csrf = (await asker.ask(here)).csrf
    assert csrf is not None
    left = await here.post(SIGN_OUT, {"csrf": csrf, "everywhere": "1"})
    assert (left.status, left.place) == (303, "/settings/sign-in")
    assert "aegis-sign-in" not in here.cookies
    assert [(await asker.ask(browser)).actor is not None for browser in (here, there, apart)] == [False, False, True]


async def test_signing_out_ends_this_sign_in_alone(
    stage: Stage, proxy: Proxy, http: aiohttp.ClientSession, asker: Asker
) -> None:
    key = await stage.mint("full-access")
    here, there = Browser(http, proxy), Browser(http, proxy)
    await here.sign_in(key.token)
    await there.sign_in(key.token)
    stolen = dict(here.cookies)
    csrf = (await asker.ask(here)).csrf
    assert csrf is not None
    await here.post(SIGN_OUT, {"csrf": csrf})
    here.cookies = stolen
    assert (await asker.ask(here)).actor is None
    assert (await asker.ask(there)).actor is not None


@pytest.mark.parametrize("constraints", ['{"sources": ["10.0.0.0/8"]}', '{"requests_per_second": 0.001, "burst": 1}'])
async def test_what_constrains_a_key_keeps_nobody_from_signing_out_everywhere(
    constraints: str, stage: Stage, proxy: Proxy, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint("full-access")
    here, there = Browser(http, proxy), Browser(http, proxy)
    await here.sign_in(key.token)
    await there.sign_in(key.token)
    await stage.sql("UPDATE api_keys SET constraints = $2::text::jsonb WHERE id = $1", key.summary.id, constraints)
    async with asyncio.timeout(GUARD_SECONDS):
        while (await there.get(HOME)).status not in {403, 429}:
            await asyncio.sleep(0.01)
    left = await here.post(SIGN_OUT, {"csrf": derive_csrf(here.cookies["aegis-sign-in"]), "everywhere": "1"})
    assert left.status == 303
    assert await stage.database.fetch("SELECT FROM sign_ins") == []


async def test_a_request_that_waits_while_its_sign_in_is_ended_everywhere_makes_nothing(
    stage: Stage, proxy: Proxy, http: aiohttp.ClientSession
) -> None:
    """Whoever stole a cookie sends half a body, and the rest when the owner believes it is over."""
    key = await stage.mint("full-access")
    thief, owner = Browser(http, proxy), Browser(http, proxy)
    await owner.sign_in(key.token)
    thief.cookies = dict(owner.cookies)
    csrf = derive_csrf(owner.cookies["aegis-sign-in"])
    started, ended = asyncio.Event(), asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b'{"name": "thief'
        started.set()
        await ended.wait()
        yield b's", "preset": "full-access", "expires_in": "never"}'

    await stage.sql("UPDATE sign_ins SET seen_at = seen_at - interval '10 minutes'")
    seen = "SELECT FROM sign_ins WHERE seen_at > clock_timestamp() - interval '5 minutes'"
    headers = {"Content-Type": "application/json", "X-CSRF-Token": csrf, "Origin": owner.origin}
    cookie = "; ".join(f"{name}={value}" for name, value in thief.cookies.items())
    making = asyncio.create_task(
        http.post(f"{owner.origin}/settings/v1/api-keys", data=drip(), headers={**headers, "Cookie": cookie})
    )
    async with asyncio.timeout(GUARD_SECONDS):
        await started.wait()
        while not await stage.database.fetch(seen):  # who asks is known
            await asyncio.sleep(0.01)
        assert (await owner.post(SIGN_OUT, {"csrf": csrf, "everywhere": "1"})).status == 303
        ended.set()
        async with await making as answer:
            assert answer.status == 401
            assert (await answer.json())["code"] == "credential_missing"
    assert await stage.database.fetch("SELECT FROM api_keys WHERE name = 'thiefs'") == []
