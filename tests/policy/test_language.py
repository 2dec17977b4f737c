"""Every element of the policy language, judged on a policy that has just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.identity import Owner
from proxy.policy import Allowed, Denied, Policy, RouteMatch

Rules = Callable[[str], tuple[Policy, RouteMatch]]
Routes = Callable[[str], Policy]

NOTHING: frozenset[str] = frozenset()
EVERYTHING = frozenset({"*"})


def held(*scopes: str) -> frozenset[str]:
    return frozenset(scopes)


def call(tool: Any, arguments: Any = None) -> dict[str, Any]:
    return {"name": tool, "arguments": arguments}


def is_allowed(built: tuple[Policy, RouteMatch], params: dict[str, Any], grants: frozenset[str], owner: Owner) -> bool:
    policy, match = built
    return isinstance(policy.decide_message(match, "tools/call", params, grants, owner), Allowed)


RUN = '- { tool: aegis.workflow.run, require: "workflow:run:{arguments.name}" }\n'


@pytest.mark.parametrize(
    ("grants", "name", "allowed"),
    [
        (held("workflow:run:nightly"), "nightly", True),
        (held("workflow:run"), "anything", True),
        (EVERYTHING, "anything", True),
        (held("workflow:run:nightly"), "nightly2", False),
        (held("workflow:run:nightly"), "Nightly", False),
        (held("workflow:run:nightly"), "nightly ", False),
        (held("workflow:run:nightly"), "n\u0456ghtly", False),  # a Cyrillic i
        (held("workflow:run:caf\u00e9"), "cafe\u0301", False),  # composed and decomposed
        (held("workflow:run:\uff41"), "a", False),  # full width
        (held("workflow:run:a:b"), "a:b", True),
        (held("workflow:run:a"), "a:b", False),
        (held("workflow:run:a:b"), "a", False),
        (held("workflow:run:*"), "nightly", False),
        (held("workflow"), "nightly", False),
        (held("workflow:list", "workflow:delete:nightly"), "nightly", False),
        (NOTHING, "nightly", False),
    ],
)
def test_selectors_compare_byte_for_byte(
    with_rules: Rules, owner: Owner, grants: frozenset[str], name: str, allowed: bool
) -> None:
    assert is_allowed(with_rules(RUN), call("aegis.workflow.run", {"name": name}), grants, owner) is allowed


@pytest.mark.parametrize("name", [None, "", 1, True, ["nightly"], {"nightly": 1}, 1.5])
@pytest.mark.parametrize("grants", [held("workflow:run"), EVERYTHING, held("workflow:run:nightly")])
def test_a_selector_that_is_no_text_denies_whoever_asks(
    with_rules: Rules, owner: Owner, name: Any, grants: frozenset[str]
) -> None:
    assert not is_allowed(with_rules(RUN), call("aegis.workflow.run", {"name": name}), grants, owner)


@pytest.mark.parametrize("params", [call("aegis.workflow.run"), call("aegis.workflow.run", {}), {"name": 3}, {}])
def test_an_absent_selector_or_tool_name_denies_whoever_asks(
    with_rules: Rules, owner: Owner, params: dict[str, Any]
) -> None:
    assert not is_allowed(with_rules(RUN), params, EVERYTHING, owner)


def test_a_denial_names_the_rule_the_scopes_and_the_smallest_sufficient_one(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules('- { tool: aegis.workflow.delete, require: "workflow:delete:{arguments.name}" }\n')
    params = call("aegis.workflow.delete", {"name": "nightly-etl"})
    assert policy.decide_message(match, "tools/call", params, held("workflow:list"), owner) == Denied(
        rule="mcp/tool:aegis.workflow.delete",
        why="tool aegis.workflow.delete needs scope workflow:delete:nightly-etl",
        required=("workflow:delete:nightly-etl",),
        missing=("workflow:delete:nightly-etl",),
        sufficient=("workflow:delete:nightly-etl",),
    )


def test_an_allowance_names_the_rule_and_the_scopes_it_used(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(RUN.replace("{ tool", "{ id: run, tool"))
    params = call("aegis.workflow.run", {"name": "nightly"})
    decision = policy.decide_message(match, "tools/call", params, EVERYTHING, owner)
    assert decision == Allowed("run", ("workflow:run:nightly",))


def test_what_no_rule_names_is_denied_even_to_everything(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(RUN)
    decision = policy.decide_message(match, "tools/call", call("aegis.workflow.runs", {"name": "x"}), EVERYTHING, owner)
    assert decision == Denied(None, "no rule allows tool aegis.workflow.runs")


def test_a_list_of_scopes_needs_all_of_them(with_rules: Rules, owner: Owner) -> None:
    built = with_rules('- { tool: t, require: [workflow:list, "workflow:run:{arguments.name}"] }\n')
    params = call("t", {"name": "x"})
    assert is_allowed(built, params, held("workflow:list", "workflow:run:x"), owner)
    policy, match = built
    decision = policy.decide_message(match, "tools/call", params, held("workflow:list"), owner)
    assert isinstance(decision, Denied)
    assert decision.required == ("workflow:list", "workflow:run:x")
    assert decision.missing == ("workflow:run:x",)
    assert decision.smallest == "workflow:run:x"
    bare = policy.decide_message(match, "tools/call", params, NOTHING, owner)
    assert isinstance(bare, Denied)
    assert (bare.smallest, bare.why) == (None, "tool t needs the scopes workflow:list, workflow:run:x")


def test_any_of_several_scopes_suffices(with_rules: Rules, owner: Owner) -> None:
    built = with_rules('- { tool: t, require: { any: ["workflow:run:{arguments.name}", workflow:list] } }\n')
    assert is_allowed(built, call("t", {"name": "x"}), held("workflow:run:x"), owner)
    assert is_allowed(built, call("t", {}), held("workflow:list"), owner)
    assert not is_allowed(built, call("t", {}), held("workflow:run"), owner)
    policy, match = built
    decision = policy.decide_message(match, "tools/call", call("t", {"name": "x"}), NOTHING, owner)
    assert isinstance(decision, Denied)
    assert decision.why == "tool t needs one of the scopes workflow:run:x, workflow:list"
    assert decision.smallest == "workflow:run:x"


def test_a_scope_may_be_fixed_to_one_selector(with_rules: Rules, owner: Owner) -> None:
    built = with_rules("- { tool: t, require: workflow:run:nightly }\n")
    assert is_allowed(built, call("t"), held("workflow:run:nightly"), owner)
    assert is_allowed(built, call("t"), held("workflow:run"), owner)
    assert not is_allowed(built, call("t"), held("workflow:run:other"), owner)


def test_a_rule_may_ask_for_everything(with_rules: Rules, owner: Owner) -> None:
    built = with_rules('- { tool: t, require: "*" }\n')
    assert is_allowed(built, call("t"), EVERYTHING, owner)
    assert not is_allowed(built, call("t"), held("workflow:run"), owner)


def test_any_key_means_a_key_without_scopes_too(with_rules: Rules, owner: Owner) -> None:
    assert is_allowed(with_rules("- { tool: t, allow: any-key }\n"), call("t"), NOTHING, owner)


def test_the_most_specific_rule_decides_and_the_order_of_lines_means_nothing(with_rules: Rules, owner: Owner) -> None:
    lines = [
        "- { tool: aegis.workflow.run, require: workflow:run }\n",
        '- { tool: "aegis.workflow.*", require: workflow:list }\n',
        '- { tool: "aegis.*", allow: any-key }\n',
    ]
    for order in (lines, lines[::-1]):
        policy, match = with_rules("".join(order))
        rules = [
            policy.decide_message(match, "tools/call", call(tool), EVERYTHING, owner).rule
            for tool in ("aegis.workflow.run", "aegis.workflow.list", "aegis.agent.list")
        ]
        assert rules == ["mcp/tool:aegis.workflow.run", "mcp/tool:aegis.workflow.*", "mcp/tool:aegis.*"]


def test_a_longer_literal_decides_where_two_patterns_cross(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(
        '- { tool: "aegis.*.list", require: workflow:list }\n- { tool: "aegis.workflow.*", require: workflow:run }\n'
    )
    decision = policy.decide_message(match, "tools/call", call("aegis.workflow.list"), EVERYTHING, owner)
    assert decision.rule == "mcp/tool:aegis.workflow.*"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("aegis.git.push", True),
        ("aegis.git.a.b", True),
        ("aegis.git.", False),
        ("aegis.git", False),
        ("aegis.gitx.push", False),
        ("aegis.git.pu\u0455h", False),
        ("aegis.git.push\n", False),
        ("aegis.git.push now", False),
        ("aegis.git." + "x" * 118, True),
        ("aegis.git." + "x" * 119, False),
    ],
)
def test_a_pattern_matches_names_of_the_recommended_alphabet_only(
    with_rules: Rules, owner: Owner, name: str, allowed: bool
) -> None:
    assert is_allowed(with_rules('- { tool: "aegis.git.*", allow: any-key }\n'), call(name), NOTHING, owner) is allowed


WHERE = '- {{ tool: t, allow: any-key, where: {{ arguments.field: {{ {0} }} }} }}\n- {{ tool: "*", allow: any-key }}\n'


@pytest.mark.parametrize(
    ("condition", "arguments", "allowed"),
    [
        ('absent_or: "{owner.tenant}"', {}, True),
        ('absent_or: "{owner.tenant}"', {"field": "acme"}, True),
        ('absent_or: "{owner.tenant}"', {"field": "other"}, False),
        ('absent_or: "{owner.tenant}"', {"field": None}, False),
        ('absent_or: "{owner.tenant}"', {"field": ""}, False),
        ('absent_or: "{owner.tenant}"', {"field": ["acme"]}, False),
        ('absent_or: "{owner.tenant}"', {"field": {"acme": 1}}, False),
        ('absent_or: "{owner.tenant}"', {"FIELD": "acme"}, False),
        ('absent_or: "{owner.tenant}"', {"f\u0131eld": "other"}, False),  # the Turkish i
        ('absent_or: "{owner.subject}"', {"field": "user-1"}, True),
        ('absent_or: "{owner.subject}"', {"field": "acme"}, False),
        ("absent_or: fixed", {"field": "fixed"}, True),
        ("equals: fixed", {"field": "fixed"}, True),
        ("equals: fixed", {}, False),
        ("equals: 1", {"field": 1}, True),
        ("equals: 1", {"field": "1"}, False),
        ("equals: 1", {"field": True}, False),
        ("equals: 1", {"field": 1.0}, False),
        ("equals: true", {"field": True}, True),
        ("equals: true", {"field": 1}, False),
        ("equals: true", {"field": "true"}, False),
        ("equals: false", {"field": False}, True),
        ("equals: 0", {"field": False}, False),
        ("one_of: [a, b, 3]", {"field": "b"}, True),
        ("one_of: [a, b, 3]", {"field": 3}, True),
        ("one_of: [a, b, 3]", {"field": "c"}, False),
        ("one_of: [a, b, 3]", {}, False),
        ('one_of: [a, "{owner.tenant}"]', {"field": "acme"}, True),
    ],
)
def test_a_condition_compares_type_and_value_and_its_failure_is_final(
    with_rules: Rules, owner: Owner, condition: str, arguments: dict[str, Any], allowed: bool
) -> None:
    assert is_allowed(with_rules(WHERE.format(condition)), call("t", arguments), EVERYTHING, owner) is allowed


def test_an_owner_without_a_tenant_cannot_be_matched_by_an_empty_argument(with_rules: Rules, owner: Owner) -> None:
    built = with_rules(WHERE.format('absent_or: "{owner.tenant}"'))
    assert not is_allowed(built, call("t", {"field": ""}), EVERYTHING, replace(owner, tenant_id=""))


def test_a_failed_condition_says_what_it_wanted(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(WHERE.format('absent_or: "{owner.tenant}"'))
    decision = policy.decide_message(match, "tools/call", call("t", {"field": "other"}), EVERYTHING, owner)
    why = "tool t wants its argument field to be absent or the key owner's own tenant"
    assert decision == Denied("mcp/tool:t", why)


def test_conditions_and_selectors_reach_into_nested_objects(with_rules: Rules, owner: Owner) -> None:
    built = with_rules(
        '- { tool: t, require: "workflow:run:{arguments.a.b}",'
        ' where: { arguments.filter.tenant: { absent_or: "{owner.tenant}" } } }\n'
    )
    grants = held("workflow:run:x")
    inner = {"a": {"b": "x"}}
    assert is_allowed(built, call("t", inner), grants, owner)
    assert is_allowed(built, call("t", {**inner, "filter": {"tenant": "acme"}}), grants, owner)
    assert not is_allowed(built, call("t", {**inner, "filter": {"tenant": "other"}}), grants, owner)
    assert not is_allowed(built, call("t", {**inner, "filter": {"Tenant": "other"}}), grants, owner)
    assert not is_allowed(built, call("t", {**inner, "Filter": {"tenant": "other"}}), grants, owner)
    assert not is_allowed(built, call("t", {**inner, "filter": '{"tenant": "other"}'}), grants, owner)
    assert not is_allowed(built, call("t", {"a": "x"}), grants, owner)


@pytest.mark.parametrize("variant", ["Name", "NAME", "naMe"])
def test_a_case_variant_of_a_judged_argument_denies(with_rules: Rules, owner: Owner, variant: str) -> None:
    params = call("aegis.workflow.run", {"name": "nightly", variant: "other"})
    assert not is_allowed(with_rules(RUN), params, held("workflow:run:nightly"), owner)


def test_conditions_on_every_tool_bind_rules_that_do_not_mention_them(with_routes: Routes, owner: Owner) -> None:
    policy = with_routes(
        """\
        - id: mcp
          path: /mcp
          methods: [POST]
          upstream: mcp
          protocol: mcp
          every_tool: { arguments.tenant_id: { absent_or: "{owner.tenant}" } }
          rules:
            - { tool: t, allow: any-key }
            - { tool: "u.*", allow: any-key, where: { arguments.mode: { equals: safe } } }
            - { prompt: p, allow: any-key }
        """
    )
    match = policy.find_route("/mcp")
    assert match is not None
    foreign = {"tenant_id": "other", "mode": "safe"}
    assert not is_allowed((policy, match), call("t", foreign), EVERYTHING, owner)
    assert not is_allowed((policy, match), call("u.x", foreign), EVERYTHING, owner)
    assert is_allowed((policy, match), call("u.x", {"mode": "safe"}), EVERYTHING, owner)
    assert not is_allowed((policy, match), call("u.x", {}), EVERYTHING, owner)
    prompt = policy.decide_message(match, "prompts/get", {"name": "p", "arguments": foreign}, NOTHING, owner)
    assert isinstance(prompt, Allowed)


@pytest.mark.parametrize("arguments", ["text", [], 1, True])
def test_arguments_that_are_no_object_deny(with_rules: Rules, owner: Owner, arguments: Any) -> None:
    built = with_rules("- { tool: t, allow: any-key }\n")
    assert not is_allowed(built, call("t", arguments), EVERYTHING, owner)


NESTING = """\
- tool: fleet
  require: node:dispatch
  also_tool: { name: arguments.tool_name, arguments: arguments.args }
