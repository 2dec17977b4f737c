"""What there is: one row for each endpoint of the management API.  [pure]

The table feeds dispatch and the OpenAPI document, so that neither knows one that the other does not. What an endpoint
does stands in `answers`, by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel

from proxy.errors import Reason
from proxy.keys.rights import ACTION_SCOPES, Action
from proxy.management.models import (
    AskedRequest,
    KeyPatch,
    KeyQuery,
    NamesQuery,
    Nothing,
    OwnerPatch,
    PageQuery,
    RevocationQuery,
    UsageQuery,
    WantedKey,
    WantedOwner,
    WantedRotation,
)
from proxy.management.shown import (
    EventPage,
    Explained,
    Grantables,
    Key,
    KeyPage,
    NewKey,
    OfferedNames,
    Owner,
    OwnerPage,
    Revocation,
    RotatedKey,
    SessionList,
    Usage,
    Validation,
)
from proxy.policy.patterns import PatternIndex, parse_path_pattern

RIGHTS: Final = (
    Reason.RIGHTS_EXCEEDED, Reason.EXPIRY_EXCEEDED, Reason.CONSTRAINTS_EXCEEDED, Reason.NOT_A_DESCENDANT,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`action`: what it takes a scope for; None: nothing, or the caller alone. `answers`: by status.

    `asker`: who may ask. `refusals`: beyond what any request may be refused for.
    """

    name: str
    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    summary: str
    answers: Mapping[int, tuple[type[BaseModel], ...]]
    action: Action | None = None
    asker: Literal["nobody", "caller", "key", "admin"] = "caller"
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    body_optional: bool = False
    refusals: tuple[Reason, ...] = ()
    idempotent: bool = False  # takes Idempotency-Key
    conditional: bool = False  # takes If-Match
    verbatim: bool = False  # numbers of its body are read as the data path reads them

    @property
    def scope(self) -> str | None:
        """What the caller has to hold."""
        return None if self.action is None else ACTION_SCOPES[self.action]


