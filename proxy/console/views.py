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
from proxy.console.assets import read_assets
from proxy.console.forms import check_same_site, read_form
from proxy.console.page_headers import HEADERS
from proxy.console.pages import find_actions, find_one_workflow, find_unused, form_chart, measure_grace
from proxy.console.rendering import open_renderer
from proxy.console.sign_in import MAX_BODY_BYTES, SignInDesk
from proxy.console.sign_in_pages import ROOT, SETTINGS, SIGN_IN, STATIC, find_prefix
from proxy.console.signed_in import SignedIn as SignedIn
from proxy.envelope import Target, parse_query
from proxy.errors import CredentialError, Reason, Refusal, RequestError
from proxy.keys.record import form_date
from proxy.keys.rights import ACTION_SCOPES, Action, Caller, RightsError, check_action
from proxy.management.dispatch import Management
from proxy.management.faults import refuse_conflict, refuse_input, refuse_rights
from proxy.management.shown import EventPage, Grantables, Key, KeyPage, SessionList, Usage
from proxy.policy.reserved import is_console
from proxy.policy.scopes import covers
from proxy.recording import MANAGEMENT, PLAIN, Passage
from proxy.request_body import BodyLimits, read_body

T = TypeVar("T")
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
API: Final = f"{SETTINGS}/v1/"  # what stands below it is the management API's
NEW: Final = f"{ROOT}/new"  # no id of a key is as short
CONNECT: Final = f"{ROOT}/connect"
# What can be done to a key without scripts: nothing that a secret comes of, and nothing that takes more than a word.
DEEDS: Final = MappingProxyType({"disable": "disable_api_key", "enable": "enable_api_key", "revoke": "revoke_api_key"})
_DEED = re.compile(rf"{ROOT}/(?P<id>[0-9A-Za-z]{{12}})/(?P<deed>{'|'.join(DEEDS)})", re.ASCII)
_KEY = re.compile(rf"{ROOT}/(?P<id>[0-9A-Za-z]{{12}})(?P<edit>/edit)?", re.ASCII)
EDITED: Final = frozenset({"id", "name", "scopes", "expires_at", "constraints", "status", "version"})
SEARCH: Final = ("q", "status", "preset", "cursor")


class SignIns(Protocol):
    """Who knows the cookies."""

    async def find_signed_in(self, request: web.BaseRequest) -> SignedIn | None:
        """Raises Refusal, when it cannot be known right now."""


