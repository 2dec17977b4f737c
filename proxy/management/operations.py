"""What is done for whoever manages keys: the operations of the API and of the page, without HTTP.  [io]

In go a caller and input of the right shape, out comes what is shown; what `keys` raises passes through, and `faults`
knows how to say it. Rights are `keys.rights`', changes are `keys.changes`'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, TypeVar, get_args

from proxy.clock import Clock
from proxy.database import Database
from proxy.errors import DatabaseError, Reason
from proxy.keys.changes import Also, KeyChanges, KeyNotFoundError, Patch, WantedKey
from proxy.keys.constraints import UNCONSTRAINED
from proxy.keys.hashing import Hasher
from proxy.keys.listing import Search, find_key, list_keys
from proxy.keys.minting import EXPIRY_OPTIONS
from proxy.keys.record import Place
from proxy.keys.rights import Action, Caller, CallerError, check_action, get_view, list_grantable
from proxy.keys.store import UNREADABLE, KeyConflictError, KeySummary
from proxy.live_policy import LivePolicy
from proxy.logs import get_logger
from proxy.management import models
from proxy.management.idempotency import Once, TakenError, find_done, remember
from proxy.management.paging import form_key_cursor, parse_key_cursor
from proxy.receipts import Receipt, wait_receipt

log = get_logger("management")

T = TypeVar("T")
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
        return await self._get_key(caller, key_id)

    async def mint_key(
        self, caller: Caller, wanted: models.WantedKey, once: Once | None = None
    ) -> models.NewKey | models.Key:
        """A new key; of one made before by the same request, no token. Raises MintError, KeyConflictError,
        OtherRequestError, UnavailableError."""
        key = WantedKey(
            wanted.name, wanted.preset, wanted.scopes or (), self._settle_expiry(caller, wanted),
            wanted.constraints or UNCONSTRAINED,
        )  # fmt: skip

        async def mint(also: Also | None) -> models.NewKey:
            minted = await self._changes.mint(caller, key, self._live.enforced, also)
            return models.NewKey(**dict(form_key(minted.summary)), key=minted.token)

        return await self._do_once(caller, "mint", once, mint)

    async def update_key(
        self, caller: Caller, key_id: str, patch: models.KeyPatch, version: int | None = None
    ) -> models.Key:
        """`version`: the one that the caller has seen. Raises KeyNotFoundError, KeyVersionError, KeyConflictError,
        MintError."""
        ends: datetime | Literal["never"] | None = None
        if patch.says_expiry:
            ends = self._read_expiry(patch) or "never"
        wanted = Patch(patch.name, patch.preset, patch.scopes, ends, patch.constraints)
        return form_key(await self._changes.update(caller, key_id, wanted, self._live.enforced, version=version))

    async def disable_key(self, caller: Caller, key_id: str) -> models.Key:
        """Raises KeyNotFoundError, KeyConflictError."""
        return form_key(await self._changes.disable(caller, key_id, self._live.enforced))

    async def enable_key(self, caller: Caller, key_id: str) -> models.Key:
        """Raises KeyNotFoundError, KeyConflictError."""
        return form_key(await self._changes.enable(caller, key_id, self._live.enforced))

    async def rotate_key(
        self, caller: Caller, key_id: str, wanted: models.WantedRotation, once: Once | None = None
    ) -> models.RotatedKey | models.Key:
        """A new secret; of a rotation done before by the same request, none. Raises KeyNotFoundError,
        KeyConflictError, OtherRequestError, UnavailableError."""

        async def rotate(also: Also | None) -> models.RotatedKey:
            rotated = await self._changes.rotate(
                caller, key_id, self._live.enforced, grace=wanted.grace, compromised=wanted.compromised, also=also
            )
            shown = dict(form_key(rotated.summary))
            return models.RotatedKey(**shown, key=rotated.token, descendants_revoked=rotated.ended)

        return await self._do_once(caller, "rotate", once, rotate)

    async def revoke_key(self, caller: Caller, key_id: str, reason: str | None = None) -> models.Revocation:
        """End a key, and say on which instances it has ended. Raises KeyNotFoundError."""
        summary = await self._changes.revoke(caller, key_id, self._live.enforced, reason=reason)
        try:
            receipt: Receipt | None = await wait_receipt(self._database, summary.id)
        except DatabaseError as error:  # the key is dead all the same
            log.warning("receipt_unread", key_id=summary.id, error=str(error))
            receipt = None
        return _form_revocation(summary, receipt)

    async def validate_key(self, caller: Caller) -> models.Validation:
        """What the caller's own key says of its owner."""
        summary = None if caller.key_id is None else await find_key(self._database, get_view(caller), caller.key_id)
        if summary is None:
            raise CallerError(Reason.CREDENTIAL_INVALID.value, "the API key that asks for this is not valid any more")
        return models.Validation(
            user_id=caller.owner.subject,
            tenant_id=caller.owner.tenant_id,
            aegis_role=summary.aegis_role,
            scopes=tuple(sorted(caller.grants)),
            zaru_tier=caller.owner.tier,
            key_id=summary.id,
            name=summary.name,
            expires_at=summary.expires_at,
        )

    def list_scopes(self, caller: Caller) -> models.Grantables:
        """What the caller may give away."""
        scopes, presets = list_grantable(caller, self._live.enforced)
        return models.Grantables(
            scopes=tuple(models.GrantableScope.model_validate(one, from_attributes=True) for one in scopes),
            presets=tuple(models.GrantablePreset.model_validate(one, from_attributes=True) for one in presets),
            expiries=get_args(models.Expiry),
        )

    async def _do_once(
        self, caller: Caller, action: Action, once: Once | None, work: Callable[[Also | None], Awaitable[T]]
    ) -> T | models.Key:
        """Unless it was done before: then what became of it, for whoever may still see that."""
        if once is None:
            return await work(None)
        check_action(caller, action)
        done = await find_done(self._database, caller, once)
        if done is None:
            try:
                return await work(remember(caller, once))
            except (TakenError, KeyConflictError):  # by the same request, perhaps, a moment ago
                done = await find_done(self._database, caller, once)
                if done is None:
                    raise
        return await self._get_key(caller, done)

    async def _get_key(self, caller: Caller, key_id: str) -> models.Key:
        summary = await find_key(self._database, get_view(caller), key_id)
        if summary is None:
            raise KeyNotFoundError("there is no such key")
        return form_key(summary)

    def _read_expiry(self, wanted: models.Expiring) -> datetime | None:
        """As asked for; None: never."""
        if wanted.expires_in is None:
            return wanted.expires_at
        return None if wanted.expires_in == "never" else self._get_now() + EXPIRY_OPTIONS[wanted.expires_in]

    def _settle_expiry(self, caller: Caller, wanted: models.WantedKey) -> datetime | None:
        """As asked for. Nobody asked: a while, and no longer than the key that makes it lives."""
        if wanted.says_expiry:
            return self._read_expiry(wanted)
        ends = self._get_now() + DEFAULT_LIFETIME
        if caller.ends is not None and caller.ends < ends.timestamp():
            return datetime.fromtimestamp(caller.ends, UTC)
        return ends

    def _get_now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall(), UTC)


def _form_revocation(summary: KeySummary, receipt: Receipt | None) -> models.Revocation:
    """Without a receipt nothing is confirmed."""
    instances = () if receipt is None else receipt.instances
    return models.Revocation(
        message="API key revoked",
        confirmed=receipt is not None and receipt.confirmed,
        milliseconds=None if receipt is None else receipt.milliseconds,
        instances=tuple(models.Confirmation.model_validate(one, from_attributes=True) for one in instances),
        streams=sum(one.streams for one in instances),
        calls=sum(one.calls for one in instances),
        api_key=form_key(summary),
    )


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
