"""What is odd about a policy: told with its line, and never of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.policy.load import check_policy
from proxy.policy.notes import NOTE_KINDS, Note
from proxy.settings import find_shipped

HEAD = """\
version: 1
default_tier: all
scopes:
  a:run: { title: Run, selector: name }
  a:list: { title: List }
presets:
  one: { title: One, scopes: [a:run, a:list] }
  full: { title: Full, scopes: ["*"] }
tiers: { all: ["*"] }
routes:
"""
USED = """\
  - { id: used, path: /used, methods: [GET, POST], upstream: api,
      rules: [{ http: [GET], require: a:run }, { http: [POST], require: a:list }] }
"""
MCP = "  - { id: m, path: /m, methods: [POST], upstream: mcp, protocol: mcp, rules: [ %s ] }\n"


def find_notes(directory: Path, text: str, upstreams: tuple[str, ...] | None = None) -> list[Note]:
    path = directory / "policy.yaml"
    path.write_text(f"{text}...\n")
    return list(check_policy(path, upstreams)[1])


def test_a_policy_without_oddities_has_no_notes(tmp_path: Path) -> None:
    rules = MCP % '{ tool: t, require: a:list }, { rpc: "notifications/*", allow: any-key }'
    assert find_notes(tmp_path, HEAD + USED + rules, ("mcp", "api")) == []


ODD = {
    "unused-scope": (
        (HEAD + USED).replace("presets:", "  a:idle: { title: Idle }\n  key:list: { title: List keys }\npresets:"), 6,
        "no rule asks for 1 scopes: a:idle",
    ),
    "idle-preset-scope": (
        (HEAD + USED)
        .replace("presets:", "  a:idle: { title: Idle }\npresets:")
        .replace('scopes: ["*"]', 'scopes: ["*", a:idle]'),
        9, "preset full holds a:idle, and no rule asks for it",
    ),
    "no-preset": (
        (HEAD + USED).replace("scopes: [a:run, a:list]", "scopes: [a:list]"), 7,
        "1 rules are opened by no preset but those with *: what asks for a:run",
    ),
    "inside": (
        HEAD + USED + '  - { id: outer, path: "/{x}", methods: [GET, PUT], upstream: api, allow: any-key }\n', 11,
        "/used lies inside /{x} (line 13) and decides for itself, without PUT",
    ),
    "open-pattern": (
        HEAD + USED + MCP % '{ tool: "t.*", require: "a:run:{arguments.x}" }', 13,
        "tool t.* is open to a:run, whatever the server adds by such a name",
    ),
    "redundant": (
        HEAD + USED + MCP % '{ rpc: "x/*", require: a:list }, { rpc: x/y, require: a:list }', 13,
        "method x/y says no more than x/* does",
    ),
    "undecided": (
        HEAD + USED + '  - { id: r, path: /r, methods: [GET, PUT], upstream: api,'
        " rules: [{ http: [GET], allow: any-key }] }\n", 13,
        "route r takes PUT, and no rule allows it to any key",
    ),
    "unknown-upstream": (
        HEAD + USED + "  - { id: r, path: /r, methods: [GET], upstream: apo, allow: any-key }\n", 13,
        "upstream apo is not configured: 1 routes answer 502, r first",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOTE_KINDS)
def test_what_is_odd_is_told_in_its_line(kind: str, tmp_path: Path) -> None:
    text, line, message = ODD[kind]
    (note,) = find_notes(tmp_path, text, ("mcp", "api"))
    assert (note.kind, note.line, note.message) == (kind, line, message)
    assert note.mend
    assert str(note).startswith(f"{tmp_path}/policy.yaml:{line}: {message} (")


def test_a_pattern_inside_a_broader_one_that_says_the_same_is_redundant(tmp_path: Path) -> None:
    rules = '{ uri: "v://{x}/**", require: a:list }, { uri: "v://a/{y}", require: a:list }'
    (note,) = find_notes(tmp_path, HEAD + USED + MCP % rules)
    assert note.message == "resource v://a/{y} says no more than v://{x}/** does"


@pytest.mark.parametrize(
    "rules",
    [
        '{ rpc: "x/*", require: a:list }, { rpc: x/y, require: a:run }',
        '{ rpc: "x/*", require: a:list }, { rpc: x/y, require: a:list, where: { params.a: { equals: 1 } } }',
        '{ rpc: "x/*", require: a:list }, { rpc: "x/y/*", require: a:run }, { rpc: x/y/z, require: a:list }',
        '{ uri: "v://{x}/b", require: a:list }, { uri: "v://a/{y}/**", require: a:list }',
    ],
)
def test_a_rule_without_which_something_changed_is_not_redundant(rules: str, tmp_path: Path) -> None:
    assert find_notes(tmp_path, HEAD + USED + MCP % rules) == []


def test_upstreams_that_are_not_known_are_not_missed(tmp_path: Path) -> None:
    assert find_notes(tmp_path, ODD["unknown-upstream"][0]) == []


def test_a_policy_without_narrow_presets_misses_none(tmp_path: Path) -> None:
    text = (HEAD + USED).replace("  one: { title: One, scopes: [a:run, a:list] }\n", "")
    assert find_notes(tmp_path, text) == []


def test_the_shipped_policy_has_no_rule_that_says_nothing() -> None:
    _, notes = check_policy(find_shipped("policy.yaml"), ("mcp", "api"))
    assert {note.kind for note in notes} <= {"unused-scope", "no-preset", "inside", "idle-preset-scope"}
