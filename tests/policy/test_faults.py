"""Every fault of a policy file, found in its line, and all of them at once.

A line that must be reported ends in `#!`; no other line may be.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import ConfigError, Fault
from proxy.policy import load_policy, parse_policy

_SCOPES = """\
scopes:
  workflow:run: { title: Run workflows, selector: workflow name }
  workflow:list: { title: List workflows }
  volume:read: { title: Read files, selector: volume id }
"""
_TIERS = """\
presets: {}
tiers: { pro: ["*"] }
"""
_HEAD = f"version: 1\ndefault_tier: pro\n{_SCOPES}{_TIERS}"
_MCP = """\
routes:
  - id: mcp
    path: /mcp
    methods: [POST, GET]
    upstream: mcp
    protocol: mcp
    rules:
"""


def find_faults(text: str) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_policy(text, "policy.yaml")
    return caught.value.faults


def get_marked_lines(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("#!")]


def check_marked(text: str, *messages: str) -> None:
    faults = find_faults(text)
    assert [fault.line for fault in faults] == get_marked_lines(text)
    for fault, message in zip(faults, messages, strict=True):
        assert message in fault.message
        assert fault.mend
        assert fault.source == "policy.yaml"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{ rpc: tools/call, allow: any-key }", "tools/call covers tools/call"),
        ("{ rpc: prompts/get, allow: any-key }", "prompts/get covers prompts/get"),
        ("{ rpc: resources/read, allow: any-key }", "resources/read covers"),
        ("{ rpc: [ping, resources/subscribe], allow: any-key }", "resources/subscribe covers"),
        ("{ rpc: completion/complete, allow: any-key }", "completion/complete covers"),
        ('{ rpc: "tools/*", allow: any-key }', "tools/* covers tools/call"),
        ('{ rpc: "*/call", allow: any-key }', "*/call covers tools/call"),
        ('{ rpc: "resources/*", allow: any-key }', "resources/* covers"),
        ("{ rpc: [ping, ping], allow: any-key }", "two rules for ping tie"),
        ("{ tool: t }", "neither or both"),
        ("{ tool: t, require: workflow:list, allow: any-key }", "neither or both"),
        ("{ tool: t, prompt: p, allow: any-key }", "a rule about tool and prompt"),
        ("{ tool: t, uri: p, allow: any-key }", "a rule about tool and uri"),
        ("{ allow: any-key }", "a rule about nothing"),
        ("{ tool: t, allow: everybody }", "any-key"),
        ("{ tool: t, require: [] }", "at least 1 item"),
        ("{ tool: t, require: { any: [] } }", "at least 1 item"),
        ("{ tool: t, require: { any: [workflow:list], all: [workflow:list] } }", "all is not a word of the policy"),
        ("{ tool: t, require: { any: [workflow:list], x: 1 } }", "x is not a word of the policy"),
        ("{ tool: t, require: 7 }", "valid string"),
        ("{ tool: 7, allow: any-key }", "valid string"),
        ("{ tool: [], allow: any-key }", "at least 1 item"),
        ('{ tool: "", allow: any-key }', "at least 1 character"),
        ("{ tool: t, requires: workflow:list }", "requires is not a word of the policy"),
        ("{ tool: two words, allow: any-key }", "nothing can reach tool two words"),
        ('{ tool: "a*b", allow: any-key }', "* stands for one whole segment"),
        ('{ tool: "a.*b.c", allow: any-key }', "* stands for one whole segment"),
        ('{ tool: "a.**", allow: any-key }', "* stands for one whole segment"),
        ("{ tool: t, require: workflow:rum }", "unknown scope workflow:rum"),
        ("{ tool: t, require: workflow }", "unknown scope workflow"),
        ('{ tool: t, require: "workflow:*" }', "unknown scope workflow:*"),
        ('{ tool: t, require: "workflow:rum:{arguments.name}" }', "unknown scope workflow:rum"),
        ('{ tool: t, require: "workflow:list:{arguments.name}" }', "workflow:list takes no selector"),
        ('{ tool: t, require: "workflow:run:" }', "empty selector"),
        ('{ tool: t, require: "workflow:run:*" }', "selector that names nothing"),
        ('{ tool: t, require: "workflow:run:{name}" }', "name names nothing a tool rule can read"),
        ('{ tool: t, require: "workflow:run:{arguments}" }', "arguments names nothing"),
        ('{ tool: t, require: "workflow:run:{arguments.}" }', "arguments. names nothing"),
        ('{ tool: t, require: "workflow:run:{arguments..a}" }', "arguments..a names nothing"),
        ('{ tool: t, require: "workflow:run:{}" }', "names nothing"),
        ('{ tool: t, require: "workflow:run:{params.name}" }', "params.name names nothing"),
        ('{ tool: t, require: "workflow:run:x-{arguments.name}" }', "no scope template"),
        ('{ tool: t, require: "{arguments.scope}" }', "no scope template"),
        ('{ tool: t, require: "workflow:{arguments.action}:x" }', "no scope template"),
        ('{ rpc: x/y, require: "workflow:run:{arguments.name}" }', "arguments.name names nothing a rpc rule"),
        ('{ uri: "v://{volume}/**", require: "volume:read:{other}" }', "other names nothing a uri rule"),
        ('{ uri: "v://a", require: "volume:read:{volume}" }', "volume names nothing a uri rule"),
        ('{ uri: "v://a/**/b", allow: any-key }', "** for all the rest at the end"),
        ('{ uri: "v://a{b}/c", allow: any-key }', "one whole segment"),
        ('{ uri: "v://{a}/{a}", allow: any-key }', "named twice"),
        ('{ uri: "v://a/../b", allow: any-key }', "nothing can reach v://a/../b"),
        ('{ uri: "v://{a}?b", allow: any-key }', "one whole segment"),
        ('{ uri: "v://{a}/b?c", allow: any-key }', "nothing can reach v://{a}/b?c"),
        ('{ rpc: tools/list, uri: "v://a", allow: any-key }', "not a method that names a URI"),
        ("{ tool: t, allow: any-key, where: {} }", "at least 1 item"),
        ("{ tool: t, allow: any-key, where: { arguments.a: {} } }", "needs one comparison"),
        ("{ tool: t, allow: any-key, where: { arguments.a: { equals: 1, absent_or: 2 } } }", "needs one comparison"),
        ("{ tool: t, allow: any-key, where: { arguments.a: { matches: x } } }", "matches is not a word"),
        ("{ tool: t, allow: any-key, where: { arguments.a: { one_of: [] } } }", "at least 1 item"),
        ("{ tool: t, allow: any-key, where: { arguments.a: { equals: 1.5 } } }", "must be a text"),
        (
            '{ tool: t, allow: any-key, where: { arguments.a: { equals: "{owner.tier}" } } }',
            "{owner.tier} names nothing",
        ),
        ('{ tool: t, allow: any-key, where: { arguments.a: { equals: "x{owner.tenant}" } } }', "names nothing"),
        ("{ tool: t, allow: any-key, where: { tenant_id: { equals: x } } }", "tenant_id names nothing"),
        (
            "{ prompt: p, allow: any-key, also_tool: { name: arguments.a, arguments: arguments.b } }",
            "also_tool in a prompt",
        ),
        (
            "{ tool: t, allow: any-key, also_tool: { name: tool_name, arguments: arguments.b } }",
            "tool_name names nothing",
        ),
        ("{ tool: t, allow: any-key, also_tool: { name: arguments.a } }", "arguments is missing"),
        ("{ prompt: p, allow: any-key, lists_tools: tools }", "lists_tools in a prompt rule"),
        ("{ rpc: x/y, allow: any-key, lists_tools: tools }", "lists_tools in a rpc rule"),
        ("{ http: [GET], allow: any-key, lists_tools: tools }", "lists_tools in a http rule"),
        ('{ uri: "v://a", allow: any-key, lists_tools: tools }', "lists_tools in a uri rule"),
        ('{ tool: t, allow: any-key, lists_tools: "" }', "at least 1 character"),
        ("{ tool: t, allow: any-key, lists_tools: true }", "valid string"),
        ("{ tool: t, allow: any-key, lists_tools: a..b }", "a..b names no member"),
        ('{ tool: t, allow: any-key, lists_tools: "tools[]" }', "tools[] names no member"),
        ("{ tool: t, allow: any-key, lists_tools: structuredContent.tools }", "begins outside of structuredContent"),
        ("{ http: [DELETE], allow: any-key }", "DELETE is not routed"),
        ("{ http: [POST], allow: any-key }", "POST is judged by its message"),
        ("{ http: [FETCH], allow: any-key }", "'GET'"),
        ('{ http: [GET], require: "workflow:run:{name}" }', "name names nothing a http rule"),
        ("just text", "valid dictionary"),
    ],
)
def test_a_faulty_rule_is_refused_in_its_line(rule: str, message: str) -> None:
    check_marked(f"{_HEAD}{_MCP}      - {{ rpc: other, allow: any-key }}\n      - {rule} #!\n...\n", message)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("{ tool: t, allow: any-key }", "{ tool: t, require: workflow:list }", "two rules for t tie"),
        ("{ tool: [s, t], allow: any-key }", "{ tool: [t, u], allow: any-key }", "two rules for t tie"),
        ("{ prompt: t, allow: any-key }", "{ prompt: t, allow: any-key }", "tie"),
        ("{ http: [GET], allow: any-key }", "{ http: [GET], allow: any-key }", "two rules for GET tie"),
        ('{ tool: "a.*", allow: any-key }', '{ tool: "a.*", allow: any-key }', "a.* ties with a.*"),
        ('{ tool: "*.b.c", allow: any-key }', '{ tool: "a.*.c", allow: any-key }', "a.*.c ties with *.b.c"),
        ('{ uri: "v://{a}/b", allow: any-key }', '{ uri: "v://b/{a}", allow: any-key }', "ties"),
        ('{ uri: "v://{a}/b", allow: any-key }', '{ uri: "v://{c}/b", allow: any-key }', "ties"),
        (
            '{ uri: "v://{a}/b", allow: any-key }',
            '{ rpc: resources/read, uri: "v://{c}/b", allow: any-key }',
            "ties",
        ),
        ("{ id: x, tool: s, allow: any-key }", "{ id: x, tool: t, allow: any-key }", "two rules have the id x"),
    ],
)
def test_two_rules_that_tie_are_refused_in_the_second_line(one: str, other: str, message: str) -> None:
    check_marked(f"{_HEAD}{_MCP}      - {one}\n      - {other} #!\n...\n", message)


@pytest.mark.parametrize(
    "rules",
    [
        ('{ tool: "a.*", allow: any-key }', '{ tool: "b.*", allow: any-key }'),
        ('{ tool: "a.*", allow: any-key }', '{ tool: "a.b.*", allow: any-key }'),
        ('{ tool: "a.*", allow: any-key }', "{ tool: a.b, allow: any-key }"),
        ("{ tool: t, allow: any-key }", "{ prompt: t, allow: any-key }"),
        ('{ uri: "v://{a}", allow: any-key }', '{ uri: "v://**", allow: any-key }'),
        ('{ uri: "v://{a}/b", allow: any-key }', '{ uri: "v://{a}/c", allow: any-key }'),
    ],
)
def test_rules_that_do_not_tie_are_accepted(rules: tuple[str, str]) -> None:
    policy = parse_policy(f"{_HEAD}{_MCP}      - {rules[0]}\n      - {rules[1]}\n...\n", "policy.yaml")
    assert [route.id for route in policy.routes] == ["mcp"]


_ROUTE = "{{ id: {id}, path: {path}, methods: [GET], upstream: api, allow: any-key }}"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("/a", "/a"), "same paths"),
        (("/a/{x}", "/a/{y}"), "same paths"),
        (("/a/**", "/a/**"), "same paths"),
        (("/a/{x}/c", "/a/b/{y}"), "both match /a/b/c"),
        (("/a/{x}/c", "/a/b/**"), "both match /a/b/c"),
        (("/{x}/b/**", "/a/{y}/c/{z}"), "both match /a/b/c/{…}"),
        (("/{x}/b/**", "/a/**"), "both match /a/b/**"),
        (("/a", "a"), "start with a slash"),
        (("/a", "/b?c"), "only plain characters"),
        (("/a", "/b%2fc"), "only plain characters"),
        (("/a", "/b/../c"), "dot segment"),
        (("/a", "/b//c"), "empty or a dot segment"),
        (("/a", "/b/"), "empty or a dot segment"),
        (("/a", "/b{x}"), "one whole segment"),
        (("/a", "/**/b"), "one whole segment"),
        (("/a", "/{x}/{x}"), "named twice"),
    ],
)
def test_faulty_and_overlapping_paths_are_refused(paths: tuple[str, str], message: str) -> None:
    lines = [_ROUTE.format(id=f"r{index}", path=f'"{path}"') for index, path in enumerate(paths)]
    check_marked(f"{_HEAD}routes:\n  - {lines[0]}\n  - {lines[1]} #!\n...\n", message)


@pytest.mark.parametrize(
    "paths",
    [
        ("/a/b", "/a/{x}"),
        ("/a/{x}", "/a/**"),
        ("/a/{x}/c", "/a/**", "/**"),
        ("/a/{x}/c", "/a/b/{y}", "/a/b/c"),
        ("/a/{x}/c/{z}", "/a/b/{y}/{z}", "/a/b/c/{w}"),
        ("/a/{x}", "/b/{x}"),
        ("/a/{x}", "/a/{x}/c"),
    ],
)
def test_routes_inside_one_another_are_accepted(paths: tuple[str, ...]) -> None:
    lines = [f"  - {_ROUTE.format(id=f'r{index}', path=f'{path!r}')}\n" for index, path in enumerate(paths)]
    assert len(parse_policy(f"{_HEAD}routes:\n{''.join(lines)}...\n", "policy.yaml").routes) == len(paths)


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("{ id: r, path: /r, methods: [GET], upstream: u }", "has no rules"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, protocol: mcp }", "has no rules"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, protocol: mcp, allow: any-key }", "has allow"),
        (
            "{ id: r, path: /r, methods: [GET], upstream: u, require: workflow:list, allow: any-key }",
            "require and allow",
        ),
        ("{ id: r, path: /r, methods: [GET], upstream: u, require: workflow:lost }", "unknown scope workflow:lost"),
        ('{ id: r, path: "/r/{a}", methods: [GET], upstream: u, require: "volume:read:{b}" }', "b names nothing"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, rules: [{ tool: t, allow: any-key }] }", "without JSON-RPC"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, rules: [] }", "at least 1 item"),
        ("{ id: r, path: /r, methods: [], upstream: u, allow: any-key }", "at least 1 item"),
        ("{ id: r, path: /r, methods: GET, upstream: u, allow: any-key }", "valid list"),
        ("{ id: r, path: /r, methods: [get], upstream: u, allow: any-key }", "'GET'"),
        ("{ id: r, path: /r, methods: [GET], allow: any-key }", "upstream is missing"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key, protocol: ftp }", "'mcp'"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key, rpc_denials: http-403 }", "no JSON-RPC"),
        (
            "{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key,"
            " every_tool: { arguments.a: { equals: 1 } } }",
            "carries no JSON-RPC messages",
        ),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key, timeout: 3 }", "timeout is not a word"),
        ("{ id: first, path: /r, methods: [GET], upstream: u, allow: any-key }", "two routes have the id first"),
        (
            "{ id: r, path: /r, methods: [GET], upstream: u, protocol: mcp, rules: [{ tool: t, allow: any-key }] }",
            "messages come by POST",
        ),
        ("{ id: r, path: /r, methods: [POST], upstream: u, protocol: mcp, rules_of: nobody }", "nobody has no rules"),
        ("{ id: r, path: /r, methods: [POST], upstream: u, protocol: mcp, rules_of: first }", "first has no rules"),
        ("{ id: r, path: /r, methods: [POST], upstream: u, protocol: mcp, rules_of: r }", "r has no rules"),
        ("{ id: r, path: /r, methods: [POST], upstream: u, rules_of: first }", "has rules_of"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: everybody }", "'any-key' or 'anyone'"),
        (
            "{ id: r, path: /r, methods: [GET], upstream: u, require: workflow:list, allow: anyone }",
            "require and allow",
        ),
        (
            "{ id: r, path: /r, methods: [GET], upstream: u, allow: anyone, rules: [{ http: [GET], allow: any-key }] }",
            "has allow and rules",
        ),
        (
            "{ id: r, path: /r, methods: [GET], upstream: u, rules: [{ http: [GET], allow: anyone }] }",
            "rules[0].allow: Input should be 'any-key'",
        ),
        ("{ id: r, path: /r, methods: [POST], upstream: u, protocol: mcp, allow: anyone }", "protocol mcp has allow"),
        (
            "{ id: r, path: /r, messages: /m, methods: [GET, POST], upstream: u, protocol: mcp-sse, allow: anyone }",
            "protocol mcp-sse has allow",
        ),
        (
            "{ id: r, path: /r, methods: [POST], upstream: u, protocol: mcp, rules: [{ tool: t, allow: any-key }],"
            " query: { a: { equals: b } } }",
            "route r with protocol mcp takes no members in its query",
        ),
        (
            "{ id: r, path: /r, methods: [POST], upstream: u, protocol: mcp, rules: [{ tool: t, allow: any-key }],"
            " repeatable: [a] }",
            "route r with protocol mcp takes no members in its query",
        ),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key, query: {} }", "at least 1 item"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key, repeatable: [] }", "at least 1 item"),
        ("{ id: r, path: /r, methods: [GET], upstream: u, allow: any-key, repeatable: a }", "valid list"),
    ],
)
def test_a_faulty_route_is_refused_in_its_line(route: str, message: str) -> None:
    text = f"{_HEAD}routes:\n  - {_ROUTE.format(id='first', path='/first')}\n  - {route} #!\n...\n"
    faults = find_faults(text)
    assert {fault.line for fault in faults} == set(get_marked_lines(text))
    assert any(message in fault.message for fault in faults)


@pytest.mark.parametrize(
    ("member", "message", "mend"),
    [
        ("a: {}", "a needs one comparison", "absent_or, equals or one_of"),
        ("a: { equals: x, absent_or: y }", "a needs one comparison", "absent_or, equals or one_of"),
        ("a: { matches: x }", "matches is not a word of the policy", "take it out"),
        ("a: { equals: 5 }", "a compares with 5, and what stands in a query is a text", 'write "5", in quotes'),
        ("a: { absent_or: true }", "a compares with true", 'write "true", in quotes'),
        ("a: { one_of: [x, false] }", "a compares with false", 'write "false", in quotes'),
        ("a: { equals: 1.5 }", "must be a text", "policy.schema.json"),
        ('a: { equals: "{owner.tier}" }', "{owner.tier} names nothing", "{owner.tenant} or {owner.subject}"),
        ("token: { equals: x }", "token is where keys leak", "Authorization: Bearer"),
        ("Access_Token: { equals: x }", "Access_Token is where keys leak", "Authorization: Bearer"),
        ("apiKey: { equals: x }", "apiKey is where keys leak", "Authorization: Bearer"),
        ('"key[]": { equals: x }', "key[] is where keys leak", "Authorization: Bearer"),
        ("two words: { equals: x }", "two words names no member of a query", "after a letter"),
        ('"a[b]": { equals: x }', "a[b] names no member of a query", "after a letter"),
        ('"tenant_id\\0": { equals: x }', "names no member of a query", "after a letter"),
    ],
)
def test_a_fault_of_a_condition_on_the_query_stands_in_its_line(member: str, message: str, mend: str) -> None:
    text = f"""{_HEAD}routes:
  - id: r
    path: /r
    methods: [GET]
    upstream: u
    allow: any-key
    query:
      fine: {{ absent_or: "{{owner.tenant}}" }}
      {member} #!
