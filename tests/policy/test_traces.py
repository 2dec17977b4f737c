"""Traces: which route, which rule before which others, and what each condition and each scope came to."""

from __future__ import annotations

import pytest

from proxy.policy import Policy
from proxy.policy.explanations import explain
from proxy.policy.questions import Question
from tests.policy.asking import EXTRA_POLICY, OWNER


def test_the_trace_tells_every_step(policy: Policy) -> None:
    params = {
        "name": "aegis.edge.fleet.invoke",
        "arguments": {"tool_name": "aegis.workflow.run", "args": {"name": "x"}, "tenant_id": "other"},
    }
    explanation = explain(policy, Question("POST", "/mcp/v1", "tools/call", params), frozenset({"workflow:run"}), OWNER)
    assert explanation.steps == (
        "route mcp: /mcp/v1",
        "tool aegis.edge.fleet.invoke is decided by rule mcp/tool:aegis.edge.fleet.invoke, which names it",
        "condition tenant_id is absent or the key owner's own tenant: fails",
        "condition tenant is absent or the key owner's own tenant: holds",
        "condition user_id is absent or the key owner's own user id: holds",
        "it asks for node:dispatch: not held",
        "what it calls must be allowed as well: tool aegis.workflow.run is decided by rule mcp/tool:aegis.workflow.run,"
        " which names it",
        "condition tenant_id is absent or the key owner's own tenant: holds",
        "condition tenant is absent or the key owner's own tenant: holds",
        "condition user_id is absent or the key owner's own user id: holds",
        "it asks for workflow:run:x: held, by workflow:run",
    )


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        (Question("GET", "/nowhere"), ("nothing is served at request /nowhere",)),
        (
            Question("GET", "/v1/agents/a%20b"),
            ("route agent: /v1/agents/{id} with id=a b",
             "request GET /v1/agents/{id} is decided by rule agent/http:GET",
             "it asks for agent:read:a b: not held"),
        ),
        (
            Question("POST", "/mcp/v1", "notifications/progress", {}),
            ("route mcp: /mcp/v1",
             "method notifications/progress is decided by rule mcp/rpc:notifications/*, by the pattern notifications/*",
             "it asks for no scope: any key may"),
        ),
        (
            Question("POST", "/mcp/v1", "resources/read", {"uri": "aegis://volumes/v-1/a"}),
            ("route mcp: /mcp/v1",
             "resource aegis://volumes/v-1/a is decided by rule mcp/uri:aegis://volumes/{volume}/**,"
             " by the pattern aegis://volumes/{volume}/**",
             "it asks for volume:read:v-1: not held"),
        ),
        (
            Question("POST", "/mcp/v1", "prompts/get", {"name": "p"}),
            ("route mcp: /mcp/v1", "no rule allows prompt p"),
        ),
        (
            Question("POST", "/mcp/v1", "tools/call", {"name": "aegis.workflow.run"}),
            ("route mcp: /mcp/v1",
             "tool aegis.workflow.run is decided by rule mcp/tool:aegis.workflow.run, which names it",
             "condition tenant_id is absent or the key owner's own tenant: holds",
             "condition tenant is absent or the key owner's own tenant: holds",
             "condition user_id is absent or the key owner's own user id: holds",
             "it asks for workflow:run:{arguments.name}, whose selector the request leaves out, empty or no text"),
        ),
        (
            Question("GET", "/v1/workflows/executions/run"),
            ("route run-named-run: /v1/workflows/executions/run, which is more specific than"
             " /v1/workflows/executions/{id}, /v1/workflows/{name}/run",
             "request GET /v1/workflows/executions/run is decided by rule run-named-run",
             "it asks for execution:read: not held"),
        ),
        (
            Question("GET", "/v1/agents?tenant_id=other"),
            ("route agents: /v1/agents",
             "its query member tenant_id is absent or the key owner's own tenant: fails",
             "its query member user_id is absent or the key owner's own user id: holds",
             "request GET /v1/agents is decided by rule agents/http:GET",
             "it asks for agent:list: not held"),
        ),
        (
            Question("GET", "/v1/agents/x?tenant_id=acme"),
            ("route agent: /v1/agents/{id} with id=x",
             "request GET /v1/agents/{id} is decided by rule agent/http:GET",
             "it asks for agent:read:x: not held",
             "Tenant and user are the key's to say, not the query's."),
        ),
        (
            Question("PUT", "/v1/agents"),
            ("route agents: /v1/agents",
             "its query member tenant_id is absent or the key owner's own tenant: holds",
             "its query member user_id is absent or the key owner's own user id: holds",
             "no rule allows request PUT /v1/agents",
             "this path takes GET, POST"),
        ),
        (
            Question("POST", "/mcp/v1", "nobody/knows", {}),
            ("route mcp: /mcp/v1", "no rule names method nobody/knows"),
        ),
        (
            Question("POST", "/mcp/v1", "tools/call", {"Name": "x"}),
            ("route mcp: /mcp/v1",
             "it must name the tool",
             "method tools/call must not have a member Name: its case is wrong"),
        ),
        (
            Question("POST", "/mcp/v1", "completion/complete",
                     {"ref": {"type": "ref/resource", "uri": "aegis://volumes/v/a"}}),
            ("route mcp: /mcp/v1",
             "resource aegis://volumes/v/a is decided by rule mcp/uri:aegis://volumes/{volume}/**,"
             " by the pattern aegis://volumes/{volume}/**",
             "it asks for volume:read:v: not held"),
        ),
        (
            Question("POST", "/mcp/v1", "subscriptions/listen",
                     {"notifications": {"resourceSubscriptions": ["aegis://volumes/v/a", "x://y"]}}),
            ("route mcp: /mcp/v1",
             "method subscriptions/listen is decided by rule mcp/rpc:subscriptions/listen, which names it",
             "it asks for no scope: any key may",
             "resource aegis://volumes/v/a is decided by rule mcp/uri:aegis://volumes/{volume}/**,"
             " by the pattern aegis://volumes/{volume}/**",
             "it asks for volume:read:v: not held",
             "no rule allows resources/subscribe of resource x://y"),
        ),
    ],
    ids=["nowhere", "rest", "pattern", "uri", "prompt", "selector", "overlap", "condition", "query", "method",
         "unknown", "case", "completion", "listen"],
)  # fmt: skip
def test_every_kind_of_request_has_its_trace(question: Question, steps: tuple[str, ...], policy: Policy) -> None:
    assert explain(policy, question, frozenset(), OWNER).steps == steps


def test_a_pattern_says_what_it_is_more_specific_than_and_an_alternative_that_it_is_one() -> None:
    question = Question("POST", "/mcp/v1", "tools/call", {"name": "open.door.now", "arguments": {"Tenant_id": "acme"}})
    assert explain(EXTRA_POLICY, question, frozenset({"b:run:x"}), OWNER).steps == (
        "route mcp: /mcp/v1",
        "tool open.door.now is decided by rule mcp/tool:open.door.*, by the pattern open.door.*,"
        " which is more specific than open.*",
        "it must not have the member Tenant_id: its case is wrong",
        "condition tenant_id is absent or 'acme': holds",
        "it asks for a:list: not held",
        "or for b:run:x: held, by b:run:x",
    )
