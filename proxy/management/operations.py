"""What is done for whoever manages keys: the operations of the API and of the page, without HTTP.  [io]

In go a caller and input of the right shape, out comes what is shown; what `keys` raises passes through, and `faults`
knows how to say it. Rights are `keys.rights`', changes are `keys.changes`'.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

from proxy.clock import Clock
from proxy.database import Database
from proxy.keys.changes import KeyChanges, KeyNotFoundError, WantedKey
from proxy.keys.constraints import UNCONSTRAINED
from proxy.keys.hashing import Hasher
from proxy.keys.listing import Search, find_key, list_keys
from proxy.keys.minting import EXPIRY_OPTIONS
from proxy.keys.record import Place
from proxy.keys.rights import Caller, check_action, get_view, list_grantable
from proxy.keys.store import UNREADABLE, KeySummary
from proxy.live_policy import LivePolicy
from proxy.management import models
from proxy.management.paging import form_key_cursor, parse_key_cursor

DEFAULT_LIFETIME = EXPIRY_OPTIONS["90d"]
STATUSES: dict[str, models.KeyStatus] = {
    "active": "active",
    "disabled": "disabled",
    "revoked": "revoked",
    "expired": "expired",
    "owner disabled": "owner_disabled",
    UNREADABLE: "constraints_unreadable",
}


class Operations:
    """Every method raises DatabaseError, CallerError and RightsError; those that change something what `keys.changes`
    says besides."""

    def __init__(self, database: Database, hasher: Hasher, live: LivePolicy, clock: Clock) -> None:
        self._database = database
        self._changes = KeyChanges(database, hasher)
        self._live = live
        self._clock = clock

    async def list_keys(self, caller: Caller, query: models.KeyQuery) -> models.KeyPage:
        """Raises CursorError."""
        check_action(caller, "list")
        search = Search(query.status, query.preset, query.owner, query.q)
        after = None if query.cursor is None else parse_key_cursor(query.cursor)
        found = await list_keys(self._database, get_view(caller), search, after, query.limit + 1)
        page = found[: query.limit]
        cursor = form_key_cursor(Place(page[-1].created_at, page[-1].id)) if len(found) > len(page) else None
        return models.KeyPage(api_keys=tuple(map(form_key, page)), next_cursor=cursor)

    async def show_key(self, caller: Caller, key_id: str) -> models.Key:
        """Raises KeyNotFoundError."""
        check_action(caller, "read")
        summary = await find_key(self._database, get_view(caller), key_id)
        if summary is None:
            raise KeyNotFoundError("there is no such key")
        return form_key(summary)

    async def mint_key(self, caller: Caller, wanted: models.WantedKey) -> models.NewKey:
        """Raises MintError, KeyConflictError, UnavailableError."""
        minted = await self._changes.mint(
            caller,
            WantedKey(
                wanted.name, wanted.preset, wanted.scopes or (), self._settle_expiry(caller, wanted),
                wanted.constraints or UNCONSTRAINED,
            ),
            self._live.enforced,
        )  # fmt: skip
        return models.NewKey(**dict(form_key(minted.summary)), key=minted.token)

    def list_scopes(self, caller: Caller) -> models.Grantables:
        """What the caller may give away."""
        scopes, presets = list_grantable(caller, self._live.enforced)
        return models.Grantables(
            scopes=tuple(models.GrantableScope.model_validate(one, from_attributes=True) for one in scopes),
            presets=tuple(models.GrantablePreset.model_validate(one, from_attributes=True) for one in presets),
            expiries=get_args(models.Expiry),
        )

    def _settle_expiry(self, caller: Caller, wanted: models.WantedKey) -> datetime | None:
        """As asked for. Nobody asked: a while, and no longer than the key that makes it lives."""
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        if wanted.expires_in is not None:
            return now + EXPIRY_OPTIONS[wanted.expires_in] if wanted.expires_in != "never" else None
        if wanted.says_expiry:
            return wanted.expires_at
        ends = now + DEFAULT_LIFETIME
        if caller.ends is not None and caller.ends < ends.timestamp():
            return datetime.fromtimestamp(caller.ends, UTC)
        return ends


def form_key(summary: KeySummary) -> models.Key:
    """A key as it is shown."""
    unreadable = "unreadable" in summary.constraints
    status = UNREADABLE if unreadable and summary.status == "active" else summary.status
    return models.Key(
        id=summary.id,
        name=summary.name,
        owner=summary.owner,
        issuer=summary.issuer,
        tenant_id=summary.tenant,
        tier=summary.tier,
        preset=summary.preset,
        scopes=summary.scopes,
        status=STATUSES[status],
        expires_at=summary.expires_at,
        created_at=summary.created_at,
        created_by=summary.created_by,
        parent_id=summary.parent_id,
        constraints={} if unreadable else dict(summary.constraints),
        version=summary.version,
        old_secret_until=summary.old_secret_until,
        revoked_at=summary.revoked_at,
        revoked_by=summary.revoked_by,
        revoked_reason=summary.revoked_reason,
        last_used_at=summary.last_used_at,
        last_used=summary.last_used and models.LastUse.model_validate(summary.last_used, from_attributes=True),
        last_refused=summary.last_refused
        and models.LastRefusal.model_validate(summary.last_refused, from_attributes=True),
        old_secret_last_used_at=summary.old_secret_last_used_at,
    )
