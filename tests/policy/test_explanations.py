"""Explanations: the same answer as enforcement, and a smallest sufficient scope that is both."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from proxy.authorization import authorize
from proxy.envelope import parse_query, parse_target
from proxy.errors import DeniedError, RequestError
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.messages import Message, parse_message
from proxy.policy import Allowed, Denied, Policy, parse_policy
from proxy.policy.compiled import URI_METHODS
from proxy.policy.explanations import explain, form_denial
from proxy.policy.questions import Question
from proxy.policy.scopes import is_grantable, split_scope
from tests.fuzz.scale import SEED

PAIRS = 100_000
NAMES = ("nightly-etl", "other", "a-1", "*", "", "über", "x" * 300, "a:b", "executions")
OWNER = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "enterprise")
# What this method or that needs, so that all can be asked.
ANY_PARAMS = {
    "taskId": "t-1",
    "level": "info",
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "c", "version": "1"},
}
EXTRA = """\
version: 1
default_tier: all
scopes:
  a:run: { title: Run, selector: name }
  a:list: { title: List }
  b:run: { title: Run others, selector: name }
presets: {}
tiers: { all: ["*"] }
routes:
  - id: mcp
    path: /mcp/v1
    methods: [POST, GET]
    upstream: mcp
    protocol: mcp
    rules:
      - { http: [GET], allow: any-key }
      - { rpc: subscriptions/listen, allow: any-key }
      - { tool: one, require: "a:run:{arguments.name}" }
      - { tool: whole, require: a:run }
      - { tool: both, require: ["a:run:{arguments.name}", "b:run:{arguments.name}"] }
      - { tool: same, require: ["a:run:{arguments.name}", a:run] }
      - { tool: either, require: { any: [a:run, "a:run:{arguments.name}", b:run] } }
      - tool: within
        require: "a:run:{arguments.name}"
        also_tool: { name: arguments.tool, arguments: arguments.args }
      - { tool: "open.*", require: a:list, where: { arguments.tenant_id: { absent_or: "{owner.tenant}" } } }
      - { uri: "note://{name}", require: "a:run:{name}" }
      - { uri: "note://{name}/**", require: "b:run:{name}" }
  - { id: rest, path: "/v1/a/{name}/run", methods: [POST], upstream: api, require: "a:run:{name}" }
  - { id: list, path: /v1/a, methods: [GET], upstream: api, require: a:list,
      query: { tenant_id: { absent_or: "{owner.tenant}" } } }
...
"""


class Asking:
    """Keys and requests for one policy, drawn so that most come near a rule."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.policy = policy
        self._random = random.Random(seed)
        self._routes = [route for route in policy.routes if route.protocol == "http" and not route.public]
        (self._mcp,) = (route for route in policy.routes if route.protocol == "mcp")
        self._tools = [*self._mcp.rules.tools.exact, *(f"{p.text[:-1]}x" for p, _ in self._mcp.rules.tools.patterns)]
        self._methods = [*self._mcp.rules.rpc.exact, "nobody/knows"]

    def draw(self) -> tuple[frozenset[str], Question]:
        pick = self._random.random()
        if pick < 0.6:
            question = Question("POST", self._mcp.path, "tools/call", self._draw_call())
        elif pick < 0.7:
            uris = [f"{scheme}{self._name()}" for scheme in ("note://", "aegis://volumes/v-1/", "aegis://volumes/")]
            question = self._form_uri([self._random.choice(uris) for _ in range(self._random.randint(1, 3))])
        elif pick < 0.75:
            question = Question("POST", self._mcp.path, self._random.choice(self._methods), ANY_PARAMS)
        else:
            question = self._draw_request()
        return self._draw_grants(), question

    def _name(self) -> str:
        return self._random.choice(NAMES)

    def _draw_call(self, depth: int = 0) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for field in ("name", "agent_id", "volume_id"):
            if self._random.random() < 0.6:
                arguments[field] = self._name()
        if self._random.random() < 0.15:
            arguments[self._random.choice(["tenant_id", "user_id", "Name", "tenant"])] = "acme"
        name = self._random.choice(self._tools)
        if depth < 2 and ("invoke" in name or name == "within"):
            inner = self._draw_call(depth + 1)
            arguments |= {"tool_name": inner["name"], "tool": inner["name"], "args": inner["arguments"]}
        return {"name": name, "arguments": arguments}

    def _form_uri(self, uris: list[str]) -> Question:
        method = self._random.choice([*URI_METHODS, "subscriptions/listen"])
        params: dict[str, Any] = {"uri": uris[0]}
        if method == "completion/complete":
            params = {"ref": {"type": "ref/resource", "uri": uris[0]}, "argument": {"name": "x", "value": ""}}
        elif method == "subscriptions/listen":
            params = {"notifications": {"resourceSubscriptions": uris}}
        return Question("POST", self._mcp.path, method, params)

    def _draw_request(self) -> Question:
        route = self._random.choice(self._routes)
        parts = [self._fill(part) if set(part) & {"{", "*"} else part for part in route.path.split("/")]
        query = self._random.choice(["", "", "", "?tenant_id=acme", "?tenant_id=other", "?user_id=user-1", "?page=2"])
        return Question(self._random.choice(sorted(route.methods)), "/".join(parts) + query)

    def _fill(self, part: str) -> str:
        return "a-1" if "**" in part else self._random.choice(["nightly-etl", "other", "a%20b"])

    def _draw_grants(self) -> frozenset[str]:
        held = set()
        for head in self._random.sample(sorted(self.policy.catalogue), self._random.randint(0, 3)):
            selective = self.policy.catalogue[head].selector is not None and self._random.random() < 0.5
            held.add(f"{head}:{self._random.choice(['nightly-etl', 'a-1', 'über', 'other'])}" if selective else head)
        return frozenset(held)


