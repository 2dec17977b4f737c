"""The life of a key by HTTP: changed, disabled, enabled, rotated, revoked, validated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.identity import KeyId
from proxy.keys.changes import KeyChanges, Patch
from proxy.keys.rights import RightsError, form_caller_of_key, form_operator
from tests.management.asking import KEYS, Api, Said
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire


async def patch(api: Api, token: str, key_id: str, body: object, if_match: str | None = None) -> Said:
    headers = {} if if_match is None else {"If_Match": if_match}
    return await api.ask("PATCH", f"{KEYS}/{key_id}", token, body, None, **headers)


async def test_a_patch_changes_what_it_names_and_nothing_else(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, constraints={"max_calls": 3})
    said = await patch(api, admin.token, made["id"], {"name": "renamed", "preset": None})
    assert said.status == 200
    assert said.headers["ETag"] == f'"{said.json["version"]}"'
    changed = {"name", "version"}
    assert {member for member in said.json if said.json[member] != made[member]} == changed
    for body, member, value in (
        ({"scopes": ["agent:list"]}, "scopes", ["agent:list"]),
        ({"preset": "execution"}, "preset", "execution"),
        ({"expires_at": None}, "expires_at", None),
        ({"constraints": {}}, "constraints", {}),
        ({"constraints": {"requests_per_second": 2.50, "burst": 9}}, "constraints",
         {"requests_per_second": 2.5, "burst": 9}),
    ):  # fmt: skip
        said = await patch(api, admin.token, made["id"], body)
        assert (said.status, said.json[member]) == (200, value)
    assert (await patch(api, admin.token, made["id"], {})).json == said.json


async def test_a_patch_of_another_version_changes_nothing(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    tag = f'"{made["version"]}"'
    first = await patch(api, admin.token, made["id"], {"name": "first"}, if_match=tag)
    assert first.status == 200
    for other in (tag, f"W/{first.headers['ETag']}", '"abc"', '""', '"99999999999999999999"'):
        said = await patch(api, admin.token, made["id"], {"name": "second"}, if_match=other)
        assert (said.status, said.code) == (412, "key_changed")
    said = await patch(api, admin.token, made["id"], {"name": "second"}, if_match="abc")
    assert (said.status, said.fields) == (422, ["If-Match"])
    assert (await patch(api, admin.token, made["id"], {"name": "third"}, if_match="*")).json["name"] == "third"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": ""}, 422, "input_invalid"),
        ({"scopes": []}, 422, "input_invalid"),
        ({"preset": "root"}, 422, "input_invalid"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "input_invalid"),
        ({"version": 1}, 422, "input_invalid"),
        ({"status": "active"}, 422, "input_invalid"),
        ({"role": "aegis:admin"}, 422, "input_invalid"),
        ({"scopes": ["secret:read"]}, 403, "rights_exceeded"),
        ({"expires_in": "never"}, 403, "expiry_exceeded"),
        ({"constraints": {"max_calls": 9}}, 403, "constraints_exceeded"),
    ],
    ids=str,
)
async def test_a_patch_that_is_refused_leaves_the_key_as_it_was(
    body: object, status: int, code: str, api: Api, stage: Stage
) -> None:
    admin = await stage.mint("full-access")
    wanted: dict[str, Any] = {
        "preset": None, "scopes": ["key:create", "key:update", "agent:list"], "expires_in": "7d",
        "constraints": {"max_calls": 5},
    }  # fmt: skip
    maker = await api.mint(admin.token, name="maker", **wanted)
    made = await api.mint(maker["key"], preset=None, scopes=["agent:list"])
    said = await patch(api, maker["key"], made["id"], body)
    assert (said.status, said.code) == (status, code)
    shown = (await api.ask("GET", f"{KEYS}/{made['id']}", admin.token)).json
    assert {**shown, "key": made["key"], "last_used_at": None, "last_used": None, "last_refused": None} == made


async def test_a_disabled_key_is_refused_until_it_is_enabled(api: Api, stage: Stage, wire: Wire) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="execution")
    empty: tuple[object, ...] = (None, {})
    for body in empty:
        said = await api.ask("POST", f"{KEYS}/{made['id']}/disable", admin.token, body)
        assert (said.status, said.json["status"]) == (200, "disabled")
    assert (await api.ask("POST", f"{KEYS}/validate", made["key"])).code == "key_disabled"
    said = await api.ask("POST", f"{KEYS}/{made['id']}/enable", admin.token)
    assert (said.status, said.json["status"]) == (200, "active")
    assert (await api.ask("POST", f"{KEYS}/validate", made["key"])).status == 200
    said = await api.ask("POST", f"{KEYS}/{made['id']}/enable", admin.token, {"force": True})
    assert (said.status, said.fields) == (422, ["force"])


async def test_a_rotated_key_has_a_new_token_and_the_old_one_its_grace(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    rotated = (await api.ask("POST", f"{KEYS}/{made['id']}/rotate", admin.token)).json
    assert (rotated["id"], rotated["descendants_revoked"]) == (made["id"], 0)
    assert rotated["old_secret_until"] is not None
    again = (await api.ask("POST", f"{KEYS}/{made['id']}/rotate", admin.token, {"grace": "now"})).json
    for token, status in ((made["key"], 401), (rotated["key"], 401), (again["key"], 200)):
        assert (await api.ask("GET", "/v1/scopes", token)).status == status
    said = await api.ask("POST", f"{KEYS}/{made['id']}/rotate", admin.token, {"grace": "2h"})
    assert (said.status, said.fields) == (422, ["grace"])


async def test_a_compromised_key_takes_what_was_made_by_it_along(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="full-access")
    child = await api.mint(made["key"], name="child", preset="full-access")
    await api.mint(child["key"], name="grandchild")
    said = await api.ask("POST", f"{KEYS}/{made['id']}/rotate", admin.token, {"compromised": True})
    assert said.json["descendants_revoked"] == 2
    assert (await api.ask("GET", "/v1/scopes", child["key"])).code == "key_revoked"
    assert (await api.ask("GET", "/v1/scopes", made["key"])).code == "secret_retired"


async def test_a_revocation_says_what_it_ended_and_where(api: Api, stage: Stage, wire: Wire) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="execution")
    begun = await wire.post(made["key"], INITIALIZE)
    session = begun.headers["Mcp-Session-Id"]
    await begun.read()
    async with (
        asyncio.timeout(GUARD_SECONDS),
        await wire.request("GET", made["key"], **{"Mcp-Session-Id": session}) as stream,
    ):
        assert stream.status == 200
        said = await api.ask("DELETE", f"{KEYS}/{made['id']}?reason=laptop%20lost", admin.token)
        await stream.content.read()
    receipt = said.json
    assert said.status == 200
    assert (receipt["message"], receipt["confirmed"], receipt["streams"]) == ("API key revoked", True, 1)
    (instance,) = receipt["instances"]
    assert instance["instance"] == str(api.proxy.heart.instance)
    assert (instance["state"], instance["milliseconds"]) == ("confirmed", receipt["milliseconds"])
    key = receipt["api_key"]
    assert (key["status"], key["revoked_reason"]) == ("revoked", "laptop lost")
    assert key["revoked_by"] == f"key:{admin.summary.id}"
    again = await api.ask("DELETE", f"{KEYS}/{made['id']}", admin.token)
    assert (again.status, again.json["api_key"]) == (200, key)
    for method, suffix in (("POST", "/enable"), ("POST", "/rotate"), ("POST", "/disable"), ("PATCH", "")):
        said = await api.ask(method, f"{KEYS}/{made['id']}{suffix}", admin.token, {})
        assert (said.status, said.code) == (409, "key_conflict")


async def test_a_key_ends_what_was_made_by_it_and_not_itself(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="full-access")
    said = await api.ask("DELETE", f"{KEYS}/{made['id']}", made["key"])
    assert (said.status, said.code) == (403, "not_a_descendant")
    said = await api.ask("DELETE", f"{KEYS}/{admin.summary.id}", made["key"])
    assert (said.status, said.code) == (404, "key_not_found")


async def test_a_key_that_is_valid_says_whose_it_is(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, name="ci", preset=None, scopes=["workflow:run:nightly", "agent:list"])
    said = await api.ask("POST", f"{KEYS}/validate", made["key"])
    assert (said.status, said.json) == (200, {
        "user_id": "ada", "tenant_id": "default", "aegis_role": None,
        "scopes": ["agent:list", "workflow:run:nightly"], "zaru_tier": made["tier"], "key_id": made["id"],
        "name": "ci", "expires_at": made["expires_at"],
    })  # fmt: skip
    assert (await api.ask("POST", f"{KEYS}/validate", made["key"], {})).code == "body_unexpected"
    await stage.sql("UPDATE api_keys SET scopes = '{agent:list}' WHERE id = $1", admin.summary.id)
    said = await api.ask("POST", f"{KEYS}/validate", made["key"])
    assert said.json["scopes"] == ["agent:list"], "what its maker lost, it lost"


async def test_a_role_is_granted_by_an_operator_and_not_inherited(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    changes = KeyChanges(stage.database, stage.hasher)
    operator = form_operator("cli:root")
    await changes.update(operator, admin.summary.id, Patch(role="aegis:operator"), stage.policy)
    assert (await api.ask("POST", f"{KEYS}/validate", admin.token)).json["aegis_role"] == "aegis:operator"
    made = await api.mint(admin.token, preset="full-access")
    assert (await api.ask("POST", f"{KEYS}/validate", made["key"])).json["aegis_role"] is None
    record = (await stage.store.read_keys([KeyId(admin.summary.id)]))[KeyId(admin.summary.id)]
    with pytest.raises(RightsError, match="an operator's to give"):
        await changes.update(
            form_caller_of_key(record, stage.policy, 1), made["id"], Patch(role="aegis:operator"), stage.policy
        )
    await changes.update(operator, admin.summary.id, Patch(role=""), stage.policy)
    assert (await api.ask("POST", f"{KEYS}/validate", admin.token)).json["aegis_role"] is None


async def test_what_a_constraint_of_the_tables_refuses_is_a_conflict(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    await stage.sql("ALTER TABLE api_keys ADD CONSTRAINT short CHECK (char_length(name) < 10) NOT VALID")
    said = await patch(api, admin.token, made["id"], {"name": "longer than that"})
    assert (said.status, said.code) == (409, "key_conflict")
    assert "short" not in said.json["detail"]


async def test_a_database_that_does_not_answer_is_no_fault_of_the_request(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    assert (await api.ask("GET", KEYS, admin.token)).status == 200
    await stage.sql("ALTER TABLE key_last_uses RENAME TO elsewhere")
    said = await api.ask("GET", KEYS, admin.token)
    assert (said.status, said.code) == (503, "database_silent")
    assert said.headers["Retry-After"]
    assert "elsewhere" not in said.body.decode()
    await stage.sql("ALTER TABLE elsewhere RENAME TO key_last_uses")


async def test_a_caller_that_lost_its_rights_a_moment_ago_is_refused(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="full-access")
    assert (await api.ask("GET", KEYS, made["key"])).status == 200
    await stage.sql("UPDATE api_keys SET scopes = '{agent:list}' WHERE id = $1", KeyId(made["id"]))
    for method, path in (("GET", KEYS), ("POST", KEYS)):
        body = {"name": "x", "preset": "read-only"} if method == "POST" else None
        assert (await api.ask(method, path, made["key"], body)).code == "scope_missing"
    await stage.sql("UPDATE api_keys SET status = 'revoked' WHERE id = $1", KeyId(made["id"]))
    said = await api.ask("GET", KEYS, made["key"])
    assert (said.status, said.code) == (401, "key_revoked")
