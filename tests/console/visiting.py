"""A visitor of the page of a real proxy. Who is signed in is what the test says; cookies are another room's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time

import aiohttp
from aiohttp import web

from proxy.console.views import Console, SignedIn
from proxy.fittings import form_body_limits
from proxy.identity import KeyId
from proxy.keys.owners import Owners
from proxy.keys.rights import Caller, form_caller_of_claims, form_caller_of_key
from proxy.server import Proxy
from tests.staging import Stage

CSRF = "a word of this sign-in's own"


@dataclass(slots=True)
class Visitor:
    """Whoever sits before the browser. `caller`: None when nobody is signed in."""

    http: aiohttp.ClientSession
    proxy: Proxy
    stage: Stage
    caller: Caller | None = None

    async def find_signed_in(self, request: web.BaseRequest) -> SignedIn | None:
        return None if self.caller is None else SignedIn(self.caller, CSRF)

    async def sign_in(self, subject: str = "ada", role: str | None = None) -> Caller:
        """As an owner whose row is there."""
        record = await Owners(self.stage.database).find("local", subject)
        self.caller = form_caller_of_claims(record, self.stage.policy, tenant_id=None, tier=None, role=role)
        return self.caller

    async def sign_in_by_key(self, key_id: str) -> Caller:
        record = (await self.stage.store.read_keys([KeyId(key_id)]))[KeyId(key_id)]
        self.caller = form_caller_of_key(record, self.stage.policy, 1)
        return self.caller

    @property
    def url(self) -> str:
        return f"http://{self.proxy.data_address}"

    async def ask(self, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, str]:
        """Status and text; redirects are not followed."""
        answer = await self.send(path, method, body, **headers)
        return answer.status, await answer.text()

    async def send(self, path: str, method: str = "GET", body: object = None, **headers: str) -> aiohttp.ClientResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.request(method, self.url + path, headers=sent, json=body, allow_redirects=False)
        await answer.read()
        return answer


@asynccontextmanager
async def visit(http: aiohttp.ClientSession, stage: Stage, upstream_url: str) -> AsyncIterator[Visitor]:
    """A proxy with its page, and nobody signed in yet."""
    async with stage.proxy(upstream_url) as proxy:
        visitor = Visitor(http, proxy, stage)
        proxy.door.console = Console(
            management=proxy.management,
            sign_ins=visitor,
            bodies=form_body_limits(proxy.settings),
            base_url=None,
            idle_seconds=proxy.settings.console.idle_seconds,
            now=time,
        )
        yield visitor
