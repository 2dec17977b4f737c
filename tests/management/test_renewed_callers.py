"""A caller is formed before the body comes: what was taken away meanwhile is not answered with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.clock import SystemClock
from proxy.console.sign_in_store import SignIn, SignInStore
from proxy.identity import KeyId
from proxy.keys.rights import Caller, CallerError, RightsError, form_caller_of_key
from proxy.live_policy import LivePolicy
from proxy.management import models
from proxy.management.idempotency import Once
from proxy.management.operations import Operations
from proxy.management.shown import NewKey
from proxy.offered_names import OfferedNames
from tests.staging import Stage

WANTED = models.WantedKey(name="ci", preset="read-only")
ONCE = Once("a word", b"the request")
LOSSES = {
    "revoked": ("UPDATE api_keys SET status = 'revoked' WHERE name = 'maker'", CallerError, "key_revoked"),
    "rotated": ("UPDATE api_key_secrets SET not_after = now()", CallerError, "secret_retired"),
    "narrowed": (
        "UPDATE api_keys SET scopes = '{agent:list}' WHERE name = 'maker'", RightsError, "scope_missing",
    ),
}  # fmt: skip


def want(name: str) -> models.WantedKey:
    return models.WantedKey(name=name, preset="read-only")


@pytest.fixture
def operations(stage: Stage) -> Operations:
    live = LivePolicy(stage.policy)
    return Operations(stage.database, stage.hasher, live, SystemClock(), OfferedNames({}, live))


@pytest.fixture
async def caller(stage: Stage) -> Caller:
    """As a request's first bytes found it."""
    minted = await stage.mint("full-access", name="maker")
    record = (await stage.store.read_keys([KeyId(minted.summary.id)]))[KeyId(minted.summary.id)]
    return form_caller_of_key(record, stage.policy, 1)


async def test_nothing_is_made_by_a_sign_in_that_has_ended(
    operations: Operations, caller: Caller, stage: Stage
) -> None:
    store = SignInStore(stage.database, idle_seconds=60, absolute_seconds=60)
    sign_in = SignIn(caller.owner.id, caller.key_id, caller.secret_version)
    signed_in = replace(caller, sign_in=b"h" * 32)
    await store.open(b"h" * 32, sign_in, caller.actor, None)
    made = await operations.mint_key(signed_in, WANTED)
    await store.end_all(sign_in, caller.actor)
    for change in (
        operations.mint_key(signed_in, want("another")),
        operations.rotate_key(signed_in, made.id, models.WantedRotation()),
        operations.revoke_key(signed_in, made.id),
        operations.list_names(signed_in, models.NamesQuery(scope="workflow:run")),
    ):
        with pytest.raises(CallerError) as caught:
            await change
        assert caught.value.reason == "credential_missing"
    assert (await operations.mint_key(caller, want("by the key itself"))).name == "by the key itself"


@pytest.mark.parametrize("loss", LOSSES)
async def test_nothing_is_explained_to_who_lost_the_right(
    loss: str, operations: Operations, caller: Caller, stage: Stage
) -> None:
    statement, error, reason = LOSSES[loss]
    asked = models.AskedRequest(tool="aegis.agent.list")
    assert (await operations.explain_key(caller, str(caller.key_id), asked)).allowed
    await stage.sql(statement)
    with pytest.raises(error) as caught:
        await operations.explain_key(caller, str(caller.key_id), asked)
    assert caught.value.reason == reason  # type: ignore[attr-defined]


@pytest.mark.parametrize("loss", LOSSES)
async def test_what_was_done_before_is_not_told_to_who_lost_the_right(
    loss: str, operations: Operations, caller: Caller, stage: Stage
) -> None:
    statement, error, reason = LOSSES[loss]
    made = await operations.mint_key(caller, WANTED, ONCE)
    assert isinstance(made, NewKey)
    stage.note_secret(made.key)
    assert (await operations.mint_key(caller, WANTED, ONCE)).id == made.id
    await stage.sql(statement)
    with pytest.raises(error) as caught:
        await operations.mint_key(caller, WANTED, ONCE)
    assert caught.value.reason == reason  # type: ignore[attr-defined]
