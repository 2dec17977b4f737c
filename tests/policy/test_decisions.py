"""Properties every decision has, whatever a client sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Denied, load_policy

POLICY = load_policy(Path(__file__).parents[2] / "config" / "policy.yaml")
OWNER = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "pro")
_FOUND = POLICY.find_route("/mcp/v1")
assert _FOUND is not None
MATCH = _FOUND
TOOLS = sorted(MATCH.route.rules.tools.exact)
GRANTS = [
    "*",
    "workflow:run",
    "workflow:run:nightly-etl",
    "agent:list",
    "volume:read:v",
    "node:dispatch",
    "team:manage",
]

grants = st.frozensets(st.sampled_from(GRANTS), max_size=3)
members = st.sampled_from(
    ["name", "arguments", "uri", "ref", "type", "tool_name", "args", "tenant_id", "notifications"]
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(TOOLS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
methods = st.sampled_from(
    [
        "tools/call",
        "prompts/get",
        "resources/read",
        "resources/subscribe",
        "completion/complete",
        "subscriptions/listen",
        "initialize",
        "notifications/x",
    ]
)
names = st.sampled_from(["nightly-etl", "other", "", "v"])
arguments = st.fixed_dictionaries({}, optional={"name": names, "agent_id": names, "volume_id": names})
extra_names = st.sampled_from(
    ["tenant_id", "tenant", "user_id", "Name", "VOLUME_ID", "force", "scope", "require", "allow"]
)
extras = st.dictionaries(
    extra_names | st.text(max_size=5), json_values | st.sampled_from(["acme", "user-1"]), max_size=4
)


@given(methods | st.text(max_size=12), st.dictionaries(members | st.text(max_size=4), json_values, max_size=4), grants)
def test_any_message_gets_a_decision(method: str, params: dict[str, Any], held: frozenset[str]) -> None:
    decision = POLICY.decide_message(MATCH, method, params, held, OWNER)
    assert isinstance(decision, Allowed | Denied)
    if isinstance(decision, Denied):
        assert decision.why
        assert set(decision.missing) <= set(decision.required)
        assert decision.smallest is None or decision.smallest in decision.missing


@given(methods, json_values, grants)
def test_what_cannot_be_judged_is_denied(method: Any, params: Any, held: frozenset[str]) -> None:
    if not isinstance(params, dict):
        assert isinstance(POLICY.decide_message(MATCH, method, params, held, OWNER), Denied)
    assert isinstance(POLICY.decide_message(MATCH, [method], {}, held, OWNER), Denied)  # type: ignore[arg-type]
    assert isinstance(POLICY.decide_http(MATCH, {"GET": 1}, {}, held, OWNER), Denied)  # type: ignore[arg-type]
    assert POLICY.may_list(MATCH, "tool", ["x"], held, OWNER) is False  # type: ignore[arg-type]


@given(st.sampled_from(TOOLS), arguments, extras, grants)
def test_adding_fields_never_widens(
    tool: str, base: dict[str, Any], more: dict[str, Any], held: frozenset[str]
) -> None:
    selectors = {"name", "agent_id", "volume_id", "tool_name", "args"}  # naming what one may use is no widening
    longer = {**{name: value for name, value in more.items() if name not in selectors}, **base}
    before = POLICY.decide_message(MATCH, "tools/call", {"name": tool, "arguments": base}, held, OWNER)
    after = POLICY.decide_message(MATCH, "tools/call", {"name": tool, "arguments": longer}, held, OWNER)
    if isinstance(before, Denied):
        assert isinstance(after, Denied)


@given(st.sampled_from(TOOLS), arguments | extras, grants, grants)
def test_holding_more_scopes_never_denies(
    tool: str, given_arguments: dict[str, Any], held: frozenset[str], more: frozenset[str]
) -> None:
    params = {"name": tool, "arguments": given_arguments}
    if isinstance(POLICY.decide_message(MATCH, "tools/call", params, held, OWNER), Allowed):
        assert isinstance(POLICY.decide_message(MATCH, "tools/call", params, held | more, OWNER), Allowed)


@given(st.sampled_from(TOOLS), arguments, grants)
def test_the_smallest_sufficient_scope_suffices(
    tool: str, given_arguments: dict[str, Any], held: frozenset[str]
) -> None:
    params = {"name": tool, "arguments": given_arguments}
    decision = POLICY.decide_message(MATCH, "tools/call", params, held, OWNER)
    if isinstance(decision, Denied) and decision.smallest is not None:
        again = POLICY.decide_message(MATCH, "tools/call", params, held | {decision.smallest}, OWNER)
        assert isinstance(again, Allowed)


@given(st.sampled_from(TOOLS), arguments, grants)
def test_what_may_be_called_is_listed(tool: str, given_arguments: dict[str, Any], held: frozenset[str]) -> None:
    params = {"name": tool, "arguments": given_arguments}
    if isinstance(POLICY.decide_message(MATCH, "tools/call", params, held, OWNER), Allowed):
        assert POLICY.may_list(MATCH, "tool", tool, held, OWNER)


@given(st.sampled_from(TOOLS), arguments, st.text(min_size=1, max_size=10), st.sampled_from(["tenant_id", "tenant"]))
def test_no_key_names_another_tenant(tool: str, given_arguments: dict[str, Any], tenant: str, member: str) -> None:
    params = {"name": tool, "arguments": {**given_arguments, member: tenant}}
    decision = POLICY.decide_message(MATCH, "tools/call", params, frozenset("*"), OWNER)
    assert isinstance(decision, Denied) or tenant == "acme"


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_selector_opens_itself_and_nothing_else(held: str, wanted: str) -> None:
    params = {"name": "aegis.workflow.run", "arguments": {"name": wanted}}
    decision = POLICY.decide_message(MATCH, "tools/call", params, frozenset({f"workflow:run:{held}"}), OWNER)
    assert isinstance(decision, Allowed) == (held == wanted)
