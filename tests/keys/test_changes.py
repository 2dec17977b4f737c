"""The life of a key: what each change leaves behind, who may make it, and who loses a race."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from proxy.database import Database
from proxy.errors import Reason
from proxy.identity import KeyId
from proxy.keys.changes import (
    Grace,
    KeyChanges,
    KeyVersionError,
    Patch,
    RotatedKey,
    WantedKey,
)
from proxy.keys.constraints import parse_constraints
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintedKey, MintError
from proxy.keys.owners import Owners
from proxy.keys.record import KeyRecord
from proxy.keys.rights import (
    Caller,
    CallerError,
    RightsError,
    form_caller_of_claims,
    form_caller_of_key,
    form_operator,
)
from proxy.keys.rotation import KEPT_SECRETS
from proxy.keys.store import MAX_ANCESTORS, KeyConflictError, KeyNotFoundError, KeySummary
from proxy.keys.token import parse_token
from tests.staging import GUARD_SECONDS, Stage

OPERATOR = form_operator("cli:root")
MANAGER = ("agent:list", "workflow:run", "key:create", "key:update", "key:revoke")
SOON = datetime.now(UTC) + timedelta(days=1)


class Desk:
    """Where keys are managed in a test."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.changes = KeyChanges(stage.database, stage.hasher)
        self.policy = stage.policy

    async def read(self, key_id: str) -> KeyRecord:
        return (await self.stage.store.read_keys([KeyId(key_id)]))[KeyId(key_id)]

    async def caller(self, key: MintedKey | RotatedKey, secret_version: int = 1) -> Caller:
        return form_caller_of_key(await self.read(key.summary.id), self.policy, secret_version)

    async def sign_in(self, owner: str = "ada", tier: str | None = None, role: str | None = None) -> Caller:
        found = await Owners(self.stage.database).find("local", owner)
        return form_caller_of_claims(found, self.policy, tenant_id=None, tier=tier, role=role)

    async def mint(self, caller: Caller, name: str = "child", **wanted: Any) -> MintedKey:
        values = {"scopes": ("agent:list",), **wanted}
        minted = await self.changes.mint(caller, WantedKey(name, **values), self.policy)
        self.stage.note_secret(minted.token)
        return minted

    async def update(self, caller: Caller, key: MintedKey, **values: Any) -> KeySummary:
        version = values.pop("version", None)
        return await self.changes.update(caller, key.summary.id, Patch(**values), self.policy, version=version)

    async def rotate(self, caller: Caller, key: MintedKey, grace: Grace = "1h", **values: Any) -> RotatedKey:
        rotated = await self.changes.rotate(caller, key.summary.id, self.policy, grace=grace, **values)
        self.stage.note_secret(rotated.token)
        return rotated

    async def read_audit(self, key: MintedKey) -> list[tuple[str, str, Any, Any]]:
        rows = await self.stage.database.fetch(
            "SELECT actor, action, before, after FROM audit_events WHERE key_id = $1 ORDER BY id", key.summary.id
        )
        return [
            (row["actor"], row["action"], *(json.loads(row[w] or "null") for w in ("before", "after"))) for row in rows
        ]


@pytest.fixture
def desk(stage: Stage) -> Desk:
    return Desk(stage)


@pytest.fixture
async def manager(stage: Stage) -> MintedKey:
    """Ada's key that manages keys."""
    return await stage.mint(scopes=MANAGER, name="manager")


# Minting


async def test_a_key_makes_a_key_that_descends_from_it(desk: Desk, manager: MintedKey) -> None:
    caller = await desk.caller(manager)
    child = await desk.mint(caller, scopes=("workflow:run:nightly", "agent:list"), expires_at=SOON)
    assert (child.summary.owner, child.summary.parent_id) == ("ada", manager.summary.id)
    assert (child.summary.created_by, child.summary.expires_at) == (f"key:{manager.summary.id}", SOON)
    record, token = await desk.read(child.summary.id), parse_token(child.token)
    await desk.stage.hasher.verify(record.secrets[1].hash, token.secret)
    assert record.lineage == (child.summary.id, manager.summary.id)
    ((actor, action, before, after),) = await desk.read_audit(child)
    assert (actor, action, before) == (caller.actor, "mint", None)
    assert (after["parent_id"], after["scopes"]) == (manager.summary.id, ["workflow:run:nightly", "agent:list"])


