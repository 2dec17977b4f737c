"""A policy's own tests: what they say, what they must not say, and what they would not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from proxy.errors import ConfigError
from proxy.policy import Policy, load_policy, parse_policy
from proxy.policy.cases import (
    Case,
    Outcome,
    cases_schema,
    describe_case,
    find_cases_path,
    load_cases,
    load_tested_policy,
    parse_cases,
    run_cases,
)
from proxy.policy.mutants import find_mutants, run_mutants

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = CONFIG / "policy.yaml"

POLICY = """\
version: 1
default_tier: all
scopes:
  note:list: { title: List notes }
  note:read: { title: Read notes, selector: note id }
  note:write: { title: Write notes }
presets:
  reader: { title: Reader, scopes: [note:list, note:read] }
  none: { title: None, scopes: [] }
tiers: { all: ["*"], small: [note:list] }
routes:
  - id: mcp
    path: /mcp
    methods: [POST, GET]
    upstream: mcp
    protocol: mcp
    rules:
      - { http: [GET], allow: any-key }
      - { rpc: tools/list, allow: any-key }
      - { tool: [list, find], require: note:list }
      - tool: read
        require: "note:read:{arguments.id}"
        where: { arguments.tenant: { absent_or: "{owner.tenant}" } }
      - { tool: "draft.*", require: [note:list, note:write] }
      - { tool: look, require: { any: [note:list, note:write] } }
      - { tool: later, require: note:write, also_tool: { name: arguments.tool, arguments: arguments.args } }
      - { uri: "note://{id}", require: "note:read:{id}" }
      - { prompt: summary, require: note:list }
  - { id: notes, path: /notes, methods: [GET, POST], upstream: api, query: { tenant: { absent_or: "{owner.tenant}" } },
      rules: [{ http: [GET], require: note:list }, { http: [POST], require: note:write }] }
  - { id: note, path: "/notes/{id}", methods: [GET], upstream: api, require: "note:read:{id}" }
...
"""
CASES = """\
version: 1
given: { tenant: acme }
tests:
  - name: readers read
    given: { preset: reader }
    allow:
      - tool: [list, find, look]
      - { tool: read, arguments: { id: a, tenant: acme } }
      - { uri: "note://a" }
      - { prompt: summary }
      - http: [GET /notes, GET /notes/a]
    deny:
      - { tool: "*", arguments: { id: a, tenant: other } }
      - { tool: read, arguments: { id: a, tenant: other }, why: own tenant }
      - { tool: [draft.new, later], arguments: { tool: list }, smallest: note:write }
      - http: "*"
  - name: writers of one
    given: { scopes: [note:write, "note:read:a"] }
    allow:
      - { tool: look }
      - { tool: read, arguments: { id: a } }
      - { uri: "note://a" }
      - { tool: later, arguments: { tool: read, args: { id: a } }, rule: "mcp/tool:later" }
      - http: [POST /notes, GET /notes/a]
    deny:
      - { tool: [read], arguments: { id: b }, smallest: "note:read:b" }
      - { tool: [list, find, draft.new] }
      - { tool: later, arguments: { tool: list } }
      - { uri: "note://b", rpc: [resources/read, resources/subscribe] }
      - { prompt: summary }
      - http: [GET /notes, GET /notes/b]
      - http: POST /notes?tenant=other
  - name: both
    given: { scopes: [note:list, note:write] }
    allow: [{ tool: draft.new }]
  - name: nothing
    given: { preset: none }
    allow: [{ rpc: tools/list }, { http: GET /mcp }]
    deny:
      - { tool: "*" }
      - { tool: read, arguments: { id: a } }
      - { uri: "note://a" }
      - { http: "*" }
  - name: small
    given: { preset: reader, tier: small }
    allow: [{ tool: list }]
    deny: [{ tool: read, arguments: { id: a } }]
