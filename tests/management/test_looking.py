"""What there is to see of a key: sessions, audit, usage, and why it may or may not do something."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.policy.explanations import explain
from proxy.policy.questions import Question
from tests.management.asking import KEYS, Api
from tests.staging import INITIALIZE, Stage, Wire, get_mcp_url


async def test_a_key_s_sessions_are_listed_without_their_ids(api: Api, stage: Stage, wire: Wire) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="execution")
    path = f"{KEYS}/{made['id']}/sessions"
    assert (await api.ask("GET", path, admin.token)).json == {"sessions": []}
    async with await wire.post(made["key"], INITIALIZE) as begun:
        session_id = begun.headers["Mcp-Session-Id"]
        await begun.read()
    said = await api.ask("GET", path, admin.token)
    (session,) = said.json["sessions"]
    assert session.keys() == {"upstream", "protocol_version", "created_at", "last_seen_at", "secret_version"}
    assert (session["upstream"], session["protocol_version"], session["secret_version"]) == ("mcp", "2025-11-25", 1)
    assert session_id not in said.body.decode()


async def test_what_was_done_to_a_key_is_told_page_by_page(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    path = f"{KEYS}/{made['id']}"
    for name in ("one", "two"):
        await api.ask("PATCH", path, admin.token, {"name": name})
    await api.ask("POST", f"{path}/rotate", admin.token)
    seen = []
    query = {"limit": "2"}
    while True:
        page = (await api.ask("GET", f"{path}/audit", admin.token, query=query)).json
        seen += page["events"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert [event["action"] for event in seen] == ["rotate", "update", "update", "mint"]
    assert {event["actor"] for event in seen} == {f"key:{admin.summary.id}"}
    assert (seen[1]["before"], seen[1]["after"]) == ({"name": "one"}, {"name": "two"})
    assert made["key"][19:62] not in json.dumps(seen)
    for cursor in ("x", (await api.ask("GET", KEYS, admin.token, query={"limit": "1"})).json["next_cursor"]):
        said = await api.ask("GET", f"{path}/audit", admin.token, query={"cursor": cursor})
        assert (said.status, said.fields) == (422, ["cursor"])


async def test_what_a_key_did_is_told_by_day_and_by_rule(
    http: aiohttp.ClientSession, stage: Stage, sample: SampleServer
) -> None:
    admin = await stage.mint("full-access")
    made = await stage.mint("execution")
    async with stage.proxy(sample.url) as proxy:  # which writes what it has counted when it stops
        wire = Wire(http, get_mcp_url(proxy))
        for tool in ("aegis.workflow.list", "aegis.workflow.list", "aegis.agent.delete"):
            await wire.call(made.token, tool)
    async with stage.proxy(sample.url) as proxy:
        api = Api(http, proxy, stage)
        await stage.sql("UPDATE api_keys SET parent_id = NULL")
        said = await api.ask("GET", f"{KEYS}/{admin.summary.id}/usage?days=3", admin.token)
        assert (said.json["uses"], [day["allowed"] for day in said.json["days"]]) == ([], [0, 0, 0])
        reader = await stage.mint(scopes=("key:read",), owner="bob")
        assert (await api.ask("GET", f"{KEYS}/{made.summary.id}/usage", reader.token)).code == "key_not_found"
        await stage.sql("UPDATE api_keys SET scopes = scopes || '{key:read}'::text[] WHERE id = $1", made.summary.id)
        usage = (await api.ask("GET", f"{KEYS}/{made.summary.id}/usage?days=3", made.token)).json
    assert len(usage["days"]) == 3
    counted = {day["day"]: (day["allowed"], day["denied"]) for day in usage["days"]}
    assert sum(allowed for allowed, _ in counted.values()) == 2
    assert sum(denied for _, denied in counted.values()) == 1
    assert abs(date.fromisoformat(usage["days"][-1]["day"]) - datetime.now(UTC).date()).days <= 1
    (most, least) = usage["uses"]
    assert (most["rule"], most["allowed"], most["count"], most["scopes"]) == (
        "mcp/tool:aegis.workflow.list", True, 2, ["workflow:list"],
    )  # fmt: skip
    assert (least["rule"], least["allowed"], least["count"]) == ("mcp/tool:aegis.agent.delete", False, 1)


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        (
            {"tool": "aegis.workflow.run", "arguments": {"name": "nightly"}},
            Question("POST", "/mcp/v1", "tools/call", {"name": "aegis.workflow.run", "arguments": {"name": "nightly"}}),
        ),
        ({"path": "/v1/workflows/nightly/run", "method": "POST"}, Question("POST", "/v1/workflows/nightly/run")),
        ({"path": "/v1/agents?limit=1"}, Question("GET", "/v1/agents?limit=1")),
        ({"path": "nowhere"}, Question("GET", "nowhere")),
        ({"rpc": "tools/list"}, Question("POST", "/mcp/v1", "tools/list")),
        ({"rpc": "no/such", "params": {"a": 1.50}}, Question("POST", "/mcp/v1", "no/such", {"a": 1.5})),
    ],
    ids=str,
)
async def test_an_explanation_says_what_the_policy_says(
    asked: dict[str, object], question: Question, api: Api, stage: Stage
) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    record = (await stage.store.read_keys([made["id"]]))[made["id"]]
    grants = stage.policy.effective_scopes(record.scopes, [one.scopes for one in record.ancestors], record.owner.tier)
    said = await api.ask("POST", f"{KEYS}/{made['id']}/explain", admin.token, asked)
    expected = explain(stage.policy, question, grants, record.owner).form()
    assert said.status == 200
    assert said.json["allowed"] == expected["allowed"]
    assert {name: said.json["explanation"][name] for name in expected} == json.loads(json.dumps(expected))


async def test_an_explanation_says_who_took_the_right_and_that_a_key_is_dead(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token, preset="execution")
    path, asked = f"{KEYS}/{made['id']}/explain", {"tool": "aegis.workflow.list"}
    assert (await api.ask("POST", path, admin.token, asked)).json["allowed"] is True
    await stage.sql("UPDATE api_keys SET scopes = '{key:read}' WHERE id = $1", admin.summary.id)
    said = (await api.ask("POST", path, admin.token, asked)).json
    assert said["allowed"] is False
    assert said["explanation"]["missing"] == ["workflow:list"]
    assert any(admin.summary.id in loss for loss in said["explanation"]["lost"])
    await stage.sql("UPDATE api_keys SET status = 'disabled' WHERE id = $1", made["id"])
    said = (await api.ask("POST", path, admin.token, asked)).json
    assert (said["allowed"], said["explanation"]["why"]) == (False, "the key may not be used at all: key_disabled")


@pytest.mark.parametrize(
    ("asked", "field"),
    [({}, "body"), ({"tool": "a", "path": "/b"}, "body"), ({"tool": "a", "params": {}}, "body"),
     ({"path": "/a", "arguments": {}}, "body"), ({"rpc": "a", "method": "GET"}, "body"),
     ({"method": "TRACE"}, "method"),
     ({"tool": 1}, "tool"), ({"tool": "a", "arguments": []}, "arguments"), ({"path": ""}, "path")],
)  # fmt: skip
async def test_a_question_is_one_of_three(asked: object, field: str, api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("POST", f"{KEYS}/{admin.summary.id}/explain", admin.token, asked)
    assert (said.status, said.fields[0]) == (422, field)


@pytest.mark.parametrize("what", ["sessions", "audit", "usage", "explain"])
async def test_nothing_of_another_s_key_is_seen(what: str, api: Api, stage: Stage) -> None:
    ada, bob = await stage.mint("full-access"), await stage.mint("full-access", owner="bob")
    method, body = ("POST", {"tool": "a"}) if what == "explain" else ("GET", None)
    said = await api.ask(method, f"{KEYS}/{bob.summary.id}/{what}", ada.token, body)
    unknown = await api.ask(method, f"{KEYS}/{'0' * 12}/{what}", ada.token, body)
    assert (said.status, said.code, unknown.status) == (404, "key_not_found", 404)
    reader = await stage.mint("read-only")
    said = await api.ask(method, f"{KEYS}/{reader.summary.id}/{what}", reader.token, body)
    assert (said.status, said.json["missing"]) == (403, ["key:read"])
