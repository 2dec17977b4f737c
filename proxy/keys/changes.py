"""The life of a key: minted by owners and keys, changed, disabled and enabled, rotated, revoked.  [io]

In go callers, what they want and the policy; out come keys as they are shown, and new tokens for the one sight of them.
Each change is one transaction: it locks what its caller and the key rest on, reads both (`holding`), asks `rights`,
writes, and audits what was before and after. Whoever was revoked or narrowed a moment ago is refused.
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
from proxy.errors import Reason
from proxy.identity import KeyId
from proxy.keys.callers import hold, renew
from proxy.keys.constraints import UNCONSTRAINED, Constraints
from proxy.keys.hashing import Hasher
from proxy.keys.holding import HeldKey, get_key, hold_key
from proxy.keys.lines import Lines
from proxy.keys.minting import MintedKey, check_end, check_name, check_role, draw_token, settle_scopes
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
    settle_constraints,
)
from proxy.keys.rotation import end_descendants, replace_secret
from proxy.keys.store import (
    DURABLY,
    MAX_ANCESTORS,
    TREE_SECONDS,
    KeyConflictError,
    KeyNotFoundError,
    KeySummary,
    NewKey,
    insert_row,
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
# What is done in the same transaction as a change, for whoever asks for it; for instance to remember an answer.
Also = Callable[[Connection, KeySummary], Awaitable[None]]


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

        async def change(held: HeldKey) -> KeySummary:
            if version is not None and version != held.key.version:
                raise KeyVersionError(f"key {held.key.id} has changed since: read it again")
            held.check_alive()
            check_reach(held.caller, policy, held.key)
            values = _judge_patch(held, patch, scopes)
            return await held.write("update", values)

        return await self._change(caller, key_id, "update", policy, change)

    async def disable(self, caller: Caller, key_id: str, policy: Policy) -> KeySummary:
        """Refuse the key until it is enabled. Raises KeyConflictError when it is revoked."""

        async def disable(held: HeldKey) -> KeySummary:
            if held.key.status == "revoked":
                raise KeyConflictError(f"key {held.key.id} is revoked already")
            return await held.write("disable", {"status": "disabled"})

        return await self._change(caller, key_id, "disable", policy, disable)

    async def enable(self, caller: Caller, key_id: str, policy: Policy) -> KeySummary:
        """Let a disabled key in again. Raises KeyConflictError when it ended, or its name was taken meanwhile."""

        async def enable(held: HeldKey) -> KeySummary:
            held.check_alive()
            check_reach(held.caller, policy, held.key)
            check_role_held(held.caller, held.key)
            return await held.write("enable", {"status": "active"})

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
        await self._database.transact(lambda connection: get_key(connection, caller, sought), atomic=False)
        token = draw_token(sought)
        argon2_string = await self._hash(caller, token.secret)
        left = GRACES["now" if compromised else grace]

        async def rotate(held: HeldKey) -> RotatedKey:
            held.check_alive()
            check_secret(held.caller, held.key)
            check_reach(held.caller, policy, held.key)
            said: dict[str, object] = {"grace": "now" if compromised else grace}
            ended = 0
            if compromised:
                check_action(held.caller, "revoke")
                ended = await end_descendants(held.connection, held.key.id, held.caller.actor)
                said |= {"compromised": True, "descendants_revoked": ended}
            before = await held.read_facts()
            newest = max(held.key.secrets, default=0)
            await replace_secret(held.connection, token, argon2_string, newest=newest, left=left)
            await held.audit("rotate", before, said)
            summary = await held.get_summary()
            if also is not None:
                await also(held.connection, summary)
            return RotatedKey(summary, token.text, ended)

        return await self._change(caller, key_id, "rotate", policy, rotate, TREE_SECONDS if compromised else None)

    async def revoke(self, caller: Caller, key_id: str, policy: Policy, *, reason: str | None = None) -> KeySummary:
        """End the key and all that was made by it, for good. Revoking twice changes nothing."""

        async def revoke(held: HeldKey) -> KeySummary:
            await revoke_row(held.connection, held.key.id, actor=held.caller.actor, reason=reason)
            return await held.get_summary()

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
        self, caller: Caller, key_id: str, action: Action, policy: Policy, change: Callable[[HeldKey], Awaitable[T]],
        timeout_seconds: float | None = None,
    ) -> T:  # fmt: skip
        check_action(caller, action)

        async def work(connection: Connection) -> T:
            await connection.execute(DURABLY)
            return await change(await hold_key(connection, caller, _parse_id(key_id), action, policy))

        return await self._transact(caller, work, timeout_seconds)


def _check_mint(caller: Caller, policy: Policy, wanted: WantedKey, scopes: Sequence[str]) -> Constraints:
    """The constraints of the new key. Raises RightsError."""
    check_action(caller, "mint")
    if caller.generations > MAX_ANCESTORS:
        raise RightsError(Reason.TOO_MANY_GENERATIONS, f"keys are made by keys {MAX_ANCESTORS} times over at most")
    constraints = settle_constraints(wanted.constraints, caller.constraints)
    expires_at = wanted.expires_at.timestamp() if wanted.expires_at else None
    check_grant(caller, policy, scopes=scopes, expires_at=expires_at, constraints=constraints)
    return constraints


def _judge_patch(held: HeldKey, patch: Patch, scopes: tuple[str, ...] | None) -> dict[str, object]:
    """The columns to write. What the key holds already is judged by `check_reach`; here, what it would gain."""
    values: dict[str, object] = {}
    if patch.name is not None:
        values["name"] = patch.name
    if scopes is not None:
        gained = [scope for scope in scopes if scope not in held.key.scopes]
        for judge in held.judges:
            check_scopes(judge, held.policy, gained, held.key.owner)
        values |= {"preset": patch.preset, "scopes": list(scopes)}
    if patch.expires_at is not None:
        expires_at = None if patch.expires_at == "never" else patch.expires_at
        check_end(expires_at, held.policy, held.now)
        for judge in held.judges:
            check_expiry(judge, expires_at.timestamp() if expires_at else None)
        values["expires_at"] = expires_at
    if patch.constraints is not None:
        outers = [outer for judge in held.judges for outer in judge.constraints]
        constraints = settle_constraints(patch.constraints, outers)
        for judge in held.judges:
            check_constraints(judge, constraints)
        values["constraints"] = json.dumps(constraints.form())
    if patch.role is not None:
        if not held.caller.is_operator:
            raise RightsError(Reason.RIGHTS_EXCEEDED, "a role is an operator's to give")
        if patch.role and held.parent is not None:
            raise RightsError(Reason.RIGHTS_EXCEEDED, "a key that was made by a key has no role")
        values["aegis_role"] = patch.role or None
    return values


def _parse_id(text: str) -> KeyId:
    if _ID.fullmatch(text) is None:
        raise KeyNotFoundError("there is no such key")
    return KeyId(text)