- { tool: run, require: "workflow:run:{arguments.name}" }
- { tool: free, allow: any-key }
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"tool_name": "free"}, True),
        ({"tool_name": "free", "args": {}}, True),
        ({"tool_name": "free", "args": "text"}, False),
        ({"tool_name": "run", "args": {"name": "x"}}, True),
        ({"tool_name": "run", "args": {"name": "y"}}, False),
        ({"tool_name": "run", "args": {"name": "x", "Name": "y"}}, False),
        ({"tool_name": "run", "Args": {"name": "y"}, "args": {"name": "x"}}, False),
        ({"tool_name": "run", "TOOL_NAME": "free", "args": {"name": "x"}}, False),
        ({"tool_name": "unknown"}, False),
        ({"tool_name": ["free"]}, False),
        ({"args": {}}, False),
        ({"tool_name": "fleet", "args": {"tool_name": "run", "args": {"name": "x"}}}, True),
        ({"tool_name": "fleet", "args": {"tool_name": "run", "args": {"name": "y"}}}, False),
    ],
)
def test_a_nested_call_is_judged_like_a_call(
    with_rules: Rules, owner: Owner, arguments: dict[str, Any], allowed: bool
) -> None:
    grants = held("node:dispatch", "workflow:run:x")
    built = with_rules(NESTING)
    assert is_allowed(built, call("fleet", arguments), grants, owner) is allowed
    assert not is_allowed(built, call("fleet", arguments), held("workflow:run:x"), owner)


