"""A page that only says who is signed in: what the real one asks before anything else, over a socket of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from proxy.errors import Refusal
from proxy.server import Proxy
from tests.console.browser import Browser


@dataclass(frozen=True, slots=True)
class Told:
    """Who it is, or why it is nobody's to know. None: nobody."""

    actor: str | None = None
    csrf: str | None = None
    grants: frozenset[str] = frozenset()
    is_admin: bool = False
    refused: str | None = None


@dataclass(slots=True)
class Asker:
    """`told`: the latest answer."""

    http: aiohttp.ClientSession
    url: str = ""
    told: Told = Told()

    async def ask(self, browser: Browser, **headers: str) -> Told:
        """With the cookies that the browser holds now."""
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(self.url, headers={"Cookie": cookie, **sent}) as answer:
            await answer.read()
        return self.told


@contextlib.asynccontextmanager
async def run_asker(http: aiohttp.ClientSession, proxy: Proxy) -> AsyncIterator[Asker]:
    """For as long as the context lasts."""
    asker = Asker(http)

    async def answer(request: web.BaseRequest) -> web.Response:
        try:
            signed_in = await proxy.office.sign_ins.find_signed_in(request)
        except Refusal as refusal:
            asker.told = Told(refused=refusal.reason.value)
            return web.Response()
        asker.told = Told()
        if signed_in is not None:
            caller = signed_in.caller
            asker.told = Told(caller.actor, signed_in.csrf, caller.grants, caller.is_admin)
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    asker.url = f"http://{host}:{port}"
    try:
        yield asker
    finally:
        await runner.cleanup()