...
"""


@pytest.fixture(scope="module")
def notes() -> Policy:
    return parse_policy(POLICY, "policy.yaml")


def run(policy: Policy, cases: str) -> Outcome:
    return run_cases(policy, parse_cases(cases, "tests.yaml", policy))


def find_survivors(policy: Policy, cases: tuple[Case, ...]) -> list[str]:
    tried = run_mutants(policy, cases, find_mutants(policy))
    return [f"{mutant.subject} {mutant.what}" for mutant, noticed in tried if not noticed]


def test_cases_that_say_what_the_policy_says_pass_and_cover_it(notes: Policy) -> None:
    outcome = run(notes, CASES)
    assert [(failure.case.line, failure.got) for failure in outcome.failures] == []
    assert outcome.uncovered == ()
    assert outcome.rules == len({rule.id for route in notes.routes for rule in route.rules.list_rules()})


def test_no_mutant_gets_past_them(notes: Policy) -> None:
    assert find_survivors(notes, parse_cases(CASES, "tests.yaml", notes)) == []


@pytest.mark.parametrize(
    ("without", "survivor"),
    [
        ('      - { tool: [read], arguments: { id: b }, smallest: "note:read:b" }\n', None),
        ("      - { tool: look }\n", "mcp/tool:look without note:write as a way in"),
        ("      - { tool: later, arguments: { tool: list } }\n", "mcp/tool:later without a look at the call inside"),
        ("      - http: POST /notes?tenant=other\n", "notes without its condition on tenant in the query"),
    ],
)
def test_a_line_taken_out_is_missed_where_only_it_would_notice(
    without: str, survivor: str | None, notes: Policy
) -> None:
    assert CASES.count(without) == 1
    kept = CASES.replace(without, "")
    survivors = find_survivors(notes, parse_cases(kept, "tests.yaml", notes))
    assert (survivor in survivors) if survivor else survivors == []


def test_a_failure_names_its_line_and_what_came_instead(notes: Policy) -> None:
    wrong = """\
version: 1
given: { preset: reader }
tests:
  - name: hopes
    allow:
      - { tool: draft.new }
      - { tool: list, rule: "mcp/tool:find" }
    deny:
      - { tool: list }
      - { tool: draft.new, smallest: note:list }
      - { tool: draft.new, why: nonsense }
...
"""
    failures = run(notes, wrong).failures
    assert [failure.case.line for failure in failures] == [6, 7, 9, 10, 11]
    assert [failure.got for failure in failures] == [
        "denied: tool draft.new needs scope note:write",
        "decided by rule mcp/tool:list, not mcp/tool:find",
        "allowed by rule mcp/tool:list",
        "denied, but note:write would suffice, not note:list",
        "denied with other words: tool draft.new needs scope note:write",
    ]
    assert describe_case(failures[0].case) == "tools/call draft.new"


def test_an_asterisk_means_what_no_other_line_of_the_test_names(notes: Policy) -> None:
    text = """\
version: 1
given: { preset: reader }
tests:
  - name: rest
    allow: [{ tool: [list, find] }, { http: GET /notes/a }]
    deny: [{ tool: "*" }, { http: "*" }]
...
"""
    cases = parse_cases(text, "tests.yaml", notes)
    assert [describe_case(case) for case in cases if not case.allowed] == [
        "tools/call read",
        "tools/call look",
        "tools/call later",
        "tools/call draft.-any-",
        "GET /notes",
        "POST /notes",
    ]


def test_an_asterisk_asks_for_one_tool_of_each_pattern_unless_a_line_names_one() -> None:
    opened = POLICY.replace("      - { uri:", '      - { tool: "d*", allow: any-key }\n      - { uri:')
    policy = parse_policy(opened, "policy.yaml")
    for named, asked in (("draft.new", "d-any-"), ("done", "draft.-any-")):
        text = f"""\
version: 1
given: {{ preset: none }}
tests:
  - name: rest
    deny: [{{ tool: [list, find, read, look, later, {named}] }}, {{ tool: "*" }}]
...
"""
        cases = parse_cases(text, "tests.yaml", policy)
        assert [describe_case(case).split()[1] for case in cases] == [
            "list", "find", "read", "look", "later", named, asked,
        ]  # fmt: skip


def test_a_test_allows_what_the_one_it_extends_allows_and_names_it_too(notes: Policy) -> None:
    text = """\
version: 1
tests:
  - name: writers
    extends: readers
    given: { scopes: [note:list, note:write, "note:read:a"] }
    allow: [{ tool: draft.new }]
    deny: [{ tool: "*", arguments: { tool: nothing } }]
  - name: readers
    given: { preset: reader }
    allow:
      - { tool: [list, find] }
      - { tool: read, arguments: { id: b } }
