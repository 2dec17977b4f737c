"""What an edit opens and closes: named exactly, and nothing that flips goes unnamed."""

from __future__ import annotations

import re

import pytest

from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Policy, parse_policy
from proxy.policy.differences import compare
from proxy.policy.questions import Question, ask
from proxy.settings import find_shipped
from tests.fuzz.scale import SEED
from tests.policy.asking import Asking

SHIPPED = find_shipped("policy.yaml").read_text()
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
        "widened", "request GET /v1/agents",
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
    opposite = {"opened": "closed", "closed": "opened", "widened": "narrowed", "narrowed": "widened"}
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
        ("default_tier: pro", "default_tier: free"),
        ("  canvas:read:           { title: Read canvases }", "  canvas:read:           { title: C, selector: id }\n"
         "  canvas:draw:           { title: Draw }"),
        ("{ id: stimuli, path: /v1/stimuli, methods: [POST], upstream: api", "{ id: stimuli, path: /v1/stimuli,"
         " methods: [POST], upstream: other"),
        ("  # - { id: health, path: /health", "  - { id: health, path: /health"),
    )  # fmt: skip
    assert set(compare(policy, other).general) == {
        "default_tier: pro becomes free",
        "scope canvas:draw is new",
        "scope canvas:read takes a selector now",
        "path /v1/stimuli: upstream was api, is other",
        "path /health is new",
    }


# Nobody asks with that argument; and whoever may tell devices what to do may do everything.
UNASKED = ("a condition more", "a nested call that is not looked at")


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
