"""The life of a key: minted by owners and keys, changed, disabled and enabled, rotated, revoked.  [io]

In go callers, what they want and the policy; out come keys as they are shown, and new tokens for the one sight of them.
Each change is one transaction: it locks what its caller and the key rest on, reads both, asks `rights`, writes, and
audits what was before and after. Whoever was revoked or narrowed a moment ago is refused.
What an operator mints makes its owner, too, and is `minting`'s.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, TypeVar

from proxy.database import Connection, Database
from proxy.errors import ProxyError, Reason
from proxy.identity import KeyId
from proxy.keys.callers import hold, renew
from proxy.keys.constraints import UNCONSTRAINED, Constraints
from proxy.keys.hashing import Hasher
from proxy.keys.lines import Lines
from proxy.keys.minting import MintedKey, check_end, check_name, check_role, draw_token, settle_scopes
from proxy.keys.record import KeyRecord
from proxy.keys.rights import (
    Action,
    Caller,
    RightsError,
    check_action,
    check_constraints,
    check_expiry,
    check_grant,
    check_reach,
    check_role_held,
    check_scopes,
    check_secret,
    form_caller_of_key,
    may_act_on,
    may_see,
    settle_constraints,
)
from proxy.keys.rotation import end_descendants, replace_secret
from proxy.keys.store import (
    AUDIT_CHANGE,
    DURABLY,
    FACTS,
    MAX_ANCESTORS,
    TREE_SECONDS,
    KeyConflictError,
    KeySummary,
    NewKey,
    find_record,
    find_summary,
    insert_row,
    naming,
    read_records,
    revoke_row,
)
from proxy.keys.token import fast_tag
from proxy.policy import Policy

T = TypeVar("T")
Grace = Literal["now", "1h", "24h", "7d"]
GRACES: Final[Mapping[Grace, timedelta]] = {
    "now": timedelta(0), "1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7),
}  # fmt: skip
_ID = re.compile(r"[0-9A-Za-z]{12}")
NAME = "SELECT name FROM api_keys WHERE id = $1"
# What is done in the same transaction as a change, for whoever asks for it; for instance to remember an answer.
Also = Callable[[Connection, KeySummary], Awaitable[None]]


class KeyNotFoundError(ProxyError):
    """There is no such key, or none that this caller may see: never told apart."""


class KeyVersionError(KeyConflictError):
    """The key has changed since the caller looked at it."""


@dataclass(frozen=True, slots=True)
class WantedKey:
    """A key for the caller's own owner: exactly one of `preset` and `scopes`."""

    name: str
    preset: str | None = None
    scopes: Sequence[str] = ()
    expires_at: datetime | None = None
    constraints: Constraints = UNCONSTRAINED