class Console:
    """One instance per process. `bodies`: how long a form may take; `base_url`: how clients write our address; None: as
    the request does. `idle_seconds`: how long a sign-in lasts unused. `now`: seconds since the epoch."""

    def __init__(
        self,
        *,
        management: Management,
        sign_ins: SignIns,
        bodies: BodyLimits,
        desk: SignInDesk | None = None,
        base_url: str | None,
        idle_seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._management = management
        self._sign_ins = sign_ins
        self._assets = read_assets()
        self._bodies = replace(bodies, max_body_bytes=MAX_BODY_BYTES)
        self._desk = desk
        self._renderer = open_renderer()
        self._base_url = base_url.rstrip("/") if base_url else None
        self._prefix = find_prefix(base_url)
        self._idle_seconds = idle_seconds
        self._now = now

    def serves(self, path: str) -> bool:
        """Whether a path is this room's to answer, with a refusal at least."""
        return is_console(path)

    def shows(self, method: str, path: str) -> bool:
        """Whether a browser asks for a page there, and is to read a refusal as one."""
        return method in ("GET", "POST") and is_console(path) and not path.startswith((API, f"{STATIC}/"))

    async def serve(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.StreamResponse:
        """Answer one request. Raises Refusal where no page was asked for."""
        if target.path.startswith(API):
            return await self._pass_on(request, target, passage)
        if self._desk is not None and self._desk.serves(target.path):
            return await self._desk.serve(request, target, passage)
        passage.endpoint = "page"
        asset = self._assets.find(target.path)
        if asset is not None:
            _check_get(request)
            kept = "public, max-age=31536000, immutable" if self._assets.is_lasting(target.path) else "no-cache"
            body, described = asset.choose(",".join(request.headers.getall("Accept-Encoding", ())))
            return web.Response(body=body, headers={**HEADERS, "Cache-Control": kept, **described})
        try:
            deed = _DEED.fullmatch(target.path)
            if deed is not None:
                return await self._do(request, deed["id"], deed["deed"], passage)
            return await self._show(request, target, passage)
        except Refusal as refusal:
            return self.refuse(refusal, request, passage)

    async def _pass_on(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        """The management API for whoever is signed in. Raises Refusal."""
        signed_in = await self._sign_ins.find_signed_in(request)
        if signed_in is None:
            raise CredentialError(Reason.CREDENTIAL_MISSING, "Nobody is signed in: sign in again.")
        _check_csrf(signed_in, request.headers.get("X-CSRF-Token", ""))
        inner = replace(target, path=target.path.removeprefix(SETTINGS), text=target.text.removeprefix(SETTINGS))
        return await self._management.serve(request, inner, passage, signed_in.caller)

    async def _do(self, request: web.BaseRequest, key_id: str, deed: str, passage: Passage) -> web.Response:
        """What a form on a key's page asks for, by the same operation that a script would call."""
        if request.method != "POST":
            raise RequestError(Reason.METHOD_NOT_ALLOWED, "This is done with POST.", data={"allow": ["POST"]})
        check_same_site(request.headers, self._base_url)
        signed_in = await self._sign_ins.find_signed_in(request)
        if signed_in is None:
            response = self._redirect(f"{SIGN_IN}?{urlencode({'next': f'{ROOT}/{key_id}'})}")
            response.force_close()  # nothing is read of what nobody sends
            return response
        form = read_form(request.headers, await read_body(request, self._bodies))
        _check_csrf(signed_in, form.get("csrf", ""))
        if deed == "revoke" and form.get("sure") != "yes":
            raise refuse_input([("sure", "nothing was revoked: say that it is for good")])
        members = {"reason": form["reason"]} if deed == "revoke" and form.get("reason") else NOTHING
        await self._management.ask(DEEDS[deed], signed_in.caller, passage, key_id=key_id, members=members)
        return self._redirect(f"{ROOT}/{key_id}")

    async def _show(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        _check_get(request)
        if target.path == SETTINGS:
            return self._redirect(ROOT)
        key = _KEY.fullmatch(target.path)
        if key is None and target.path not in (ROOT, NEW, CONNECT):
            raise RequestError(Reason.ROUTE_UNKNOWN, "There is no such page. Addresses of keys end with the key's id.")
        signed_in = await self._sign_ins.find_signed_in(request)
        if signed_in is None:
            return self._redirect(f"{SIGN_IN}?{urlencode({'next': target.text})}")
        base_url = self._base_url or f"http://{request.headers['Host']}"
        if target.path == CONNECT:
            return self._render("connect.html", signed_in, place="connect", base_url=base_url)
        if target.path == NEW:
            return await self._offer_new(signed_in, target, passage, base_url)
        if key is not None and key["edit"]:
            return await self._offer_edit(signed_in, key["id"], passage)
        if key is not None:
            return await self._show_key(signed_in, key["id"], target, passage, base_url)
        return await self._list(signed_in, target, passage)

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
            titles=_list_titles(grantables),
            may_create=covers(caller.grants, ACTION_SCOPES["mint"]),
            first=f"?{urlencode(search)}" if search else "",
            next=f"?{urlencode({**search, 'cursor': page.next_cursor or ''})}",
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

    async def _show_key(
        self, signed_in: SignedIn, key_id: str, target: Target, passage: Passage, base_url: str
    ) -> web.Response:
        """One key with all that is known of it; `events`: where its history goes on."""
        caller = signed_in.caller
        older = parse_query(target.query, ("events",)).get("events")
        members = {"limit": "20", **({"cursor": older} if older else {})}
        key = await self._ask(Key, "show_api_key", caller, passage, key_id=key_id)
        events = await self._ask(EventPage, "list_api_key_events", caller, passage, key_id=key_id, members=members)
        usage = await self._ask(Usage, "show_api_key_usage", caller, passage, key_id=key_id)
        held = await self._ask(SessionList, "list_api_key_sessions", caller, passage, key_id=key_id)
        grantables = await self._ask(Grantables, "list_scopes", caller, passage)
        return self._render(
            "key.html",
            signed_in,
            place="keys",
            base_url=base_url,
            idle_seconds=self._idle_seconds,
            key=key,
            actions=find_actions(caller, key),
            titles=_list_titles(grantables),
            sessions=held.sessions,
            newest=max((one.secret_version for one in held.sessions), default=0),
            chart=form_chart(usage.days),
            usage=usage,
            unused=find_unused(key, usage),
            events=events.events,
            more_events=events.next_cursor,
            older=older is not None,
            meter=measure_grace(key, events.events, datetime.fromtimestamp(self._now(), UTC)),
        )

    async def _offer_new(self, signed_in: SignedIn, target: Target, passage: Passage, base_url: str) -> web.Response:
        """The form for a new key, `rights` chosen already where a link says so."""
        _check_action(signed_in.caller, "mint", "create_api_key")
        grantables = await self._ask(Grantables, "list_scopes", signed_in.caller, passage)
        return self._render(
            "new.html",
            signed_in,
            place="keys",
            base_url=base_url,
            ends=None if signed_in.caller.ends_at is None else form_date(signed_in.caller.ends_at),
            grantables=grantables,
            chosen=parse_query(target.query, ("rights",)).get("rights", ""),
            one_workflow=find_one_workflow(grantables.scopes),
        )

    async def _offer_edit(self, signed_in: SignedIn, key_id: str, passage: Passage) -> web.Response:
        """The form for another name, other rights, another end or other constraints of a key."""
        _check_action(signed_in.caller, "update", "update_api_key")
        key = await self._ask(Key, "show_api_key", signed_in.caller, passage, key_id=key_id)
        if "update" not in find_actions(signed_in.caller, key):
            raise refuse_conflict("This key cannot be changed: it has ended, or it is the one you are signed in with")
        grantables = await self._ask(Grantables, "list_scopes", signed_in.caller, passage)
        return self._render(
            "edit.html",
            signed_in,
            place="keys",
            ends=None,
            key=key,
            shown=key.model_dump(mode="json", include=set(EDITED)),
            grantables=grantables,
            titles=_list_titles(grantables),
            one_workflow=find_one_workflow(grantables.scopes),
        )

    def _render(self, template: str, signed_in: SignedIn, **values: object) -> web.Response:
        now = datetime.fromtimestamp(self._now(), UTC)
        text = self._renderer.render(
            template, self._prefix, caller=signed_in.caller, csrf=signed_in.csrf, now=now, **values
        )
        return _form_page(text)

    def _redirect(self, place: str) -> web.Response:
        headers = {**HEADERS, "Cache-Control": "no-store", "Location": self._prefix + place}
        return web.Response(status=303, headers=headers)

    def refuse(self, refusal: Refusal, request: web.BaseRequest, passage: Passage) -> web.Response:
        """A refusal as a page, with the status that it has everywhere."""
        answer = form_answer(refusal, PLAIN, realm="", request_id=passage.request_id)
        passage.ended = refusal.reason
        text = self._renderer.render(
            "refused.html",
            self._prefix,
            title=get_title(refusal.reason),
            detail=refusal.detail,
            request_id=passage.request_id,
            again="Retry-After" in answer.headers,
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


def _list_titles(grantables: Grantables) -> dict[str, str]:
    """By the names of the presets."""
    return {preset.name: preset.title for preset in grantables.presets}


def _check_csrf(signed_in: SignedIn, token: str) -> None:
    """Raises RequestError unless it came from a page of this sign-in."""
    if not compare_digest(token.encode("utf-8", "surrogateescape"), signed_in.csrf.encode()):
        raise RequestError(Reason.ORIGIN_NOT_ALLOWED, "This does not come from a page of this sign-in: reload it.")


def _check_action(caller: Caller, action: Action, endpoint: str) -> None:
    """Raises DeniedError."""
    try:
        check_action(caller, action)
    except RightsError as error:
        raise refuse_rights(error, f"{MANAGEMENT}/{endpoint}") from error


def _check_get(request: web.BaseRequest) -> None:
    """Raises RequestError."""
    if request.method != "GET":
        raise RequestError(Reason.METHOD_NOT_ALLOWED, "Pages are read with GET.", data={"allow": ["GET"]})
    if request.body_exists:
        raise RequestError(Reason.BODY_UNEXPECTED, "A GET request here has no body.")
