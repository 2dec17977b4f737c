"""The one policy point: a Permit, or a denial that says what would have sufficed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.authorization import authorize
from proxy.errors import DeniedError, Reason
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.messages import parse_message
from proxy.policy import Policy, RouteMatch
from tests.staging import form_call

OWNER = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "local", "ada", "pro")
RUN = form_call("aegis.workflow.run", {"name": "nightly-etl"})


def make_principal(*grants: str) -> Principal:
    return Principal(KeyId("0123456789ab"), OWNER, frozenset(grants), (), 1, None, 0.0, Claims(()))


@pytest.fixture
def match(policy: Policy) -> RouteMatch:
    match = policy.find_route("/mcp/v1")
    assert match is not None
    return match


def deny(policy: Policy, match: RouteMatch, message: dict[str, Any], *grants: str) -> DeniedError:
    with pytest.raises(DeniedError) as denied:
        authorize(policy, make_principal(*grants), match, "POST", parse_message(json.dumps(message).encode()))
    return denied.value


def test_a_permit_holds_what_the_decision_rests_on(policy: Policy, match: RouteMatch) -> None:
    principal, message = make_principal("workflow:run"), parse_message(json.dumps(RUN).encode())
    permit = authorize(policy, principal, match, "POST", message)
    assert (permit.principal, permit.match, permit.method, permit.message) == (principal, match, "POST", message)
    assert (permit.rule, permit.scopes) == ("mcp/tool:aegis.workflow.run", ("workflow:run:nightly-etl",))


def test_a_denial_says_what_is_held_what_is_missing_and_what_would_suffice(policy: Policy, match: RouteMatch) -> None:
    denial = deny(policy, match, {**RUN, "id": "seven"}, "workflow:run:other", "agent:list")
    assert (denial.reason, denial.rpc_id) == (Reason.MESSAGE_DENIED, "seven")
    assert denial.data == {
        "rule": "mcp/tool:aegis.workflow.run",
        "required": ["workflow:run:nightly-etl"],
        "missing": ["workflow:run:nightly-etl"],
        "held": ["agent:list", "workflow:run:other"],
        "smallest_sufficient": "workflow:run:nightly-etl",
    }


@pytest.mark.parametrize("rpc_id", [{}, {"id": 0}, {"id": ""}, {"id": "a"}])
def test_a_call_is_judged_alike_with_and_without_an_id(
    rpc_id: dict[str, object], policy: Policy, match: RouteMatch
) -> None:
    message = {key: value for key, value in RUN.items() if key != "id"} | rpc_id
    denial = deny(policy, match, message)
    assert (denial.reason, denial.rpc_id) == (Reason.MESSAGE_DENIED, rpc_id.get("id"))
    permit = authorize(
        policy, make_principal("workflow:run"), match, "POST", parse_message(json.dumps(message).encode())
    )
    assert permit.rule == "mcp/tool:aegis.workflow.run"


def test_a_method_no_rule_names_is_unknown(policy: Policy, match: RouteMatch) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/destroy"}
    assert deny(policy, match, message, "*").reason is Reason.METHOD_UNKNOWN


def test_a_bare_method_has_a_rule_of_its_own(policy: Policy, match: RouteMatch) -> None:
    permit = authorize(policy, make_principal(), match, "GET", None)
    assert (permit.message, permit.rule) == (None, "mcp/http:GET")


def test_a_bare_method_without_a_rule_is_denied_as_a_route(policy: Policy, match: RouteMatch) -> None:
    """A POST carries a message: without one, it is nothing that was allowed."""
    with pytest.raises(DeniedError) as denied:
        authorize(policy, make_principal("*"), match, "POST", None)
    assert denied.value.reason is Reason.ROUTE_DENIED
    assert denied.value.rpc_id is None


def test_an_answer_to_the_server_opens_nothing_by_itself(policy: Policy, match: RouteMatch) -> None:
    message = parse_message(b'{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}')
    permit = authorize(policy, make_principal(), match, "POST", message)
    assert (permit.rule, permit.scopes) == ("mcp/response", ())


def test_the_tenant_of_somebody_else_is_denied_whatever_is_held(policy: Policy, match: RouteMatch) -> None:
    for tenant, allowed in (("acme", True), ("other", False), (1, False), (None, False)):
        message = form_call("aegis.workflow.run", {"name": "a", "tenant_id": tenant})
        if allowed:
            parsed = parse_message(json.dumps(message).encode())
            assert authorize(policy, make_principal("*"), match, "POST", parsed).scopes == ("workflow:run:a",)
        else:
            assert deny(policy, match, message, "*").reason is Reason.MESSAGE_DENIED
