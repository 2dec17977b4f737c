"""The policy we ship: it means what the key page promises."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Policy, RouteMatch, load_policy
from proxy.policy.model import policy_schema
from proxy.policy.scopes import covers

CONFIG: Final = Path(__file__).parents[2] / "config"
OWNER: Final = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "pro")

NAME: Final = {"name": "nightly-etl"}
AGENT: Final = {"agent_id": "a1"}
RUN: Final = {"execution_id": "e1"}
FILE: Final = {"volume_id": "v1", "path": "/a"}

# What tells about the platform as such opens by any of these: a key for one workflow has no use for it.
LOOKING_AROUND: Final = ("agent:list", "workflow:list", "execution:list", "volume:list")
# Every tool of the platform, with arguments that name what it wants, and the smallest scope that opens it; None: any of
# those for looking around.
TOOLS: Final[list[tuple[str, dict[str, Any], str | None]]] = [
    ("aegis.agent.list", {}, "agent:list"),
    ("aegis.agent.search", {"query": "x"}, "agent:list"),
    ("aegis.agent.export", NAME, "agent:read:nightly-etl"),
    ("aegis.agent.logs", AGENT, "agent:logs:a1"),
    ("aegis.agent.create", {}, "agent:deploy"),
    ("aegis.agent.update", {}, "agent:deploy"),
    ("aegis.agent.generate", {}, "agent:generate"),
    ("aegis.agent.delete", AGENT, "agent:delete:a1"),
    ("aegis.agent.wait", RUN, "execution:read"),
    ("aegis.task.execute", AGENT, "agent:execute:a1"),
    ("aegis.task.wait", RUN, "execution:read"),
    ("aegis.task.status", RUN, "execution:read"),
    ("aegis.task.logs", RUN, "execution:read"),
    ("aegis.task.list", {}, "execution:list"),
    ("aegis.task.cancel", RUN, "execution:cancel"),
    ("aegis.task.remove", RUN, "execution:remove"),
    ("aegis.execute.status", {}, "execution:read"),
    ("aegis.execute.wait", {}, "execution:read"),
    ("aegis.workflow.list", {}, "workflow:list"),
    ("aegis.workflow.search", {"query": "x"}, "workflow:list"),
    ("aegis.workflow.export", NAME, "workflow:read:nightly-etl"),
    ("aegis.workflow.validate", {}, "workflow:validate"),
    ("aegis.workflow.create", {}, "workflow:deploy"),
    ("aegis.workflow.update", {}, "workflow:deploy"),
    ("aegis.workflow.generate", {}, "workflow:generate"),
    ("aegis.workflow.delete", NAME, "workflow:delete:nightly-etl"),
    ("aegis.workflow.run", NAME, "workflow:run:nightly-etl"),
    ("aegis.workflow.status", RUN, "execution:read"),
    ("aegis.workflow.wait", RUN, "execution:read"),
    ("aegis.workflow.logs", RUN, "workflow:logs"),
    ("aegis.workflow.executions.get", RUN, "execution:read"),
    ("aegis.workflow.executions.list", {}, "execution:list"),
    ("aegis.workflow.cancel", RUN, "workflow:cancel"),
    ("aegis.workflow.signal", RUN, "workflow:signal"),
    ("aegis.workflow.remove", RUN, "execution:remove"),
    ("aegis.workflow.promote", NAME, "team:manage"),
    ("aegis.workflow.demote", NAME, "team:manage"),
    ("aegis.execution.file", RUN, "execution:read"),
    ("aegis.attachment.read", FILE, "volume:read:v1"),
    ("aegis.volume.list", {}, "volume:list"),
    ("aegis.volume.quota", {}, "volume:list"),
    ("aegis.volume.create", {}, "volume:create"),
    ("aegis.volume.delete", FILE, "volume:delete:v1"),
    ("aegis.file.list", FILE, "volume:read:v1"),
    ("aegis.file.read", FILE, "volume:read:v1"),
    ("aegis.file.write", FILE, "volume:write:v1"),
    ("aegis.file.mkdir", FILE, "volume:write:v1"),
    ("aegis.file.delete", FILE, "volume:write:v1"),
    ("aegis.git.list", {}, "volume:list"),
    ("aegis.git.status", {}, "volume:read"),
    ("aegis.git.diff", {}, "volume:read"),
    ("aegis.git.clone", {}, "volume:create"),
    ("aegis.git.refresh", {}, "volume:write"),
    ("aegis.git.commit", {}, "volume:write"),
    ("aegis.git.push", {}, "volume:write"),
    ("aegis.git.delete", {}, "volume:delete"),
    ("aegis.script.list", {}, "script:read"),
    ("aegis.script.get", {}, "script:read"),
    ("aegis.script.save", {}, "script:write"),
    ("aegis.script.update", {}, "script:write"),
    ("aegis.script.delete", {}, "script:write"),
    ("aegis.schema.get", {"key": "x"}, None),
    ("aegis.schema.validate", {}, None),
    ("aegis.runtime.list", {}, None),
    ("aegis.tools.list", {}, None),
    ("aegis.tools.search", {}, None),
    ("aegis.system.info", {}, None),
    ("aegis.system.config", {}, "node:read"),
    ("aegis.edge.fleet.list", {"target": "x"}, "node:list"),
    ("aegis.edge.fleet.cancel", {}, "node:dispatch"),
]

PRESETS: Final = ("read-only", "execution", "developer", "full-access")
# The first of the presets whose promise includes the tool, for an owner whose tier allows everything.
PROMISES: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("aegis.system.info", {}, "read-only"),
    ("aegis.agent.list", {}, "read-only"),
    ("aegis.agent.export", NAME, "read-only"),
    ("aegis.agent.logs", AGENT, "read-only"),
    ("aegis.workflow.list", {}, "read-only"),
    ("aegis.workflow.export", NAME, "read-only"),
    ("aegis.workflow.logs", RUN, "read-only"),
    ("aegis.workflow.status", RUN, "read-only"),
    ("aegis.workflow.executions.list", {}, "read-only"),
    ("aegis.task.list", {}, "read-only"),
    ("aegis.task.status", RUN, "read-only"),
    ("aegis.volume.list", {}, "read-only"),
    ("aegis.file.list", FILE, "read-only"),
    ("aegis.file.read", FILE, "read-only"),
    ("aegis.task.execute", AGENT, "execution"),
    ("aegis.workflow.run", NAME, "execution"),
    ("aegis.workflow.cancel", RUN, "execution"),
    ("aegis.task.cancel", RUN, "execution"),
    ("aegis.agent.create", {}, "developer"),
    ("aegis.agent.generate", {}, "developer"),
    ("aegis.execute.intent", {}, "developer"),
    ("aegis.workflow.update", {}, "developer"),
    ("aegis.workflow.validate", {}, "developer"),
    ("aegis.volume.create", {}, "developer"),
    ("aegis.file.write", FILE, "developer"),
    ("aegis.git.clone", {}, "developer"),
    ("aegis.agent.delete", AGENT, "full-access"),
    ("aegis.workflow.delete", NAME, "full-access"),
    ("aegis.volume.delete", FILE, "full-access"),
    ("aegis.git.delete", {}, "full-access"),
    ("aegis.task.remove", RUN, "full-access"),
    ("aegis.workflow.promote", NAME, "full-access"),
    ("aegis.script.save", {}, "full-access"),
    ("aegis.system.config", {}, "full-access"),
    ("aegis.edge.fleet.list", {}, "full-access"),
    ("aegis.edge.fleet.invoke", {"tool_name": "aegis.system.info"}, "full-access"),
]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(CONFIG / "policy.yaml")


@pytest.fixture(scope="module")
def match(policy: Policy) -> RouteMatch:
    found = policy.find_route("/mcp/v1")
    assert found is not None
    return found


def is_allowed(policy: Policy, match: RouteMatch, tool: str, arguments: dict[str, Any], grants: frozenset[str]) -> bool:
    params = {"name": tool, "arguments": arguments}
    return isinstance(policy.decide_message(match, "tools/call", params, grants, OWNER), Allowed)


def test_the_published_schema_is_current() -> None:
    published = (CONFIG / "policy.schema.json").read_text(encoding="utf-8")
    assert published == json.dumps(policy_schema(), indent=2) + "\n"


def test_the_shipped_policy_fits_its_own_schema() -> None:
    values = YAML(typ="safe", pure=True).load(CONFIG / "policy.yaml")
    schema = policy_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(values)
    values["routes"][0]["rules"][0]["requires"] = "agent:list"
    assert not validator.is_valid(values)


def test_the_route_is_the_one_clients_know(match: RouteMatch) -> None:
    route = match.route
    assert (route.id, route.upstream, route.protocol, route.rpc_denials) == ("mcp", "mcp", "mcp", "json-rpc")
    assert route.methods == frozenset({"POST", "GET", "DELETE"})


def test_the_same_server_by_http_sse_has_the_same_rules(policy: Policy, match: RouteMatch) -> None:
    stream, messages = policy.find_route("/mcp/v1/sse"), policy.find_route("/mcp/v1/messages")
    assert stream is not None
    assert messages is not None
    assert stream.route is messages.route
    assert (stream.route.id, stream.route.upstream, stream.route.protocol) == ("mcp-sse", "mcp", "mcp-sse")
    assert stream.route.rules is match.route.rules


@pytest.mark.parametrize(("tool", "arguments", "scope"), TOOLS, ids=[tool for tool, _, _ in TOOLS])
def test_each_tool_is_opened_by_its_scope_and_by_no_other(
    policy: Policy, match: RouteMatch, tool: str, arguments: dict[str, Any], scope: str | None
) -> None:
    openers = LOOKING_AROUND if scope is None else (scope,)
    others = frozenset(
        other for other in policy.catalogue if not any(covers(frozenset({other}), opener) for opener in openers)
    )
    assert not is_allowed(policy, match, tool, arguments, others)
    for opener in openers:
        policy.check_scope(opener)
        assert is_allowed(policy, match, tool, arguments, frozenset({opener}))
    assert not is_allowed(policy, match, tool, {**arguments, "tenant_id": "other"}, frozenset({"*"}))
    assert not is_allowed(policy, match, tool, {**arguments, "user_id": "other"}, frozenset({"*"}))
    assert is_allowed(policy, match, tool, {**arguments, "tenant_id": "acme", "user_id": "user-1"}, frozenset({"*"}))


def test_every_rule_for_a_tool_is_in_these_tables(match: RouteMatch) -> None:
    tabled = {tool for tool, _, _ in TOOLS} | {"aegis.execute.intent", "aegis.edge.fleet.invoke"}
    assert set(match.route.rules.tools.exact) == tabled
    assert not match.route.rules.tools.patterns


@pytest.mark.parametrize(("tool", "arguments", "first"), PROMISES, ids=[tool for tool, _, _ in PROMISES])
def test_presets_keep_the_promise_of_the_key_page(
    policy: Policy, match: RouteMatch, tool: str, arguments: dict[str, Any], first: str
) -> None:
    allowed = [
        name
        for name in PRESETS
        if is_allowed(
            policy, match, tool, arguments, policy.effective_scopes(policy.presets[name].scopes, [], "enterprise")
        )
    ]
    assert allowed == list(PRESETS[PRESETS.index(first) :])


def test_presets_are_named_as_on_the_key_page(policy: Policy) -> None:
    assert [preset.title for preset in policy.presets.values()] == [
        "Read-Only",
        "Execution",
        "Developer",
        "Full Access",
    ]


def test_only_full_access_manages_keys_credentials_and_the_team(policy: Policy) -> None:
    managing = [scope for scope in policy.catalogue if scope.split(":")[0] in ("key", "credential", "team", "tenant")]
    for name in ("read-only", "execution", "developer"):
        assert not any(covers(frozenset(policy.presets[name].scopes), scope) for scope in managing)
    assert policy.presets["full-access"].scopes == ("*",)


def test_tiers_grow_and_the_default_one_can_hold_what_developers_need(policy: Policy) -> None:
    assert list(policy.tiers) == ["free", "pro", "business", "enterprise"]
    assert policy.default_tier == "pro"
    tiers = list(policy.tiers.values())
    for smaller, larger in pairwise(tiers):
        assert all(covers(larger, scope) for scope in smaller)
    own = [scope for scope in policy.catalogue if scope.startswith(("key:", "credential:"))]
    assert all(covers(policy.tiers["pro"], scope) for scope in (*policy.presets["developer"].scopes, *own))
    shared = [scope for scope in policy.catalogue if scope.startswith(("team:", "node:", "tenant:"))]
    assert not any(covers(policy.tiers["pro"], scope) for scope in shared)
    assert all(covers(policy.tiers["enterprise"], scope) for scope in policy.catalogue)


@pytest.mark.parametrize(
    "method",
    [
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "logging/setLevel",
        "subscriptions/listen",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/roots/list_changed",
    ],
)
def test_any_key_may_speak_the_protocol(policy: Policy, match: RouteMatch, method: str) -> None:
    assert isinstance(policy.decide_message(match, method, {}, frozenset(), OWNER), Allowed)


def test_any_key_may_open_and_end_its_stream(policy: Policy, match: RouteMatch) -> None:
    for method in ("GET", "DELETE"):
        assert isinstance(policy.decide_http(match, method, {}, frozenset(), OWNER), Allowed)
    assert not isinstance(policy.decide_http(match, "POST", {}, frozenset({"*"}), OWNER), Allowed)


def test_a_key_for_one_workflow_does_just_that(policy: Policy, match: RouteMatch) -> None:
    grants = policy.effective_scopes(["workflow:run:nightly-etl"], [], policy.default_tier)
    assert is_allowed(policy, match, "aegis.workflow.run", NAME, grants)
    assert not is_allowed(policy, match, "aegis.workflow.run", {"name": "other"}, grants)
    listed = [tool for tool in match.route.rules.tools.exact if policy.may_list(match, "tool", tool, grants, OWNER)]
    assert listed == ["aegis.workflow.run"]


def test_an_intent_takes_both_rights(policy: Policy, match: RouteMatch) -> None:
    for grants, allowed in (({"agent:execute"}, False), ({"agent:generate"}, False)):
        assert is_allowed(policy, match, "aegis.execute.intent", {}, frozenset(grants)) is allowed
    assert is_allowed(policy, match, "aegis.execute.intent", {}, frozenset({"agent:execute", "agent:generate"}))


def test_an_edge_call_is_judged_with_the_call_inside(policy: Policy, match: RouteMatch) -> None:
    grants = frozenset({"node:dispatch", "workflow:run:nightly-etl"})
    for arguments, allowed in (
        ({"tool_name": "aegis.workflow.run", "args": NAME}, True),
        ({"tool_name": "aegis.workflow.run", "args": {"name": "other"}}, False),
        ({"tool_name": "aegis.workflow.run", "args": {**NAME, "tenant_id": "other"}}, False),
        ({"tool_name": "aegis.agent.list"}, False),
        ({}, False),
    ):
        assert is_allowed(policy, match, "aegis.edge.fleet.invoke", {"target": "x", **arguments}, grants) is allowed


def test_a_volume_grant_reads_the_resources_of_that_volume(policy: Policy, match: RouteMatch) -> None:
    for volume, allowed in (("v1", True), ("v2", False)):
        params = {"uri": f"aegis://volumes/{volume}/reports/today.csv"}
        decision = policy.decide_message(match, "resources/read", params, frozenset({"volume:read:v1"}), OWNER)
        assert isinstance(decision, Allowed) is allowed