ENDPOINTS: Final = (
    Endpoint(
        "list_api_keys", "GET", "/v1/api-keys", "The keys that the caller may see, newest first.", {200: (KeyPage,)},
        "list", query=KeyQuery,
    ),
    Endpoint(
        "create_api_key", "POST", "/v1/api-keys", "A new key; its token is shown once.", {201: (NewKey,), 200: (Key,)},
        "mint", body=WantedKey, refusals=(*RIGHTS, Reason.TOO_MANY_GENERATIONS, Reason.KEY_CONFLICT), idempotent=True,
    ),
    Endpoint(
        "show_api_key", "GET", "/v1/api-keys/{id}", "One key.", {200: (Key,)}, "read",
        refusals=(Reason.KEY_NOT_FOUND,),
    ),
    Endpoint(
        "update_api_key", "PATCH", "/v1/api-keys/{id}", "Rename a key, change its scopes, expiry or constraints.",
        {200: (Key,)}, "update", body=KeyPatch, conditional=True,
        refusals=(*RIGHTS, Reason.KEY_NOT_FOUND, Reason.KEY_CONFLICT, Reason.KEY_CHANGED),
    ),
    Endpoint(
        "disable_api_key", "POST", "/v1/api-keys/{id}/disable", "Refuse a key until it is enabled.", {200: (Key,)},
        "disable", body=Nothing, body_optional=True,
        refusals=(Reason.NOT_A_DESCENDANT, Reason.KEY_NOT_FOUND, Reason.KEY_CONFLICT),
    ),
    Endpoint(
        "enable_api_key", "POST", "/v1/api-keys/{id}/enable", "Let a disabled key in again.", {200: (Key,)}, "enable",
        body=Nothing, body_optional=True, refusals=(*RIGHTS, Reason.KEY_NOT_FOUND, Reason.KEY_CONFLICT),
    ),
    Endpoint(
        "rotate_api_key", "POST", "/v1/api-keys/{id}/rotate", "A new secret, shown this once.",
        {200: (RotatedKey, Key)}, "rotate", body=WantedRotation, body_optional=True, idempotent=True,
        refusals=(*RIGHTS, Reason.NOT_THE_OWNER, Reason.KEY_NOT_FOUND, Reason.KEY_CONFLICT),
    ),
    Endpoint(
        "revoke_api_key", "DELETE", "/v1/api-keys/{id}", "End a key and all that was made by it, for good.",
        {200: (Revocation,)}, "revoke", query=RevocationQuery, refusals=(Reason.NOT_A_DESCENDANT, Reason.KEY_NOT_FOUND),
    ),
    Endpoint(
        "validate_api_key", "POST", "/v1/api-keys/validate", "What the key that is presented says of its owner.",
        {200: (Validation,)}, asker="key",
    ),
    Endpoint(
        "list_api_key_sessions", "GET", "/v1/api-keys/{id}/sessions", "The MCP sessions that a key holds upstream.",
        {200: (SessionList,)}, "read", refusals=(Reason.KEY_NOT_FOUND,),
    ),
    Endpoint(
        "list_api_key_events", "GET", "/v1/api-keys/{id}/audit", "What was done to a key, and what it was denied.",
        {200: (EventPage,)}, "read", query=PageQuery, refusals=(Reason.KEY_NOT_FOUND,),
    ),
    Endpoint(
        "show_api_key_usage", "GET", "/v1/api-keys/{id}/usage", "What a key did, by day and by rule.",
        {200: (Usage,)}, "read", query=UsageQuery, refusals=(Reason.KEY_NOT_FOUND,),
    ),
    Endpoint(
        "explain_api_key", "POST", "/v1/api-keys/{id}/explain", "Whether a key could do something now, and why.",
        {200: (Explained,)}, "read", body=AskedRequest, refusals=(Reason.KEY_NOT_FOUND,), verbatim=True,
    ),
    Endpoint(
        "list_owners", "GET", "/v1/owners", "The owners of the admin's tenant, by name.", {200: (OwnerPage,)},
        asker="admin", query=PageQuery,
    ),
    Endpoint(
        "add_owner", "POST", "/v1/owners", "An owner in the admin's tenant.", {201: (Owner,)}, asker="admin",
        body=WantedOwner, refusals=(Reason.RIGHTS_EXCEEDED, Reason.KEY_CONFLICT),
    ),
    Endpoint(
        "show_owner", "GET", "/v1/owners/{id}", "One owner.", {200: (Owner,)}, asker="admin",
        refusals=(Reason.OWNER_NOT_FOUND,),
    ),
    Endpoint(
        "update_owner", "PATCH", "/v1/owners/{id}", "Move an owner to a tier, disable or enable it.", {200: (Owner,)},
        asker="admin", body=OwnerPatch, refusals=(Reason.RIGHTS_EXCEEDED, Reason.OWNER_NOT_FOUND),
    ),
    Endpoint(
        "list_scopes", "GET", "/v1/scopes", "What the caller may give to a key, and why not the rest.",
        {200: (Grantables,)},
    ),
    Endpoint(
        "list_names", "GET", "/v1/scopes/names", "What a selector may name: the caller's, by the platform.",
        {200: (OfferedNames,)}, query=NamesQuery,
    ),
    Endpoint("show_openapi", "GET", "/v1/openapi.json", "This document.", {}, asker="nobody"),
)  # fmt: skip


def _index() -> PatternIndex[Mapping[str, Endpoint]]:
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in ENDPOINTS:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return PatternIndex((parse_path_pattern(path), methods) for path, methods in by_path.items())


_INDEX: Final = _index()


def find_endpoints(path: str) -> tuple[Mapping[str, Endpoint], Mapping[str, str]] | None:
    """What a canonical path takes, by method, and its variables; None when there is nothing."""
    return _INDEX.find(path)


_BY_NAME: Final = {endpoint.name: endpoint for endpoint in ENDPOINTS}


def get_endpoint(name: str) -> Endpoint:
    """Raises KeyError."""
    return _BY_NAME[name]
