"""What an edit opens and closes: named exactly, and nothing that flips goes unnamed."""

from __future__ import annotations

import re
from random import Random

import pytest

from proxy.errors import ConfigError
from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Policy, parse_policy
from proxy.policy.differences import compare
from proxy.policy.patterns import parse_name_pattern, parse_path_pattern
from proxy.policy.questions import Question, ask
from proxy.settings import find_shipped
from tests.fuzz.scale import FULL, SEED, draw
from tests.policy.asking import Asking

SHIPPED = find_shipped("policy.yaml").read_text()
SMALL_POLICIES = 5_000 if FULL else 80
OWNER = Owner(OwnerId("1"), "acme", "local", "user-1", "enterprise")
RUN = '- { tool: aegis.workflow.run, require: "workflow:run:{arguments.name}" }'
WORKFLOW_LIST = "- { tool: [aegis.workflow.list, aegis.workflow.search], require: workflow:list }"
WIDENED = ("      - execution:cancel\n\n", "      - execution:cancel\n      - workflow:delete\n\n")


def edit(*pairs: tuple[str, str]) -> Policy:
    text = SHIPPED
    for before, after in pairs:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return parse_policy(text, "edited.yaml")


def test_a_widened_preset_opens_just_what_is_named_for_it_and_for_those_that_extend_it(policy: Policy) -> None:
    found = compare(policy, edit(WIDENED))
    opened = [
        ("opened", "request DELETE /v1/workflows/{name}", None, "name given"),
        (
            "opened",
            "tool aegis.workflow.delete of /mcp/v1",
            None,
            "name given; tenant is absent or the key owner's own tenant; tenant_id is absent or the key owner's own"
            " tenant; user_id is absent or the key owner's own user id",
        ),
        (
            "opened",
            "tool aegis.workflow.delete of /mcp/v1/sse",
            None,
            "name given; tenant is absent or the key owner's own tenant; tenant_id is absent or the key owner's own"
            " tenant; user_id is absent or the key owner's own user id",
        ),
    ]
    for holder in ("preset execution", "preset developer"):
        named = {(one.verdict, one.subject, one.before, one.after) for one in found.holders[holder]}
        assert named == set(opened)
    assert set(found.holders) == {"preset execution", "preset developer"}
    assert set(found.general) == {
        "preset execution also holds workflow:delete",
        "preset developer also holds workflow:delete",
    }


def test_the_same_edit_backwards_closes_it(policy: Policy) -> None:
    found = compare(edit(WIDENED), policy)
    assert {one.verdict for differences in found.holders.values() for one in differences} == {"closed"}


def test_other_words_for_the_same_decisions_are_no_difference(policy: Policy) -> None:
    lines = SHIPPED.splitlines()
    start = next(index for index, line in enumerate(lines) if "aegis.agent.export" in line)
    reordered = "\n".join([*lines[:start], lines[start + 1], lines[start], *lines[start + 2 :]]) + "\n"
    for text in (
        SHIPPED.replace("# ", "# so: "),
        reordered,
        SHIPPED.replace("{ id: run, path", "{ id: runs-one, path"),
    ):
        assert text != SHIPPED
        assert not compare(policy, parse_policy(text, "edited.yaml"))