async def test_an_owner_makes_a_key_that_descends_from_none(desk: Desk, manager: MintedKey) -> None:
    minted = await desk.mint(await desk.sign_in(), preset="full-access", scopes=())
    assert (minted.summary.parent_id, minted.summary.scopes, minted.summary.preset) == (None, ("*",), "full-access")
    assert minted.summary.created_by == "jwt:local|ada"


async def test_what_constrains_the_maker_constrains_what_it_makes(desk: Desk, manager: MintedKey) -> None:
    await desk.update(OPERATOR, manager, constraints=parse_constraints({"max_calls": 4, "sources": ["10.0.0.0/8"]}))
    caller = await desk.caller(manager)
    plain = await desk.mint(caller)
    assert plain.summary.constraints == {"max_calls": 4, "sources": ["10.0.0.0/8"]}
    narrower = await desk.mint(caller, "narrower", constraints=parse_constraints({"max_calls": 1}))
    assert narrower.summary.constraints == {"max_calls": 1, "sources": ["10.0.0.0/8"]}
    with pytest.raises(RightsError) as caught:
        await desk.mint(caller, "wider", constraints=parse_constraints({"max_calls": 5}))
    assert caught.value.reason == "constraints_exceeded"
    assert (await desk.read(plain.summary.id)).limits == (await desk.read(plain.summary.id)).limits[:1] * 2


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        ({"scopes": ("agent:rum",)}, MintError, "unknown scope agent:rum"),
        ({"preset": "admin", "scopes": ()}, MintError, "unknown preset 'admin'"),
        ({"preset": "execution"}, MintError, "either a preset or at least one scope"),
        ({"scopes": ()}, MintError, "either a preset or at least one scope"),
        ({"name": ""}, MintError, "1 to 64 printable characters"),
        ({"name": "n" * 65}, MintError, "1 to 64 printable characters"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, MintError, "lies in the past"),
        ({"scopes": ("volume:read",)}, RightsError, "does not hold volume:read"),
        ({"preset": "full-access", "scopes": ()}, RightsError, r"does not hold \*"),
        ({"name": "manager"}, KeyConflictError, "already has an active key named 'manager'"),
    ],
)
async def test_what_cannot_be_minted_leaves_nothing_behind(
    wanted: dict[str, Any], error: type[Exception], text: str, desk: Desk, manager: MintedKey
) -> None:
    with pytest.raises(error, match=text):
        await desk.mint(await desk.caller(manager), **wanted)
    (row,) = await desk.stage.database.fetch("SELECT count(*) FROM api_keys")
    assert row[0] == 1


async def test_a_refused_mint_costs_no_hash(desk: Desk, manager: MintedKey) -> None:
    none_at_all = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=-1, timeout_seconds=1)
    with pytest.raises(RightsError):
        await KeyChanges(desk.stage.database, none_at_all).mint(
            await desk.caller(manager), WantedKey("k", scopes=("volume:read",)), desk.policy
        )
    none_at_all.close()


async def test_a_rotation_of_a_key_that_is_not_there_costs_no_hash(desk: Desk, manager: MintedKey) -> None:
    none_at_all = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=-1, timeout_seconds=1)
    changes, theirs = KeyChanges(desk.stage.database, none_at_all), await desk.stage.mint(owner="bob")
    for key_id in ("Unknown00000", theirs.summary.id):
        with pytest.raises(KeyNotFoundError):
            await changes.rotate(await desk.caller(manager), key_id, desk.policy, grace="now")
    none_at_all.close()


async def test_however_much_is_changed_at_once_takes_one_place_for_hashing(desk: Desk, manager: MintedKey) -> None:
    one_place = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=0, timeout_seconds=GUARD_SECONDS)
    desk.changes = KeyChanges(desk.stage.database, one_place)
    caller, child = await desk.caller(manager), await desk.mint(await desk.caller(manager))
    await asyncio.gather(
        *(desk.mint(caller, f"child {number}") for number in range(4)),
        *(desk.rotate(caller, child) for _ in range(4)),
    )
    assert len((await desk.read(child.summary.id)).secrets) == 5
    one_place.close()


async def test_generations_end(desk: Desk, manager: MintedKey) -> None:
    key = manager
    for number in range(MAX_ANCESTORS):
        key = await desk.mint(await desk.caller(key), f"generation {number}", scopes=MANAGER)
    assert (await desk.read(key.summary.id)).find_fault(0) is None
    with pytest.raises(RightsError) as caught:
        await desk.mint(await desk.caller(key), "one more")
    assert caught.value.reason == "too_many_generations"