def test_a_nested_call_names_the_scopes_of_both(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(NESTING)
    params = call("fleet", {"tool_name": "run", "args": {"name": "x"}})
    decision = policy.decide_message(match, "tools/call", params, EVERYTHING, owner)
    assert decision == Allowed("mcp/tool:fleet", ("node:dispatch", "workflow:run:x"))
    denied = policy.decide_message(match, "tools/call", params, held("node:dispatch"), owner)
    assert isinstance(denied, Denied)
    assert (denied.rule, denied.smallest) == ("mcp/tool:run", "workflow:run:x")
    assert denied.why == "tool fleet must be allowed what it calls: tool run needs scope workflow:run:x"
    neither = policy.decide_message(match, "tools/call", params, NOTHING, owner)
    assert isinstance(neither, Denied)
    assert (neither.rule, neither.smallest) == ("mcp/tool:fleet", None)
    assert neither.missing == ("node:dispatch", "workflow:run:x")


@pytest.mark.parametrize(("depth", "allowed"), [(4, True), (5, False), (5000, False)])
def test_nesting_ends_at_a_limit(with_rules: Rules, owner: Owner, depth: int, allowed: bool) -> None:
    params = call("free")
    for _ in range(depth):
        params = call("fleet", {"tool_name": params["name"], "args": params["arguments"] or {}})
    assert is_allowed(with_rules(NESTING), params, held("node:dispatch"), owner) is allowed


METHODS = """\
- { rpc: [initialize, "notifications/*"], allow: any-key }
- { rpc: tasks/get, require: "workflow:run:{params.taskId}" }
- { rpc: subscriptions/listen, allow: any-key }
- { uri: "aegis://volumes/{volume}/**", require: "volume:read:{volume}" }
"""


@pytest.mark.parametrize(
    ("method", "params", "allowed"),
    [
        ("initialize", {}, True),
        ("notifications/initialized", {}, True),
        ("notifications/roots/list_changed", {}, True),
        ("notifications/", {}, False),
        ("Initialize", {}, False),
        ("tasks/get", {"taskId": "x"}, True),
        ("tasks/get", {"taskId": "y"}, False),
        ("tasks/get", {}, False),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, True),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["aegis://volumes/v/a"]}}, True),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["aegis://volumes/w/a"]}}, False),
        (
            "subscriptions/listen",
            {"notifications": {"resourceSubscriptions": ["aegis://volumes/v/a", "aegis://volumes/w/a"]}},
            False,
        ),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": "aegis://volumes/v/a"}}, False),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [7]}}, False),
    ],
)
def test_other_methods_are_judged_by_their_name(
    with_rules: Rules, owner: Owner, method: str, params: dict[str, Any], allowed: bool
) -> None:
    policy, match = with_rules(METHODS)
    decision = policy.decide_message(match, method, params, held("workflow:run:x", "volume:read:v"), owner)
    assert isinstance(decision, Allowed) is allowed


