"""What was asked of the page, and what goes back: the only part of it that knows HTTP.  [io]

In goes a request whose target, framing and host have been judged, out comes a page, a file, or what the management API
says to whoever is signed in. Pages tell their refusals as pages; nobody signed in is sent to the sign-in. What is
cached nowhere is everything but files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hmac import compare_digest
from types import MappingProxyType
from typing import Final, Protocol, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from proxy.challenges import form_answer, get_title
from proxy.console.assets import Assets
from proxy.console.page_headers import HEADERS
from proxy.console.rendering import ROOT, Renderer
from proxy.console.sign_in import SignInDesk
from proxy.console.signed_in import SignedIn as SignedIn
from proxy.envelope import Target, parse_query
from proxy.errors import CredentialError, Reason, Refusal, RequestError
from proxy.keys.rights import ACTION_SCOPES, Caller
from proxy.management.dispatch import Management
from proxy.management.shown import Grantables, KeyPage
from proxy.policy.reserved import is_console
from proxy.policy.scopes import covers
from proxy.recording import PLAIN, Passage

T = TypeVar("T")
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
API: Final = "/settings"  # what stands below it under /v1 is the management API's
SIGN_IN: Final = "/settings/sign-in"
SEARCH: Final = ("q", "status", "preset", "cursor")
_KEY = re.compile(rf"{ROOT}/(?P<id>[0-9A-Za-z]{{12}})", re.ASCII)


class SignIns(Protocol):
    """Who knows the cookies."""

    async def find_signed_in(self, request: web.BaseRequest) -> SignedIn | None:
        """Raises Refusal, when it cannot be known right now."""


class Console:
    """One instance per process. `base_url`: how clients write our address; None: as the request does. `now`: seconds
    since the epoch."""

    def __init__(
        self,
        *,
        management: Management,
        sign_ins: SignIns,
        assets: Assets,
        desk: SignInDesk | None = None,
        base_url: str | None,
        now: Callable[[], float],
    ) -> None:
        self._management = management
        self._sign_ins = sign_ins
        self._assets = assets
        self._desk = desk
        self._renderer = Renderer(assets)
        self._base_url = base_url
        self._now = now

    def serves(self, path: str) -> bool:
        """Whether a path is this room's to answer, with a refusal at least."""
        return is_console(path)

    async def serve(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.StreamResponse:
        """Answer one request. Raises Refusal where no page was asked for."""
        if target.path.startswith(f"{API}/v1/"):
            return await self._pass_on(request, target, passage)
        if self._desk is not None and self._desk.serves(target.path):
            return await self._desk.serve(request, target, passage)
        passage.endpoint = "page"
        asset = self._assets.find(target.path)
        if asset is not None:
            _check_get(request)
            kept = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Type": asset.content_type}
            return web.Response(body=asset.body, headers={**HEADERS, **kept})
        try:
            return await self._show(request, target, passage)
        except Refusal as refusal:
            return self._refuse(refusal, request, passage)

    async def _pass_on(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        """The management API for whoever is signed in. Raises Refusal."""
        signed_in = await self._sign_ins.find_signed_in(request)
        if signed_in is None:
            raise CredentialError(Reason.CREDENTIAL_MISSING, "Nobody is signed in: sign in again.")
        if not compare_digest(request.headers.get("X-CSRF-Token", "").encode(), signed_in.csrf.encode()):
            raise RequestError(Reason.ORIGIN_NOT_ALLOWED, "This does not come from a page of this sign-in: reload it.")
        inner = replace(target, path=target.path.removeprefix(API), text=target.text.removeprefix(API))
        return await self._management.serve(request, inner, passage, signed_in.caller)

    async def _show(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        _check_get(request)
        if target.path == API:
            return _redirect(ROOT)
        key = _KEY.fullmatch(target.path)
        if key is None and target.path not in (ROOT, f"{ROOT}/connect"):
            raise RequestError(Reason.ROUTE_UNKNOWN, "There is no such page. Addresses of keys end with the key's id.")
        signed_in = await self._sign_ins.find_signed_in(request)
        if signed_in is None:
            return _redirect(f"{SIGN_IN}?{urlencode({'next': target.text})}")
        if target.path == ROOT:
            return await self._list(signed_in, target, passage)
        return self._render("connect.html", signed_in, place="connect", base_url=self._find_base_url(request))

    async def _list(self, signed_in: SignedIn, target: Target, passage: Passage) -> web.Response:
        given = {name: value for name, value in parse_query(target.query, SEARCH).items() if name in SEARCH and value}
        caller = signed_in.caller
        grantables = await self._ask(Grantables, "list_scopes", caller, passage)
        page = await self._ask(KeyPage, "list_api_keys", caller, passage, members=given)
        search = {name: value for name, value in given.items() if name != "cursor"}
        return self._render(
            "list.html",
            signed_in,
            place="keys",
            page=page,
            query={name: given.get(name, "") for name in SEARCH},
            narrowed=bool(given),
            presets=grantables.presets,
            titles={preset.name: preset.title for preset in grantables.presets},
            may_create=covers(caller.grants, ACTION_SCOPES["mint"]),
            first=f"{ROOT}?{urlencode(search)}" if search else ROOT,
            next=f"{ROOT}?{urlencode({**search, 'cursor': page.next_cursor or ''})}",
        )

    async def _ask(
        self,
        kind: type[T],
        name: str,
        caller: Caller,
        passage: Passage,
        key_id: str = "",
        members: Mapping[str, str] = NOTHING,
    ) -> T:
        """What the management API answers, of the kind that it should be. Raises Refusal."""
        result = await self._management.ask(name, caller, passage, key_id=key_id, members=members)
        assert isinstance(result, kind)
        return result

    def _find_base_url(self, request: web.BaseRequest) -> str:
        return self._base_url or f"http://{request.headers['Host']}"

    def _render(self, template: str, signed_in: SignedIn, **values: object) -> web.Response:
        now = datetime.fromtimestamp(self._now(), UTC)
        text = self._renderer.render(template, caller=signed_in.caller, csrf=signed_in.csrf, now=now, **values)
        return _form_page(text)

    def _refuse(self, refusal: Refusal, request: web.BaseRequest, passage: Passage) -> web.Response:
        """A refusal as a page, with the status that it has everywhere."""
        answer = form_answer(refusal, PLAIN, realm="", request_id=passage.request_id)
        passage.ended = refusal.reason
        text = self._renderer.render(
            "refused.html",
            title=get_title(refusal.reason),
            detail=refusal.detail,
            request_id=passage.request_id,
        )
        response = _form_page(text, answer.status)
        for name in ("Retry-After", "Allow"):
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        if answer.close or not request.content.is_eof():
            response.force_close()  # what was not read must not be taken for the next request
        return response


def _form_page(text: str, status: int = 200) -> web.Response:
    headers = {**HEADERS, "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8"}
    return web.Response(body=text.encode(), status=status, headers=headers)


def _redirect(place: str) -> web.Response:
    return web.Response(status=303, headers={**HEADERS, "Cache-Control": "no-store", "Location": place})


def _check_get(request: web.BaseRequest) -> None:
    """Raises RequestError."""
    if request.method != "GET":
        raise RequestError(Reason.METHOD_NOT_ALLOWED, "Pages are read with GET.", data={"allow": ["GET"]})
    if request.body_exists:
        raise RequestError(Reason.BODY_UNEXPECTED, "A GET request here has no body.")