async def test_what_is_done_beside_a_mint_is_done_with_it_or_not_at_all(desk: Desk, manager: MintedKey) -> None:
    async def also(connection: asyncpg.Connection, summary: KeySummary) -> None:
        await connection.execute("INSERT INTO audit_events (actor, action) VALUES ('also', $1)", summary.id)
        raise KeyConflictError("no")

    with pytest.raises(KeyConflictError, match="no"):
        await desk.changes.mint(await desk.caller(manager), WantedKey("k", scopes=("agent:list",)), desk.policy, also)
    rows = await desk.stage.database.fetch("SELECT action FROM audit_events")
    assert [row["action"] for row in rows] == ["mint"]


# Changing


async def test_an_owner_changes_a_key_and_the_audit_says_what_was_before(desk: Desk, stage: Stage) -> None:
    key = await stage.mint("execution", name="ci")
    changed = await desk.update(
        await desk.sign_in(), key, name="nightly", scopes=("agent:list",), expires_at=SOON,
        constraints=parse_constraints({"max_streams": 1}),
    )  # fmt: skip
    assert (changed.name, changed.preset, changed.scopes) == ("nightly", None, ("agent:list",))
    assert (changed.expires_at, changed.constraints) == (SOON, {"max_streams": 1})
    actor, action, before, after = (await desk.read_audit(key))[-1]
    assert (actor, action) == ("jwt:local|ada", "update")
    assert before == {"name": "ci", "preset": "execution", "scopes": list(key.summary.scopes), "constraints": {},
                      "expires_at": None}  # fmt: skip
    assert after == {"name": "nightly", "preset": None, "scopes": ["agent:list"], "constraints": {"max_streams": 1},
                     "expires_at": after["expires_at"]}  # fmt: skip
    assert datetime.fromisoformat(after["expires_at"]) == SOON


async def test_what_a_patch_does_not_name_stays(desk: Desk, stage: Stage) -> None:
    key = await stage.mint("execution", name="ci", lifetime=timedelta(days=1))
    caller = await desk.sign_in()
    assert (await desk.update(caller, key, name="other")).expires_at == key.summary.expires_at
    assert (await desk.update(caller, key, expires_at="never")).expires_at is None
    after = await desk.update(caller, key, preset="read-only")
    assert (after.name, after.preset, after.scopes) == ("other", "read-only", desk.policy.presets["read-only"].scopes)
    version, audited = after.version, len(await desk.read_audit(key))
    assert (await desk.update(caller, key, name="other")).version == version, "nothing changed"
    assert len(await desk.read_audit(key)) == audited


async def test_of_two_patches_of_one_version_the_second_is_refused(desk: Desk, stage: Stage) -> None:
    key, caller = await stage.mint(name="ci"), await desk.sign_in()
    version = key.summary.version
    results = await asyncio.gather(
        *(desk.update(caller, key, name=name, version=version) for name in ("one", "two", "three")),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["KeySummary", "KeyVersionError", "KeyVersionError"]
    (won,) = (result for result in results if isinstance(result, KeySummary))
    assert won.version > version
    assert len(await desk.read_audit(key)) == 2
    with pytest.raises(KeyVersionError):
        await desk.update(caller, key, name="four", version=version)
    assert (await desk.update(caller, key, name="four", version=won.version)).name == "four"


async def test_a_key_made_by_a_key_stays_within_it_whoever_changes_it(desk: Desk, manager: MintedKey) -> None:
    await desk.update(OPERATOR, manager, expires_at=SOON, constraints=parse_constraints({"max_calls": 4}))
    child = await desk.mint(await desk.caller(manager), expires_at=SOON)
    for caller in (OPERATOR, await desk.sign_in(), await desk.caller(manager)):
        for patch, reason in (
            ({"scopes": ("agent:list", "volume:read")}, "rights_exceeded"),
            ({"expires_at": "never"}, "expiry_exceeded"),
            ({"expires_at": SOON + timedelta(seconds=1)}, "expiry_exceeded"),
            ({"constraints": parse_constraints({"max_calls": 5})}, "constraints_exceeded"),
        ):
            with pytest.raises(RightsError) as caught:
                await desk.update(caller, child, **patch)
            assert caught.value.reason == reason
        assert (await desk.update(caller, child, scopes=("workflow:run", "agent:list"))).constraints == {"max_calls": 4}


async def test_a_lowered_sign_in_touches_nothing_that_can_do_more(desk: Desk, stage: Stage) -> None:
    key = await stage.mint(scopes=("agent:list", "secret:read"))
    lowered = await desk.sign_in(tier="free")
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: desk.update(lowered, key, name="mine"),
        lambda: desk.update(lowered, key, scopes=("agent:list",)),
        lambda: desk.rotate(lowered, key),
        lambda: desk.changes.enable(lowered, key.summary.id, desk.policy),
    ]
    for attempt in attempts:
        with pytest.raises(RightsError) as caught:
            await attempt()
        assert (caught.value.reason, caught.value.missing) == ("rights_exceeded", ("secret:read",))
    await desk.changes.disable(lowered, key.summary.id, desk.policy)
    assert (await desk.changes.revoke(lowered, key.summary.id, desk.policy)).status == "revoked"