def test_only_a_method_that_no_rule_names_is_unknown(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(METHODS)
    unknown = policy.decide_message(match, "made/up", {}, EVERYTHING, owner)
    assert unknown == Denied(None, "no rule names method made/up", unknown_method=True)
    for method in ("tools/call", "prompts/get", "resources/read", "completion/complete"):
        decision = policy.decide_message(match, method, {"name": "x", "uri": "x"}, EVERYTHING, owner)
        assert isinstance(decision, Denied)
        assert not decision.unknown_method


def test_an_asterisk_for_methods_leaves_out_those_that_name_what_they_use(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules('- { rpc: "*", allow: any-key }\n')
    assert isinstance(policy.decide_message(match, "made/up", {}, NOTHING, owner), Allowed)
    for method in ("tools/call", "prompts/get", "resources/read", "resources/subscribe", "completion/complete"):
        params = {"name": "x", "uri": "x", "ref": {"type": "ref/prompt", "name": "x"}}
        assert isinstance(policy.decide_message(match, method, params, EVERYTHING, owner), Denied)


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("aegis://volumes/v/a", True),
        ("aegis://volumes/v/a/b/c.txt", True),
        ("aegis://volumes/v/", False),
        ("aegis://volumes/v", False),
        ("aegis://volumes//a", False),
        ("aegis://volumes/w/a", False),
        ("AEGIS://volumes/v/a", False),
        ("aegis://volumes/%76/a", False),
        ("aegis://volumes/v/../w/a", False),
        ("aegis://volumes/v/./a", False),
        ("aegis://volumes/v/..", False),
        ("aegis://volumes/v/%2e%2e/w/a", False),
        ("aegis://volumes/v/%2E./w/a", False),
        ("aegis://volumes/v/..%2fw/a", False),
        ("aegis://volumes/v/%252e%252e/w/a", False),
        ("aegis://volumes/v/..\\w\\a", False),
        ("aegis://volumes/v/..%5cw", False),
        ("aegis://volumes/v/a?volume=w", False),
        ("aegis://volumes/v/a#w", False),
        ("aegis://volumes/v/a\n", False),
        ("aegis://volumes/v/..a", True),
        ("aegis://volumes/v/a%20b", True),
        (None, False),
        (["aegis://volumes/v/a"], False),
    ],
)
@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
def test_a_resource_is_judged_by_its_uri(with_rules: Rules, owner: Owner, method: str, uri: Any, allowed: bool) -> None:
    policy, match = with_rules(METHODS)
    decision = policy.decide_message(match, method, {"uri": uri}, held("volume:read:v"), owner)
    assert isinstance(decision, Allowed) is allowed


