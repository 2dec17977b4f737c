"""The REST routes of the policy we ship: each has its scope, and the presets keep their promise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.envelope import parse_query, parse_target
from proxy.errors import RequestError
from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Denied, RouteMatch, load_policy, parse_policy
from proxy.policy.scopes import covers

PATH: Final = Path(__file__).parents[2] / "config" / "policy.yaml"
POLICY: Final = load_policy(PATH)
OWNER: Final = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "pro")
PRESETS: Final = ("read-only", "execution", "developer", "full-access")
First = Literal["read-only", "execution", "developer", "full-access"]

# Every route of the platform: the smallest scope that opens it, and the first preset whose promise includes it, for an
# owner whose tier allows everything.
REST: Final[list[tuple[str, str, str, First]]] = [
    ("GET", "/proxy/v1/executions/x/stream", "execution:stream", "read-only"),
    ("GET", "/v1/agents", "agent:list", "read-only"),
    ("POST", "/v1/agents", "agent:deploy", "developer"),
    ("GET", "/v1/agents/x", "agent:read:x", "read-only"),
    ("PATCH", "/v1/agents/x", "agent:deploy", "developer"),
    ("DELETE", "/v1/agents/x", "agent:delete:x", "full-access"),
    ("GET", "/v1/agents/lookup/x", "agent:read:x", "read-only"),
    ("GET", "/v1/agents/lookup/versions", "agent:read:versions", "read-only"),
    ("GET", "/v1/agents/lookup/events", "agent:read:events", "read-only"),
    ("GET", "/v1/agents/lookup/execute", "agent:read:execute", "read-only"),
    ("GET", "/v1/agents/lookup/scope", "agent:read:scope", "read-only"),
    ("GET", "/v1/agents/x/versions", "agent:read:x", "read-only"),
    ("GET", "/v1/agents/x/events", "agent:logs:x", "read-only"),
    ("POST", "/v1/agents/x/execute", "agent:execute:x", "execution"),
    ("PATCH", "/v1/agents/x/scope", "team:manage", "full-access"),
    ("POST", "/v1/agents/x/scope", "team:manage", "full-access"),
    ("GET", "/v1/executions", "execution:list", "read-only"),
    ("POST", "/v1/executions", "agent:execute", "execution"),
    ("GET", "/v1/executions/x", "execution:read", "read-only"),
    ("DELETE", "/v1/executions/x", "execution:remove", "full-access"),
    ("POST", "/v1/executions/x/cancel", "execution:cancel", "execution"),
    ("GET", "/v1/executions/x/stream", "execution:stream", "read-only"),
    ("GET", "/v1/executions/x/events", "execution:stream", "read-only"),
    ("GET", "/v1/executions/x/files/a", "execution:read", "read-only"),
    ("GET", "/v1/executions/x/files/a/b.txt", "execution:read", "read-only"),
    ("GET", "/v1/workflows", "workflow:list", "read-only"),
    ("POST", "/v1/workflows", "workflow:deploy", "developer"),
    ("GET", "/v1/workflows/x", "workflow:read:x", "read-only"),
    ("DELETE", "/v1/workflows/x", "workflow:delete:x", "full-access"),
    ("GET", "/v1/workflows/x/yaml", "workflow:read:x", "read-only"),
    ("GET", "/v1/workflows/x/versions", "workflow:read:x", "read-only"),
    ("POST", "/v1/workflows/x/run", "workflow:run:x", "execution"),
    ("POST", "/v1/workflows/x/execute", "workflow:run:x", "execution"),
    ("POST", "/v1/workflows/temporal/execute", "workflow:run", "execution"),
    ("PATCH", "/v1/workflows/x/scope", "team:manage", "full-access"),
    ("GET", "/v1/workflows/executions", "execution:list", "read-only"),
    ("GET", "/v1/workflows/executions/x", "execution:read", "read-only"),
    ("GET", "/v1/workflows/executions/yaml", "execution:read", "read-only"),
    ("GET", "/v1/workflows/executions/versions", "execution:read", "read-only"),
    ("GET", "/v1/workflows/executions/run", "execution:read", "read-only"),
    ("GET", "/v1/workflows/executions/execute", "execution:read", "read-only"),
    ("GET", "/v1/workflows/executions/scope", "execution:read", "read-only"),
    ("GET", "/v1/workflows/executions/x/logs", "workflow:logs", "read-only"),
    ("GET", "/v1/workflows/executions/x/logs/stream", "workflow:logs", "read-only"),
    ("POST", "/v1/workflows/executions/x/signal", "workflow:signal", "execution"),
    ("POST", "/v1/workflows/executions/x/cancel", "workflow:cancel", "execution"),
    ("GET", "/v1/volumes", "volume:list", "read-only"),
    ("POST", "/v1/volumes", "volume:create", "developer"),
    ("GET", "/v1/volumes/quota", "volume:list", "read-only"),
    ("GET", "/v1/volumes/x", "volume:read:x", "read-only"),
    ("PATCH", "/v1/volumes/x", "volume:update:x", "developer"),
    ("DELETE", "/v1/volumes/x", "volume:delete:x", "full-access"),
    ("GET", "/v1/volumes/x/files", "volume:read:x", "read-only"),
    ("DELETE", "/v1/volumes/x/files", "volume:write:x", "developer"),
    ("GET", "/v1/volumes/x/files/download", "volume:read:x", "read-only"),
    ("POST", "/v1/volumes/x/files/upload", "volume:write:x", "developer"),
    ("POST", "/v1/volumes/x/files/mkdir", "volume:write:x", "developer"),
    ("POST", "/v1/volumes/x/files/move", "volume:write:x", "developer"),
    ("GET", "/v1/credentials", "credential:list", "full-access"),
    ("POST", "/v1/credentials/api-keys", "credential:create", "full-access"),
    ("POST", "/v1/credentials/oauth/initiate", "credential:create", "full-access"),
    ("POST", "/v1/credentials/oauth/device/poll", "credential:create", "full-access"),
    ("GET", "/v1/credentials/x", "credential:read", "full-access"),
    ("DELETE", "/v1/credentials/x", "credential:delete", "full-access"),
    ("POST", "/v1/credentials/x/rotate", "credential:rotate", "full-access"),
    ("GET", "/v1/credentials/x/grants", "credential:read", "full-access"),
    ("POST", "/v1/credentials/x/grants", "credential:grant", "full-access"),
    ("DELETE", "/v1/credentials/x/grants/y", "credential:grant", "full-access"),
    ("GET", "/v1/secrets", "secret:list", "full-access"),
    ("GET", "/v1/secrets/x", "secret:read", "full-access"),
    ("PUT", "/v1/secrets/x", "secret:write", "full-access"),
    ("DELETE", "/v1/secrets/x", "secret:delete", "full-access"),
    ("GET", "/v1/colony/members", "team:read", "full-access"),
    ("POST", "/v1/colony/members", "team:manage", "full-access"),
    ("DELETE", "/v1/colony/members/x", "team:manage", "full-access"),
    ("GET", "/v1/colony/teams", "team:read", "full-access"),
    ("POST", "/v1/colony/teams", "team:manage", "full-access"),
    ("DELETE", "/v1/colony/teams/x", "team:manage", "full-access"),
    ("GET", "/v1/colony/roles", "team:read", "full-access"),
    ("PUT", "/v1/colony/roles", "team:manage", "full-access"),
    ("GET", "/v1/colony/invitations", "team:manage", "full-access"),
    ("POST", "/v1/colony/invitations", "team:manage", "full-access"),
    ("DELETE", "/v1/colony/invitations/x", "team:manage", "full-access"),
    ("GET", "/v1/colony/saml", "team:manage", "full-access"),
    ("PUT", "/v1/colony/saml", "team:manage", "full-access"),
    ("GET", "/v1/colony/subscription", "team:manage", "full-access"),
    ("GET", "/v1/billing/invoices", "team:manage", "full-access"),
    ("GET", "/v1/human-approvals", "approval:list", "full-access"),
    ("GET", "/v1/human-approvals/x", "approval:read", "full-access"),
    ("POST", "/v1/human-approvals/x/approve", "approval:approve", "full-access"),
    ("POST", "/v1/human-approvals/x/reject", "approval:reject", "full-access"),
    ("GET", "/v1/swarms", "swarm:list", "full-access"),
    ("GET", "/v1/swarms/x", "swarm:read", "full-access"),
    ("POST", "/v1/stimuli", "stimulus:ingest", "full-access"),
    ("GET", "/v1/cluster/status", "node:read", "full-access"),
    ("GET", "/v1/cluster/nodes", "node:list", "full-access"),
    ("GET", "/v1/observability/dashboard", "node:read", "full-access"),
    ("GET", "/v1/cortex/patterns", "tenant:read", "full-access"),
    ("GET", "/v1/admin/rate-limits/overrides", "tenant:provision", "full-access"),
    ("POST", "/v1/admin/rate-limits/overrides", "tenant:provision", "full-access"),
    ("PUT", "/v1/admin/tenants/x", "tenant:provision", "full-access"),
    ("PATCH", "/v1/admin/tenants/x", "tenant:provision", "full-access"),
    ("DELETE", "/v1/admin/rate-limits/overrides/x", "tenant:provision", "full-access"),
    ("GET", "/v1/user/rate-limits", "key:read", "full-access"),
    ("GET", "/v1/user/rate-limits/usage", "key:read", "full-access"),
]

# What the platform serves and no key reaches: no scope stands for it, or it is not forwarded at all.
CLOSED: Final = [
    ("POST", "/v1/seal/attest"),
    ("POST", "/v1/seal/invoke"),
    ("GET", "/v1/seal/tools"),
    ("POST", "/v1/dispatch-gateway"),
    ("POST", "/v1/webhooks/github"),
    ("GET", "/health"),
    ("GET", "/v1/stimuli"),
    ("POST", "/v1/billing/checkout"),
    ("POST", "/v1/colony/invitations/x/accept"),
    ("POST", "/v1/workflows/temporal/register"),
    ("POST", "/v1/workflows/executions/run"),
    ("POST", "/v1/workflows/executions/execute"),
    ("GET", "/v1/api-keys"),
    ("POST", "/v1/api-keys"),
    ("DELETE", "/v1/api-keys/x"),
    ("GET", "/mcp"),
    ("GET", "/v1"),
]

# What a tool and a path both do: they take the same scopes. `x` is whatever is named.
SAME: Final = [
    ("aegis.agent.list", "GET", "/v1/agents"),
    ("aegis.agent.create", "POST", "/v1/agents"),
    ("aegis.agent.export", "GET", "/v1/agents/x"),
    ("aegis.agent.update", "PATCH", "/v1/agents/x"),
    ("aegis.agent.delete", "DELETE", "/v1/agents/x"),
    ("aegis.agent.logs", "GET", "/v1/agents/x/events"),
    ("aegis.task.execute", "POST", "/v1/agents/x/execute"),
    ("aegis.task.list", "GET", "/v1/executions"),
    ("aegis.task.status", "GET", "/v1/executions/x"),
    ("aegis.task.cancel", "POST", "/v1/executions/x/cancel"),
    ("aegis.task.remove", "DELETE", "/v1/executions/x"),
    ("aegis.execution.file", "GET", "/v1/executions/x/files/a"),
    ("aegis.workflow.list", "GET", "/v1/workflows"),
    ("aegis.workflow.create", "POST", "/v1/workflows"),
    ("aegis.workflow.export", "GET", "/v1/workflows/x"),
    ("aegis.workflow.export", "GET", "/v1/workflows/x/yaml"),
    ("aegis.workflow.delete", "DELETE", "/v1/workflows/x"),
    ("aegis.workflow.run", "POST", "/v1/workflows/x/run"),
    ("aegis.workflow.run", "POST", "/v1/workflows/x/execute"),
    ("aegis.workflow.promote", "PATCH", "/v1/workflows/x/scope"),
    ("aegis.workflow.executions.list", "GET", "/v1/workflows/executions"),
    ("aegis.workflow.executions.get", "GET", "/v1/workflows/executions/x"),
    ("aegis.workflow.logs", "GET", "/v1/workflows/executions/x/logs"),
    ("aegis.workflow.signal", "POST", "/v1/workflows/executions/x/signal"),
    ("aegis.workflow.cancel", "POST", "/v1/workflows/executions/x/cancel"),
    ("aegis.volume.list", "GET", "/v1/volumes"),
    ("aegis.volume.create", "POST", "/v1/volumes"),
    ("aegis.volume.quota", "GET", "/v1/volumes/quota"),
    ("aegis.volume.delete", "DELETE", "/v1/volumes/x"),
    ("aegis.file.list", "GET", "/v1/volumes/x/files"),
    ("aegis.file.read", "GET", "/v1/volumes/x/files/download"),
    ("aegis.file.write", "POST", "/v1/volumes/x/files/upload"),
    ("aegis.file.mkdir", "POST", "/v1/volumes/x/files/mkdir"),
    ("aegis.file.delete", "DELETE", "/v1/volumes/x/files"),
    ("aegis.system.config", "GET", "/v1/cluster/status"),
    ("aegis.edge.fleet.list", "GET", "/v1/cluster/nodes"),
]
LISTS: Final = ["/v1/agents", "/v1/executions", "/v1/workflows", "/v1/volumes"]
NAMES: Final = [f"{method} {path}" for method, path, _, _ in REST]


def find(path: str) -> RouteMatch:
    match = POLICY.find_route(path)
    assert match is not None, path
    return match


def is_allowed(method: str, target: str, grants: frozenset[str]) -> bool:
    """From the target as it stands on the line to the decision."""
    parsed = parse_target(target)
    match = POLICY.find_route(parsed.path)
    if match is None or method not in match.route.find_methods(parsed.path):
        return False
    try:
        query = parse_query(parsed.query, match.route.query_names, match.route.repeatable)
    except RequestError:
        return False
    return isinstance(POLICY.decide_http(match, method, query, grants, OWNER), Allowed)


def call_tool(tool: str, arguments: dict[str, Any], grants: frozenset[str]) -> Allowed | Denied:
    params = {"name": tool, "arguments": arguments}
    return POLICY.decide_message(find("/mcp/v1"), "tools/call", params, grants, OWNER)


def name_everywhere(name: str) -> dict[str, Any]:
    """Arguments that name it wherever a tool may look."""
    members = ("name", "agent_id", "execution_id", "workflow_id", "volume_id", "path", "target")
    return {**dict.fromkeys(members, name), "tool_name": "aegis.workflow.run", "args": {"name": name}}


@pytest.mark.parametrize(("method", "path", "scope"), [row[:3] for row in REST], ids=NAMES)
def test_each_route_is_opened_by_its_scope_and_by_no_other(method: str, path: str, scope: str) -> None:
    POLICY.check_scope(scope)
    others = frozenset(other for other in POLICY.catalogue if not covers(frozenset({other}), scope))
    assert is_allowed(method, path, frozenset({scope}))
    assert not is_allowed(method, path, others)
    assert not is_allowed(method, path, frozenset())
    if scope.endswith(":x"):
        assert not is_allowed(method, path, frozenset({scope.replace(":x", ":other")}))


@pytest.mark.parametrize(("method", "path", "first"), [(row[0], row[1], row[3]) for row in REST], ids=NAMES)
def test_presets_keep_the_promise_of_the_key_page(method: str, path: str, first: First) -> None:
    allowed = [name for name in PRESETS if is_allowed(method, path, get_grants(name))]
    assert allowed == list(PRESETS[PRESETS.index(first) :])


def get_grants(preset: str) -> frozenset[str]:
    return POLICY.effective_scopes(POLICY.presets[preset].scopes, [], "enterprise")


def test_read_only_reads_and_developer_deletes_no_agent_workflow_or_volume() -> None:
    reading = {method for method, path, _, _ in REST if is_allowed(method, path, get_grants("read-only"))}
    assert reading == {"GET"}
    deleted = {p for m, p, _, _ in REST if m == "DELETE" and is_allowed(m, p, get_grants("developer"))}
    assert deleted == {"/v1/volumes/x/files"}  # of a volume, which stays


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_has_no_scope_is_closed_to_every_key(method: str, path: str) -> None:
    assert not is_allowed(method, path, frozenset({"*"}))
    assert not is_allowed(method, path, frozenset({"*", *POLICY.catalogue}))


def test_every_route_of_the_policy_and_every_method_of_it_is_in_the_table() -> None:
    tabled = {(find(path).route.id, method) for method, path, _, _ in REST}
    routed = {(route.id, method) for route in POLICY.routes if route.protocol == "http" for method in route.methods}
    assert tabled == routed


def test_routes_go_to_the_platform_but_for_the_stream_beside_the_tools() -> None:
    upstreams = {path: find(path).route.upstream for _, path, _, _ in REST}
    assert {path for path, upstream in upstreams.items() if upstream != "api"} == {"/proxy/v1/executions/x/stream"}
    assert upstreams["/proxy/v1/executions/x/stream"] == "mcp"


def test_nothing_is_open_to_the_world_until_somebody_opens_it() -> None:
    assert [route.id for route in POLICY.routes if route.public] == []


def test_what_stands_there_to_be_opened_is_a_route() -> None:
    opened = PATH.read_text(encoding="utf-8").replace("  # - { id:", "  - { id:")
    assert [route.id for route in parse_policy(opened, "opened.yaml").routes if route.public] == ["health", "webhooks"]


@pytest.mark.parametrize(("tool", "method", "path"), SAME)
def test_a_tool_and_a_path_that_do_the_same_need_the_same_scopes(tool: str, method: str, path: str) -> None:
    by_tool = call_tool(tool, name_everywhere("x"), frozenset())
    by_path = POLICY.decide_http(find(path), method, {}, frozenset(), OWNER)
    assert isinstance(by_tool, Denied)
    assert isinstance(by_path, Denied)
    assert by_tool.required == by_path.required != ()


def test_a_key_for_one_workflow_does_just_that_by_tool_and_by_path() -> None:
    grants = POLICY.effective_scopes(["workflow:run:nightly-etl"], [], POLICY.default_tier)
    named = [(method, path.replace("/x", "/nightly-etl")) for method, path, _, _ in REST]
    requests = {f"{method} {path}": is_allowed(method, path, grants) for method, path in [*named, *CLOSED]}
    tools = {
        tool: isinstance(call_tool(tool, name_everywhere("nightly-etl"), grants), Allowed)
        for tool in find("/mcp/v1").route.rules.tools.exact
    }
    table = "".join(f"  {'yes' if allowed else 'no ':3}  {name}\n" for name, allowed in (requests | tools).items())
    sys.stdout.write(f"\nwhat a key with the one scope workflow:run:nightly-etl may do:\n{table}")
    assert {name for name, allowed in (requests | tools).items() if allowed} == {
        "POST /v1/workflows/nightly-etl/run",
        "POST /v1/workflows/nightly-etl/execute",
        "aegis.workflow.run",
    }
    for name in ("other", "nightly-etl2", "Nightly-etl", "nightly-et%C3%A9", "nightly-etl%20"):
        assert not is_allowed("POST", f"/v1/workflows/{name}/run", grants)


def test_one_grant_opens_the_tool_and_the_path_however_the_path_must_spell_it() -> None:
    for name, segment in (("nightly etl", "nightly%20etl"), ("nächtlich", "n%C3%A4chtlich"), ("夜", "%E5%A4%9C")):
        grants = frozenset({f"workflow:run:{name}"})
        assert isinstance(call_tool("aegis.workflow.run", {"name": name}, grants), Allowed)
        assert is_allowed("POST", f"/v1/workflows/{segment}/run", grants)
        assert not is_allowed("POST", f"/v1/workflows/{segment}x/run", grants)


@pytest.mark.parametrize("path", LISTS)
def test_lists_may_name_the_owner_and_nobody_else(path: str) -> None:
    everything = frozenset({"*"})
    for query in ("", "?limit=5", "?tenant_id=acme", "?user_id=user-1&tenant_id=acme"):
        assert is_allowed("GET", path + query, everything)
    for query in (
        "?tenant_id=other",
        "?user_id=user-2",
        "?tenant_id=acme&user_id=user-2",
        "?tenant=acme",
        "?tenant_id=",
    ):
        assert not is_allowed("GET", path + query, everything)


def test_no_other_route_takes_a_tenant_or_user() -> None:
    for method, path, _, _ in REST:
        if path not in LISTS:
            assert not is_allowed(method, f"{path}?tenant_id=acme", frozenset({"*"}))
            assert not is_allowed(method, f"{path}?user_id=user-1", frozenset({"*"}))


members = st.sampled_from(["tenant_id", "tenant", "user_id", "Tenant_Id", "tenantId", "limit", "scope", "token", "q"])
queries = st.lists(st.tuples(members, st.sampled_from(["acme", "other", "user-1", "1", ""])), max_size=4)
grants = st.frozensets(st.sampled_from(["*", *sorted({row[2] for row in REST})]), max_size=3)


@given(st.sampled_from([row[:2] for row in REST]), queries, queries, grants)
def test_adding_query_members_never_widens(
    route: tuple[str, str], base: list[tuple[str, str]], more: list[tuple[str, str]], held: frozenset[str]
) -> None:
    method, path = route
    short, long = (f"{path}?{'&'.join(f'{name}={value}' for name, value in q)}" for q in (base, [*base, *more]))
    assert is_allowed(method, short, held) or not is_allowed(method, long, held)


@given(st.sampled_from(LISTS), queries)
def test_no_query_that_is_allowed_speaks_for_another(path: str, query: list[tuple[str, str]]) -> None:
    text = "&".join(f"{name}={value}" for name, value in query)
    if is_allowed("GET", f"{path}?{text}", frozenset({"*"})):
        read = {name.lower().replace("_", ""): value for name, value in parse_qsl(text, keep_blank_values=True)}
        assert read.get("tenantid", "acme") == "acme"
        assert read.get("userid", "user-1") == "user-1"
        assert "tenant" not in read
