"""Whose task is it? Bound before its id is told, claimed by its key alone, as long as the key may do what made it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from proxy.database import Database
from proxy.errors import Reason, Refusal, UnavailableError, UpstreamError
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.task_store import TaskStore, hash_task_id

TASK = "786512e2-a-task-id"
RUN = ("workflow:run:nightly-etl",)
PRINCIPAL = Principal(
    key_id=KeyId("key000000001"),
    owner=Owner(OwnerId(str(uuid4())), "default", "local", "ada", "pro"),
    grants=frozenset({"workflow:run:nightly-etl", "agent:list"}),
    ancestors=(),
    secret_version=1,
    ends=None,
    read_at=0.0,
    claims=Claims(()),
)
STRANGER = replace(PRINCIPAL, key_id=KeyId("key000000002"))


@pytest.fixture
def store(database: Database) -> TaskStore:
    return TaskStore(database)


@pytest.fixture
def other(database: Database) -> TaskStore:
    """Another instance."""
    return TaskStore(database)


async def refuse(
    store: TaskStore, principal: Principal, task_ids: Collection[str] = (TASK,), upstream: str = "mcp"
) -> None:
    with pytest.raises(Refusal) as caught:
        await store.claim(upstream, task_ids, principal)
    assert caught.value.reason is Reason.HANDLE_UNKNOWN
    assert str(caught.value) == "There is no such task."
    assert caught.value.data is None


async def refuse_binding(store: TaskStore, principal: Principal) -> None:
    with pytest.raises(UpstreamError) as caught:
        await store.bind("mcp", TASK, principal, RUN)
    assert caught.value.reason is Reason.UPSTREAM_SESSION_CONFLICT
    assert TASK not in str(caught.value)


# Bind and claim


async def test_a_bound_task_is_its_keys_on_every_instance(store: TaskStore, other: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    assert await store.claim("mcp", [TASK], PRINCIPAL) == RUN
    assert await other.claim("mcp", [TASK], PRINCIPAL) == RUN


async def test_a_strangers_task_and_an_unknown_one_are_refused_alike(store: TaskStore, other: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    for instance in (store, other):
        await refuse(instance, STRANGER)
        await refuse(instance, STRANGER, ["never made"])
        await refuse(instance, PRINCIPAL, ["never made"])
        await refuse(instance, PRINCIPAL, upstream="api")
        await refuse(instance, PRINCIPAL, [TASK + " "])
        await refuse(instance, PRINCIPAL, [TASK.upper()])
        await refuse(instance, PRINCIPAL, [""])


async def test_of_several_tasks_all_must_be_the_keys_own(store: TaskStore) -> None:
    await store.bind("mcp", "one", PRINCIPAL, RUN)
    await store.bind("mcp", "two", PRINCIPAL, ["agent:list"])
    await store.bind("mcp", "his", STRANGER, RUN)
    assert set(await store.claim("mcp", ["one", "two", "one"], PRINCIPAL)) == {*RUN, "agent:list"}
    await refuse(store, PRINCIPAL, ["one", "his"])
    await refuse(store, PRINCIPAL, ["one", "two", "never made"])


async def test_of_all_pairs_of_keys_only_the_maker_may_claim(store: TaskStore, other: TaskStore) -> None:
    principals = [replace(PRINCIPAL, key_id=KeyId(f"key{number:09}")) for number in range(5)]
    for principal in principals:
        await store.bind("mcp", f"task-of-{principal.key_id}", principal, RUN)
    for holder in principals:
        for claimant in principals:
            if holder is claimant:
                await other.claim("mcp", [f"task-of-{holder.key_id}"], claimant)
            else:
                await refuse(other, claimant, [f"task-of-{holder.key_id}"])


async def test_a_task_that_is_told_again_stays_as_it_was_first_bound(store: TaskStore, other: TaskStore) -> None:
    """A replayed answer, or a call of fewer rights, does not change what the task rests on."""
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    await other.bind("mcp", TASK, PRINCIPAL, ["agent:list"])
    await other.bind("mcp", TASK, PRINCIPAL, [])
    assert await store.claim("mcp", [TASK], PRINCIPAL) == RUN


async def test_a_task_of_another_key_is_not_bound_again(store: TaskStore, other: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    for instance in (store, other):
        await refuse_binding(instance, STRANGER)
        await refuse(instance, STRANGER)
        assert await instance.claim("mcp", [TASK], PRINCIPAL) == RUN


async def test_one_of_many_keys_that_are_told_the_same_task_at_once_gets_it(database: Database) -> None:
    principals = [replace(PRINCIPAL, key_id=KeyId(f"key{number:09}")) for number in range(8)]
    results = await asyncio.gather(
        *(TaskStore(database).bind("mcp", TASK, principal, RUN) for principal in principals), return_exceptions=True
    )
    assert [type(result) for result in results].count(UpstreamError) == 7
    winner = results.index(None)
    store = TaskStore(database)
    await store.claim("mcp", [TASK], principals[winner])
    await refuse(store, principals[winner - 1])


async def test_the_same_id_at_another_upstream_is_another_task(store: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    await store.bind("api", TASK, STRANGER, RUN)
    await store.claim("api", [TASK], STRANGER)
    await refuse(store, PRINCIPAL, upstream="api")


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ({"workflow:run:nightly-etl", "agent:list"}, True),
        ({"workflow:run:nightly-etl"}, True),
        ({"workflow:run"}, True),
        ({"*"}, True),
        ({"workflow:run:weekly"}, False),
        ({"agent:list"}, False),
        (set(), False),
    ],
)
async def test_a_task_is_lost_with_the_rights_that_made_it(store: TaskStore, grants: set[str], allowed: bool) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    changed = replace(PRINCIPAL, grants=frozenset(grants))
    if allowed:
        assert await store.claim("mcp", [TASK], changed) == RUN
    else:
        await refuse(store, changed)


async def test_a_task_that_took_no_right_needs_none(store: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, [])
    assert await store.claim("mcp", [TASK], replace(PRINCIPAL, grants=frozenset())) == ()
    await refuse(store, STRANGER)


async def test_a_rotated_key_keeps_its_tasks(store: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    assert await store.claim("mcp", [TASK], replace(PRINCIPAL, secret_version=2)) == RUN


async def test_only_a_hash_of_the_id_is_stored(store: TaskStore, database: Database) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, ["b:b", "a:a", "b:b"])
    (row,) = await database.fetch("SELECT *, mcp_tasks::text AS text FROM mcp_tasks")
    assert TASK not in row["text"]
    assert TASK.encode().hex() not in row["text"]
    assert row["task_hash"] == hash_task_id(TASK)
    assert (row["upstream"], row["key_id"], row["scopes"]) == ("mcp", PRINCIPAL.key_id, ["a:a", "b:b"])


# Lists


async def test_a_key_owns_the_tasks_it_made_there_and_no_others(store: TaskStore, other: TaskStore) -> None:
    assert await store.list_owned("mcp", PRINCIPAL) == frozenset()
    for task_id in ("one", "two"):
        await store.bind("mcp", task_id, PRINCIPAL, RUN)
    await store.bind("api", "elsewhere", PRINCIPAL, RUN)
    await store.bind("mcp", "his", STRANGER, RUN)
    owned = {hash_task_id("one"), hash_task_id("two")}
    assert await store.list_owned("mcp", PRINCIPAL) == owned
    assert await other.list_owned("mcp", PRINCIPAL) == owned
    assert await other.list_owned("mcp", STRANGER) == {hash_task_id("his")}


async def test_a_list_leaves_out_what_the_key_may_use_no_longer(store: TaskStore) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    assert await store.list_owned("mcp", replace(PRINCIPAL, grants=frozenset({"agent:list"}))) == frozenset()


@pytest.mark.parametrize("changed", [{"id": "another"}, {"tenant_id": "another"}], ids=["owner", "tenant"])
async def test_a_key_in_other_hands_has_lost_its_tasks(store: TaskStore, changed: dict[str, Any]) -> None:
    await store.bind("mcp", TASK, PRINCIPAL, RUN)
    moved = replace(PRINCIPAL, owner=replace(PRINCIPAL.owner, **changed))
    await refuse(store, moved, [TASK])
    assert await store.list_owned("mcp", moved) == frozenset()
    with pytest.raises(UpstreamError):
        await store.bind("mcp", TASK, moved, RUN)


# Forgetting


async def age(database: Database, task_id: str, interval: str) -> None:
    await database.fetch(
        f"UPDATE mcp_tasks SET created_at = now() - interval '{interval}' WHERE task_hash = $1", hash_task_id(task_id)
    )


async def test_a_task_is_forgotten_after_thirty_days_when_the_next_is_made(
    store: TaskStore, database: Database
) -> None:
    for task_id in ("old", "young"):
        await store.bind("mcp", task_id, PRINCIPAL, RUN)
    await age(database, "old", "30 days 1 minute")
    await age(database, "young", "29 days 23 hours")
    await store.bind("mcp", "new", STRANGER, RUN)
    assert await store.list_owned("mcp", PRINCIPAL) == {hash_task_id("young")}
    await refuse(store, PRINCIPAL, ["old"])
    assert await store.claim("mcp", ["young"], PRINCIPAL) == RUN


# What cannot be known


async def test_what_cannot_be_read_is_unavailable_and_never_unknown(store: TaskStore, database: Database) -> None:
    await database.fetch("ALTER TABLE mcp_tasks RENAME TO elsewhere")
    for call in (
        store.bind("mcp", TASK, PRINCIPAL, RUN),
        store.claim("mcp", [TASK], PRINCIPAL),
        store.list_owned("mcp", PRINCIPAL),
    ):
        with pytest.raises(UnavailableError) as caught:
            await call
        assert caught.value.reason is Reason.STATE_UNKNOWN
        assert caught.value.retry_after_seconds == 1
