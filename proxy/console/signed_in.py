"""Who is signed in?  [io]

In goes a request with its cookie, out comes the caller with the rights they have now, or None. A sign-in holds nothing
itself: a key's row, or the owner's, is asked again for every request, as an API key's is. Whoever may not ask any more
is not signed in, and the sign-in has ended. How one signs in is not known here.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace

from aiohttp import web

from proxy.client_address import ClientAddress, Network, find_client_address
from proxy.console.cookies import MARKED_BYTES, SIGN_IN, Cookies, Mark, derive_csrf, hash_value
from proxy.console.sign_in_store import SignIn, SignInStore
from proxy.errors import CredentialError, DatabaseError, Reason, RequestError, UnavailableError
from proxy.keys.rights import ADMIN_ROLE, Caller, form_key_actor
from proxy.logs import get_logger
from proxy.management.callers import Callers

log = get_logger("sign_ins")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`csrf`: what this sign-in's own pages hand back with every change."""

    caller: Caller
    csrf: str


class SignIns:
    """`mark`: what our cookies have; `trusted_proxies`: who may say where a request comes from."""

    def __init__(
        self,
        store: SignInStore,
        callers: Callers,
        cookies: Cookies,
        mark: Mark,
        trusted_proxies: Collection[Network],
    ) -> None:
        self._store = store
        self._callers = callers
        self._cookies = cookies
        self._mark = mark
        self._trusted_proxies = trusted_proxies

    async def find_signed_in(self, request: web.BaseRequest) -> SignedIn | None:
        """Raises DeniedError and LimitError, where the key is constrained, and UnavailableError."""
        value = self._find_value(request)
        if value is None:
            return None
        address, id_hash = self._find_address(request), hash_value(value)
        try:
            sign_in = await self._store.find(id_hash)
            if sign_in is None:
                return None
            caller = await self._find_caller(sign_in, address)
        except (CredentialError, RequestError):
            await self._end(value)
            return None
        except DatabaseError as error:
            raise _refuse_database(error) from error
        return SignedIn(replace(caller, sign_in=id_hash), derive_csrf(value))

    async def open(self, caller: Caller, request: web.BaseRequest) -> str:
        """A new sign-in; what was the browser's cookie before ends. The value of its Set-Cookie. Raises
        UnavailableError."""
        before = self._find_value(request)
        value = self._mark.put_on(secrets.token_urlsafe(MARKED_BYTES))
        sign_in = _form_sign_in(caller)
        try:
            await self._store.open(
                hash_value(value), sign_in, caller.actor, hash_value(before) if before is not None else None
            )
        except DatabaseError as error:
            raise _refuse_database(error) from error
        return self._cookies.write(SIGN_IN, value)

    async def close(self, request: web.BaseRequest, *, everywhere: bool) -> str:
        """The value of the Set-Cookie that clears it. Raises UnavailableError."""
        value = self._find_value(request)
        if value is not None:
            if everywhere:
                await self._end_all(value)
            await self._end(value)
        return self._cookies.clear(SIGN_IN)

    def _find_value(self, request: web.BaseRequest) -> str | None:
        """Of its cookie, if that is one of ours: nothing else costs a statement."""
        value = self._cookies.find(request.headers, SIGN_IN)
        return value if value is not None and self._mark.is_on(value) else None

    def _find_address(self, request: web.BaseRequest) -> ClientAddress | None:
        return find_client_address(request.remote, request.headers, self._trusted_proxies)

    async def _find_caller(self, sign_in: SignIn, address: ClientAddress | None) -> Caller:
        if sign_in.key_id is not None and sign_in.secret_version is not None:
            return await self._callers.find_key_again(sign_in.key_id, sign_in.secret_version, address)
        return await self._callers.find_owner_again(
            sign_in.owner_id, tenant_id=sign_in.tenant_id, tier=sign_in.tier, role=sign_in.role
        )

    async def _end_all(self, value: str) -> None:
        """From anywhere and at any rate: what constrains a key does not keep its owner from ending what it opened."""
        try:
            sign_in = await self._store.find(hash_value(value))
            if sign_in is not None:
                await self._store.end_all(sign_in, await self._find_actor(sign_in))
        except (CredentialError, RequestError):
            pass  # nobody's, any more: so are the others
        except DatabaseError as error:
            raise _refuse_database(error) from error

    async def _find_actor(self, sign_in: SignIn) -> str:
        if sign_in.key_id is not None:
            return form_key_actor(sign_in.key_id)
        return (await self._find_caller(sign_in, None)).actor

    async def _end(self, value: str) -> None:
        try:
            await self._store.end(hash_value(value))
        except DatabaseError as error:
            raise _refuse_database(error) from error


def _form_sign_in(caller: Caller) -> SignIn:
    if caller.key_id is not None:
        return SignIn(caller.owner.id, caller.key_id, caller.secret_version)
    role = ADMIN_ROLE if caller.is_admin else None
    return SignIn(caller.owner.id, tenant_id=caller.owner.tenant_id, tier=caller.claimed_tier, role=role)


def _refuse_database(error: DatabaseError) -> UnavailableError:
    log.warning("sign_in_unknown", error=str(error))
    return UnavailableError(
        Reason.DATABASE_SILENT, "Who is signed in cannot be known right now.", retry_after_seconds=2
    )
