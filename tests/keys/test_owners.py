"""Owners: what is told of them, who moves them between tiers, and what an admin cannot."""

from __future__ import annotations

import json

import pytest

from proxy.keys.minting import MintError
from proxy.keys.owners import OwnerNotFoundError, Owners, OwnerSummary
from proxy.keys.rights import Caller, CallerError, RightsError, form_caller_of_claims, form_operator
from proxy.keys.store import KeyConflictError
from tests.staging import Stage

OPERATOR = form_operator("cli:root")


@pytest.fixture
def owners(stage: Stage) -> Owners:
    return Owners(stage.database)


async def add(owners: Owners, stage: Stage, subject: str, tenant: str = "home", tier: str = "pro") -> OwnerSummary:
    return await owners.add(OPERATOR, stage.policy, issuer="https://idp", subject=subject, tenant=tenant, tier=tier)


async def sign_in(owners: Owners, stage: Stage, subject: str, role: str | None = "aegis:admin") -> Caller:
    record = await owners.find("https://idp", subject)
    return form_caller_of_claims(record, stage.policy, tenant_id=None, tier=None, role=role)


async def test_an_owner_is_added_found_and_listed(owners: Owners, stage: Stage) -> None:
    ada = await add(owners, stage, "ada")
    bob = await add(owners, stage, "bob", tenant="abroad", tier="free")
    await stage.mint(owner="ada")  # another ada: an issuer's subject is its own
    assert (ada.subject, ada.issuer, ada.tenant, ada.tier) == ("ada", "https://idp", "home", "pro")
    assert (ada.active_keys, ada.disabled_at) == (0, None)
    record = await owners.find("https://idp", "bob")
    assert record is not None
    assert (record.owner.id, record.owner.tier, record.disabled) == (bob.id, "free", False)
    assert await owners.find("https://idp", "nobody") is None
    assert [(one.tenant, one.subject, one.active_keys) for one in await owners.list()] == [
        ("abroad", "bob", 0), ("default", "ada", 1), ("home", "ada", 0),
    ]  # fmt: skip
    assert [one.id for one in await owners.list(subject="ada", issuer="https://idp")] == [ada.id]
    assert [one.id for one in await owners.list(tenant="abroad")] == [bob.id]
    with pytest.raises(KeyConflictError, match="there is an owner ada of https://idp already"):
        await add(owners, stage, "ada", tenant="elsewhere")


async def test_a_place_in_the_list_is_an_owner_of_the_same_tenant(owners: Owners, stage: Stage) -> None:
    ada, bob = await add(owners, stage, "ada"), await add(owners, stage, "bob")
    foreign = await add(owners, stage, "eve", tenant="abroad")  # which sorts before
    assert [one.id for one in await owners.list(tenant="home", after=ada.id)] == [bob.id]
    assert await owners.list(tenant="home", after=foreign.id) == []
    assert [one.id for one in await owners.list(after=foreign.id)] == [ada.id, bob.id]


@pytest.mark.parametrize("changes", [{"subject": ""}, {"subject": "a\nb"}, {"tenant": "t" * 256}, {"tier": "gold"}])
async def test_an_owner_nobody_could_read_is_refused(changes: dict[str, str], owners: Owners, stage: Stage) -> None:
    with pytest.raises(MintError):
        await add(owners, stage, **{"subject": "ada", **changes})
    assert await owners.list() == []


async def test_a_tier_narrows_and_widens_every_key_at_once(owners: Owners, stage: Stage) -> None:
    key = await stage.mint(scopes=("*",))
    (ada,) = await owners.list()
    assert (await owners.set_tier(OPERATOR, ada.id, "free", stage.policy)).tier == "free"
    records = await stage.store.read_keys([key.summary.id])  # type: ignore[list-item]
    assert [record.owner.tier for record in records.values()] == ["free"]
    await owners.set_tier(OPERATOR, ada.id, "free", stage.policy)
    with pytest.raises(MintError, match="unknown tier 'gold'"):
        await owners.set_tier(OPERATOR, ada.id, "gold", stage.policy)
    rows = await stage.database.fetch("SELECT * FROM audit_events WHERE action LIKE 'owner.%'")
    (row,) = rows
    assert (row["actor"], row["action"], str(row["owner_id"])) == ("cli:root", "owner.set_tier", ada.id)
    assert [json.loads(row[word]) for word in ("before", "after")] == [{"tier": "pro"}, {"tier": "free"}]


