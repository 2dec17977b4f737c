"""What is done for whoever manages keys: the operations of the API and of the page, without HTTP.  [io]

In go a caller and input of the right shape, out comes what is shown; what `keys` raises passes through, and `faults`
knows how to say it. Rights are `keys.rights`', changes are `keys.changes`'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

from pydantic import BaseModel

from proxy.audit_trail import read_events
from proxy.clock import Clock
from proxy.database import Database
from proxy.errors import DatabaseError, Reason
from proxy.identity import KeyId
from proxy.keys.callers import renew
from proxy.keys.changes import Also, KeyChanges, Patch, WantedKey
from proxy.keys.constraints import UNCONSTRAINED
from proxy.keys.explaining import explain_key
from proxy.keys.hashing import Hasher
from proxy.keys.listing import Search, find_key, list_keys
from proxy.keys.minting import EXPIRY_OPTIONS, MintError, get_default_expiry, list_expiries
from proxy.keys.owners import Owners, OwnerSummary
from proxy.keys.record import Place
from proxy.keys.rights import (
    Action,
    Caller,
    CallerError,
    check_action,
    check_administers,
    get_view,
    list_grantable,
    may_see,
)
from proxy.keys.store import UNREADABLE, KeyConflictError, KeyNotFoundError, KeyStore, KeySummary
from proxy.live_policy import LivePolicy
from proxy.logs import get_logger
from proxy.management import models, shown
from proxy.management.idempotency import Once, TakenError, find_done, remember
from proxy.management.paging import (
    form_key_cursor,
    form_number_cursor,
    form_owner_cursor,
    parse_key_cursor,
    parse_number_cursor,
    parse_owner_cursor,
)
from proxy.offered_names import Offer, OfferedNames
from proxy.policy import Policy
from proxy.policy.questions import Question, find_message_target
from proxy.receipts import Receipt, wait_receipt
from proxy.session_store import read_sessions
from proxy.usage import read_usage

log = get_logger("management")

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
MAX_SESSIONS: Final = 200  # shown of one key; clients open one each
STATUSES: dict[str, shown.KeyStatus] = {
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

    def __init__(self, database: Database, hasher: Hasher, live: LivePolicy, clock: Clock, names: OfferedNames) -> None:
        self._database = database
        self._changes = KeyChanges(database, hasher)
        self._owners = Owners(database)
        self._live = live
        self._clock = clock
        self._names = names

    async def list_keys(self, caller: Caller, query: models.KeyQuery) -> shown.KeyPage:
        """Raises CursorError."""
        check_action(caller, "list")
        search = Search(query.status, query.preset, query.owner, query.q)
        after = None if query.cursor is None else parse_key_cursor(query.cursor)
        found = await list_keys(self._database, get_view(caller), search, after, query.limit + 1)
        page = found[: query.limit]
        cursor = form_key_cursor(Place(page[-1].created_at, page[-1].id)) if len(found) > len(page) else None
        return shown.KeyPage(api_keys=tuple(map(form_key, page)), next_cursor=cursor)

    async def show_key(self, caller: Caller, key_id: str) -> shown.Key:
        """Raises KeyNotFoundError."""
        check_action(caller, "read")
        return await self._get_key(caller, key_id)

    async def mint_key(
        self, caller: Caller, wanted: models.WantedKey, once: Once | None = None
    ) -> shown.NewKey | shown.Key:
        """A new key; of one made before by the same request, no token. Raises MintError, KeyConflictError,
        OtherRequestError, UnavailableError."""
        key = WantedKey(
            wanted.name, wanted.preset, wanted.scopes or (), self._settle_expiry(caller, wanted),
            wanted.constraints or UNCONSTRAINED,
        )  # fmt: skip

        async def mint(also: Also | None) -> shown.NewKey:
            minted = await self._changes.mint(caller, key, self._live.enforced, also)
            return shown.NewKey(**dict(form_key(minted.summary)), key=minted.token)

        return await self._do_once(caller, "mint", once, mint)

    async def update_key(
        self, caller: Caller, key_id: str, patch: models.KeyPatch, version: int | None = None
    ) -> shown.Key:
        """`version`: the one that the caller has seen. Raises KeyNotFoundError, KeyVersionError, KeyConflictError,
        MintError."""
        ends: datetime | Literal["never"] | None = None
        if patch.says_expiry:
            ends = self._read_expiry(patch) or "never"
        wanted = Patch(patch.name, patch.preset, patch.scopes, ends, patch.constraints)
        return form_key(await self._changes.update(caller, key_id, wanted, self._live.enforced, version=version))

    async def disable_key(self, caller: Caller, key_id: str) -> shown.Key:
        """Raises KeyNotFoundError, KeyConflictError."""
        return form_key(await self._changes.disable(caller, key_id, self._live.enforced))

    async def enable_key(self, caller: Caller, key_id: str) -> shown.Key:
        """Raises KeyNotFoundError, KeyConflictError."""
        return form_key(await self._changes.enable(caller, key_id, self._live.enforced))

    async def rotate_key(
        self, caller: Caller, key_id: str, wanted: models.WantedRotation, once: Once | None = None
    ) -> shown.RotatedKey | shown.Key:
        """A new secret; of a rotation done before by the same request, none. Raises KeyNotFoundError,
        KeyConflictError, OtherRequestError, UnavailableError."""

        async def rotate(also: Also | None) -> shown.RotatedKey:
            rotated = await self._changes.rotate(
                caller, key_id, self._live.enforced, grace=wanted.grace, compromised=wanted.compromised, also=also
            )
            key = dict(form_key(rotated.summary))
            return shown.RotatedKey(**key, key=rotated.token, descendants_revoked=rotated.ended)

        return await self._do_once(caller, "rotate", once, rotate)

    async def revoke_key(self, caller: Caller, key_id: str, reason: str | None = None) -> shown.Revocation:
        """End a key, and say on which instances it has ended. Raises KeyNotFoundError."""
        summary = await self._changes.revoke(caller, key_id, self._live.enforced, reason=reason)
        try:
            receipt: Receipt | None = await wait_receipt(self._database, summary.id)
        except DatabaseError as error:  # the key is dead all the same
            log.warning("receipt_unread", key_id=summary.id, error=str(error))
            receipt = None
        return _form_revocation(summary, receipt)

    async def validate_key(self, caller: Caller) -> shown.Validation:
        """What the caller's own key says of its owner."""
        summary = None if caller.key_id is None else await find_key(self._database, get_view(caller), caller.key_id)
        if summary is None:
            raise CallerError(Reason.CREDENTIAL_INVALID, "the API key that asks for this is not valid any more")
        return shown.Validation(
            user_id=caller.owner.subject,
            tenant_id=caller.owner.tenant_id,
            aegis_role=summary.aegis_role,
            scopes=tuple(sorted(caller.grants)),
            zaru_tier=caller.owner.tier,
            key_id=summary.id,
            name=summary.name,
            expires_at=summary.expires_at,
        )

    def list_scopes(self, caller: Caller) -> shown.Grantables:
        """What the caller may give away."""
        scopes, presets = list_grantable(caller, self._live.enforced)
        return shown.Grantables(
            scopes=tuple(_copy(shown.GrantableScope, one) for one in scopes),
            presets=tuple(_copy(shown.GrantablePreset, one) for one in presets),
            expiries=list_expiries(self._live.enforced, self._get_now(), caller.ends_at),
        )

    async def list_names(self, caller: Caller, query: models.NamesQuery) -> shown.OfferedNames:
        """What a selector may name. Raises MintError."""
        entry = self._live.enforced.catalogue.get(query.scope)
        if entry is None or entry.selector is None:
            raise MintError("not a scope of the catalogue that takes a selector", "scope")
        offer = Offer(why_not="the policy does not say where they are listed")
        if entry.names is not None:
            caller = await self._renew(caller)
            offer = await self._names.find(caller, entry.names)
            if (await self._renew(caller)).grants != caller.grants:  # the platform has taken its time
                offer = Offer(why_not="the rights have changed meanwhile")
        names = tuple(_copy(shown.OfferedName, one) for one in offer.names)
        return shown.OfferedNames(scope=query.scope, selector=entry.selector, names=names, why_not=offer.why_not)

    async def list_sessions(self, caller: Caller, key_id: str) -> shown.SessionList:
        """What a key holds upstream. Raises KeyNotFoundError."""
        await self.show_key(caller, key_id)
        held = await read_sessions(self._database, key_id, MAX_SESSIONS)
        return shown.SessionList(sessions=tuple(_copy(shown.Session, one) for one in held))

    async def list_events(self, caller: Caller, key_id: str, query: models.PageQuery) -> shown.EventPage:
        """What was done to a key. Raises KeyNotFoundError, CursorError."""
        below = None if query.cursor is None else parse_number_cursor(query.cursor)
        await self.show_key(caller, key_id)
        found = await read_events(self._database, key_id=key_id, below=below, limit=query.limit + 1)
        page = found[: query.limit]
        cursor = form_number_cursor(page[-1].id) if len(found) > len(page) else None
        return shown.EventPage(events=tuple(_copy(shown.Event, one) for one in page), next_cursor=cursor)

    async def read_usage(self, caller: Caller, key_id: str, days: int) -> shown.Usage:
        """What a key did. Raises KeyNotFoundError."""
        await self.show_key(caller, key_id)
        usage = await read_usage(self._database, KeyId(key_id), days)
        return shown.Usage(
            days=tuple(_copy(shown.DayUse, one) for one in usage.by_day),
            uses=tuple(_copy(shown.Use, one) for one in usage.uses),
        )

    async def explain_key(self, caller: Caller, key_id: str, asked: models.AskedRequest) -> shown.Explained:
        """Whether a key could do something now, and why. Raises KeyNotFoundError."""
        caller = await self._renew(caller)
        check_action(caller, "read")
        record = await KeyStore(self._database).find_record(KeyId(key_id))
        if record is None or not may_see(caller, record):
            raise KeyNotFoundError("there is no such key")
        policy = self._live.enforced
        explanation = explain_key(policy, _form_question(policy, asked), record, self._clock.wall())
        return shown.Explained(allowed=explanation["allowed"], explanation=explanation)

    async def list_owners(self, caller: Caller, query: models.PageQuery) -> shown.OwnerPage:
        """The tenant's, for its admins. Raises CursorError."""
        after = None if query.cursor is None else parse_owner_cursor(query.cursor)
        check_administers(caller)
        found = await self._owners.list(tenant=caller.owner.tenant_id, after=after, limit=query.limit + 1)
        page = found[: query.limit]
        cursor = form_owner_cursor(page[-1].id) if len(found) > len(page) else None
        return shown.OwnerPage(owners=tuple(map(form_owner, page)), next_cursor=cursor)

    async def add_owner(self, caller: Caller, wanted: models.WantedOwner) -> shown.Owner:
        """One of the admin's own tenant, and provider unless it is said. Raises MintError, KeyConflictError."""
        check_administers(caller)
        policy = self._live.enforced
        try:
            added = await self._owners.add(
                caller, policy, issuer=wanted.issuer or caller.owner.issuer, subject=wanted.subject,
                tenant=caller.owner.tenant_id, tier=wanted.tier or policy.default_tier,
            )  # fmt: skip
        except MintError as error:  # the command line says `owner`
            raise MintError(str(error), "subject" if error.field == "owner" else error.field) from error
        return form_owner(added)

    async def show_owner(self, caller: Caller, owner_id: str) -> shown.Owner:
        """Raises OwnerNotFoundError."""
        check_administers(caller)
        return form_owner(await self._owners.show(caller, owner_id, self._live.enforced))

    async def update_owner(self, caller: Caller, owner_id: str, patch: models.OwnerPatch) -> shown.Owner:
        """Raises OwnerNotFoundError, MintError."""
        check_administers(caller)
        changed = await self._owners.update(
            caller, owner_id, self._live.enforced, tier=patch.tier, disabled=patch.disabled
        )
        return form_owner(changed)

    async def _do_once(
        self, caller: Caller, action: Action, once: Once | None, work: Callable[[Also | None], Awaitable[T]]
    ) -> T | shown.Key:
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
        caller = await self._renew(caller)
        check_action(caller, action)
        return await self._get_key(caller, done)

    async def _renew(self, caller: Caller) -> Caller:
        """As the rows have it now: a body may have taken its time to come."""
        policy = self._live.enforced
        renewed, _ = await self._database.transact(lambda connection: renew(connection, caller, policy))
        return renewed

    async def _get_key(self, caller: Caller, key_id: str) -> shown.Key:
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
        return get_default_expiry(self._live.enforced, self._get_now(), caller.ends_at)

    def _get_now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall(), UTC)


