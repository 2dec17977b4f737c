"""What the management API does, for those who may ask for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.policy import Policy
from tests.management.asking import KEYS, Api
from tests.staging import Stage

KEY_MEMBERS = {
    "id", "name", "owner", "issuer", "tenant_id", "tier", "preset", "scopes", "status", "expires_at", "created_at",
    "created_by", "parent_id", "constraints", "version", "old_secret_until", "revoked_at", "revoked_by",
    "revoked_reason", "last_used_at", "last_used", "last_refused", "old_secret_last_used_at",
}  # fmt: skip


def read(moment: str) -> datetime:
    assert moment.endswith("Z")
    return datetime.fromisoformat(moment)


async def test_a_key_is_made_by_a_key_shown_once_and_works(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("POST", KEYS, admin.token, {"name": "ci", "preset": "execution", "expires_in": "7d"})
    made = said.json
    assert said.status == 201
    assert made.keys() == KEY_MEMBERS | {"key"}
    assert said.headers["ETag"] == f'"{made["version"]}"'
    assert (made["name"], made["owner"], made["parent_id"]) == ("ci", "ada", admin.summary.id)
    assert (made["created_by"], made["status"]) == (f"key:{admin.summary.id}", "active")
    lifetime = read(made["expires_at"]) - read(made["created_at"])
    assert timedelta(days=6, hours=23) < lifetime < timedelta(days=7, hours=1)
    shown = await api.ask("GET", f"{KEYS}/{made['id']}", admin.token)
    assert shown.json.keys() == KEY_MEMBERS
    assert shown.json == {name: value for name, value in made.items() if name != "key"}
    assert shown.headers["ETag"] == said.headers["ETag"]
    grantable = await api.ask("GET", "/v1/scopes", made["key"])
    assert grantable.status == 200


@pytest.mark.parametrize(
    ("wanted", "days"),
    [({}, 90), ({"expires_at": None}, None), ({"expires_in": "never"}, None), ({"expires_in": "1y"}, 365),
     ({"expires_at": None, "expires_in": "30d"}, 30)],
)  # fmt: skip
async def test_expiry_is_as_asked_for_and_ninety_days_otherwise(
    wanted: dict[str, Any], days: int | None, api: Api, stage: Stage
) -> None:
    made = await api.mint((await stage.mint("full-access")).token, **wanted)
    if days is None:
        assert made["expires_at"] is None
    else:
        assert abs(read(made["expires_at"]) - datetime.now(UTC) - timedelta(days=days)) < timedelta(hours=1)


async def test_without_an_expiry_a_key_lives_no_longer_than_its_maker(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access", lifetime=timedelta(days=3))
    made = await api.mint(admin.token)
    assert admin.summary.expires_at is not None
    assert abs(read(made["expires_at"]) - admin.summary.expires_at) < timedelta(seconds=1)
    said = await api.ask("POST", KEYS, admin.token, {"name": "b", "preset": "read-only", "expires_in": "7d"})
    assert (said.status, said.code) == (403, "expiry_exceeded")


TOO_MANY = [f"workflow:run:{number}" for number in range(257)]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "n" * 65}, "name"),
        ({"name": " ci"}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"preset": "root"}, "preset"),
        ({"preset": "read-only", "scopes": ["agent:list"]}, "scopes"),
        ({"preset": None}, "scopes"),
        ({"preset": None, "scopes": []}, "scopes"),
        ({"preset": None, "scopes": ["agent:fly"]}, "scopes"),
        ({"preset": None, "scopes": ["agent:list", 7]}, "scopes.1"),
        ({"preset": None, "scopes": "agent:list"}, "scopes"),
        ({"preset": None, "scopes": ["workflow:run:\0"]}, "scopes.0"),
        ({"preset": None, "scopes": TOO_MANY}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2099-02-30T00:00:00Z"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": 4070908800}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00Z", "expires_in": "7d"}, "expires_in"),
        ({"expires_in": "8d"}, "expires_in"),
        ({"constraints": {"sources": ["10.0.0.1/8"]}}, "constraints.sources.0"),
        ({"constraints": {"max_calls": 0}}, "constraints.max_calls"),
        ({"constraints": {"max_calls": 10**18}}, "constraints.max_calls"),
        ({"constraints": {"speed": 1}}, "constraints.speed"),
        ({"tier": "enterprise"}, "tier"),
        ({"Name": "x"}, "Name"),
        ({"owner": "bob"}, "owner"),
    ],
    ids=str,
)
async def test_what_cannot_be_minted_says_which_member_is_wrong(
    wanted: dict[str, Any], field: str, api: Api, stage: Stage
) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("POST", KEYS, admin.token, {"name": "ci", "preset": "read-only", **wanted})
    assert (said.status, said.code, said.fields[0]) == (422, "input_invalid", field)
    assert await api.list_ids(admin.token) == [admin.summary.id]


@pytest.mark.parametrize("name", ["ключ", "キー", "👩‍🔬", "n" * 64, "a b", "<script>", "'; DROP TABLE api_keys; --"])
async def test_a_name_in_any_script_is_a_name(name: str, api: Api, stage: Stage) -> None:
    assert (await api.mint((await stage.mint("full-access")).token, name=name))["name"] == name


async def test_a_scope_may_be_as_long_as_the_policy_takes_it(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    scope = f"workflow:run:{'w' * 256}"
    assert (await api.mint(admin.token, preset=None, scopes=[scope]))["scopes"] == [scope]
    wanted = {"name": "longer", "scopes": [f"{scope}w"]}
    assert (await api.ask("POST", KEYS, admin.token, wanted)).fields == ["scopes"]


async def test_a_name_is_taken_once(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    await api.mint(admin.token, name="ci")
    said = await api.ask("POST", KEYS, admin.token, {"name": "ci", "preset": "read-only"})
    assert (said.status, said.code) == (409, "key_conflict")


async def test_nobody_gives_away_what_they_do_not_hold(api: Api, stage: Stage) -> None:
    maker = await stage.mint(scopes=("key:create", "agent:list"))
    said = await api.ask("POST", KEYS, maker.token, {"name": "up", "scopes": ["agent:list", "secret:read"]})
    assert (said.status, said.code, said.json["missing"]) == (403, "rights_exceeded", ["secret:read"])


async def test_a_key_sees_itself_and_what_was_made_by_it_and_nothing_else(api: Api, stage: Stage) -> None:
    ada, bob = await stage.mint("full-access", owner="ada"), await stage.mint("full-access", owner="bob")
    other = await stage.mint("full-access", owner="ada")
    child = await api.mint(ada.token, preset="full-access")
    grandchild = await api.mint(child["key"], name="of the child")
    assert await api.list_ids(ada.token) == [grandchild["id"], child["id"], ada.summary.id]
    assert await api.list_ids(child["key"]) == [grandchild["id"], child["id"]]
    for key_id in (bob.summary.id, other.summary.id, "0" * 12, "validate!", "%C3%A4"):
        said = await api.ask("GET", f"{KEYS}/{key_id}", ada.token)
        assert (said.status, said.code) == (404, "key_not_found")
        assert key_id not in said.body.decode()


async def test_a_list_goes_on_where_it_ended_whatever_is_made_meanwhile(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    ids = [admin.summary.id, *[(await api.mint(admin.token, name=f"key {number}"))["id"] for number in range(5)]]
    seen: list[str] = []
    query = {"limit": "2"}
    while True:
        page = (await api.ask("GET", KEYS, admin.token, query=query)).json
        seen += [key["id"] for key in page["api_keys"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        await api.mint(admin.token, name=f"meanwhile {len(seen)}")
    assert seen == ids[::-1]


async def test_a_list_shows_what_is_looked_for(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access", name="root")
    one, two = await api.mint(admin.token, name="Nightly 100%"), await api.mint(admin.token, name="weekly")
    await stage.sql("UPDATE api_keys SET status = 'disabled' WHERE id = $1", two["id"])
    await stage.sql("UPDATE api_keys SET expires_at = now() WHERE id = $1", one["id"])
    for query, found in (
        ({"q": "nightLY"}, [one]), ({"q": "100%"}, [one]), ({"q": "%"}, [one]), ({"q": two["id"][3:9].lower()}, [two]),
        ({"q": f"aegis_{two['id']}"}, [two]), ({"q": f" AEGIS_{one['id'][:7]} "}, [one]), ({"q": "aegis_nothing"}, []),
        ({"q": "aegis"}, []), ({"q": "nothing"}, []), ({"status": "disabled"}, [two]),
        ({"status": "expired,disabled"}, [two, one]),
        ({"status": "active"}, [{"id": admin.summary.id}]), ({"status": "revoked"}, []),
        ({"preset": "read-only"}, [two, one]), ({"owner": "bob"}, []), ({"owner": "ada", "q": "root"},
        [{"id": admin.summary.id}]),
    ):  # fmt: skip
        assert await api.list_ids(admin.token, **query) == [key["id"] for key in found], query


async def test_each_scope_and_preset_says_whether_it_may_be_given_and_why_not(
    api: Api, stage: Stage, policy: Policy
) -> None:
    key = await stage.mint(scopes=("key:create", "workflow:run:nightly"))
    said = await api.ask("GET", "/v1/scopes", key.token)
    scopes = {one["scope"]: one for one in said.json["scopes"]}
    assert scopes.keys() == policy.catalogue.keys()
    assert scopes["key:create"]["may"] is True
    assert (scopes["workflow:run"]["may"], scopes["workflow:run"]["selectors"]) == (False, ["nightly"])
    assert key.summary.id in scopes["agent:list"]["why_not"]
    assert [one["name"] for one in said.json["presets"]] == [*policy.presets]
    assert said.json["expiries"] == ["7d", "30d", "90d", "1y", "never"]


async def test_a_key_whose_constraints_cannot_be_read_says_so(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    await stage.sql("""UPDATE api_keys SET constraints = '{"sources": 7}' WHERE id = $1""", made["id"])
    shown = (await api.ask("GET", f"{KEYS}/{made['id']}", admin.token)).json
    assert (shown["status"], shown["constraints"]) == ("constraints_unreadable", {})


async def test_a_key_shows_when_it_was_last_used_and_refused(
    http: aiohttp.ClientSession, stage: Stage, sample: SampleServer
) -> None:
    admin = await stage.mint("full-access")
    async with stage.proxy(sample.url) as proxy:  # which writes what it has gathered when it stops
        api = Api(http, proxy, stage)
        made = await api.mint(admin.token)
        assert (made["last_used_at"], made["last_used"], made["last_refused"]) == (None, None, None)
        await api.ask("GET", "/v1/scopes", made["key"], User_Agent="curl/8")
        await api.ask("POST", KEYS, made["key"], {"name": "x", "preset": "read-only"})
    async with stage.proxy(sample.url) as proxy:
        shown = (await Api(http, proxy, stage).ask("GET", f"{KEYS}/{made['id']}", admin.token)).json
    assert shown["last_used"] == {
        "at": shown["last_used_at"], "address": "127.0.0.1", "user_agent": "curl/8",
        "tool": "management/list_scopes", "count": 1,
    }  # fmt: skip
    assert shown["last_refused"]["reason"] == "scope_missing"
    assert read(shown["last_used_at"]) <= read(shown["last_refused"]["at"])


async def test_the_policy_s_longest_life_bounds_what_is_asked_for_offered_and_taken_for_granted(
    http: aiohttp.ClientSession, stage: Stage, sample: SampleServer
) -> None:
    stage.policy = replace(stage.policy, longest_expiry=timedelta(days=30))
    admin = await stage.mint("full-access", lifetime=timedelta(days=29))
    stage.policy = replace(stage.policy, longest_expiry=timedelta(days=20))
    async with stage.proxy(sample.url) as proxy:
        api = Api(http, proxy, stage)
        assert (await api.ask("GET", "/v1/scopes", admin.token)).json["expiries"] == ["7d"]
        late = (datetime.now(UTC) + timedelta(days=25)).isoformat()
        refused = await api.ask("POST", KEYS, admin.token, {"name": "x", "preset": "read-only", "expires_at": late})
        made = await api.mint(admin.token)
    assert (refused.status, refused.json["faults"][0]["field"]) == (422, "expires_at")
    assert "longest_expiry" in refused.json["faults"][0]["message"]
    left = read(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=19) < left <= timedelta(days=20)