async def test_a_disabled_owner_is_refused_until_enabled(owners: Owners, stage: Stage) -> None:
    ada = await add(owners, stage, "ada")
    for _ in range(2):
        assert (await owners.disable(OPERATOR, ada.id, stage.policy)).disabled_at is not None
    with pytest.raises(CallerError):
        await sign_in(owners, stage, "ada")
    for _ in range(2):
        assert (await owners.enable(OPERATOR, ada.id, stage.policy)).disabled_at is None
    rows = await stage.database.fetch("SELECT action FROM audit_events ORDER BY id")
    assert [row["action"] for row in rows] == ["owner.add", "owner.disable", "owner.enable"]


async def test_an_admin_is_held_to_tenant_and_tier(owners: Owners, stage: Stage) -> None:
    ada, bob = await add(owners, stage, "ada"), await add(owners, stage, "bob", tier="free")
    chief, eve = await add(owners, stage, "chief", tier="business"), await add(owners, stage, "eve", tenant="abroad")
    admin = await sign_in(owners, stage, "ada")
    assert (await owners.set_tier(admin, bob.id, "pro", stage.policy)).tier == "pro"
    for owner, tier in ((ada, "business"), (bob, "enterprise"), (chief, "free")):
        with pytest.raises(RightsError):
            await owners.set_tier(admin, owner.id, tier, stage.policy)
    assert (await owners.disable(admin, chief.id, stage.policy)).disabled_at is not None
    with pytest.raises(RightsError):
        await owners.enable(admin, chief.id, stage.policy)
    for owner_id in (eve.id, "00000000-0000-4000-8000-000000000000", "nobody", ""):
        with pytest.raises(OwnerNotFoundError):
            await owners.disable(admin, owner_id, stage.policy)
    with pytest.raises(OwnerNotFoundError):
        await owners.disable(await sign_in(owners, stage, "ada", role=None), bob.id, stage.policy)
    with pytest.raises(OwnerNotFoundError):
        await owners.add(admin, stage.policy, issuer="i", subject="s", tenant="abroad", tier="free")
    idp = "https://idp"
    with pytest.raises(RightsError):
        await owners.add(admin, stage.policy, issuer=idp, subject="s", tenant="home", tier="business")
    assert (await owners.add(admin, stage.policy, issuer=idp, subject="s", tenant="home", tier="pro")).tier == "pro"


async def test_an_admin_takes_no_name_of_another_issuer(owners: Owners, stage: Stage) -> None:
    await add(owners, stage, "ada")
    admin = await sign_in(owners, stage, "ada")
    for issuer in ("local", "https://other"):
        with pytest.raises(RightsError, match="the identity provider they come from") as caught:
            await owners.add(admin, stage.policy, issuer=issuer, subject="alice", tenant="home", tier="free")
        assert caught.value.reason == "rights_exceeded"
        assert await owners.find(issuer, "alice") is None


async def test_an_admin_who_was_disabled_meanwhile_is_refused(owners: Owners, stage: Stage) -> None:
    ada, bob = await add(owners, stage, "ada"), await add(owners, stage, "bob")
    admin = await sign_in(owners, stage, "ada")
    await owners.disable(OPERATOR, ada.id, stage.policy)
    with pytest.raises(CallerError):
        await owners.disable(admin, bob.id, stage.policy)
    with pytest.raises(CallerError):
        await owners.enable(admin, ada.id, stage.policy)
