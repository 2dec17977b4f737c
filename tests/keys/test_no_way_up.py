"""No way up: whatever keys, owners and admins do to random trees of keys, nobody has more in hand than before.

What may be held is counted here in atoms, single things that can be done, by rules of this file's own; the rooms under
test reason about scopes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.identity import KeyId
from proxy.keys.changes import GRACES, KeyChanges, Patch, WantedKey
from proxy.keys.constraints import Constraints, parse_constraints
from proxy.keys.minting import MintError
from proxy.keys.owners import Owners
from proxy.keys.record import KeyRecord, OwnerRecord
from proxy.keys.rights import (
    ACTION_SCOPES,
    Caller,
    CallerError,
    RightsError,
    form_caller_of_claims,
    form_caller_of_key,
    form_operator,
)
from proxy.keys.store import KeyConflictError, KeyNotFoundError
from proxy.policy import Policy
from tests.staging import Stage

STEPS = 200
SELECTORS = ("a", "b", "anything else")
TIERS = ("free", "pro", "business", "enterprise")
OWNERS = {"ada": ("home", "pro"), "bob": ("home", "free"), "eve": ("abroad", "enterprise")}
POOL = (
    "*", "agent:list", "workflow:run", "workflow:run:a", "workflow:run:b", "secret:read", "team:read", "stack:up",
    "key:create", "key:update", "key:revoke", "key:create", "key:update", "key:revoke",
)  # fmt: skip
LIMITS: tuple[dict[str, Any], ...] = (
    {}, {}, {"max_calls": 2}, {"max_calls": 5}, {"sources": ["10.0.0.0/8"]}, {"sources": ["10.1.0.0/16"]},
    {"requests_per_second": 5}, {"requests_per_second": 2, "burst": 9, "max_streams": 1},
)  # fmt: skip
ANSWERS = (MintError, RightsError, KeyConflictError, KeyNotFoundError, CallerError)
DAYS = (1, 5, 30, None)
ROLES = (None, "", "aegis:admin", "aegis:operator")


def expand(scopes: Iterable[str], policy: Policy) -> frozenset[str]:
    """Every single thing that these scopes allow."""
    atoms: set[str] = set()
    for scope in scopes:
        for head, entry in policy.catalogue.items():
            every = {f"{head}:{selector}" for selector in SELECTORS} if entry.selector else {head}
            if scope in ("*", head):
                atoms |= every
            elif scope in every and entry.selector:
                atoms.add(scope)
    return frozenset(atoms)


def count_rights(record: KeyRecord, policy: Policy) -> frozenset[str]:
    """What a key can do now: what all of its lineage and the tier have in common."""
    held = expand(policy.tiers.get(record.owner.tier, ()), policy)
    for scopes in (record.scopes, *(ancestor.scopes for ancestor in record.ancestors)):
        held &= expand(scopes, policy)
    return held


def find_end(record: KeyRecord) -> float:
    ends = [record.expires_at, *(ancestor.expires_at for ancestor in record.ancestors)]
    return min((end for end in ends if end is not None), default=float("inf"))


@dataclass(slots=True)
class World:
    """Three owners, their keys, and someone who tries everything."""

    stage: Stage
    changes: KeyChanges
    owners: Owners
    chance: random.Random
    keys: list[KeyId] = field(default_factory=list)
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    names: int = 0

    async def read(self, key_id: KeyId) -> KeyRecord:
        return (await self.stage.store.read_keys([key_id]))[key_id]

    async def find_owner(self, subject: str) -> OwnerRecord:
        found = await self.owners.find("local", subject)
        assert found is not None
        return found

    def pick_scopes(self) -> tuple[str, ...]:
        return tuple(self.chance.sample(POOL, self.chance.randint(1, 6)))

    def pick_end(self) -> datetime | None:
        days = self.chance.choice(DAYS)
        return None if days is None else datetime.now(UTC) + timedelta(days=days)

    def pick_limits(self) -> Constraints:
        return parse_constraints(self.chance.choice(LIMITS))

    async def pick_caller(self) -> Caller:
        policy = self.stage.policy
        kind = self.chance.choice(["key", "key", "key", "owner", "lowered", "admin"])
        if kind == "key":
            key = await self.read(self.chance.choice(self.keys))
            return form_caller_of_key(key, policy, max(key.secrets))
        record = await self.find_owner(self.chance.choice([*OWNERS]))
        tier = self.chance.choice(TIERS) if kind != "owner" else None
        role = "aegis:admin" if kind == "admin" else None
        return form_caller_of_claims(record, policy, tenant_id=None, tier=tier, role=role)

    async def pick_target(self, caller: Caller) -> KeyId:
        """Any key, or one that the caller may well reach."""
        if self.chance.random() < 0.4:
            return self.chance.choice(self.keys)
        records = await self.stage.store.read_keys(self.keys)
        near = [
            record.id
            for record in map(records.__getitem__, self.keys)  # in their order: the same seed takes the same walk
            if record.owner.id == caller.owner.id and (caller.key_id is None or caller.key_id in record.lineage[1:])
        ]
        return self.chance.choice(near or self.keys)

    async def start(self) -> None:
        for subject, (tenant, tier) in OWNERS.items():
            await self.owners.add(
                form_operator("test"), self.stage.policy, issuer="local", subject=subject, tenant=tenant, tier=tier
            )
            for scopes in (("*",), self.pick_scopes()):
                minted = await self.stage.mint(scopes=scopes, owner=subject, tenant=tenant)
                self.keys.append(KeyId(minted.summary.id))

    async def step(self) -> None:
        if self.chance.random() < 0.1:
            return await self.interfere()
        caller = await self.pick_caller()
        action = self.chance.choice(["mint", "mint", "update", "enable", "rotate", "disable", "revoke"])
        if action == "revoke" and self.chance.random() < 0.7:
            return None
        before = await self.measure(caller)
        target = await self.pick_target(caller)
        try:
            key_id = await self.act(caller, action, target)
        except ANSWERS as error:
            self.tally[action, getattr(error, "reason", type(error).__name__)] += 1
            return None
        self.tally[action, "done"] += 1
        return await self.check(caller, action, key_id, *before)

    async def measure(self, caller: Caller) -> tuple[frozenset[str], float, tuple[Constraints, ...]]:
        """What the caller has in hand, by the rows and this file's own rules."""
        policy = self.stage.policy
        if caller.key_id is not None:
            record = await self.read(caller.key_id)
            return count_rights(record, policy), find_end(record), record.limits
        held = expand(policy.tiers[caller.owner.tier], policy)
        if caller.claimed_tier is not None:
            held &= expand(policy.tiers[caller.claimed_tier], policy)
        return held, float("inf"), ()

    async def act(self, caller: Caller, action: str, target: KeyId) -> KeyId:
        policy, changes = self.stage.policy, self.changes
        match action:
            case "mint":
                self.names += 1
                wanted = WantedKey(
                    f"key {self.names}", scopes=self.pick_scopes(), expires_at=self.pick_end(),
                    constraints=self.pick_limits(),
                )  # fmt: skip
                minted = await changes.mint(caller, wanted, policy)
                self.stage.note_secret(minted.token)
                self.keys.append(KeyId(minted.summary.id))
                return self.keys[-1]
            case "update":
                patch = Patch(
                    scopes=self.pick_scopes() if self.chance.random() < 0.7 else None,
                    expires_at=(self.pick_end() or "never") if self.chance.random() < 0.5 else None,
                    constraints=self.pick_limits() if self.chance.random() < 0.5 else None,
                )
                await changes.update(caller, target, patch, policy)
            case "rotate":
                grace = self.chance.choice([*GRACES])
                compromised = self.chance.random() < 0.1
                rotated = await changes.rotate(caller, target, policy, grace=grace, compromised=compromised)
                self.stage.note_secret(rotated.token)
            case "enable":
                await changes.enable(caller, target, policy)
            case "disable":
                await changes.disable(caller, target, policy)
            case _:
                await changes.revoke(caller, target, policy)
        return target

    async def interfere(self) -> None:
        """What operators do meanwhile: narrow, widen, move between tiers."""
        operator, policy = form_operator("test"), self.stage.policy
        if self.chance.random() < 0.5:
            owner = await self.find_owner(self.chance.choice([*OWNERS]))
            await self.owners.set_tier(operator, owner.owner.id, self.chance.choice(TIERS), policy)
            return
        patch = Patch(scopes=self.pick_scopes(), constraints=self.pick_limits(), role=self.chance.choice(ROLES))
        try:
            await self.changes.update(operator, self.chance.choice(self.keys), patch, policy)
        except ANSWERS:
            self.tally["interfere", "refused"] += 1

    async def check(
        self, caller: Caller, action: str, key_id: KeyId, held: frozenset[str], end: float,
        limits: tuple[Constraints, ...],
    ) -> None:  # fmt: skip
        record = await self.read(key_id)
        assert record.owner.tenant_id == caller.owner.tenant_id
        assert ACTION_SCOPES[action] in held  # type: ignore[index]
        if caller.key_id is not None:
            assert caller.key_id in record.lineage[1:], "a key acts on its descendants only"
            assert record.owner.id == caller.owner.id
        elif not caller.is_admin or action in ("mint", "rotate"):
            assert record.owner.id == caller.owner.id
        if action in ("disable", "revoke"):
            assert record.status in ("disabled", "revoked")
            return
        assert count_rights(record, self.stage.policy) <= held
        assert find_end(record) <= end
        assert all(any(outer.contains(one) for one in record.limits) for outer in limits)
        if action in ("mint", "enable", "rotate"):
            assert record.role in (None, *(["aegis:admin"] if caller.is_admin else []))
        assert record.role is None or not record.ancestors
        if action == "mint" and record.ancestors:
            assert all(outer.contains(record.constraints) for outer in record.limits[1:])
            assert record.expires_at == find_end(record) or record.expires_at is None


@pytest.mark.parametrize("seed", range(8))
async def test_nobody_has_more_in_hand_than_before(seed: int, stage: Stage) -> None:
    world = World(stage, KeyChanges(stage.database, stage.hasher), Owners(stage.database), random.Random(seed))
    await world.start()
    for _ in range(STEPS):
        await world.step()
    done = {action for action, outcome in world.tally if outcome == "done"}
    assert {"mint", "update", "rotate", "disable"} <= done, world.tally
    refused = {outcome for _, outcome in world.tally}
    assert {"rights_exceeded", "scope_missing", "KeyNotFoundError"} <= refused, world.tally