def test_a_uri_rule_may_hold_for_one_method_only(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(
        '- { rpc: resources/read, uri: "aegis://volumes/{volume}/**", require: "volume:read:{volume}" }\n'
        '- { rpc: resources/subscribe, uri: "aegis://volumes/{volume}/**", require: "*" }\n'
    )
    grants, params = held("volume:read:v"), {"uri": "aegis://volumes/v/a"}
    read = policy.decide_message(match, "resources/read", params, grants, owner)
    assert read == Allowed("mcp/resources/read:aegis://volumes/{volume}/**", ("volume:read:v",))
    assert isinstance(policy.decide_message(match, "resources/subscribe", params, grants, owner), Denied)
    assert isinstance(policy.decide_message(match, "resources/unsubscribe", params, grants, owner), Denied)


def test_an_exact_uri_comes_before_a_pattern(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(
        '- { uri: "aegis://volumes/{volume}/**", require: "volume:read:{volume}" }\n'
        '- { uri: "aegis://volumes/v/public?x=1", allow: any-key }\n'
        '- { uri: "aegis://volumes/v/open", allow: any-key }\n'
    )
    for uri in ("aegis://volumes/v/open", "aegis://volumes/v/public?x=1"):
        assert isinstance(policy.decide_message(match, "resources/read", {"uri": uri}, NOTHING, owner), Allowed)


PROMPTS = """\
- { prompt: review, require: workflow:list }
- { prompt: plan, require: "workflow:run:{arguments.name}" }
- { uri: "aegis://volumes/{volume}/**", require: "volume:read:{volume}" }
"""


@pytest.mark.parametrize(
    ("method", "params", "allowed"),
    [
        ("prompts/get", {"name": "review"}, True),
        ("prompts/get", {"name": "plan", "arguments": {"name": "x"}}, True),
        ("prompts/get", {"name": "plan", "arguments": {"name": "y"}}, False),
        ("prompts/get", {"name": "plan", "arguments": ["x"]}, False),
        ("prompts/get", {"name": "other"}, False),
        ("prompts/get", {"name": None}, False),
        ("prompts/get", {}, False),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "review"}}, True),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "other"}}, False),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "plan"}}, False),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "plan"}, "context": {"arguments": {"name": "x"}}},
            True,
        ),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "aegis://volumes/v/{path}"}}, True),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "aegis://volumes/w/{path}"}}, False),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "aegis://volumes/{volume}/a"}}, False),
        ("completion/complete", {"ref": {"type": "ref/else", "name": "review"}}, False),
        ("completion/complete", {"ref": "review"}, False),
        ("completion/complete", {}, False),
    ],
)
def test_prompts_and_completions_are_judged_by_what_they_name(
    with_rules: Rules, owner: Owner, method: str, params: dict[str, Any], allowed: bool
) -> None:
    policy, match = with_rules(PROMPTS)
    grants = held("workflow:list", "workflow:run:x", "volume:read:v")
    assert isinstance(policy.decide_message(match, method, params, grants, owner), Allowed) is allowed


