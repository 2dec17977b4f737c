"""One request as the policy sees it, put to it whole.  [pure]

The front door asks step by step, because between the steps it verifies and reads. Whoever asks without a request at
hand (tests of a policy, explanations, comparisons) asks here, by the same steps in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.envelope import parse_query, parse_target
from proxy.errors import RequestError
from proxy.identity import Owner
from proxy.policy.compiled import Policy, RouteMatch
from proxy.policy.rules import Decision, Denied, describe


@dataclass(frozen=True, slots=True)
class Question:
    """An HTTP method and a target (path, and query if any); of a POST on an MCP route also its message."""

    http: str
    target: str
    rpc: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """`match` is the route that was asked; None when nothing is served there."""

    match: RouteMatch | None
    decision: Decision


def find_message_target(policy: Policy, route_id: str | None = None) -> str | None:
    """Where a JSON-RPC message would be sent: to this route, or to the first that takes any; None: to none."""
    for route in policy.routes:
        if route.protocol != "http" and route_id in (None, route.id):
            return route.messages or route.path
    return None


def ask(policy: Policy, question: Question, grants: frozenset[str], owner: Owner) -> Answer:
    """What the policy says to a key with these effective scopes. Raises nothing: what cannot be judged is denied."""
    try:
        target = parse_target(question.target)
    except RequestError as refusal:
        return Answer(None, Denied(None, refusal.detail))
    match = policy.find_route(target.path)
    if match is None:
        return Answer(None, Denied(None, f"nothing is served at {describe('http', target.path)}"))
    route = match.route
    methods = route.find_methods(target.path)
    if question.http not in methods:
        return Answer(match, Denied(None, f"this path takes {', '.join(sorted(methods))}"))
    if question.rpc is not None:
        if route.protocol == "http" or question.http != "POST":
            return Answer(match, Denied(None, f"route {route.id} takes no JSON-RPC messages by {question.http}"))
        return Answer(match, policy.decide_message(match, question.rpc, question.params, grants, owner))
    try:
        query = parse_query(target.query, route.query_names, route.repeatable)
    except RequestError as refusal:
        return Answer(match, Denied(None, refusal.detail))
    if route.public:
        return Answer(match, policy.decide_public(match, question.http, query))
    return Answer(match, policy.decide_http(match, question.http, query, grants, owner))
