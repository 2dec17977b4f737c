"""A key held for a change: locked with all that it and its caller rest on, read again, and written.  [io]

In go a connection inside a transaction, a caller and an id, out comes the key as it stays until the transaction ends;
and for each change of it a row, with an entry of the audit that says what was before and after. Into what it may be
changed is for `changes` to judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.database import Connection
from proxy.errors import Reason
from proxy.identity import KeyId
from proxy.keys.callers import hold, renew
from proxy.keys.record import KeyRecord
from proxy.keys.rights import Action, Caller, RightsError, check_action, form_caller_of_key, may_act_on, may_see
from proxy.keys.store import (
    AUDIT_CHANGE,
    FACTS,
    KeyConflictError,
    KeyNotFoundError,
    KeySummary,
    find_record,
    find_summary,
    naming,
    read_records,
)
from proxy.policy import Policy

NAME = "SELECT name FROM api_keys WHERE id = $1"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """Who asks for the change, what it is about, and the key that one was made by; all of them locked. `now`: seconds
    since the epoch, by the database's clock."""

    connection: Connection
    caller: Caller
    key: KeyRecord
    parent: Caller | None
    now: float
    policy: Policy

    def check_alive(self) -> None:
        """Expiry and revocation are final. Raises KeyConflictError."""
        if self.key.status == "revoked":
            raise KeyConflictError(f"key {self.key.id} is revoked, and revoked is final: mint a new one")
        if self.key.expires_at is not None and self.key.expires_at <= self.now:
            raise KeyConflictError(f"key {self.key.id} has expired: mint a new one")

    @property
    def judges(self) -> list[Caller]:
        """A key made by a key stays a subset of it, whoever changes it."""
        return [self.caller] if self.parent is None else [self.caller, self.parent]

    async def write(self, action: Action, values: Mapping[str, object]) -> KeySummary:
        """`values` by column, whose names are our rooms' own. Raises KeyConflictError."""
        before = await self.read_facts()
        if values:
            columns = ", ".join(f"{column} = ${number}" for number, column in enumerate(values, start=2))
            name = values.get("name") or await self.connection.fetchval(NAME, self.key.id)
            with naming(self.key.owner.subject, str(name)):
                await self.connection.execute(
                    f"UPDATE api_keys SET {columns} WHERE id = $1",  # noqa: S608
                    self.key.id, *values.values(),
                )  # fmt: skip
        await self.audit(action, before, {})
        return await self.get_summary()

    async def read_facts(self) -> str:
        """The key as the audit compares it."""
        return str(await self.connection.fetchval(FACTS, self.key.id))

    async def audit(self, action: Action, before: str, said: Mapping[str, object]) -> None:
        """What changed since `before`, and nothing when nothing did. `said`: what no column tells."""
        after = await self.read_facts()
        if before != after or said:
            await self.connection.execute(
                AUDIT_CHANGE, self.caller.actor, action, self.key.id, before, after, json.dumps(said)
            )

    async def get_summary(self) -> KeySummary:
        summary = await find_summary(self.connection, self.key.id)
        assert summary is not None
        return summary


async def get_key(connection: Connection, caller: Caller, key_id: KeyId) -> KeyRecord:
    """A key that the caller may act on, as far as that never changes. Raises KeyNotFoundError, RightsError."""
    found = await find_record(connection, key_id)
    if found is None or not may_see(caller, found):
        raise KeyNotFoundError(f"there is no key {key_id}")
    if not may_act_on(caller, found):
        raise RightsError(Reason.NOT_A_DESCENDANT, "a key acts on keys that were made by it, and not on itself")
    return found


async def hold_key(connection: Connection, caller: Caller, key_id: KeyId, action: Action, policy: Policy) -> HeldKey:
    """Whose key it is never changes, so that it is judged before any lock is taken; all else is judged after.

    Raises KeyNotFoundError, RightsError, CallerError.
    """
    found = await get_key(connection, caller, key_id)
    await hold(connection, caller, found)
    caller, now = await renew(connection, caller, policy)
    check_action(caller, action)
    parent_id = found.ancestors[0].id if found.ancestors else None
    records = await read_records(connection, [key_id] if parent_id is None else [key_id, parent_id])
    key = records.get(key_id)
    if key is None or not may_act_on(caller, key):  # deleted or given away, by hand
        raise KeyNotFoundError(f"there is no key {key_id}")
    parent = None if parent_id is None else form_caller_of_key(records[parent_id], policy)
    return HeldKey(connection, caller, key, parent, now, policy)