def test_http_methods_of_a_message_route_have_their_own_rules(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules("- { http: GET, allow: any-key }\n".replace("GET", "[GET]") + RUN)
    assert policy.decide_http(match, "GET", {}, NOTHING, owner) == Allowed("mcp/http:GET", ())
    for method in ("DELETE", "POST", "PUT", "get"):
        assert policy.decide_http(match, method, {}, EVERYTHING, owner) == Denied(
            None, f"no rule allows request {method} /mcp"
        )


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "free", "Name": "fleet"}),
        ("tools/call", {"name": "free", "ARGUMENTS": {}}),
        ("tools/call", {"name": "free", "__proto__": {"arguments": {}}}),
        ("tools/call", {"name": "guarded", "arguments": {"__proto__": {"tenant_id": "other"}}}),
        ("resources/read", {"uri": "aegis://open", "URI": "aegis://closed"}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "aegis://open", "Uri": "aegis://closed"}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "aegis://open"}, "Ref": {}}),
        ("subscriptions/listen", {"notifications": {"ResourceSubscriptions": ["aegis://closed"]}}),
        ("subscriptions/listen", {"Notifications": {"resourceSubscriptions": ["aegis://closed"]}}),
    ],
)
def test_a_case_variant_of_a_judged_member_denies(
    with_rules: Rules, owner: Owner, method: str, params: dict[str, Any]
) -> None:
    policy, match = with_rules(
        """\
        - { tool: free, allow: any-key }
        - { tool: guarded, allow: any-key, where: { arguments.tenant_id: { absent_or: "{owner.tenant}" } } }
        - { uri: "aegis://open", allow: any-key }
        - { rpc: subscriptions/listen, allow: any-key }
        """
    )
    decision = policy.decide_message(match, method, params, EVERYTHING, owner)
    assert isinstance(decision, Denied)
    wrong = "other members hide in it" if "__proto__" in decision.why else "its case is wrong"
    assert decision.why.endswith(wrong)


LISTING = """\
- { tool: run, require: "workflow:run:{arguments.name}", where: { arguments.t: { absent_or: "{owner.tenant}" } } }
- { tool: both, require: ["workflow:run:{arguments.name}", "workflow:delete:{arguments.name}"] }
- { tool: either, require: { any: [workflow:list, "workflow:run:{arguments.name}"] } }
- { tool: "glob.*", require: workflow:list }
- { prompt: p, require: workflow:list }
- { uri: "aegis://volumes/{volume}/**", require: "volume:read:{volume}" }
- { uri: "aegis://about", allow: any-key }
"""