async def test_a_name_is_taken_by_active_keys_only(desk: Desk, stage: Stage) -> None:
    first, second = await stage.mint(name="one"), await stage.mint(name="two")
    caller = await desk.sign_in()
    with pytest.raises(KeyConflictError, match="ada already has an active key named 'two'"):
        await desk.update(caller, first, name="two")
    await desk.changes.disable(caller, second.summary.id, desk.policy)
    await desk.update(caller, first, name="two")
    with pytest.raises(KeyConflictError, match="ada already has an active key named 'two'"):
        await desk.changes.enable(caller, second.summary.id, desk.policy)


# Disabling, ending


async def test_a_key_is_disabled_and_enabled_again(desk: Desk, stage: Stage) -> None:
    key, caller = await stage.mint(), await desk.sign_in()
    for _ in range(2):
        assert (await desk.changes.disable(caller, key.summary.id, desk.policy)).status == "disabled"
    assert (await desk.read(key.summary.id)).find_fault(0) is Reason.KEY_DISABLED
    for _ in range(2):
        assert (await desk.changes.enable(caller, key.summary.id, desk.policy)).status == "active"
    assert [(action, before, after) for _, action, before, after in (await desk.read_audit(key))[1:]] == [
        ("disable", {"status": "active"}, {"status": "disabled"}),
        ("enable", {"status": "disabled"}, {"status": "active"}),
    ]


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_what_has_ended_is_not_brought_back(end: str, desk: Desk, stage: Stage) -> None:
    key, caller = await stage.mint(), await desk.sign_in()
    if end == "revoked":
        await desk.changes.revoke(caller, key.summary.id, desk.policy, reason="leaked")
    else:
        await stage.sql("UPDATE api_keys SET expires_at = now() - interval '1 s'")
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: desk.update(caller, key, expires_at="never"),
        lambda: desk.update(OPERATOR, key, name="again"),
        lambda: desk.rotate(caller, key),
        lambda: desk.changes.enable(caller, key.summary.id, desk.policy),
    ]
    for attempt in attempts:
        with pytest.raises(KeyConflictError, match=f"key {key.summary.id} (is revoked|has expired)"):
            await attempt()
    summary = await desk.changes.revoke(caller, key.summary.id, desk.policy, reason="to be sure")
    assert (summary.status, summary.revoked_reason) == ("revoked", "leaked" if end == "revoked" else "to be sure")


# Rotating


