"""The rooms where keys are managed, by API and at the page, built and introduced to each other.  [io]

In go settings and open resources, out come the management API and the page. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import orjson

from proxy import __version__
from proxy.console.cookies import Cookies, Mark
from proxy.console.links import Links
from proxy.console.sign_in import DeskRules, SignInDesk
from proxy.console.sign_in_pages import CALLBACK
from proxy.console.sign_in_store import SignInStore
from proxy.console.signed_in import SignIns
from proxy.console.views import Console
from proxy.database import Database
from proxy.failures import CODES_FAILED, FailureLimiter
from proxy.fittings import form_body_limits
from proxy.forwarding import Destination
from proxy.heart import Heart
from proxy.identity_provider import IdentityProvider
from proxy.keys.hashing import Hasher
from proxy.keys.owners import Owners
from proxy.keys.store import KeyStore
from proxy.live_policy import LivePolicy
from proxy.logs import get_logger
from proxy.management.callers import Callers
from proxy.management.dispatch import Management
from proxy.management.endpoints import ENDPOINTS
from proxy.management.openapi import form_document
from proxy.management.operations import Operations
from proxy.offered_names import OfferedNames
from proxy.provider_codes import ProviderPage
from proxy.recording import Recorder
from proxy.settings import Settings

log = get_logger("server")


@dataclass(frozen=True, slots=True)
class BackOffice:
    """`console`: None where there is no page."""

    management: Management
    sign_ins: SignIns
    links: Links
    console: Console | None


def build_back_office(
    settings: Settings,
    live: LivePolicy,
    heart: Heart,
    database: Database,
    hasher: Hasher,
    destinations: Mapping[str, Destination],
    recorder: Recorder,
    provider: IdentityProvider | None,
    failures: FailureLimiter,
) -> BackOffice:
    """`provider`: None where API keys alone manage keys; `failures`: what the whole front door counts."""
    callers = Callers(
        verifier=heart.verifier,
        admit=lambda principal, address: heart.gate.admit(principal, address, heart.clock.boot()),
        store=KeyStore(database),
        owners=Owners(database),
        provider=provider,
        live=live,
        now=lambda: heart.database_clock.now(heart.clock.boot()),
    )
    management = Management(
        operations=Operations(database, hasher, live, heart.clock, OfferedNames(destinations, live)),
        callers=callers,
        recorder=recorder,
        bodies=form_body_limits(settings),
        document=_render_document(),
        at_once=max(1, settings.database.pool_max_size // 2),  # the other half is for all others, the data path first
    )
    cookies = _form_cookies(settings)
    store = SignInStore(
        database, idle_seconds=settings.console.idle_seconds, absolute_seconds=settings.console.absolute_seconds
    )
    sign_ins = SignIns(store, callers, cookies, Mark(heart.sign_in_key), settings.server.trusted_proxies)
    links = Links(heart.clock.boot)
    # Of their own: a client with a wrong key behind the same NAT keeps nobody from signing in.
    codes = FailureLimiter(burst=settings.failures.burst, per_second=settings.failures.per_second, detail=CODES_FAILED)
    desk = SignInDesk(
        sign_ins=sign_ins,
        callers=callers,
        cookies=cookies,
        provider=provider,
        links=links,
        rules=DeskRules(settings.server.public_url, form_body_limits(settings), _form_provider_page(settings)),
        weigh=lambda refusal, address: failures.weigh(refusal, address, heart.clock.boot()),
        weigh_code=lambda refusal, address: codes.weigh(refusal, address, heart.clock.boot()),
        check_code=lambda address: codes.check(address, heart.clock.boot()),
        note_refusal=recorder.note_refusal,
    )
    console = Console(
        management=management,
        sign_ins=sign_ins,
        bodies=form_body_limits(settings),
        desk=desk,
        base_url=settings.server.public_url,
        idle_seconds=settings.console.idle_seconds,
        now=heart.clock.wall,
    )
    return BackOffice(management, sign_ins, links, console if settings.console.enabled else None)


def _form_cookies(settings: Settings) -> Cookies:
    server = settings.server
    if settings.console.enabled and server.trusted_proxies and server.public_url is None:
        mend = "set server.public_url to the https:// address of the page"
        log.warning("sign_in_cookie_not_secure", mend=mend)  # a proxy before us most likely speaks TLS
    return Cookies(secure=(server.public_url or "").startswith("https:"))


@cache  # 40 ms
def _render_document() -> bytes:
    return orjson.dumps(form_document(ENDPOINTS, __version__))


def _form_provider_page(settings: Settings) -> ProviderPage | None:
    """The page as the identity provider knows it, if it does."""
    written, public_url = settings.console, settings.server.public_url
    if written.client_id is None or public_url is None:
        return None
    secret = written.client_secret.get_secret_value() if written.client_secret is not None else None
    return ProviderPage(written.client_id, secret, public_url.rstrip("/") + CALLBACK)
