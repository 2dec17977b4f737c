"""Keys and requests for any policy, policies of every shape, and the answer of those who enforce them."""

from __future__ import annotations

import json
import random
from typing import Any

import orjson

from proxy.authorization import authorize
from proxy.envelope import parse_query, parse_target
from proxy.errors import DeniedError, RequestError
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.messages import Message, parse_message
from proxy.policy import Policy, parse_policy
from proxy.policy.compiled import URI_METHODS
from proxy.policy.questions import Question

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
tiers: { all: ["*"], enterprise: ["*"], low: [a:list] }
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
      - tool: hub
        require: { any: [a:list, "a:run:{arguments.name}", b:run] }
        also_tool: { name: arguments.tool, arguments: arguments.args }
      - { tool: other, require: b:run }
      - { tool: other-or-list, require: { any: [b:run, a:list] } }
      - tool: "open.door.*"
        require: { any: [a:list, "b:run:x"] }
        where: { arguments.tenant_id: { absent_or: acme } }
      - { tool: "open.*", require: a:list, where: { arguments.tenant_id: { absent_or: "{owner.tenant}" } } }
      - { uri: "note://{name}", require: "a:run:{name}" }
      - { uri: "note://{name}/**", require: "b:run:{name}" }
  - { id: rest, path: "/v1/a/{name}/run", methods: [POST], upstream: api, require: "a:run:{name}" }
  - { id: list, path: /v1/a, methods: [GET], upstream: api, require: a:list,
      query: { tenant_id: { absent_or: "{owner.tenant}" } } }
...
"""
EXTRA_POLICY = parse_policy(EXTRA, "extra.yaml")


class Asking:
    """Keys and requests for one policy, drawn so that most come near a rule; `nesting` of them call tools that call."""

    def __init__(self, policy: Policy, seed: int, nesting: float = 0.0) -> None:
        self.policy = policy
        self._nesting = nesting
        self._random = random.Random(seed)
        self._routes = [route for route in policy.routes if route.protocol == "http" and not route.public]
        (self._mcp,) = (route for route in policy.routes if route.protocol == "mcp")
        self._tools = [*self._mcp.rules.tools.exact, *(f"{p.text[:-1]}x" for p, _ in self._mcp.rules.tools.patterns)]
        self._callers = [name for name in self._tools if getattr(self._mcp.rules.tools.find(name), "nested", None)]
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
        for field in ("name", "agent_id", "volume_id", "mode"):
            if self._random.random() < 0.6:
                arguments[field] = self._name()
        if self._random.random() < 0.15:
            arguments[self._random.choice(["tenant_id", "user_id", "Name", "tenant"])] = "acme"
        nested = self._random.random() < self._nesting and self._callers
        name = self._random.choice(nested or self._tools)
        if depth < 2 and name in self._callers:
            inner = self._draw_call(depth + 1)
            arguments |= {"tool_name": inner["name"], "tool": inner["name"]}
            arguments |= {"args": inner["arguments"]} if self._random.random() < 0.9 else {}
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


def write_policy(rng: random.Random) -> str:
    """A policy of a few rules, which ask for scopes in every way there is."""

    def write_require(field: str) -> dict[str, Any]:
        selective = [f"a:run:{{{field}}}", f"b:run:{{{field}}}"]
        scopes = rng.sample([*selective, *selective, "a:run", "b:run", "a:run:other", "a:list", "b:list"], 3)
        scopes = list(dict.fromkeys(scopes))[: rng.randint(1, 3)]
        shape = rng.random()
        if shape < 0.1:
            return {"allow": "any-key"}
        return {"require": scopes[0] if shape < 0.4 else {"any": scopes} if shape < 0.75 else scopes}

    def write_tool(name: str) -> dict[str, Any]:
        rule = {"tool": name, **write_require("arguments.name")}
        if rng.random() < 0.3:
            rule["where"] = {"arguments.tenant_id": {"absent_or": "{owner.tenant}"}}
        elif rng.random() < 0.2:
            rule["where"] = {"arguments.mode": {"one_of": ["other", "a-1"]}}
        if rng.random() < 0.4:
            rule["also_tool"] = {"name": "arguments.tool", "arguments": "arguments.args"}
        return rule

    tools = [write_tool(name) for name in ("t.one", "t.two", "t.three", "u", "t.*", "t.t*")]
    uris = [{"uri": uri, **write_require("name")} for uri in ("note://{name}", "note://{name}/**")]
    uris.append({"uri": "note://other", "require": ["b:list", "a:run:nightly-etl"]})
    listening = {"rpc": "subscriptions/listen", **write_require("params.name")}
    mcp = {"id": "mcp", "path": "/mcp/v1", "methods": ["POST"], "upstream": "mcp", "protocol": "mcp",
           "rules": [listening, *tools, *uris]}  # fmt: skip
    rest = {"id": "rest", "path": "/v1/a/{name}/run", "methods": ["POST"], "upstream": "api", **write_require("name")}
    names = {"a:run": "name", "b:run": "name", "a:list": None, "b:list": None}
    scopes = {scope: {"title": "T"} | ({"selector": name} if name else {}) for scope, name in names.items()}
    tiers = {"enterprise": ["*"]}
    whole = {"version": 1, "default_tier": "enterprise", "scopes": scopes, "presets": {}, "tiers": tiers}
    return json.dumps({**whole, "routes": [mcp, rest]}) + "\n...\n"


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