EDITS = {
    "a rule that is gone": ((RUN, ""), "closed", "tool aegis.workflow.run"),
    "a rule for another scope": (
        (RUN, "- { tool: aegis.workflow.run, require: workflow:list }"), "widened", "tool aegis.workflow.run",
    ),
    "a condition more": (
        (RUN, RUN.replace(" }", ", where: { arguments.force: { equals: false } } }")), "narrowed",
        "tool aegis.workflow.run",
    ),
    "a tool more": ((RUN, RUN + "\n      - { tool: aegis.new, require: workflow:list }"), "opened", "tool aegis.new"),
    "a pattern": ((RUN, RUN + '\n      - { tool: "aegis.new.*", allow: any-key }'), "opened", "tool aegis.new.*"),
    "without every_tool": (
        ('      arguments.user_id:   { absent_or: "{owner.subject}" }\n', ""), "widened", "tool aegis.agent.list",
    ),
    "a query without its condition": (
        ('  - { id: agents, path: /v1/agents, methods: [GET, POST], upstream: api,\n'
         '      query: { tenant_id: { absent_or: "{owner.tenant}" }, user_id: { absent_or: "{owner.subject}" } },',
         '  - { id: agents, path: /v1/agents, methods: [GET, POST], upstream: api,\n'
         '      query: { user_id: { absent_or: "{owner.subject}" } },'),
        "narrowed", "request GET /v1/agents",  # without one, no route takes such a member
    ),
    "a nested call with other arguments": (
        ("arguments: arguments.args }", "arguments: arguments.none }"), "changed", "tool aegis.edge.fleet.invoke",
    ),
    "a list of tools that is not cut": (
        ("        lists_tools: tools\n", ""), "widened", "tool aegis.tools.list",
    ),
    "a value more": (
        ('      arguments.user_id:   { absent_or: "{owner.subject}" }\n',
         '      arguments.user_id:   { one_of: ["{owner.subject}", guest] }\n'), "changed", "tool aegis.agent.list",
    ),
    "a nested call that is not looked at": (
        ("        also_tool: { name: arguments.tool_name, arguments: arguments.args }\n", ""), "widened",
        "tool aegis.edge.fleet.invoke",
    ),
    "a method more": (
        ('path: "/v1/agents/{id}/versions", methods: [GET]', 'path: "/v1/agents/{id}/versions", methods: [GET, PUT]'),
        "opened", "request PUT /v1/agents/{id}/versions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_whatever_an_edit_does_is_told_for_full_access(name: str, policy: Policy) -> None:
    pair, verdict, subject = EDITS[name]
    found = compare(policy, edit(pair)).holders["preset full-access"]
    assert (verdict, subject) in {(one.verdict, one.subject.partition(" of ")[0]) for one in found}
    back = compare(edit(pair), policy).holders["preset full-access"]
    opposite = {"opened": "closed", "widened": "narrowed", "changed": "changed"}
    opposite |= {mirrored: verdict for verdict, mirrored in opposite.items()}
    assert {one.verdict for one in back} == {opposite[one.verdict] for one in found}


def test_a_selector_that_a_preset_gains_is_told_with_what_it_names() -> None:
    narrow = edit(
        (
            "      - workflow:run\n      - workflow:signal\n      - workflow:cancel\n      - execution:cancel\n\n",
            "      - workflow:run:one\n      - workflow:signal\n      - workflow:cancel\n      - execution:cancel\n\n",
        )
    )
    found = compare(parse_policy(SHIPPED, "p"), narrow).holders["preset execution"]
    told = {one.subject: (one.verdict, one.after) for one in found}
    assert told["request POST /v1/workflows/{name}/run"] == ("narrowed", "name is one")
    assert told["request POST /v1/workflows/temporal/execute"] == ("closed", None)


def test_what_is_no_decision_is_told_in_general(policy: Policy) -> None:
    other = edit(
        ("default_tier: pro", "default_tier: free"), ("longest_expiry: never", "longest_expiry: 1y"),
        ("  canvas:read:           { title: Read canvases }", "  canvas:read:           { title: C, selector: id }\n"
         "  canvas:draw:           { title: Draw }"),
        ("{ id: stimuli, path: /v1/stimuli, methods: [POST], upstream: api", "{ id: stimuli, path: /v1/stimuli,"
         " methods: [POST], upstream: other"),
        ("  # - { id: health, path: /health", "  - { id: health, path: /health"),
    )  # fmt: skip
    assert set(compare(policy, other).general) == {
        "default_tier: pro becomes free",
        "longest_expiry: never becomes 365 days",
        "scope canvas:draw is new",
        "scope canvas:read takes a selector now",
        "path /v1/stimuli: upstream was api, is other",
        "path /health is new",
    }


# Nobody asks with that argument; and whoever may tell devices what to do may do everything.
UNASKED = (
    "a condition more",
    "a nested call that is not looked at",
    "a nested call with other arguments",
    "a list of tools that is not cut",
)


@pytest.mark.parametrize("name", [*EDITS, "a widened preset"])
def test_nothing_that_flips_goes_unnamed(name: str, policy: Policy) -> None:
    other = edit(EDITS[name][0] if name in EDITS else WIDENED)
    differences = compare(policy, other)
    asking = Asking(policy, SEED), Asking(other, SEED)  # each knows what the other lacks
    flips = 0
    for number in range(3_000):
        _, question = asking[number % 2].draw()
        for preset in policy.presets:
            before = ask(policy, question, frozenset(policy.presets[preset].scopes), OWNER)
            after = ask(other, question, frozenset(other.presets[preset].scopes), OWNER)
            if isinstance(before.decision, Allowed) == isinstance(after.decision, Allowed):
                continue
            flips += 1
            named = " ".join(one.subject for one in differences.holders[f"preset {preset}"])
            assert find_subject(question, other) in named, (question, preset)
    assert flips > 0 or name in UNASKED


def find_subject(question: Question, policy: Policy) -> str:
    """What the flip is about: a tool by its name, a request by its route's path."""
    if question.rpc is None:
        match = policy.find_route(question.target.partition("?")[0])
        assert match is not None
        return f"request {question.http} {match.route.path}"
    name = question.params["name"]
    return f"tool {'aegis.new.*' if name == 'aegis.new.x' else name} "


def test_the_words_for_a_reach_name_no_object(policy: Policy) -> None:
    found = compare(policy, edit(*(pair for pair, _, _ in [EDITS["a tool more"]])))
    text = repr(found.holders)
    assert not re.search(r"frozenset|object at", text)


HEAD = """\
version: 1
default_tier: all
scopes:
  a:run: { title: Run, selector: name }
  a:list: { title: List }
presets:
  one: { title: One, scopes: ["a:run:b", a:list] }
  every: { title: Every, scopes: [a:run] }
  none: { title: None, scopes: [] }
tiers: { all: ["*"] }
routes:
"""
MCP = "  - { id: m, path: /m, methods: [POST], upstream: u, protocol: mcp, rules: ["


def with_tools(*rules: str) -> Policy:
    return parse_policy(f"{HEAD}{MCP}{', '.join(rules)}] }}\n...\n", "p")


def with_routes(*routes: str) -> Policy:
    lines = (f"  - {{ id: r{number}, methods: [GET], upstream: u, {one} }}\n" for number, one in enumerate(routes))
    return parse_policy(f"{HEAD}{''.join(lines)}...\n", "p")


def tell(old: Policy, new: Policy, holder: str) -> set[tuple[str, str, str | None, str | None]]:
    found = compare(old, new).holders.get(holder, ())
    return {(one.verdict, one.subject, one.before, one.after) for one in found}


ANYTHING = "whatever it is for"


def test_where_two_patterns_cross_the_one_that_wins_is_told() -> None:
    """No text but those that both match is decided otherwise, for this holder."""
    wide = '{ tool: "a.b.*", allow: any-key }'
    old, new = with_tools(wide), with_tools(wide, '{ tool: "a.*.c", require: a:run }')
    assert tell(old, new, "preset none") == {("closed", "tool a.*.c and a.b.* of /m", ANYTHING, None)}
    assert ("opened", "tool a.*.c of /m", None, ANYTHING) in tell(old, new, "preset every")


def test_a_name_that_falls_to_a_pattern_is_told_by_its_own() -> None:
    old = with_tools('{ tool: "a.*", allow: any-key }', "{ tool: a.b, require: a:run }")
    assert tell(old, with_tools('{ tool: "a.*", allow: any-key }'), "any key") == {
        ("opened", "tool a.b of /m", None, ANYTHING)
    }


def test_what_is_left_of_an_open_end_is_told() -> None:
    old = with_routes('path: "/r/**", require: a:list')
    new = with_routes('path: "/r/{x}/**", require: a:list')
    assert tell(old, new, "preset one") == {("closed", "request GET /r/**", ANYTHING, None)}
    assert "path /r/** is gone" in compare(old, new).general


def test_a_variable_by_another_name_is_no_difference() -> None:
    old = with_routes('path: "/r/{x}", require: "a:run:{x}"')
    assert not compare(old, with_routes('path: "/r/{name}", require: "a:run:{name}"'))
    rule = '{{ uri: "v://{{{name}}}/b", require: "a:run:{{{name}}}" }}'
    assert not compare(with_tools(rule.format(name="x")), with_tools(rule.format(name="y")))


def test_a_path_that_only_says_what_its_template_said_is_no_difference() -> None:
    template = 'path: "/r/{x}", require: "a:run:{x}"'
    assert not compare(with_routes(template), with_routes(template, 'path: /r/b, require: "a:run:b"'))


def test_a_path_for_anyone_is_told_for_those_without_a_key() -> None:
    other = "path: /other, allow: any-key"
    found = tell(with_routes(other), with_routes(other, "path: /r, allow: anyone"), "anyone without a key")
    assert found == {("opened", "request GET /r", None, ANYTHING)}
    closed = compare(with_routes("path: /r, allow: anyone"), with_routes("path: /r, allow: any-key"))
    assert list(closed.holders) == ["anyone without a key"]
    assert closed.general == ("path /r: open to anyone was yes, is no",)


def test_a_new_preset_is_told_by_all_that_it_opens_beyond_any_key() -> None:
    old = with_tools("{ tool: t, require: a:list }", "{ tool: u, allow: any-key }")
    text = f"{HEAD}{MCP}{{ tool: t, require: a:list }}, {{ tool: u, allow: any-key }}] }}\n...\n"
    new = parse_policy(text.replace("presets:\n", "presets:\n  more: { title: More, scopes: [a:list] }\n"), "p")
    assert tell(old, new, "preset more") == {("opened", "tool t of /m", None, ANYTHING)}
    assert compare(old, new).general == ("preset more is new",)
    assert tell(new, old, "preset more") == {("closed", "tool t of /m", ANYTHING, None)}


def test_a_field_that_selects_two_scopes_has_one_value() -> None:
    old = with_tools("{ tool: t, allow: any-key }")
    new = with_tools('{ tool: t, require: ["a:run:{arguments.x}", "a:run:b"] }')
    assert tell(old, new, "preset one") == {("narrowed", "tool t of /m", ANYTHING, "x is b")}
    either = with_tools('{ tool: t, require: { any: [a:run, "a:run:{arguments.x}"] } }')
    assert tell(old, either, "preset every") == set()


# Small policies drawn from few words, so that patterns cross, and questions that come near them.

TOOLS = ("a", "a.b", "a.b.c", "a.*", "*.b", "a.*.c", "a.b*", "*.*.c", "*", "a.b.*")
URIS = ("v://a", "v://{x}", "v://a/b", "v://{x}/b", "v://a/{x}", "v://**", "v://a/**", "v://{x}/b/**")
PATHS = ("/r/a", "/r/{x}", "/r/a/b", "/r/{x}/b", "/r/a/{x}", "/r/**", "/r/a/**", "/r/{x}/b/**")
SEGMENTS = ("a", "b", "c", "bx", "d")


def draw_policy(rng: Random) -> Policy:
    """Tries again when rules tie, or contradict each other."""
    while True:
        needs = ["allow: any-key", "require: a:list", "require: a:run"]
        rules = []
        for tool in rng.sample(TOOLS, 3):
            need = rng.choice([*needs, 'require: "a:run:{arguments.name}"'])
            where = rng.choice(
                ["", ", where: { arguments.k: { equals: x } }", ", where: { arguments.k: { absent_or: x } }"]
            )
            rules.append(f'{{ tool: "{tool}", {need}{where} }}')
        for uri in rng.sample(URIS, 2):
            needed = rng.choice([*needs, 'require: "a:run:{x}"'] if "{x}" in uri else needs)
            rules.append(f'{{ rpc: resources/read, uri: "{uri}", {needed} }}')
        routes = []
        for number, path in enumerate(rng.sample(PATHS, 2)):
            needed = rng.choice([*needs, 'require: "a:run:{x}"', "allow: anyone"] if "{x}" in path else needs)
            routes.append(f'  - {{ id: r{number}, path: "{path}", methods: [GET], upstream: u, {needed} }}\n')
        try:
            return parse_policy(f"{HEAD}{MCP}{', '.join(rules)}] }}\n{''.join(routes)}...\n", "p")
        except ConfigError:
            continue


def draw_question(rng: Random) -> tuple[str, str, Question]:
    """What kind of thing it names, its name, and the question."""
    segments = [rng.choice(SEGMENTS) for _ in range(rng.randint(1, 4))]
    kind = rng.choice(["tool", "resource", "request"])
    if kind == "tool":
        arguments = {key: rng.choice(["b", "x", "", 5]) for key in ("name", "k") if rng.random() < 0.7}
        name = ".".join(segments)
        return kind, name, Question("POST", "/m", "tools/call", {"name": name, "arguments": arguments})
    if kind == "resource":
        uri = "v://" + "/".join(segments)
        return kind, uri, Question("POST", "/m", "resources/read", {"uri": uri})
    path = "/r/" + "/".join(segments)
    return kind, path, Question("GET", path)


def is_about(subject: str, kind: str, name: str) -> bool:
    word, _, rest = subject.partition(" ")
    texts = rest.partition(" of /m")[0].removeprefix("GET ").split(" and ")
    return word == kind and all(is_matched(text, kind, name) for text in texts)


def is_matched(text: str, kind: str, name: str) -> bool:
    if kind == "tool":
        return text == name or ("*" in text and parse_name_pattern(text).find(name) is not None)
    return parse_path_pattern(text).find(name) is not None


def test_every_flip_between_two_drawn_policies_is_told_and_on_the_right_side() -> None:
    flips = 0
    for label, rng in draw(SMALL_POLICIES):
        old, new = draw_policy(rng), draw_policy(rng)
        differences = compare(old, new)
        assert not compare(old, old), label
        for kind, name, question in (draw_question(rng) for _ in range(60)):
            for preset in old.presets:
                grants = frozenset(old.presets[preset].scopes)
                before, after = (isinstance(ask(one, question, grants, OWNER).decision, Allowed) for one in (old, new))
                if before == after:
                    continue
                flips += 1
                told = differences.holders.get(f"preset {preset}", ())
                verdicts = {"opened", "widened", "changed"} if after else {"closed", "narrowed", "changed"}
                assert any(one.verdict in verdicts and is_about(one.subject, kind, name) for one in told), (
                    label, preset, question, told,
                )  # fmt: skip
    assert flips > SMALL_POLICIES