@pytest.mark.parametrize(
    ("kind", "name", "grants", "shown"),
    [
        ("tool", "run", held("workflow:run:x"), True),
        ("tool", "run", held("workflow:run"), True),
        ("tool", "run", EVERYTHING, True),
        ("tool", "run", held("workflow:list"), False),
        ("tool", "run", held("workflow:runner:x"), False),
        ("tool", "run", held("workflow:run:"), False),
        ("tool", "both", held("workflow:run:x", "workflow:delete:x"), True),
        ("tool", "both", held("workflow:run:x", "workflow:delete"), True),
        ("tool", "both", held("workflow:run:x", "workflow:delete:y"), False),
        ("tool", "both", held("workflow:run:x"), False),
        ("tool", "either", held("workflow:run:x"), True),
        ("tool", "either", held("workflow:list"), True),
        ("tool", "either", held("volume:read"), False),
        ("tool", "glob.a", held("workflow:list"), True),
        ("tool", "glob.a", NOTHING, False),
        ("tool", "nowhere", EVERYTHING, False),
        ("prompt", "p", held("workflow:list"), True),
        ("prompt", "p", NOTHING, False),
        ("prompt", "run", EVERYTHING, False),
        ("uri", "aegis://volumes/v/a", held("volume:read:v"), True),
        ("uri", "aegis://volumes/w/a", held("volume:read:v"), False),
        ("uri", "aegis://about", NOTHING, True),
        ("uri", "aegis://else", EVERYTHING, False),
        ("uri_template", "aegis://volumes/{volume_id}/{+path}", held("volume:read:v"), True),
        ("uri_template", "aegis://volumes/{volume_id}/files/{path}", held("volume:read:v"), True),
        ("uri_template", "aegis://volumes/{volume_id}/{+path}", NOTHING, False),
        ("uri_template", "aegis://volumes{/volume_id}/{+path}", held("volume:read:v"), True),
        ("uri_template", "aegis://{thing}", NOTHING, True),
        ("uri_template", "aegis://workflows/{name}", EVERYTHING, False),
        ("uri_template", "other://volumes/{volume_id}/{+path}", EVERYTHING, False),
    ],
)
def test_a_list_shows_what_some_arguments_would_open(
    with_rules: Rules, owner: Owner, kind: Any, name: str, grants: frozenset[str], shown: bool
) -> None:
    policy, match = with_rules(LISTING)
    assert policy.may_list(match, kind, name, grants, owner) is shown


REST = """\
- { id: list, path: /v1/workflows, methods: [GET], upstream: api, require: workflow:list }
- id: run
  path: /v1/workflows/{name}/run
  methods: [POST]
  upstream: api
  require: "workflow:run:{name}"
- id: workflow
  path: /v1/workflows/{name}
  methods: [GET, DELETE, PUT]
  upstream: api
  rules:
    - { http: [GET], require: workflow:list, where: { name: { one_of: [a, b] } } }
    - { http: [DELETE], require: { any: ["workflow:delete:{name}", node:dispatch] } }
- { id: files, path: "/v1/files/**", methods: [GET], upstream: api, allow: any-key }
- { id: rest, path: "/v1/**", methods: [GET], upstream: api, require: "*" }
- { id: quota, path: /v1/workflows/quota, methods: [GET], upstream: api, allow: any-key }
"""


@pytest.mark.parametrize(
    ("path", "route", "variables"),
    [
        ("/v1/workflows", "list", {}),
        ("/v1/workflows/quota", "quota", {}),
        ("/v1/workflows/nightly", "workflow", {"name": "nightly"}),
        ("/v1/workflows/nightly/run", "run", {"name": "nightly"}),
        ("/v1/workflows/nightly/other", "rest", {}),
        ("/v1/files/a/b/c", "files", {}),
        ("/v1/files", "rest", {}),
        ("/v1/workflows/", "rest", {}),
    ],
)
def test_the_most_specific_route_is_found(
    with_routes: Routes, path: str, route: str, variables: dict[str, str]
) -> None:
    match = with_routes(REST).find_route(path)
    assert match is not None
    assert (match.route.id, dict(match.path_params)) == (route, variables)


@pytest.mark.parametrize("path", ["/", "", "/v1", "/V1/workflows", "/v2/workflows", "/v1/", "v1/workflows", "/v1/a?b"])
def test_a_path_without_a_route_finds_none(with_routes: Routes, path: str) -> None:
    assert with_routes(REST).find_route(path) is None