...
"""
    (fault,) = find_faults(text)
    assert fault.line == get_marked_lines(text)[0]
    assert message in fault.message
    assert mend in fault.mend


@pytest.mark.parametrize(
    ("name", "message", "mend"),
    [
        ("judged", "judged is in query, too", "stands once"),
        ("Judged", "Judged is in query, too", "stands once"),
        ('"judged[]"', "judged[] is in query, too", "stands once"),
        ("tenant_id", "tenant_id says who is meant", "a condition on it under query:"),
        ("userId", "userId says who is meant", "a condition on it under query:"),
        ("access_token", "access_token is where keys leak", "Authorization: Bearer"),
        ('"a b"', "a b names no member of a query", "after a letter"),
    ],
)
def test_a_member_that_must_stand_once_is_refused_among_those_that_may_stand_twice(
    name: str, message: str, mend: str
) -> None:
    text = f"""{_HEAD}routes:
  - id: r
    path: /r
    methods: [GET]
    upstream: u
    allow: any-key
    query: {{ judged: {{ equals: x }} }}
    repeatable:
      - fine
      - "list[]"
      - {name} #!
...
"""
    (fault,) = find_faults(text)
    assert fault.line == get_marked_lines(text)[0]
    assert message in fault.message
    assert mend in fault.mend


def test_a_route_open_to_anyone_cannot_compare_with_an_owner() -> None:
    check_marked(
        f"""{_HEAD}routes:
  - id: r
    path: /r
    methods: [GET]
    upstream: u
    allow: anyone
    query:
      format: {{ one_of: [json, yaml] }}
      tenant_id: {{ absent_or: "{{owner.tenant}}" }} #!
      user_id: {{ one_of: [x, "{{owner.subject}}"] }} #!
