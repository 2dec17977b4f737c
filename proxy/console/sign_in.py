"""Signing in and out, as browsers do it: the only part of it that knows HTTP.  [io]

In goes a request whose target, framing and host have been judged, out comes a page, or a redirect to one of ours. An
API key is verified as on the data path, counts against its address when it is none, and has to hold a right to manage
keys. A sign-in always has a new cookie. Refusals are told on the sign-in page, with the status they have everywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from proxy.challenges import form_answer
from proxy.client_address import ClientAddress
from proxy.console.cookies import (
    BRIEF_SECONDS,
    FLOW,
    FORM,
    RANDOM_BYTES,
    SIGN_IN,
    Cookies,
    derive,
    derive_csrf,
    is_csrf,
)
from proxy.console.forms import check_same_site, read_form, settle_onward
from proxy.console.links import Links
from proxy.console.page_headers import HEADERS as PAGE_HEADERS
from proxy.console.sign_in_pages import (
    CALLBACK,
    LINK,
    SIGN_OUT,
    START,
    find_prefix,
    form_onward_page,
    form_sign_in_page,
)
from proxy.console.sign_in_pages import SIGN_IN as SIGN_IN_PATH
from proxy.console.signed_in import SignIns
from proxy.credentials import PresentedCredential, parse_bearer
from proxy.envelope import Target, parse_query
from proxy.errors import DatabaseError, DeniedError, Reason, Refusal, RequestError, UnavailableError, UnprovenError
from proxy.identity_provider import IdentityProvider
from proxy.keys.rights import ACTION_SCOPES, Caller
from proxy.management.callers import Callers
from proxy.policy.scopes import covers
from proxy.provider_codes import ProviderPage, check_flow, form_authorization_url, read_code, read_onward
from proxy.recording import PLAIN, Passage
from proxy.request_body import BodyLimits, read_body

METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    SIGN_IN_PATH: ("GET", "POST"),
    START: ("GET",),
    CALLBACK: ("GET",),
    LINK: ("GET",),
    SIGN_OUT: ("POST",),
}
CALLBACK_MEMBERS: Final = ("code", "state", "iss", "error", "error_description", "error_uri", "session_state")
MAX_BODY_BYTES: Final = 4096  # a form of ours has 300
PROVIDER_AWAY: Final = (
    "Your account cannot be checked right now: the identity provider does not answer. Try again soon, or sign in with"
    " an API key."
)
HEADERS: Final[Mapping[str, str]] = {**PAGE_HEADERS, "Cache-Control": "no-store"}
Weigh = Callable[[Refusal, ClientAddress | None], Refusal]


@dataclass(frozen=True, slots=True)
class DeskRules:
    """`public_url`: how browsers write our address, where that is known; `page`: as the identity provider knows it."""

    public_url: str | None
    bodies: BodyLimits
    page: ProviderPage | None = None  # None: API keys alone sign in


class SignInDesk:
    """`weigh`: a failed attempt as it counts against its address; `weigh_code`: the same of a code of the provider's;
    `check_code`: refuses, before it is traded, what would count beyond the budget. `note_refusal` hears of every
    refusal. `provider`: there where `rules.page` is."""

    def __init__(
        self,
        *,
        sign_ins: SignIns,
        callers: Callers,
        cookies: Cookies,
        provider: IdentityProvider | None,
        links: Links,
        rules: DeskRules,
        weigh: Weigh,
        weigh_code: Weigh,
        check_code: Callable[[ClientAddress | None], None],
        note_refusal: Callable[[Passage, Refusal], None],
    ) -> None:
        self._provider = provider
        self._links = links
        self._sign_ins = sign_ins
        self._callers = callers
        self._cookies = cookies
        self._prefix = find_prefix(rules.public_url)
        self._rules = replace(rules, bodies=replace(rules.bodies, max_body_bytes=MAX_BODY_BYTES))
        self._weigh = weigh
        self._weigh_code = weigh_code
        self._check_code = check_code
        self._note_refusal = note_refusal

    def serves(self, path: str) -> bool:
        """Whether a path is this room's to answer."""
        return path in METHODS

    async def serve(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        """Answer one request, refusals included."""
        passage.endpoint = "sign_out" if target.path == SIGN_OUT else "sign_in"
        try:
            return await self._answer(request, target, passage)
        except Refusal as refused:
            return self._show_refusal(self._weigh(refused, passage.address), request, passage, settle_onward(None))

    async def _answer(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        allowed = METHODS[target.path]
        if request.method not in allowed:
            detail = f"This path takes {', '.join(allowed)}."
            raise RequestError(Reason.METHOD_NOT_ALLOWED, detail, data={"allow": list(allowed)})
        if target.path == START:
            return await self._send_to_provider(request, passage, settle_onward(_find_member(target, "next")))
        if target.path == CALLBACK:
            return await self._come_back(request, target, passage)
        if target.path == LINK:
            return await self._follow_link(request, target, passage)
        if request.method == "GET":
            return self._show_form(request, settle_onward(_find_member(target, "next")))
        check_same_site(request.headers, self._rules.public_url)
        _find_member(target)
        members = read_form(request.headers, await read_body(request, self._rules.bodies))
        if target.path == SIGN_OUT:
            self._check_csrf(request, SIGN_IN, members.get("csrf", ""))
            cleared = await self._sign_ins.close(request, everywhere="everywhere" in members)
            return self._redirect(SIGN_IN_PATH, cleared)
        return await self._take_key(request, passage, members)

    async def _take_key(self, request: web.BaseRequest, passage: Passage, members: Mapping[str, str]) -> web.Response:
        """Whoever fails may try again, and gets where they wanted to go."""
        onward = settle_onward(members.get("next"))
        try:
            self._check_csrf(request, FORM, members.get("csrf", ""))
            caller = await self._find_key_holder(members.get("key", ""), passage)
            opened = await self._sign_ins.open(caller, request)
        except Refusal as refused:
            return self._show_refusal(self._weigh(refused, passage.address), request, passage, onward)
        return self._redirect(onward, opened, self._cookies.clear(FORM))

    async def _send_to_provider(self, request: web.BaseRequest, passage: Passage, onward: str) -> web.Response:
        """With a cookie that is sent along when the browser comes back from there, as a Strict one would not be."""
        provider, page = self._require_provider()
        try:
            base = (await provider.get_metadata()).authorization_url
            if base is None:
                detail = "The identity provider has no page to sign in at."
                raise UnavailableError(Reason.PROVIDER_UNREACHABLE, detail, retry_after_seconds=10)
        except Refusal as refused:
            return self._show_refusal(refused, request, passage, onward)
        value = secrets.token_urlsafe(RANDOM_BYTES)
        cookie = self._cookies.write(FLOW, value, seconds=BRIEF_SECONDS, same_site="Lax")
        return _form_redirect(form_authorization_url(base, page, value, onward), cookie)

    async def _come_back(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        """Whoever signed in at the provider, in the browser that was sent there."""
        provider, page = self._require_provider()
        members = parse_query(target.query, CALLBACK_MEMBERS)
        value = self._cookies.find(request.headers, FLOW)
        onward = settle_onward(read_onward(members))
        try:
            code = read_code(members, value, provider.issuer)
            assert value is not None, "else there is no state it could have matched"
            self._check_code(passage.address)  # anybody can make up a cookie, the state that belongs to it, and a code
            claims = await provider.redeem(code, page, verifier=derive(value, "verifier"))
            check_flow(claims, page, value)
            caller = _require_manager(await self._ask(self._callers.find_owner(claims)))
            opened = await self._sign_ins.open(caller, request)
        except Refusal as refused:
            return self._show_refusal(self._weigh_code(refused, passage.address), request, passage, onward)
        return self._lead_on(onward, opened, self._cookies.clear(FLOW))

    async def _follow_link(self, request: web.BaseRequest, target: Target, passage: Passage) -> web.Response:
        """Whoever has it from the one that made it. Another site's link would sign a visitor in as somebody else."""
        check_same_site(request.headers, self._rules.public_url)
        taken = self._links.take(_find_member(target, "once") or "")
        if taken is None:
            raise UnprovenError(Reason.TOKEN_INVALID, "This link was used already, or is too old: it works once.")
        passage.key_id = taken[0]
        caller = await self._ask(self._callers.find_key_again(*taken, passage.address))
        opened = await self._sign_ins.open(_require_manager(caller), request)
        return self._lead_on(settle_onward(None), opened)

    def _require_provider(self) -> tuple[IdentityProvider, ProviderPage]:
        if self._provider is None or self._rules.page is None:
            raise RequestError(Reason.ROUTE_UNKNOWN, "Nobody signs in here but by API key.")
        return self._provider, self._rules.page

    async def _ask(self, asked: Awaitable[Caller]) -> Caller:
        try:
            return await asked
        except DatabaseError as error:
            raise UnavailableError(
                Reason.DATABASE_SILENT, "The key database does not answer right now.", retry_after_seconds=2
            ) from error

    async def _find_key_holder(self, text: str, passage: Passage) -> Caller:
        """Whoever presents a key that manages keys. Raises Refusal."""
        presented = PresentedCredential(parse_bearer(f"Bearer {text.strip()}"))
        passage.key_id = presented.key_id
        caller = await self._ask(self._callers.find(presented, passage.address))
        passage.key_id = caller.key_id
        return _require_manager(caller)

    def _check_csrf(self, request: web.BaseRequest, cookie: str, token: str) -> None:
        value = self._cookies.find(request.headers, cookie)
        if value is None or not is_csrf(value, token):
            raise RequestError(
                Reason.ORIGIN_NOT_ALLOWED, "This form is too old, or not from this browser: send the one below."
            )

    def _show_form(
        self, request: web.BaseRequest, onward: str, fault: str | None = None, status: int = 200
    ) -> web.Response:
        """With a cookie that this form alone is bound to; one that is there already goes on, for other tabs."""
        value = self._cookies.find(request.headers, FORM) or secrets.token_urlsafe(RANDOM_BYTES)
        provider = self._rules.page is not None
        text = form_sign_in_page(
            prefix=self._prefix, csrf=derive_csrf(value), onward=onward, provider=provider, fault=fault
        )
        return _form_page(text, status, [self._cookies.write(FORM, value, seconds=BRIEF_SECONDS)])

    def _show_refusal(self, refusal: Refusal, request: web.BaseRequest, passage: Passage, onward: str) -> web.Response:
        passage.ended = refusal.reason
        self._note_refusal(passage, refusal)
        answer = form_answer(refusal, PLAIN, realm="", request_id=passage.request_id)
        told = PROVIDER_AWAY if refusal.reason is Reason.PROVIDER_UNREACHABLE else refusal.detail
        response = self._show_form(request, onward, told, answer.status)
        for name in ("Retry-After", "Allow", "X-Request-Id"):
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        if answer.close or not request.content.is_eof():
            response.force_close()  # what was not read must not be taken for the next request
        return response

    def _lead_on(self, onward: str, *cookies: str) -> web.Response:
        return _form_page(form_onward_page(onward, self._prefix), cookies=cookies)

    def _redirect(self, place: str, *cookies: str) -> web.Response:
        return _form_redirect(self._prefix + place, *cookies)


def _form_page(text: str, status: int = 200, cookies: Iterable[str] = ()) -> web.Response:
    response = web.Response(text=text, content_type="text/html", status=status, headers=HEADERS)
    for cookie in cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


def _require_manager(caller: Caller) -> Caller:
    """Whoever may do something here. Raises DeniedError."""
    if any(covers(caller.grants, scope) for scope in ACTION_SCOPES.values()):
        return caller
    missing = ACTION_SCOPES["list"]
    detail = f"{caller.name} holds no right to manage keys, such as {missing}."
    raise DeniedError(Reason.SCOPE_MISSING, detail, data={"missing": [missing]})


def _find_member(target: Target, *names: str) -> str | None:
    """The one member that a query may have. Raises RequestError."""
    members = parse_query(target.query, names)
    if not members.keys() <= {*names}:
        raise RequestError(Reason.QUERY_NOT_ALLOWED, "This page does not take that in its query.")
    return next(iter(members.values()), None)


def _form_redirect(place: str, *cookies: str) -> web.Response:
    response = web.Response(status=303, headers={**HEADERS, "Location": place})
    for cookie in cookies:
        response.headers.add("Set-Cookie", cookie)
    return response