@pytest.mark.parametrize(
    ("path", "method", "grants", "allowed"),
    [
        ("/v1/workflows", "GET", held("workflow:list"), True),
        ("/v1/workflows", "GET", held("workflow:run"), False),
        ("/v1/workflows", "DELETE", EVERYTHING, False),
        ("/v1/workflows/x/run", "POST", held("workflow:run:x"), True),
        ("/v1/workflows/y/run", "POST", held("workflow:run:x"), False),
        ("/v1/workflows/a", "GET", held("workflow:list"), True),
        ("/v1/workflows/c", "GET", held("workflow:list"), False),
        ("/v1/workflows/x", "DELETE", held("workflow:delete:x"), True),
        ("/v1/workflows/x", "DELETE", held("node:dispatch"), True),
        ("/v1/workflows/x", "DELETE", held("workflow:list"), False),
        ("/v1/workflows/x", "PUT", EVERYTHING, False),
        ("/v1/files/a", "GET", NOTHING, True),
        ("/v1/else", "GET", EVERYTHING, True),
        ("/v1/else", "GET", held("workflow:list"), False),
    ],
)
def test_rest_routes_are_judged_by_method_and_path(
    with_routes: Routes, owner: Owner, path: str, method: str, grants: frozenset[str], allowed: bool
) -> None:
    policy = with_routes(REST)
    match = policy.find_route(path)
    assert match is not None
    assert isinstance(policy.decide_http(match, method, {}, grants, owner), Allowed) is allowed


def test_a_rest_denial_reads_well(with_routes: Routes, owner: Owner) -> None:
    policy = with_routes(REST)
    match = policy.find_route("/v1/workflows/x/run")
    assert match is not None
    decision = policy.decide_http(match, "POST", {}, NOTHING, owner)
    assert isinstance(decision, Denied)
    assert decision.rule == "run"
    assert decision.why == "request POST /v1/workflows/{name}/run needs scope workflow:run:x"


def test_two_routes_of_one_server_share_their_rules(with_routes: Routes, owner: Owner) -> None:
    policy = with_routes(
        """\
        - { id: post, path: /mcp/messages, methods: [POST], upstream: mcp, protocol: mcp, rules_of: mcp }
        - id: mcp
          path: /mcp
          methods: [POST, GET]
          upstream: mcp
          protocol: mcp
          rules:
            - { http: [GET], allow: any-key }
            - { tool: t, require: workflow:list }
        """
    )
    match = policy.find_route("/mcp/messages")
    assert match is not None
    assert is_allowed((policy, match), call("t"), held("workflow:list"), owner)
    assert not is_allowed((policy, match), call("t"), NOTHING, owner)


def test_a_route_carries_what_the_file_says(with_routes: Routes) -> None:
    policy = with_routes(
        """\
        - id: mcp
          path: /mcp
          methods: [POST]
          upstream: up
          protocol: mcp
          rpc_denials: http-403
          rules: [{ rpc: ping, allow: any-key }]
        """
    )
    (route,) = policy.routes
    assert (route.id, route.path, route.methods, route.upstream) == ("mcp", "/mcp", frozenset({"POST"}), "up")
    assert (route.protocol, route.rpc_denials) == ("mcp", "http-403")


def test_a_route_of_http_sse_has_two_paths_each_with_its_method(with_routes: Routes, owner: Owner) -> None:
    policy = with_routes(
        """\
        - { id: sse, path: /mcp/sse, messages: /mcp/post, methods: [GET, POST], upstream: up, protocol: mcp-sse,
            rules_of: mcp }
        - { id: all, path: "/mcp/{rest}", methods: [GET], upstream: up, allow: any-key }
        - id: mcp
          path: /mcp
          methods: [POST, GET]
          upstream: up
          protocol: mcp
          rules:
            - { http: [GET], require: workflow:list }
            - { tool: t, require: workflow:list }
        """
    )
    stream, messages = policy.find_route("/mcp/sse"), policy.find_route("/mcp/post")
    assert stream is not None
    assert messages is not None
    assert stream.route is messages.route
    assert stream.route.find_methods("/mcp/sse") == frozenset({"GET"})
    assert stream.route.find_methods("/mcp/post") == frozenset({"POST"})
    for grants in (held("workflow:list"), NOTHING):
        assert is_allowed((policy, messages), call("t"), grants, owner) is bool(grants)
        assert isinstance(policy.decide_http(stream, "GET", {}, grants, owner), Allowed) is bool(grants)
    other = policy.find_route("/mcp/other")
    assert other is not None
    assert other.route.find_methods("/mcp/other") == other.route.methods


def test_foreign_text_in_a_denial_is_short_and_printable(with_rules: Rules, owner: Owner) -> None:
    policy, match = with_rules(RUN)
    for params in (call("\x1b[31mred\n"), call("x" * 100_000), call("\ud800")):
        decision = policy.decide_message(match, "tools/call", params, EVERYTHING, owner)
        assert isinstance(decision, Denied)
        assert decision.why.isprintable()
        assert len(decision.why) < 300
