"""Owners are administered by the admins of their tenant, signed in themselves."""

from __future__ import annotations

import json

import pytest

from tests.issuer import Issuer
from tests.management.asking import KEYS, Api, add_owner
from tests.staging import Stage

OWNERS = "/v1/owners"


@pytest.fixture
async def admin(stage: Stage, issuer: Issuer) -> str:
    """The token of the admin of `acme`."""
    await add_owner(stage, issuer, "root", tier="enterprise")
    return issuer.sign(sub="root", aegis_role="aegis:admin")


async def test_an_admin_adds_moves_disables_and_enables_owners(
    api: Api, stage: Stage, issuer: Issuer, admin: str
) -> None:
    added = await api.ask("POST", OWNERS, admin, {"subject": "ada"})
    owner = added.json
    assert added.status == 201
    assert {**owner, "id": "", "created_at": ""} == {
        "id": "", "issuer": issuer.url, "subject": "ada", "tenant_id": "acme", "tier": stage.policy.default_tier,
        "disabled": False, "created_at": "",
    }  # fmt: skip
    path, signed_in = f"{OWNERS}/{owner['id']}", issuer.sign(sub="ada")
    assert (await api.ask("GET", path, admin)).json == owner
    assert (await api.ask("GET", KEYS, signed_in)).status == 200
    moved = await api.ask("PATCH", path, admin, {"tier": "business", "disabled": True})
    assert (moved.status, moved.json) == (200, {**owner, "tier": "business", "disabled": True})
    assert (await api.ask("GET", KEYS, signed_in)).code == "owner_disabled"
    assert (await api.ask("PATCH", path, admin, {"disabled": False})).json["disabled"] is False
    assert (await api.ask("PATCH", path, admin, {})).json == {**owner, "tier": "business"}
    rows = await stage.database.fetch(
        "SELECT action, actor, before, after FROM audit_events WHERE owner_id = $1::uuid ORDER BY id", owner["id"]
    )
    assert [row["action"] for row in rows] == ["owner.add", "owner.set_tier", "owner.disable", "owner.enable"]
    assert {row["actor"] for row in rows} == {f"jwt:{issuer.url}|root"}
    assert json.loads(rows[1]["after"]) == {"tier": "business"}


async def test_owners_are_listed_by_name_page_by_page(api: Api, stage: Stage, issuer: Issuer, admin: str) -> None:
    for subject in ("cleo", "ada", "bob"):
        await api.ask("POST", OWNERS, admin, {"subject": subject})
    await add_owner(stage, issuer, "abe", tenant="elsewhere")
    seen: list[str] = []
    query = {"limit": "3"}
    while True:
        page = (await api.ask("GET", OWNERS, admin, query=query)).json
        seen += [owner["subject"] for owner in page["owners"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["ada", "bob", "cleo", "root"]
    said = await api.ask("GET", OWNERS, admin, query={"cursor": "bzE"})
    assert (said.status, said.fields) == (422, ["cursor"])


async def test_a_half_refused_patch_changes_nothing(api: Api, stage: Stage, issuer: Issuer) -> None:
    await add_owner(stage, issuer, "root", tier="pro")
    small = issuer.sign(sub="root", aegis_role="aegis:admin")
    owner_id = await add_owner(stage, issuer, "ada", tier="free")
    for patch in ({"tier": "enterprise", "disabled": True}, {"disabled": True, "tier": "enterprise"}):
        said = await api.ask("PATCH", f"{OWNERS}/{owner_id}", small, patch)
        assert (said.status, said.code) == (403, "rights_exceeded")
    shown = (await api.ask("GET", f"{OWNERS}/{owner_id}", small)).json
    assert (shown["tier"], shown["disabled"]) == ("free", False)


async def test_nobody_else_administers_owners(api: Api, stage: Stage, issuer: Issuer, admin: str) -> None:
    owner_id = await add_owner(stage, issuer, "ada")
    key = await stage.mint("full-access")
    for token in (issuer.sign(), key.token):
        for method, path, body in (
            ("GET", OWNERS, None), ("POST", OWNERS, {"subject": "eve"}), ("GET", f"{OWNERS}/{owner_id}", None),
            ("PATCH", f"{OWNERS}/{owner_id}", {"tier": "enterprise"}),
        ):  # fmt: skip
            said = await api.ask(method, path, token, body)
            assert (said.status, said.code) == (403, "role_missing")
    assert (await api.ask("GET", f"{OWNERS}/{owner_id}", admin)).json["tier"] == "pro"


async def test_owners_of_another_tenant_are_not_there(api: Api, stage: Stage, issuer: Issuer, admin: str) -> None:
    foreign = await add_owner(stage, issuer, "abe", tenant="elsewhere")
    for owner_id in (foreign, "00000000-0000-0000-0000-000000000000", "x"):
        for method, body in (("GET", None), ("PATCH", {"disabled": True}), ("PATCH", {})):
            said = await api.ask(method, f"{OWNERS}/{owner_id}", admin, body)
            assert (said.status, said.code) == (404, "owner_not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "subject"), ({"subject": ""}, "subject"), ({"subject": "a\u202e"}, "subject"),
     ({"subject": "a" * 256}, "subject"), ({"subject": "a", "tier": "gold"}, "tier"),
     ({"subject": "a", "issuer": "\x07"}, "issuer"), ({"subject": "a", "tenant_id": "elsewhere"}, "tenant_id")],
)  # fmt: skip
async def test_an_owner_that_cannot_be_says_why(body: object, field: str, api: Api, admin: str) -> None:
    said = await api.ask("POST", OWNERS, admin, body)
    assert (said.status, said.fields) == (422, [field])


async def test_an_owner_is_added_once(api: Api, admin: str) -> None:
    assert (await api.ask("POST", OWNERS, admin, {"subject": "ada"})).status == 201
    said = await api.ask("POST", OWNERS, admin, {"subject": "ada"})
    assert (said.status, said.code) == (409, "key_conflict")
