"""Lists of names in a policy: what is a fault, and what is read from an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.policy import Policy, parse_policy
from proxy.policy.names import MAX_NAMES, OfferedName, read_names
from proxy.policy.scopes import NameList, is_selector

HEAD = """\
version: 1
default_tier: pro
scopes:
  workflow:list: { title: List workflows }
  workflow:run: { title: Run workflows, selector: workflow name }
  workflow:read: { title: Read workflows, selector: workflow name }
presets: {}
tiers: { pro: ["*"] }
routes:
  - { id: list, path: /v1/workflows, methods: [GET, POST], upstream: api, require: workflow:list }
  - { id: run, path: "/v1/workflows/{name}/run", methods: [POST], upstream: api, require: "workflow:run:{name}" }
  - { id: open, path: /v1/open, methods: [GET], upstream: api, allow: anyone }
  - id: mcp
    path: /mcp
    methods: [POST, GET]
    upstream: mcp
    protocol: mcp
    rules:
      - { tool: read, require: workflow:read }
      - { http: [GET], allow: any-key }
names:
"""
LISTED = NameList("/v1/workflows", ("workflows",), "name", "title")


def parse(line: str) -> Policy:
    return parse_policy(f"{HEAD}  {line}\n...\n", "policy.yaml")


def test_every_scope_with_the_selector_has_its_names_there() -> None:
    policy = parse('workflow name: { path: "/v1/workflows?limit=9", list: data.workflows, name: name, title: title }')
    expected = NameList("/v1/workflows?limit=9", ("data", "workflows"), "name", "title")
    assert [policy.catalogue[f"workflow:{action}"].names for action in ("run", "read", "list")] == [
        expected, expected, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("workflow: { path: /v1/workflows, name: name }", "no scope has the selector workflow"),
        ("workflow name: { path: /v1/agents, name: name }", "no route serves it"),
        ("workflow name: { path: /v1/workflows/x/run, name: name }", "route run takes no plain GET"),
        ("workflow name: { path: /mcp, name: name }", "route mcp takes no plain GET"),
        ("workflow name: { path: /v1/open, name: name }", "route open asks nobody for a key"),
        ("workflow name: { path: v1/workflows, name: name }", "cannot be judged"),
        ("workflow name: { path: http://evil.example/v1/workflows, name: name }", "cannot be judged"),
        ('workflow name: { path: "/v1/workflows?tenant_id=x", name: name }', "Tenant and user"),
        ("workflow name: { path: /v1/workflows }", "name"),
        ("workflow name: { path: /v1/workflows, name: name, method: POST }", "method"),
    ],
)
def test_a_list_that_nobody_could_ask_for_is_a_fault(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(line)
    (fault,) = caught.value.faults
    assert message in fault.message
    assert fault.line == len(HEAD.splitlines()) + 1
    assert fault.mend


def test_names_are_read_once_each_in_their_order_and_nothing_else_is() -> None:
    answer = {
        "workflows": [
            {"name": "b", "title": "The second\n"}, {"name": "a"}, {"name": "b", "title": "again"}, {"title": "none"},
            {"name": ""}, {"name": 1}, {"name": None}, "text", None, {"name": "x*"}, {"name": "line\nend"},
            {"name": "n" * 257}, {"name": "c", "title": 3}, {"name": "<img src=x onerror=alert(1)>"},
        ],
        "next": "/v1/workflows?offset=100",
    }  # fmt: skip
    assert read_names(answer, LISTED) == (
        OfferedName("b", r"The second\n"), OfferedName("a", None), OfferedName("c", None),
        OfferedName("<img src=x onerror=alert(1)>", None),
    )  # fmt: skip


def test_the_answer_may_be_the_list() -> None:
    assert read_names([{"id": "a"}], NameList("/", (), "id", None)) == (OfferedName("a", None),)


def test_no_more_are_read_than_anybody_reads() -> None:
    answer = {"workflows": [{"name": f"w{number}"} for number in range(MAX_NAMES + 5)]}
    assert len(read_names(answer, LISTED)) == MAX_NAMES


@pytest.mark.parametrize("answer", [None, 1, "text", [], {}, {"workflows": None}, {"workflows": {}}, {"Workflows": []}])
def test_an_answer_without_such_a_list_is_none(answer: Any) -> None:
    with pytest.raises(ValueError, match="no list"):
        read_names(answer, LISTED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(("name", "title", "workflows")), inner),
)


@given(json_values)
def test_whatever_comes_back_names_are_selectors(answer: Any) -> None:
    try:
        found = read_names(answer, LISTED)
    except ValueError:
        return
    assert all(is_selector(one.name) and (one.title is None or one.title.isprintable()) for one in found)
