"""A small policy around the lines under test."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from proxy.identity import Owner, OwnerId
from proxy.policy import Policy, RouteMatch, parse_policy

_HEAD = """\
version: 1
default_tier: pro
scopes:
  workflow:run:    { title: Run workflows, selector: workflow name }
  workflow:delete: { title: Delete workflows, selector: workflow name }
  workflow:list:   { title: List workflows }
  volume:read:     { title: Read files, selector: volume id }
  node:dispatch:   { title: Dispatch }
presets: {}
tiers: { pro: ["*"] }
routes:
"""

_MCP = """\
  - id: mcp
    path: /mcp
    methods: [POST, GET, DELETE]
    upstream: mcp
    protocol: mcp
    rules:
"""


@pytest.fixture
def owner() -> Owner:
    return Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "pro")


@pytest.fixture
def with_routes() -> Callable[[str], Policy]:
    def build(routes: str) -> Policy:
        return parse_policy(_HEAD + textwrap.indent(textwrap.dedent(routes), "  ") + "...\n", "test.yaml")

    return build


@pytest.fixture
def with_rules() -> Callable[[str], tuple[Policy, RouteMatch]]:
    def build(rules: str) -> tuple[Policy, RouteMatch]:
        text = _HEAD + _MCP + textwrap.indent(textwrap.dedent(rules), "      ") + "...\n"
        policy = parse_policy(text, "test.yaml")
        match = policy.find_route("/mcp")
        assert match is not None
        return policy, match

    return build
