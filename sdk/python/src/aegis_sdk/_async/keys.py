"""API keys: listed, minted, changed, ended; what each may do, and why not more."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from aegis_sdk._async.lists import AsyncListing
from aegis_sdk._async.resource import AsyncResource
from aegis_sdk.calls import Call, delete, form_path, form_time, get, patch, post
from aegis_sdk.errors import SecretNotShownError
from aegis_sdk.models import (
    ApiKey,
    ApiKeyPage,
    AuditEvent,
    AuditPage,
    Constraints,
    Explanation,
    KeySession,
    KeySessions,
    MintedKey,
    Receipt,
    RotatedKey,
    ScopeCatalogue,
    Usage,
)
from aegis_sdk.paging import form_linked_page

ExpiresIn = Literal["7d", "30d", "90d", "1y", "never"]
Grace = Literal["now", "1h", "24h", "7d"]
Shown = TypeVar("Shown", bound=ApiKey)
REPLAYED = "Idempotent-Replay"


class AsyncKeys(AsyncResource):
    """`client.keys`. A key manages the keys that were made by it, as far as its own `key:*` scopes go."""

    def list(
        self,
        *,
        query: str | None = None,
        status: str | Sequence[str] | None = None,
        preset: str | None = None,
        owner: str | None = None,
        page_size: int | None = None,
    ) -> AsyncListing[ApiKey]:
        """The newest first. `query`: part of a name or an id. `status`: one or several of `active`, `disabled`,
        `revoked`, `expired`. Takes `key:list`.
        """
        asked = {
            "q": query,
            "status": status if status is None or isinstance(status, str) else ",".join(status),
            "preset": preset,
            "owner": owner,
            "limit": page_size,
        }
        call = get(form_path("api-keys"), asked)
        return AsyncListing(self._transport, call, ApiKeyPage, lambda page: form_linked_page(page, page.api_keys))

    async def get(self, key_id: str) -> ApiKey:
        """Takes `key:read`."""
        return await self._transport.fetch(get(form_path("api-keys", key_id)), ApiKey)

    async def mint(
        self,
        name: str,
        *,
        preset: str | None = None,
        scopes: Sequence[str] | None = None,
        expires_in: ExpiresIn | None = None,
        expires_at: datetime | None = None,
        constraints: Constraints | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> MintedKey:
        """A new key: `minted.key` is shown this once. Takes `key:create`, and all the rights it is to have.

        Either `preset` or `scopes`; `expires_in` or `expires_at` (neither: 90 days). Raises `SecretNotShownError` when
        an earlier attempt made it and its answer was lost.
        """
        body = form_wanted(name, preset, scopes, expires_in, expires_at, constraints)
        call = post(form_path("api-keys"), body, headers=form_idempotency(idempotency_key), repeatable=True)
        return await self._show(call, MintedKey)

    async def update(
        self,
        key_id: str,
        *,
        name: str | None = None,
        preset: str | None = None,
        scopes: Sequence[str] | None = None,
        expires_in: ExpiresIn | None = None,
        expires_at: datetime | None = None,
        constraints: Constraints | Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> ApiKey:
        """What is given is changed; `expires_in="never"` takes the expiry away, `constraints` replaces all of them.

        `if_version`: only if the key is still at that version; raises `KeyChangedError` otherwise. Takes `key:update`,
        and all the rights it is to have.
        """
        body = form_wanted(name, preset, scopes, expires_in, expires_at, constraints)
        headers = {"If-Match": f'"{if_version}"'} if if_version is not None else None
        return await self._transport.fetch(patch(form_path("api-keys", key_id), body, headers=headers), ApiKey)

    async def rotate(
        self,
        key_id: str,
        *,
        grace: Grace | None = None,
        compromised: bool | None = None,
        idempotency_key: str | None = None,
    ) -> RotatedKey:
        """Another secret for the same key: `rotated.key`, shown this once. The old one is good for `grace`, an hour.

        `compromised`: the old secret ends now, and so does every key that was made by this one. Raises
        `SecretNotShownError` like `mint`. Takes `key:update`.
        """
        call = post(
            form_path("api-keys", key_id, "rotate"),
            {"grace": grace, "compromised": compromised},
            headers=form_idempotency(idempotency_key),
            repeatable=True,
        )
        return await self._show(call, RotatedKey)

    async def disable(self, key_id: str) -> ApiKey:
        """Refuse it until it is enabled again. Takes `key:update`."""
        return await self._transport.fetch(post(form_path("api-keys", key_id, "disable"), repeatable=True), ApiKey)

    async def enable(self, key_id: str) -> ApiKey:
        """Let it in again. Takes `key:update`."""
        return await self._transport.fetch(post(form_path("api-keys", key_id, "enable"), repeatable=True), ApiKey)

    async def revoke(self, key_id: str, *, reason: str | None = None) -> Receipt:
        """End it and what was made by it, for good. The receipt says who refuses it since when. Takes `key:revoke`."""
        return await self._transport.fetch(delete(form_path("api-keys", key_id), {"reason": reason}), Receipt)

    async def explain(
        self,
        key_id: str,
        *,
        tool: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        method: str | None = None,
        path: str | None = None,
        rpc: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Explanation:
        """Whether the key could do something now, and why: a `tool` call with its `arguments`, an HTTP request
        (`method`, and `path` with its query), or any JSON-RPC request (`rpc` with its `params`). Takes `key:read`.
        """
        body = {
            "tool": tool,
            "arguments": arguments,
            "method": method,
            "path": path,
            "rpc": rpc,
            "params": params,
        }
        return await self._transport.fetch(
            post(form_path("api-keys", key_id, "explain"), body, repeatable=True), Explanation
        )

    async def sessions(self, key_id: str) -> Sequence[KeySession]:
        """The MCP sessions it holds, the newest first. Takes `key:read`."""
        found = await self._transport.fetch(get(form_path("api-keys", key_id, "sessions")), KeySessions)
        return found.sessions

    def audit(self, key_id: str, *, page_size: int | None = None) -> AsyncListing[AuditEvent]:
        """What was done to it and what it was denied, the newest first. Takes `key:read`."""
        call = get(form_path("api-keys", key_id, "audit"), {"limit": page_size})
        return AsyncListing(self._transport, call, AuditPage, lambda page: form_linked_page(page, page.events))

    async def usage(self, key_id: str, *, days: int | None = None) -> Usage:
        """What it did, by day and by rule, on the last days (30). Takes `key:read`."""
        return await self._transport.fetch(get(form_path("api-keys", key_id, "usage"), {"days": days}), Usage)

    async def scopes(self) -> ScopeCatalogue:
        """All scopes and presets, and which of them this key may give away."""
        return await self._transport.fetch(get(form_path("scopes")), ScopeCatalogue)

    async def _show(self, call: Call, model: type[Shown]) -> Shown:
        """A key with its secret. Raises SecretNotShownError where that was in an answer that got lost."""
        answer = await self._transport.ask(call)
        if answer.headers.get(REPLAYED) == "true":
            raise SecretNotShownError(self._transport.read(answer, ApiKey))
        return self._transport.read(answer, model)


def form_idempotency(given: str | None) -> dict[str, str]:
    """The same in all attempts of one call."""
    return {"Idempotency-Key": given if given is not None else str(uuid.uuid4())}


def form_wanted(
    name: str | None,
    preset: str | None,
    scopes: Sequence[str] | None,
    expires_in: ExpiresIn | None,
    expires_at: datetime | None,
    constraints: Constraints | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A key as it is to be. A single text for `scopes` is one scope, and no list of its letters."""
    return {
        "name": name,
        "preset": preset,
        "scopes": [scopes] if isinstance(scopes, str) else scopes,
        "expires_in": expires_in,
        "expires_at": form_time(expires_at),
        "constraints": constraints.model_dump(exclude_none=True)
        if isinstance(constraints, Constraints)
        else constraints,
    }
