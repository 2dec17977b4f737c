"""What can never allow anything is a fault, in its line; what can, once in a while, is none."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError
from proxy.policy import parse_policy

HEAD = """\
version: 1
default_tier: all
scopes:
  a:run: { title: Run, selector: name }
presets: {}
tiers: { all: ["*"] }
routes:
"""
MCP = "  - { id: m, path: /m, methods: [POST, GET], upstream: u, protocol: mcp, rules: [\n"


def find_faults(text: str) -> list[tuple[int | None, str]]:
    try:
        parse_policy(f"{HEAD}{text}...\n", "p")
    except ConfigError as error:
        return [(fault.line, fault.message) for fault in error.faults if fault.mend]
    return []


def form_rules(*rules: str, every_tool: str = "") -> str:
    lines = "".join(f"      {rule},\n" for rule in rules)
    return f"{MCP}{lines}    ]{every_tool} }}\n"


def form_routes(*paths: str) -> str:
    return "".join(
        f'  - {{ id: r{number}, path: "{path}", methods: [GET], upstream: u, allow: any-key }}\n'
        for number, path in enumerate(paths)
    )


def test_a_path_whose_requests_other_routes_always_take_is_a_fault() -> None:
    line = len(HEAD.splitlines()) + 1
    assert find_faults(form_routes("/r/**", "/r/{x}", "/r/{x}/**")) == [
        (line, "nothing can reach /r/**: other routes do")
    ]


@pytest.mark.parametrize(
    "paths",
    [
        ("/r/**", "/r/{x}"),
        ("/r/**", "/r/{x}/**"),
        ("/r/{x}", "/r/a", "/r/b"),
        ("/**", "/{x}", "/{x}/{y}"),
        ("/r/**", "/r/{x}/b/**", "/r/{x}"),
    ],
)
def test_a_path_with_something_left_is_none(paths: tuple[str, ...]) -> None:
    assert find_faults(form_routes(*paths)) == []


def test_a_pattern_whose_names_other_rules_always_take_is_a_fault() -> None:
    line = len(HEAD.splitlines()) + 2
    rules = (
        '{ uri: "v://**", allow: any-key }',
        '{ uri: "v://{x}", allow: any-key }',
        '{ uri: "v://{x}/**", allow: any-key }',
    )
    ((where, message),) = find_faults(form_rules(*rules))
    assert (where, message) == (line, "nothing can reach resource v://**: other rules take all of it")
    assert find_faults(form_rules(*rules[:2])) == []


def test_a_pattern_longer_than_any_name_is_a_fault() -> None:
    ((_, message),) = find_faults(form_rules(f'{{ tool: "{"a" * 128}.*", allow: any-key }}'))
    assert message.startswith("nothing can reach tool aaa")


BOTH = "{ arguments.a: { equals: x }, arguments.a.b: { equals: y } }"


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        (f"{{ tool: t, allow: any-key, where: {BOTH} }}", "a and a.b"),
        ('{ tool: t, require: "a:run:{arguments.n}", where: { arguments.n: { equals: 5 } } }', "n"),
        ('{ tool: t, require: "a:run:{arguments.n}", where: { arguments.n: { one_of: ["", 5] } } }', "n"),
        ('{ tool: t, require: "a:run:{arguments.n}", where: { arguments.n.m: { equals: x } } }', "n.m and n"),
        ('{ tool: t, require: "a:run:{arguments.n.m}", where: { arguments.n: { absent_or: x } } }', "n and n.m"),
        ('{ tool: t, require: ["a:run:{arguments.n}", "a:run:{arguments.n.m}"] }', "n and n.m"),
        ('{ tool: t, require: { any: ["a:run:{arguments.n}"] }, where: { arguments.n: { equals: 5 } } }', "n"),
        ("{ tool: t, allow: any-key, where: { arguments.f: { equals: x } } }", "f"),
        ("{ tool: t, allow: any-key, where: { arguments.f.g: { equals: x } } }", "f.g and f"),
        (
            "{ tool: t, allow: any-key, where: { arguments.n: { equals: 5 } },"
            " also_tool: { name: arguments.n, arguments: arguments.m } }",
            "n",
        ),
        ('{ uri: "v://{x}", allow: any-key, where: { x: { equals: 5 } } }', "x"),
        ('{ uri: "v://{x}", allow: any-key, where: { x: { equals: "" } } }', "x"),
    ],
)
def test_a_rule_that_contradicts_itself_is_a_fault_in_its_line(rule: str, fields: str) -> None:
    every = ", every_tool: { arguments.f: { equals: 1 } }"
    ((line, message),) = set(find_faults(form_rules("{ rpc: ping, allow: any-key }", rule, every_tool=every)))
    assert line == len(HEAD.splitlines()) + 3
    assert message.endswith(f"what it wants of {fields} contradicts itself")


@pytest.mark.parametrize(
    "rule",
    [
        "{ tool: t, allow: any-key, where: { arguments.a: { absent_or: x }, arguments.a.b: { absent_or: y } } }",
        '{ tool: t, require: "a:run:{arguments.n}", where: { arguments.n: { one_of: [5, x] } } }',
        '{ tool: t, require: { any: ["a:run:{arguments.n}", a:run] }, where: { arguments.n: { equals: 5 } } }',
        '{ tool: t, require: "a:run:{arguments.n}", where: { arguments.n: { equals: "{owner.tenant}" } } }',
        "{ tool: t, allow: any-key, where: { arguments.a.b: { equals: x }, arguments.a.c: { equals: y } } }",
        '{ uri: "v://{x}", allow: any-key, where: { x: { absent_or: "{owner.subject}" } } }',
    ],
)
def test_a_rule_that_some_request_meets_is_none(rule: str) -> None:
    assert find_faults(form_rules(rule)) == []


def test_contradictions_are_told_with_the_other_faults() -> None:
    rules = (f"{{ tool: t, allow: any-key, where: {BOTH} }}", "{ tool: u, require: a:rum }")
    assert len(find_faults(form_rules(*rules))) == 2