def enforce(policy: Policy, question: Question, grants: frozenset[str]) -> tuple[bool, str | None, dict[str, Any]]:
    """By the steps of the front door: (allowed, rule, what the client is told)."""
    principal = Principal(KeyId("0123456789ab"), OWNER, grants, (), 1, None, 0.0, Claims(()))
    target = parse_target(question.target)
    match = policy.find_route(target.path)
    assert match is not None
    message: Message | None = None
    if question.rpc is not None:
        body = {"jsonrpc": "2.0", "id": 1, "method": question.rpc, "params": question.params}
        message = parse_message(orjson.dumps(body), max_depth=64)
    try:
        query = parse_query(target.query, match.route.query_names, match.route.repeatable)
        permit = authorize(policy, principal, match, question.http, message, query)
    except DeniedError as denial:
        data = dict(denial.data or {})
        return False, data["rule"], data
    except RequestError:
        return False, None, {}
    return True, permit.rule, {}


def list_smaller(scope: str, policy: Policy) -> Iterator[str]:
    """Every scope of the catalogue that is a part of this one and could matter here."""
    head, selector = split_scope(scope)
    if selector is None:
        parts = (f"{head}:{name}" for name in (*NAMES, "a b", "v-1", "x"))
        yield from (part for part in parts if is_grantable(part, policy.catalogue))


@pytest.mark.parametrize("which", ["shipped", "of every shape"])
def test_an_explanation_is_what_enforcement_does_and_its_smallest_scope_suffices_and_is_the_smallest(
    which: str, policy: Policy
) -> None:
    """A hundred thousand pairs of a key and a request, between the two policies."""
    asked = policy if which == "shipped" else parse_policy(EXTRA, "extra.yaml")
    asking = Asking(asked, SEED)
    verdicts = {True: 0, False: 0}
    named = 0
    for _ in range(PAIRS // 2):
        grants, question = asking.draw()
        explanation = explain(asked, question, grants, OWNER)
        decision = explanation.decision
        assert (explanation.allowed, decision.rule) == enforce(asked, question, grants)[:2], question
        verdicts[explanation.allowed] += 1
        if isinstance(decision, Allowed) or decision.smallest is None:
            continue
        named += 1
        asked.check_scope(decision.smallest)
        assert explain(asked, question, grants | {decision.smallest}, OWNER).allowed, (question, grants, decision)
        for smaller in list_smaller(decision.smallest, asked):
            assert not explain(asked, question, grants | {smaller}, OWNER).allowed, (question, grants, smaller)
    assert min(*verdicts.values(), named) > PAIRS // 40


def test_a_denial_tells_the_client_just_what_the_explanation_tells(policy: Policy) -> None:
    question = Question("POST", "/mcp/v1", "tools/call", {"name": "aegis.workflow.run", "arguments": {"name": "x"}})
    grants = frozenset({"agent:list"})
    told = explain(policy, question, grants, OWNER).form()
    *_, data = enforce(policy, question, grants)
    assert data == {name: told[name] for name in data}
    assert set(told) - set(data) == {"allowed", "policy", "route", "why", "trace"}


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
        "what it calls must be allowed as well:",
        "tool aegis.workflow.run is decided by rule mcp/tool:aegis.workflow.run, which names it",
        "condition tenant_id is absent or the key owner's own tenant: holds",
        "condition tenant is absent or the key owner's own tenant: holds",
        "condition user_id is absent or the key owner's own user id: holds",
        "it asks for workflow:run:x: held, by workflow:run",
    )


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        (Question("GET", "/nowhere"), ("no route has the path /nowhere: it is closed",)),
        (
            Question("GET", "/v1/agents/a%20b"),
            ("route agent: /v1/agents/{id} with id=a b",
             "request GET /v1/agents/{id} is decided by rule agent/http:GET",
             "it asks for agent:read:a b: not held"),
        ),
        (
            Question("POST", "/mcp/v1", "notifications/progress", {}),
            ("route mcp: /mcp/v1",
             "method notifications/progress is decided by rule mcp/rpc:notifications/*, by a pattern",
             "it asks for no scope: any key may"),
        ),
        (
            Question("POST", "/mcp/v1", "resources/read", {"uri": "aegis://volumes/v-1/a"}),
            ("route mcp: /mcp/v1",
             "resource aegis://volumes/v-1/a is decided by rule mcp/uri:aegis://volumes/{volume}/**",
             "it asks for volume:read:v-1: not held"),
        ),
        (
            Question("POST", "/mcp/v1", "prompts/get", {"name": "p"}),
            ("route mcp: /mcp/v1", "no rule is about prompt p: it is closed"),
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
    ],
    ids=["nowhere", "rest", "pattern", "uri", "prompt", "selector"],
)  # fmt: skip
def test_every_kind_of_request_has_its_trace(question: Question, steps: tuple[str, ...], policy: Policy) -> None:
    assert explain(policy, question, frozenset(), OWNER).steps == steps


def test_what_no_single_scope_would_open_names_none(policy: Policy) -> None:
    denied = Denied("rule", "why", ("a:b", "c:d"), ("a:b", "c:d"))
    assert form_denial(denied, frozenset({"z:z", "a:a"})) == {
        "rule": "rule",
        "required": ["a:b", "c:d"],
        "missing": ["a:b", "c:d"],
        "held": ["a:a", "z:z"],
        "smallest_sufficient": None,
    }