...
""",
        "tenant_id compares with the owner of a key, and anyone has none",
        "user_id compares with the owner of a key, and anyone has none",
    )


_SSE = "{ id: s, methods: [GET, POST], upstream: u, protocol: mcp-sse, rules_of: mcp, "


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (_SSE + "path: /s }", "does not say where its messages go"),
        (_SSE + "path: /s, messages: /s }", "/s matches the same paths as /s"),
        (_SSE + "path: /s, messages: /mcp }", "/mcp matches the same paths as /mcp"),
        (_SSE + "path: /mcp, messages: /m }", "/mcp matches the same paths as /mcp"),
        (_SSE + "path: /s, messages: m }", "it must start with a slash"),
        (_SSE + 'path: /s, messages: "/m?a" }', "only plain characters"),
        (_SSE + "path: /s, messages: /m/../n }", "a dot segment"),
        (_SSE + 'path: /s, messages: "/m/{x}" }', "the messages of a route with protocol mcp-sse is a pattern"),
        (_SSE + 'path: "/s/**", messages: /m }', "the path of a route with protocol mcp-sse is a pattern"),
        (_SSE + "path: /s, messages: [/m] }", "valid string"),
        (_SSE.replace("GET, POST", "GET") + "path: /s, messages: /m }", "takes GET on path and POST on messages"),
        (_SSE.replace("GET, POST", "GET, POST, DELETE") + "path: /s, messages: /m }", "GET on path and POST"),
        (_SSE.replace("rules_of: mcp,", "") + "path: /s, messages: /m }", "has no rules"),
        (_SSE.replace("rules_of: mcp", "allow: any-key") + "path: /s, messages: /m }", "has allow"),
        (_SSE.replace("rules_of: mcp", "rules_of: s") + "path: /s, messages: /m }", "s has no rules to share"),
        (_SSE.replace("mcp-sse", "mcp") + "path: /s, messages: /m }", "with protocol mcp has no path for messages"),
        (
            "{ id: s, path: /s, messages: /m, methods: [GET], upstream: u, allow: any-key }",
            "with protocol http has no path for messages",
        ),
    ],
)
def test_a_faulty_route_of_http_sse_has_one_fault_in_its_line(route: str, message: str) -> None:
    text = f"{_HEAD}{_MCP}      - {{ tool: t, allow: any-key }}\n  - {route} #!\n...\n"
    (fault,) = find_faults(text)
    assert fault.line == get_marked_lines(text)[0]
    assert message in fault.message


def test_conditions_on_every_tool_of_shared_rules_are_refused_where_they_would_be_ignored() -> None:
    check_marked(
        f"""{_HEAD}{_MCP}      - {{ tool: t, allow: any-key }}
  - id: other
    path: /other
    methods: [POST]
    upstream: mcp
    protocol: mcp
    rules_of: mcp
    every_tool:
      arguments.a: {{ equals: 1 }} #!