def _form_revocation(summary: KeySummary, receipt: Receipt | None) -> shown.Revocation:
    """Without a receipt nothing is confirmed."""
    instances = () if receipt is None else receipt.instances
    return shown.Revocation(
        message="API key revoked",
        confirmed=receipt is not None and receipt.confirmed,
        milliseconds=None if receipt is None else receipt.milliseconds,
        instances=tuple(_copy(shown.Confirmation, one) for one in instances),
        streams=sum(one.streams for one in instances),
        calls=sum(one.calls for one in instances),
        api_key=form_key(summary),
    )


def _copy(model: type[Model], value: object) -> Model:
    """A value of another room, as it is shown: its members are of the same names."""
    return model.model_validate(value, from_attributes=True)


def form_owner(summary: OwnerSummary) -> shown.Owner:
    """An owner as it is shown."""
    return shown.Owner(
        id=summary.id,
        issuer=summary.issuer,
        subject=summary.subject,
        tenant_id=summary.tenant,
        tier=summary.tier,
        disabled=summary.disabled_at is not None,
        created_at=summary.created_at,
    )


def _form_question(policy: Policy, asked: models.AskedRequest) -> Question:
    if asked.path is not None:
        return Question(asked.method or "GET", asked.path)
    target = find_message_target(policy) or ""  # where nothing is served
    if asked.rpc is not None:
        return Question("POST", target, asked.rpc, asked.params or {})
    return Question("POST", target, "tools/call", {"name": asked.tool, "arguments": asked.arguments or {}})


def form_key(summary: KeySummary) -> shown.Key:
    """A key as it is shown."""
    unreadable = "unreadable" in summary.constraints
    status = UNREADABLE if unreadable and summary.status == "active" else summary.status
    return shown.Key(
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
        last_used=summary.last_used and _copy(shown.LastUse, summary.last_used),
        last_refused=summary.last_refused and _copy(shown.LastRefusal, summary.last_refused),
        old_secret_last_used_at=summary.old_secret_last_used_at,
    )