async def find_faults(desk: Desk, key: MintedKey) -> dict[int, Reason | None]:
    (row,) = await desk.stage.database.fetch("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    record = await desk.read(key.summary.id)
    return {version: record.find_use_fault(version, row["now"]) for version in sorted(record.secrets)}


@pytest.mark.parametrize(("grace", "seconds"), [("now", 0), ("1h", 3_600), ("24h", 86_400), ("7d", 604_800)])
async def test_the_old_secret_is_good_for_its_grace(grace: Grace, seconds: int, desk: Desk, stage: Stage) -> None:
    key = await stage.mint()
    began = datetime.now(UTC).timestamp()
    rotated = await desk.rotate(await desk.sign_in(), key, grace)
    record, token = await desk.read(key.summary.id), parse_token(rotated.token)
    assert token.key_id == key.summary.id
    assert token.secret != parse_token(key.token).secret
    await stage.hasher.verify(record.secrets[2].hash, token.secret)
    left = record.secrets[1].not_after
    assert left is not None
    assert abs(left - began - seconds) < GUARD_SECONDS
    assert await find_faults(desk, key) == {1: Reason.SECRET_RETIRED if grace == "now" else None, 2: None}
    until = rotated.summary.old_secret_until
    assert (until is None) if grace == "now" else (until is not None and abs(until.timestamp() - left) < 0.001)
    _, action, before, after = (await desk.read_audit(key))[-1]
    assert (action, before) == ("rotate", {"secret_version": 1})
    assert after == {"secret_version": 2, "grace": grace}


async def test_grace_never_goes_past_the_keys_end(desk: Desk, stage: Stage) -> None:
    key = await stage.mint(lifetime=timedelta(hours=2))
    assert (await desk.rotate(await desk.sign_in(), key, "7d")).summary.old_secret_until == key.summary.expires_at


async def test_no_more_than_two_secrets_are_good_at_once(desk: Desk, stage: Stage) -> None:
    key, caller = await stage.mint(), await desk.sign_in()
    await desk.rotate(caller, key, "7d")
    await desk.rotate(caller, key, "1h")
    assert await find_faults(desk, key) == {1: Reason.SECRET_RETIRED, 2: None, 3: None}
    await desk.rotate(caller, key, "now")
    assert await find_faults(desk, key) == {**dict.fromkeys((1, 2, 3), Reason.SECRET_RETIRED), 4: None}


async def test_what_was_retired_is_remembered_for_a_while(desk: Desk, stage: Stage) -> None:
    key, caller = await stage.mint(), await desk.sign_in()
    for _ in range(KEPT_SECRETS + 2):
        await desk.rotate(caller, key, "now")
    assert sorted((await desk.read(key.summary.id)).secrets) == list(range(4, KEPT_SECRETS + 4))


async def test_a_compromised_key_takes_along_what_it_made(desk: Desk, manager: MintedKey) -> None:
    child = await desk.mint(await desk.caller(manager), scopes=MANAGER)
    grandchild = await desk.mint(await desk.caller(child), "grandchild")
    rotated = await desk.rotate(await desk.sign_in(), manager, "7d", compromised=True)
    assert rotated.ended == 2
    assert await find_faults(desk, manager) == {1: Reason.SECRET_RETIRED, 2: None}
    for key in (child, grandchild):
        assert (await desk.read(key.summary.id)).find_fault(0) is Reason.KEY_REVOKED
    assert (await desk.read_audit(manager))[-1][3] == {
        "secret_version": 2, "grace": "now", "compromised": True, "descendants_revoked": 2,
    }  # fmt: skip


async def test_ending_what_a_key_made_takes_the_scope_for_it(desk: Desk, stage: Stage) -> None:
    manager = await stage.mint(scopes=("agent:list", "key:create", "key:update"))
    caller = await desk.caller(manager)
    child = await desk.mint(caller)
    await desk.rotate(caller, child)
    with pytest.raises(RightsError) as caught:
        await desk.rotate(caller, child, compromised=True)
    assert caught.value.missing == ("key:revoke",)


# What the policy lets keys live


async def test_no_key_is_made_or_changed_to_live_longer_than_the_policy_lets_any(
    desk: Desk, manager: MintedKey
) -> None:
    key = await desk.stage.mint(name="there already")
    desk.policy = replace(desk.policy, longest_expiry=timedelta(days=30))
    soon, late = (datetime.now(UTC) + timedelta(days=days) for days in (29, 31))
    child = await desk.mint(await desk.caller(manager), expires_at=soon)
    for end in (late, None):
        with pytest.raises(MintError, match="longest_expiry"):
            await desk.mint(await desk.caller(manager), "late", expires_at=end)
        for caller in (OPERATOR, await desk.caller(manager)):
            with pytest.raises(MintError, match="longest_expiry"):
                await desk.update(caller, child, expires_at=end or "never")
    assert (await desk.update(OPERATOR, child, expires_at=soon)).expires_at == soon
    renamed = await desk.update(OPERATOR, key, name="keeps the end it has")
    assert renamed.expires_at is None
    assert (await desk.rotate(OPERATOR, key)).summary.expires_at is None


# Walls


@pytest.mark.parametrize("action", ["update", "disable", "enable", "rotate", "revoke"])
async def test_what_one_may_not_see_does_not_exist(action: str, desk: Desk, manager: MintedKey) -> None:
    stage = desk.stage
    sibling, theirs = await stage.mint(name="sibling"), await stage.mint(owner="bob")
    await stage.mint(owner="eve")
    await stage.sql("UPDATE owners SET tenant_id = 'abroad' WHERE subject = 'eve'")
    (foreign,) = await stage.store.list_keys("eve")
    acts: dict[str, Callable[[Caller, str], Awaitable[object]]] = {
        "update": lambda caller, key_id: desk.changes.update(caller, key_id, Patch(name="x"), desk.policy),
        "disable": lambda caller, key_id: desk.changes.disable(caller, key_id, desk.policy),
        "enable": lambda caller, key_id: desk.changes.enable(caller, key_id, desk.policy),
        "rotate": lambda caller, key_id: desk.changes.rotate(caller, key_id, desk.policy, grace="now"),
        "revoke": lambda caller, key_id: desk.changes.revoke(caller, key_id, desk.policy),
    }
    key, owner = await desk.caller(manager), await desk.sign_in()
    admin = await desk.sign_in(role="aegis:admin")
    unknown = ["Unknown00000", "", "x" * 5_000, "nul\0nul\0nul\0", "' OR true --"]
    for caller, key_ids in (
        (key, [sibling.summary.id, theirs.summary.id, foreign.id, *unknown]),
        (owner, [theirs.summary.id, foreign.id, *unknown]),
        (admin, [foreign.id, *unknown]),
        (OPERATOR, unknown),
    ):
        for key_id in key_ids:
            with pytest.raises(KeyNotFoundError):
                await acts[action](caller, key_id)
    with pytest.raises(RightsError) as caught:
        await acts[action](key, manager.summary.id)
    assert caught.value.reason == "not_a_descendant"
    (row,) = await stage.database.fetch("SELECT count(*) FROM audit_events WHERE action <> 'mint'")
    assert row[0] == 0


async def test_an_admin_gets_nobody_elses_secret(desk: Desk, manager: MintedKey) -> None:
    theirs, admin = await desk.stage.mint(owner="bob"), await desk.sign_in(role="aegis:admin")
    with pytest.raises(RightsError) as caught:
        await desk.rotate(admin, theirs)
    assert caught.value.reason == "not_the_owner"
    assert await find_faults(desk, theirs) == {1: None}
    await desk.update(admin, theirs, name="renamed")
    await desk.changes.disable(admin, theirs.summary.id, desk.policy)
    await desk.changes.enable(admin, theirs.summary.id, desk.policy)
    assert (await desk.changes.revoke(admin, theirs.summary.id, desk.policy)).revoked_by == "jwt:local|ada"


async def test_a_role_is_handed_on_by_who_has_it(desk: Desk, manager: MintedKey) -> None:
    key, owner, admin = await desk.stage.mint(), await desk.sign_in(), await desk.sign_in(role="aegis:admin")
    await desk.update(OPERATOR, key, role="aegis:admin")
    with pytest.raises(RightsError, match="carries the role aegis:admin"):
        await desk.rotate(owner, key)
    await desk.rotate(admin, key)
    await desk.changes.disable(owner, key.summary.id, desk.policy)
    with pytest.raises(RightsError, match="carries the role aegis:admin"):
        await desk.changes.enable(owner, key.summary.id, desk.policy)
    assert (await desk.changes.enable(admin, key.summary.id, desk.policy)).status == "active"
    assert sorted((await desk.read(key.summary.id)).secrets) == [1, 2]


async def test_a_key_made_by_a_key_has_no_role(desk: Desk, manager: MintedKey) -> None:
    child = await desk.mint(await desk.caller(manager))
    with pytest.raises(RightsError, match="made by a key has no role"):
        await desk.update(OPERATOR, child, role="aegis:admin")
    assert (await desk.update(OPERATOR, child, role="")).aegis_role is None


# Races: what the caller rests on is read again inside, and locked


@pytest.fixture
async def hand(stage: Stage) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else's transaction, left open."""
    connection = await asyncpg.connect(stage.database_url)
    yield connection
    await connection.close()


async def wait_blocked(database: Database) -> None:
    """Until somebody waits for a lock."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not (await database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted")):
            await asyncio.sleep(0.005)


NARROWINGS = {
    "revoked": ("UPDATE api_keys SET status = 'revoked' WHERE name = 'manager'", CallerError, "key_revoked"),
    "disabled": ("UPDATE api_keys SET status = 'disabled' WHERE name = 'manager'", CallerError, "key_disabled"),
    "rotated": ("UPDATE api_key_secrets SET not_after = now()", CallerError, "secret_retired"),
    "narrowed": (
        "UPDATE api_keys SET scopes = '{key:create,key:update}' WHERE name = 'manager'",
        RightsError,
        "rights_exceeded",
    ),
    "without the scope": (
        "UPDATE api_keys SET scopes = '{agent:list}' WHERE name = 'manager'",
        RightsError,
        "scope_missing",
    ),
    "of a disabled owner": ("UPDATE owners SET disabled_at = now()", CallerError, "owner_disabled"),
    "of a tier nobody knows": ("UPDATE owners SET tier = 'none'", RightsError, "scope_missing"),
    "ending sooner": (
        "UPDATE api_keys SET expires_at = now() + interval '1 hour' WHERE name = 'manager'",
        RightsError,
        "expiry_exceeded",
    ),
}


@pytest.mark.parametrize("narrowing", NARROWINGS)
async def test_whoever_is_narrowed_while_minting_is_refused(
    narrowing: str, desk: Desk, manager: MintedKey, hand: asyncpg.Connection
) -> None:
    statement, error, reason = NARROWINGS[narrowing]
    caller = await desk.caller(manager)
    transaction = hand.transaction()
    await transaction.start()
    await hand.execute(statement)
    minting = asyncio.create_task(desk.mint(caller))
    await wait_blocked(desk.stage.database)
    await transaction.commit()
    with pytest.raises(error) as caught:
        await minting
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert len(await desk.stage.store.list_keys()) == 1


@pytest.mark.parametrize("narrowing", [name for name in NARROWINGS if name not in ("narrowed", "ending sooner")])
async def test_whoever_is_narrowed_while_rotating_gets_no_secret(
    narrowing: str, desk: Desk, manager: MintedKey, hand: asyncpg.Connection
) -> None:
    statement, error, _ = NARROWINGS[narrowing]
    caller = await desk.caller(manager)
    child = await desk.mint(caller)
    await hand.execute("UPDATE api_key_secrets SET not_after = NULL")
    transaction = hand.transaction()
    await transaction.start()
    await hand.execute(statement.replace("{agent:list}", "{agent:list,key:create}"))
    rotating = asyncio.create_task(desk.rotate(caller, child))
    await wait_blocked(desk.stage.database)
    await transaction.commit()
    with pytest.raises(error):
        await rotating
    assert list((await desk.read(child.summary.id)).secrets) == [1]


async def test_a_key_minted_just_before_its_maker_is_revoked_dies_with_it(
    desk: Desk, manager: MintedKey, hand: asyncpg.Connection
) -> None:
    caller, minted = await desk.caller(manager), asyncio.Event()
    go_on = asyncio.Event()

    async def also(_connection: asyncpg.Connection, _summary: KeySummary) -> None:
        minted.set()
        await go_on.wait()

    minting = asyncio.create_task(
        desk.changes.mint(caller, WantedKey("child", scopes=("agent:list",)), desk.policy, also)
    )
    await minted.wait()
    revoking = asyncio.create_task(hand.execute("UPDATE api_keys SET status = 'revoked' WHERE name = 'manager'"))
    await wait_blocked(desk.stage.database)
    go_on.set()
    child = await minting
    await revoking
    desk.stage.note_secret(child.token)
    assert (await desk.read(child.summary.id)).status == "revoked"


async def test_many_at_once_wait_for_each_other_and_not_in_circles(desk: Desk, manager: MintedKey) -> None:
    caller, owner = await desk.caller(manager), await desk.sign_in()
    child = await desk.mint(caller, scopes=MANAGER)
    grandchild = await desk.mint(await desk.caller(child), "grandchild")
    nephew = await desk.mint(caller, "nephew")
    results = await asyncio.gather(
        *(desk.update(owner, manager, name=f"manager {n}") for n in range(6)),
        *(desk.update(caller, child, name=f"child {n}") for n in range(6)),
        *(desk.rotate(owner, grandchild, "now") for _ in range(6)),
        *(desk.mint(caller, f"new {n}") for n in range(6)),
        *(desk.changes.disable(caller, nephew.summary.id, desk.policy) for _ in range(6)),
        desk.rotate(owner, child, compromised=True),
        return_exceptions=True,
    )
    odd = [result for result in results if isinstance(result, Exception) and not isinstance(result, KeyConflictError)]
    assert odd == []
    assert (await desk.read(grandchild.summary.id)).status == "revoked"