...
""",
        "without rules of its own",
    )


@pytest.mark.parametrize(
    ("sections", "messages"),
    [
        ('presets: {}\ntiers:\n  pro: ["*"]\n  pro: [] #!\n', ["pro is written twice, first in line"]),
        ('presets:\n  a: { title: A, scopes: [x:y] } #!\ntiers: { pro: ["*"] }\n', ["unknown scope x:y"]),
        ('presets:\n  a: { title: A, scopes: ["workflow:list:x"] } #!\ntiers: { pro: ["*"] }\n', ["takes no selector"]),
        (
            'presets:\n  a: { title: A, extends: b, scopes: [] } #!\ntiers: { pro: ["*"] }\n',
            ["b is not one of the presets"],
        ),
        (
            "presets:\n  a: { title: A, extends: b, scopes: [] } #!\n  b: { title: B, extends: a, scopes: [] } #!\n"
            'tiers: { pro: ["*"] }\n',
            ["a circle: a extends b extends a", "a circle: b extends a extends b"],
        ),
        ('presets:\n  a: { title: A, extends: a, scopes: [] } #!\ntiers: { pro: ["*"] }\n', ["a circle: a extends a"]),
        (
            "presets: {}\ntiers:\n  pro:\n    - workflow:list\n    - workflow:lost #!\n    - workflow:list #!\n",
            ["unknown scope workflow:lost", "listed twice"],
        ),
        ("presets: {}\ntiers:\n  pro: { extends: gone, scopes: [] } #!\n", ["gone is not one of the tiers"]),
        ("presets: {}\ntiers:\n  pro: all #!\n", ["must be a list of scopes"]),
        ('presets:\n  a: { scopes: [] } #!\ntiers: { pro: ["*"] }\n', ["title is missing"]),
        ('presets: {}\ntiers: { pro: ["*"] }\nextra: 1 #!\n', ["extra is not a word of the policy"]),
    ],
)
def test_faulty_presets_and_tiers_are_refused_in_their_line(sections: str, messages: list[str]) -> None:
    check_marked(f"version: 1\ndefault_tier: pro\n{_SCOPES}{sections}routes: []\n...\n", *messages)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (f"version: 2 #!\ndefault_tier: pro\n{_SCOPES}{_TIERS}routes: []\n...\n", ["version"]),
        (f"version: 1\ndefault_tier: gold #!\n{_SCOPES}{_TIERS}routes: []\n...\n", ["unknown tier gold"]),
        *(
            (f"{_HEAD}longest_expiry: {text} #!\nroutes: []\n...\n", ["longest_expiry", "never, or days or years"])
            for text in ("0d", "-1d", "3m", "'1 y'", "12345d", "forever", "''")
        ),
        (f"{_HEAD}longest_expiry: 90 #!\nroutes: []\n...\n", ["longest_expiry"]),
        (
            f"version: 1\ndefault_tier: pro\nscopes:\n  Workflow: {{ title: W }} #!\n{_TIERS}routes: []\n...\n",
            ["not a scope"],
        ),
        (
            f"version: 1\ndefault_tier: pro\nscopes:\n  a:b:c: {{ title: W }} #!\n{_TIERS}routes: []\n...\n",
            ["not a scope"],
        ),
        (
            f"version: 1\ndefault_tier: pro\nscopes:\n  a:b: {{ titel: W }} #!\n{_TIERS}routes: []\n...\n",
            ["missing", "titel"],
        ),
    ],
)
def test_a_faulty_head_is_refused_in_its_line(text: str, messages: list[str]) -> None:
    faults = find_faults(text)
    assert {fault.line for fault in faults} == set(get_marked_lines(text))
    for message in messages:
        assert any(message in fault.message for fault in faults)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "end marker"),
        (f"{_HEAD}routes: []\n", 9, "end marker"),
        (f"{_HEAD}routes: []\n... # the end\n", 10, "end marker"),
        (f"{_HEAD}routes: []\n...\nmore: 1\n", 11, "end marker"),
        (f"{_HEAD}routes: []\n...\n---\nmore: 1\n...\n", 11, "another document"),
        (f"{_HEAD}routes: [\n...\n", 10, "not YAML"),
        (f"{_HEAD}routes: *gone\n...\n", 9, "undefined alias"),
        (f"{_HEAD}routes: \x00\n...\n", None, "not YAML"),
        (f"{_HEAD}routes: {'[' * 5000}{']' * 5000}\n...\n", None, "nested too deep"),
        (f"{_HEAD}routes: []\n#{'x' * 1_100_000}\n...\n", None, "longer than"),
    ],
)
def test_a_text_that_is_no_complete_document_is_refused(text: str, line: int | None, message: str) -> None:
    assert any(fault.line == line and message in fault.message for fault in find_faults(text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("routes: !!python/object:os.system [] #!", "tag"),
        ("? [a, b]\n: 1 #!", "key that is not a text"),
        ("<<: { routes: [] } #!", "key that is not a text"),
        ("1: one #!", "key that is not a text"),
        ("version: 1 #!", "version is written twice"),
    ],
)
def test_what_only_yaml_can_say_is_refused(line: str, message: str) -> None:
    faults = find_faults(f"{_HEAD}{line}\n...\n")
    assert any(message in fault.message for fault in faults)


def test_an_alias_is_refused_in_its_line() -> None:
    rules = "      - { tool: t, require: &list workflow:list }\n      - { tool: u, require: *list } #!\n"
    check_marked(f"{_HEAD}{_MCP}{rules}...\n", "alias *list")


@pytest.mark.parametrize("directive", ["%YAML 1.1", "%TAG ! tag:example.org,2026:"])
def test_a_directive_is_refused(directive: str) -> None:
    """In YAML 1.1 `yes` is a truth and 017 is fifteen: a condition would compare with another value than it shows."""
    faults = find_faults(f"{directive}\n---\n{_HEAD}{_MCP}      - {{ tool: t, allow: any-key }}\n...\n")
    assert any("a directive" in fault.message for fault in faults)


def test_an_alias_to_what_it_stands_in_is_refused() -> None:
    faults = find_faults(f"{_HEAD}routes: &all [*all]\n...\n")
    assert (faults[0].line, faults[0].message) == (9, "alias *all")


def test_aliases_upon_aliases_are_not_written_out() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 40))
    aliases = [
        fault for fault in find_faults(f"l0: &l0 [x]\n{levels}{_HEAD}routes: []\n...\n") if "alias" in fault.message
    ]
    assert len(aliases) == 39


def test_faults_of_spelling_shape_and_meaning_come_all_at_once() -> None:
    check_marked(
        """\