@dataclass(frozen=True, slots=True)
class Patch:
    """What is to be changed; None leaves it as it is. `constraints` replaces all of them. `role` is an operator's to
    give, "" takes it away."""

    name: str | None = None
    preset: str | None = None
    scopes: Sequence[str] | None = None
    expires_at: datetime | Literal["never"] | None = None
    constraints: Constraints | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A key with its new token, shown once. `summary.old_secret_until`: how long the old one is good, if at all."""

    summary: KeySummary
    token: str = field(repr=False)
    ended: int  # descendants, if it was compromised


@dataclass(frozen=True, slots=True)
class _Case:
    """A change under way: who asks for it, what it is about, and the key that one was made by; all of them locked."""

    connection: Connection
    caller: Caller
    key: KeyRecord
    parent: Caller | None
    now: float
    policy: Policy

    def check_alive(self) -> None:
        """Expiry and revocation are final."""
        if self.key.status == "revoked":
            raise KeyConflictError(f"key {self.key.id} is revoked, and revoked is final: mint a new one")
        if self.key.expires_at is not None and self.key.expires_at <= self.now:
            raise KeyConflictError(f"key {self.key.id} has expired: mint a new one")

    @property
    def judges(self) -> list[Caller]:
        """A key made by a key stays a subset of it, whoever changes it."""
        return [self.caller] if self.parent is None else [self.caller, self.parent]


class KeyChanges:
    """Every method raises DatabaseError, CallerError, RightsError; and KeyNotFoundError where it names a key."""

    def __init__(self, database: Database, hasher: Hasher) -> None:
        self._database = database
        self._hasher = hasher
        self._lane = asyncio.Semaphore(1)
        self._lines = Lines(1)  # of one caller's changes, each locks the rows that the next one needs

    async def mint(self, caller: Caller, wanted: WantedKey, policy: Policy, also: Also | None = None) -> MintedKey:
        """A key for the caller's owner, made by the caller's key if it is one. Raises MintError, KeyConflictError.

        An operator has no keys: `minting.mint` names an owner.
        """
        assert not caller.is_operator
        scopes = settle_scopes(wanted.preset, wanted.scopes, policy)
        check_name(wanted.name)
        _check_mint(caller, policy, wanted, scopes)  # a refused request costs no hash
        token = draw_token()
        argon2_string = await self._hash(caller, token.secret)

        async def insert(connection: Connection) -> KeySummary:
            await connection.execute(DURABLY)
            await hold(connection, caller, None)
            maker, now = await renew(connection, caller, policy)
            constraints = _check_mint(maker, policy, wanted, scopes)
            check_end(wanted.expires_at, policy, now)
            key = NewKey(
                id=token.key_id, name=wanted.name, preset=wanted.preset, scopes=scopes, expires_at=wanted.expires_at,
                created_by=maker.actor, tag=fast_tag(token.key_id, token.secret), argon2_string=argon2_string,
                constraints=constraints, parent_id=maker.key_id,
            )  # fmt: skip
            summary = await insert_row(connection, key, maker.owner.id, maker.owner.subject)
            if also is not None:
                await also(connection, summary)
            return summary

        return MintedKey(await self._transact(caller, insert), token.text)

    async def update(
        self, caller: Caller, key_id: str, patch: Patch, policy: Policy, *, version: int | None = None
    ) -> KeySummary:
        """Rename, change scopes, expiry or constraints. `version`: the one the caller has seen.

        Raises MintError, KeyConflictError, KeyVersionError.
        """
        scopes = None
        if patch.preset is not None or patch.scopes is not None:
            scopes = settle_scopes(patch.preset, patch.scopes or (), policy)
        if patch.name is not None:
            check_name(patch.name)
        if patch.role:
            check_role(patch.role)

        async def change(case: _Case) -> KeySummary:
            if version is not None and version != case.key.version:
                raise KeyVersionError(f"key {case.key.id} has changed since: read it again")
            case.check_alive()
            check_reach(case.caller, policy, case.key)
            values = _judge_patch(case, patch, scopes)
            return await _write(case, "update", values)

        return await self._change(caller, key_id, "update", policy, change)

    async def disable(self, caller: Caller, key_id: str, policy: Policy) -> KeySummary:
        """Refuse the key until it is enabled. Raises KeyConflictError when it is revoked."""

        async def disable(case: _Case) -> KeySummary:
            if case.key.status == "revoked":
                raise KeyConflictError(f"key {case.key.id} is revoked already")
            return await _write(case, "disable", {"status": "disabled"})

        return await self._change(caller, key_id, "disable", policy, disable)

    async def enable(self, caller: Caller, key_id: str, policy: Policy) -> KeySummary:
        """Let a disabled key in again. Raises KeyConflictError when it ended, or its name was taken meanwhile."""

        async def enable(case: _Case) -> KeySummary:
            case.check_alive()
            check_reach(case.caller, policy, case.key)
            check_role_held(case.caller, case.key)
            return await _write(case, "enable", {"status": "active"})

        return await self._change(caller, key_id, "enable", policy, enable)

    async def rotate(
        self, caller: Caller, key_id: str, policy: Policy, *, grace: Grace, compromised: bool = False,
        also: Also | None = None,
    ) -> RotatedKey:  # fmt: skip
        """A new secret; the old one is good for `grace`, and never past the key's expiry.

        `compromised`: the old one ends now, and so does every key that was made by this one, for good.
        Raises KeyConflictError, UnavailableError.
        """
        if compromised:
            check_action(caller, "revoke")
        check_action(caller, "rotate")
        sought = _parse_id(key_id)
        await self._database.transact(lambda connection: _find_key(connection, caller, sought), atomic=False)
        token = draw_token(sought)
        argon2_string = await self._hash(caller, token.secret)
        left = GRACES["now" if compromised else grace]

        async def rotate(case: _Case) -> RotatedKey:
            case.check_alive()
            check_secret(case.caller, case.key)
            check_reach(case.caller, policy, case.key)
            said: dict[str, object] = {"grace": "now" if compromised else grace}
            ended = 0
            if compromised:
                check_action(case.caller, "revoke")
                ended = await end_descendants(case.connection, case.key.id, case.caller.actor)
                said |= {"compromised": True, "descendants_revoked": ended}
            before = await case.connection.fetchval(FACTS, key_id)
            newest = max(case.key.secrets, default=0)
            await replace_secret(case.connection, token, argon2_string, newest=newest, left=left)
            await _audit(case, "rotate", before, said)
            summary = await _get_summary(case)
            if also is not None:
                await also(case.connection, summary)
            return RotatedKey(summary, token.text, ended)

        return await self._change(caller, key_id, "rotate", policy, rotate, TREE_SECONDS if compromised else None)

    async def revoke(self, caller: Caller, key_id: str, policy: Policy, *, reason: str | None = None) -> KeySummary:
        """End the key and all that was made by it, for good. Revoking twice changes nothing."""

        async def revoke(case: _Case) -> KeySummary:
            await revoke_row(case.connection, case.key.id, actor=case.caller.actor, reason=reason)
            return await _get_summary(case)

        return await self._change(caller, key_id, "revoke", policy, revoke, TREE_SECONDS)

    async def _hash(self, caller: Caller, secret: str) -> str:
        """Of the hashing pool, changes take one place at most: the others verify, however much is changed."""
        async with self._lines.find(caller.actor), self._lane:
            return await self._hasher.hash(secret)

    async def _transact(
        self, caller: Caller, work: Callable[[Connection], Awaitable[T]], timeout_seconds: float | None = None
    ) -> T:
        async with self._lines.find(caller.actor):
            return await self._database.transact(work, timeout_seconds=timeout_seconds)

    async def _change(
        self, caller: Caller, key_id: str, action: Action, policy: Policy, change: Callable[[_Case], Awaitable[T]],
        timeout_seconds: float | None = None,
    ) -> T:  # fmt: skip
        check_action(caller, action)

        async def work(connection: Connection) -> T:
            await connection.execute(DURABLY)
            return await change(await _open_case(connection, caller, _parse_id(key_id), action, policy))

        return await self._transact(caller, work, timeout_seconds)


async def _find_key(connection: Connection, caller: Caller, key_id: KeyId) -> KeyRecord:
    """A key that the caller may act on, as far as that never changes. Raises KeyNotFoundError, RightsError."""
    found = await find_record(connection, key_id)
    if found is None or not may_see(caller, found):
        raise KeyNotFoundError(f"there is no key {key_id}")
    if not may_act_on(caller, found):
        raise RightsError(Reason.NOT_A_DESCENDANT, "a key acts on keys that were made by it, and not on itself")
    return found


async def _open_case(connection: Connection, caller: Caller, key_id: KeyId, action: Action, policy: Policy) -> _Case:
    """Whose key it is never changes, so that it is judged before any lock is taken; all else is judged after."""
    found = await _find_key(connection, caller, key_id)
    await hold(connection, caller, found)
    caller, now = await renew(connection, caller, policy)
    check_action(caller, action)
    parent_id = found.ancestors[0].id if found.ancestors else None
    records = await read_records(connection, [key_id] if parent_id is None else [key_id, parent_id])
    key = records.get(key_id)
    if key is None or not may_act_on(caller, key):  # deleted or given away, by hand
        raise KeyNotFoundError(f"there is no key {key_id}")
    parent = None if parent_id is None else form_caller_of_key(records[parent_id], policy)
    return _Case(connection, caller, key, parent, now, policy)


def _check_mint(caller: Caller, policy: Policy, wanted: WantedKey, scopes: Sequence[str]) -> Constraints:
    """The constraints of the new key. Raises RightsError."""
    check_action(caller, "mint")
    if caller.generations > MAX_ANCESTORS:
        raise RightsError(Reason.TOO_MANY_GENERATIONS, f"keys are made by keys {MAX_ANCESTORS} times over at most")
    constraints = settle_constraints(wanted.constraints, caller.constraints)
    expires_at = wanted.expires_at.timestamp() if wanted.expires_at else None
    check_grant(caller, policy, scopes=scopes, expires_at=expires_at, constraints=constraints)
    return constraints


def _judge_patch(case: _Case, patch: Patch, scopes: tuple[str, ...] | None) -> dict[str, object]:
    """The columns to write. What the key holds already is judged by `check_reach`; here, what it would gain."""
    values: dict[str, object] = {}
    if patch.name is not None:
        values["name"] = patch.name
    if scopes is not None:
        gained = [scope for scope in scopes if scope not in case.key.scopes]
        for judge in case.judges:
            check_scopes(judge, case.policy, gained, case.key.owner)
        values |= {"preset": patch.preset, "scopes": list(scopes)}
    if patch.expires_at is not None:
        expires_at = None if patch.expires_at == "never" else patch.expires_at
        check_end(expires_at, case.policy, case.now)
        for judge in case.judges:
            check_expiry(judge, expires_at.timestamp() if expires_at else None)
        values["expires_at"] = expires_at
    if patch.constraints is not None:
        outers = [outer for judge in case.judges for outer in judge.constraints]
        constraints = settle_constraints(patch.constraints, outers)
        for judge in case.judges:
            check_constraints(judge, constraints)
        values["constraints"] = json.dumps(constraints.form())
    if patch.role is not None:
        if not case.caller.is_operator:
            raise RightsError(Reason.RIGHTS_EXCEEDED, "a role is an operator's to give")
        if patch.role and case.parent is not None:
            raise RightsError(Reason.RIGHTS_EXCEEDED, "a key that was made by a key has no role")
        values["aegis_role"] = patch.role or None
    return values


async def _write(case: _Case, action: Action, values: Mapping[str, object]) -> KeySummary:
    """`values` by column, whose names are this room's own."""
    before = await case.connection.fetchval(FACTS, case.key.id)
    if values:
        columns = ", ".join(f"{column} = ${number}" for number, column in enumerate(values, start=2))
        name = values.get("name") or await case.connection.fetchval(NAME, case.key.id)
        with naming(case.key.owner.subject, str(name)):
            await case.connection.execute(
                f"UPDATE api_keys SET {columns} WHERE id = $1",  # noqa: S608
                case.key.id, *values.values(),
            )  # fmt: skip
    await _audit(case, action, before, {})
    return await _get_summary(case)


async def _audit(case: _Case, action: Action, before: str, said: Mapping[str, object]) -> None:
    """What changed, and nothing when nothing did."""
    after = await case.connection.fetchval(FACTS, case.key.id)
    if before != after or said:
        await case.connection.execute(
            AUDIT_CHANGE, case.caller.actor, action, case.key.id, before, after, json.dumps(said)
        )


async def _get_summary(case: _Case) -> KeySummary:
    summary = await find_summary(case.connection, case.key.id)
    assert summary is not None
    return summary


def _parse_id(text: str) -> KeyId:
    if _ID.fullmatch(text) is None:
        raise KeyNotFoundError("there is no such key")
    return KeyId(text)