...
"""
    cases = parse_cases(text, "tests.yaml", notes)
    asked = [(case.allowed, case.line, describe_case(case)) for case in cases if case.test == "writers"]
    assert asked == [
        (True, 11, "tools/call list"),
        (True, 11, "tools/call find"),
        (True, 12, "tools/call read"),
        (True, 6, "tools/call draft.new"),
        (False, 7, "tools/call look"),
        (False, 7, "tools/call later"),
    ]
    failures = [(failure.case.test, failure.case.line) for failure in run_cases(notes, cases).failures]
    assert failures == [("writers", 12), ("writers", 7)]  # of their own key: it reads note a alone, and may look


HEAD = "version: 1\ntests:\n  - name: t\n"
GIVEN = HEAD + "    given: { preset: reader }\n"
FAULTS = {
    "no key": (HEAD + "    allow: [{ tool: list }]\n", 3, "neither or both of preset and scopes"),
    "two keys": (
        HEAD + "    given: { preset: reader, scopes: [] }\n    allow: [{ tool: list }]\n",
        4,
        "neither or both",
    ),
    "unknown preset": (
        HEAD + "    given: { preset: reeder }\n    allow: [{ tool: list }]\n",
        4,
        "unknown preset reeder",
    ),
    "unknown scope": (HEAD + "    given: { scopes: [note:lst] }\n    allow: [{ tool: list }]\n", 4, "unknown scope"),
    "unknown tier": (
        HEAD + "    given: { preset: reader, tier: gold }\n    allow: [{ tool: list }]\n",
        4,
        "unknown tier gold",
    ),
    "unknown route": (
        HEAD + "    given: { preset: reader, route: notes }\n    allow: [{ tool: list }]\n",
        4,
        "unknown route notes",
    ),
    "unknown rule": (
        HEAD + "    given: { preset: reader }\n    allow: [{ tool: list, rule: nobody }]\n",
        5,
        "unknown rule nobody",
    ),
    "nothing asked": (HEAD + "    given: { preset: reader }\n", 3, "asks nothing"),
    "two subjects": (
        HEAD + "    given: { preset: reader }\n    allow: [{ tool: list, prompt: p }]\n",
        5,
        "about tool and prompt",
    ),
    "no subject": (HEAD + "    given: { preset: reader }\n    allow: [{ arguments: {} }]\n", 5, "about nothing"),
    "no request": (HEAD + "    given: { preset: reader }\n    allow: [{ http: /notes }]\n", 5, "no request"),
    "method in small letters": (GIVEN + "    deny: [{ http: get /notes }]\n", 5, "no request"),
    "arguments of a path": (GIVEN + "    deny: [{ http: GET /notes, arguments: { id: a } }]\n", 5, "nothing reads"),
    "params of a tool": (
        GIVEN + "    deny: [{ tool: read, params: { id: a } }]\n",
        5,
        "nothing reads the params of tool",
    ),
    "pattern of tools": (GIVEN + "    deny: [{ tool: draft.* }]\n", 5, "draft.* would be asked as it stands"),
    "every prompt": (GIVEN + '    deny: [{ prompt: "*" }]\n', 5, "would be asked as it stands"),
    "another use of a URI": (GIVEN + '    deny: [{ uri: "note://a", rpc: resources/raed }]\n', 5, "resources/raed"),
    "extends nothing": (GIVEN + "    extends: u\n    allow: [{ tool: list }]\n", 5, "no test is called u"),
    "extends itself": (GIVEN + "    extends: t\n    allow: [{ tool: list }]\n", 5, "in a circle"),
    "one name for two": (
        GIVEN
        + "    allow: [{ tool: list }]\n"
        + GIVEN.removeprefix("version: 1\ntests:\n")
        + "    deny: [{ tool: look }]\n",
        6,
        "two tests are called t",
    ),
    "words of a denial": (
        HEAD + "    given: { preset: reader }\n    allow: [{ tool: list, why: x }]\n",
        5,
        "said of denials",
    ),
    "unknown word": (HEAD + "    given: { preset: reader }\n    alow: [{ tool: list }]\n", 5, "is not a word"),
    "no tests": ("version: 1\ntests: []\n", 2, "at least 1 item"),
    "twice": (HEAD + "    name: u\n    given: { preset: reader }\n    allow: [{ tool: list }]\n", 4, "written twice"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_would_test_nothing_is_a_fault_in_its_line(name: str, notes: Policy) -> None:
    text, line, message = FAULTS[name]
    with pytest.raises(ConfigError) as caught:
        parse_cases(text + "...\n", "tests.yaml", notes)
    (fault,) = caught.value.faults
    assert (fault.source, fault.line) == ("tests.yaml", line)
    assert message in fault.message
    assert fault.mend


def test_half_a_file_never_counts(notes: Policy) -> None:
    with pytest.raises(ConfigError, match=r"end marker \.\.\. is missing"):
        parse_cases(CASES.removesuffix("...\n"), "tests.yaml", notes)


def test_a_policy_is_loaded_with_the_tests_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    revision = load_policy(path).revision
    assert load_tested_policy(path).revision == revision  # no tests, no failures
    find_cases_path(path).write_text(CASES)
    assert load_tested_policy(path).revision == revision
    path.write_text(POLICY.replace("tool: [list, find], require: note:list", "tool: [list, find], require: note:write"))
    with pytest.raises(ConfigError) as caught:
        load_tested_policy(path)
    assert {fault.source for fault in caught.value.faults} == {str(tmp_path / "p.tests.yaml")}
    assert all(fault.line for fault in caught.value.faults)


def test_the_shipped_policy_passes_its_tests_and_every_rule_is_covered(policy: Policy) -> None:
    outcome = run_cases(policy, load_cases(find_cases_path(SHIPPED), policy))
    assert outcome.failures == ()
    assert outcome.uncovered == ()


def test_the_shipped_tests_notice_every_mutant_of_the_shipped_policy(policy: Policy) -> None:
    cases = load_cases(find_cases_path(SHIPPED), policy)
    mutants = find_mutants(policy)
    removed = [mutant for mutant in mutants if mutant.what == "removed"]
    rules = {id(rule) for route in policy.routes for rule in route.rules.list_rules()}
    assert {id(mutant.before) for mutant in removed} == rules
    assert find_survivors(policy, cases) == []


def find_needed_scopes(policy: Policy) -> set[str]:
    """Those of the catalogue that some rule asks for."""
    rules = [rule for route in policy.routes for rule in route.rules.list_rules()]
    return {needed.head for rule in rules for scopes in rule.alternatives or () for needed in scopes}


def change_by_one(held: frozenset[str], needed: set[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """With each single needed scope more, or less."""
    for scope in sorted(needed - held):
        yield f"+ {scope}", held | {scope}
    for scope in sorted(held & needed):
        yield f"- {scope}", held - {scope}


@pytest.mark.parametrize("name", ["read-only", "execution", "developer"])
def test_the_shipped_tests_notice_every_scope_a_preset_gains_or_loses(name: str, policy: Policy) -> None:
    held = policy.presets[name].scopes
    cases = [case for case in load_cases(find_cases_path(SHIPPED), policy) if case.scopes == held]
    assert cases
    for change, scopes in change_by_one(frozenset(held), find_needed_scopes(policy)):
        changed = (replace(case, scopes=tuple(scopes)) for case in cases)
        assert any(case.find_failure(case.judge(policy)) for case in changed), change


@pytest.mark.parametrize("name", ["free", "pro", "business"])
def test_the_shipped_tests_notice_every_scope_a_tier_gains_or_loses(name: str, policy: Policy) -> None:
    cases = [case for case in load_cases(find_cases_path(SHIPPED), policy) if case.owner.tier == name]
    assert cases
    for change, scopes in change_by_one(policy.tiers[name], find_needed_scopes(policy)):
        changed = replace(policy, tiers=MappingProxyType({**policy.tiers, name: scopes}))
        assert any(case.find_failure(case.judge(changed)) for case in cases), change


@pytest.mark.parametrize("stem", ["policy", "policy.example"])
def test_what_is_shipped_fits_the_published_schema(stem: str) -> None:
    schema = json.loads((CONFIG / "policy.tests.schema.json").read_text())
    assert schema == cases_schema()
    Draft202012Validator(schema).validate(YAML(typ="safe").load((CONFIG / f"{stem}.tests.yaml").read_text()))


def test_the_example_for_any_server_passes_its_tests_and_no_mutant_gets_past_them() -> None:
    example = load_tested_policy(CONFIG / "policy.example.yaml")
    cases = load_cases(CONFIG / "policy.example.tests.yaml", example)
    assert run_cases(example, cases).uncovered == ()
    assert find_survivors(example, cases) == []