version: 1
default_tier: gold #!
scopes:
  workflow:run: { title: Run, selector: workflow name }
  workflow:list: { titel: List } #!
presets:
  a: { title: A, scopes: [workflow:lost] } #!
tiers:
  pro: ["*"]
  pro: [] #!
routes:
  - id: mcp
    path: /mcp
    methods: [POST]
    upstream: mcp
    protocol: mcp
    colour: red #!
    rules:
      - { tool: r, requires: workflow:run } #!
      - { tool: s, require: workflow:rum } #!
      - { tool: t, require: workflow:list }
      - { tool: u, require: [workflow:list, "workflow:run:{name}"] } #!
  - id: list #!
    path: /v1/workflows
    methods: [GET]
    require: workflow:lisd #!
""".replace("{ titel: List } #!", "{ title: List, selector: 3 } #!")
        .replace("  - id: list #!", "  - id: 3 #!")
        .replace("    methods: [GET]\n    require", "    methods: [GET]\n    upstream: api\n    require")
        + "...\n",
        "unknown tier gold",
        "scopes.workflow:list.selector",
        "unknown scope workflow:lost",
        "pro is written twice",
        "colour is not a word of the policy",
        "requires is not a word of the policy",
        "unknown scope workflow:rum",
        "name names nothing",
        "routes[1].id",
        "unknown scope workflow:lisd",
    )


def test_a_mend_offers_the_closest_word() -> None:
    rules = "      - { tool: t, requires: workflow:list }\n      - { tool: u, require: workflow:rum }\n"
    assert [fault.mend for fault in find_faults(f"{_HEAD}{_MCP}{rules}...\n")] == [
        "did you mean require?",
        "did you mean workflow:run?",
    ]


def test_a_fault_is_printed_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f"{_HEAD}routes: []\n")
    with pytest.raises(ConfigError, match=rf"{path}:9: the document end marker \.\.\. is missing"):
        load_policy(path)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "absent.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"version: \xe9\n...\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_policy(latin)


def test_the_revision_follows_the_bytes() -> None:
    one = parse_policy(f"{_HEAD}routes: []\n...\n", "policy.yaml")
    other = parse_policy(f"{_HEAD}routes: [] # changed\n...\n", "policy.yaml")
    again = parse_policy(f"{_HEAD}routes: []\n...\n", "elsewhere.yaml")
    assert one.revision == again.revision != other.revision


@pytest.mark.parametrize(
    "path",
    ["/v1/api-keys", "/v1/api-keys/{id}", "/v1/api-keys/x/**", "/v1/owners/{id}", "/v1/scopes", "/v1/openapi.json"],
)
def test_a_route_over_the_management_of_keys_is_refused(path: str) -> None:
    text = f"""{_HEAD}routes:
  - id: keys
    path: "{path}" #!
    methods: [GET]
    upstream: api
    require: workflow:list
...
"""
    check_marked(text, "answered by the proxy itself")


@pytest.mark.parametrize("path", ["/v1/**", "/v1/{name}", "/v1/{name}/{id}", "/v1/api-keyring", "/v1/owner"])
def test_a_route_around_it_serves_the_rest(path: str) -> None:
    text = f"""{_HEAD}routes:
  - id: rest
    path: "{path}"
    methods: [GET]
    upstream: api
    require: workflow:list
...
"""
    assert parse_policy(text, "policy.yaml").routes[0].path == path
