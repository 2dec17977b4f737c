"""A browser as the page meets it: keeps cookies as it is told, follows nothing by itself, and says where it comes from.

It knows no domains: all it ever visits is one proxy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from http.cookies import Morsel, SimpleCookie

import aiohttp
from multidict import CIMultiDictProxy

from proxy.server import Proxy

SIGN_IN, SIGN_OUT = "/settings/sign-in", "/settings/sign-out"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    text: str

    @property
    def hidden(self) -> dict[str, str]:
        """The hidden members of its form."""
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', self.text)
        return {name: unescape(value) for name, value in found}

    @property
    def place(self) -> str:
        """Where it leads."""
        return self.headers["Location"]


class Browser:
    """`cookies`: by their name on the wire. Attributes of what was set last are in `written`."""

    def __init__(self, http: aiohttp.ClientSession, proxy: Proxy) -> None:
        self._http = http
        self.origin = f"http://{proxy.data_address}"
        self.cookies: dict[str, str] = {}
        self.written: dict[str, Morsel[str]] = {}

    async def get(self, path: str, **headers: str) -> Page:
        """As if somebody typed it."""
        return await self._ask("GET", path, None, {"Sec-Fetch-Site": "none", **headers})

    async def post(self, path: str, form: Mapping[str, str] | bytes, **headers: str) -> Page:
        """As a page of the same origin does; headers may say something else. An empty one is left out."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin", **headers}
        return await self._ask("POST", path, form, sent)

    async def sign_in(self, key: str, onward: str = "") -> Page:
        """By the form, with an API key."""
        page = await self.get(f"{SIGN_IN}?next={onward}" if onward else SIGN_IN)
        return await self.post(SIGN_IN, {**page.hidden, "key": key})

    async def _ask(
        self, method: str, path: str, form: Mapping[str, str] | bytes | None, headers: Mapping[str, str]
    ) -> Page:
        sent = {name.replace("_", "-"): value for name, value in headers.items() if value}
        if self.cookies:
            sent.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        if isinstance(form, bytes):
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        url = self.origin + path
        async with self._http.request(method, url, headers=sent, data=form, allow_redirects=False) as answer:
            page = Page(answer.status, answer.headers, await answer.text())
        self._keep(page.headers.getall("Set-Cookie", ()))
        return page

    def _keep(self, lines: list[str] | tuple[str, ...]) -> None:
        for line in lines:
            for name, morsel in SimpleCookie(line).items():
                self.written[name] = morsel
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
