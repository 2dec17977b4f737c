"""Suggestions: enough for everything that was done, nothing that could be dropped, nothing the key does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, parse_policy
from proxy.policy.questions import Question, ask
from proxy.policy.scopes import covers, simplify
from proxy.policy.suggestions import MAX_SELECTORS, Suggestion, Use, suggest

OWNER = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "all")
POLICY = parse_policy(
    """\
version: 1
default_tier: all
scopes:
  a:run:  { title: Run, selector: name }
  b:run:  { title: Run others, selector: name }
  a:list: { title: List }
  b:list: { title: List others }
  c:list: { title: List more }
presets: {}
tiers: { all: ["*"] }
routes:
  - id: mcp
    path: /mcp
    methods: [POST]
    upstream: mcp
    protocol: mcp
    rules:
      - { rpc: ping, allow: any-key }
      - { rpc: tasks/list, require: { any: [a:list, c:list] } }
      - { tool: one, require: "a:run:{arguments.name}" }
      - { tool: other, require: "b:run:{arguments.name}" }
      - { tool: list, require: a:list }
      - { tool: whole, require: a:run }
      - { tool: all, require: "*" }
      - { tool: both, require: ["a:run:{arguments.name}", b:list] }
      - { tool: either, require: { any: [a:list, b:list, c:list] } }
      - { tool: either_more, require: { any: [b:list, c:list] } }
      - { tool: either_name, require: { any: ["a:run:{arguments.name}", "b:run:{arguments.name}"] } }
      - { tool: list_or_name, require: { any: [c:list, "b:run:{arguments.name}"] } }
      - tool: within
        require: { any: [a:list, b:list] }
        also_tool: { name: arguments.tool, arguments: arguments.args }
      - { prompt: "p.*", require: { any: [b:list, a:list] } }
      - { uri: "note://{name}", require: { any: ["a:run:{name}", c:list] } }
  - { id: rest, path: "/v1/a/{name}", methods: [POST], upstream: api, require: "a:run:{name}" }
...
""",
    "test.yaml",
)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
EVERYTHING = frozenset({"*"})
NAMES = ["x", "y", "z:1", "w w"]
SCOPES = [*(f"{head}{end}" for head in ("a:run", "b:run") for end in ("", ":x", ":y")), "a:list", "b:list", "c:list"]


def call(tool: str, name: str = "x") -> Question:
    return Question("POST", "/mcp", "tools/call", {"name": tool, "arguments": {"name": name}})


PLAIN = [
    *(call(tool, name) for tool in ("one", "other", "both", "either_name") for name in NAMES),
    *map(call, ("list", "whole", "either", "either_more")),
    *(Question("POST", "/mcp", "prompts/get", {"name": "p.1"}) for _ in range(1)),
    *(Question("POST", "/mcp", "resources/read", {"uri": f"note://{name}"}) for name in ("x", "y")),
    *(Question("POST", f"/v1/a/{name}") for name in ("x", "y")),
    Question("POST", "/mcp", "ping"),
]
# What rests on more than its rule, or could have rested on scopes that nobody recorded: no other way is guessed.
MORE = [
    *(call("list_or_name", name) for name in NAMES),
    Question("POST", "/mcp", "tasks/list"),
    call("all"),
    *(
        Question("POST", "/mcp", "tools/call", {"name": "within", "arguments": {"tool": tool, "args": {"name": "x"}}})
        for tool in ("one", "either", "list")
    ),
]


def is_allowed(question: Question, scopes: Iterable[str]) -> bool:
    return isinstance(ask(POLICY, question, frozenset(scopes), OWNER).decision, Allowed)


def record(questions: Iterable[Question], grants: frozenset[str]) -> list[Use]:
    """What the counters would hold after these requests."""
    uses: Counter[tuple[str, tuple[str, ...], bool]] = Counter()
    for question in questions:
        decision = ask(POLICY, question, grants, OWNER).decision
        if isinstance(decision, Allowed):
            uses[decision.rule, decision.scopes, True] += 1
        else:
            uses[decision.rule or "", () if decision.smallest is None else (decision.smallest,), False] += 1
    return [Use(*subject, count, NOW) for subject, count in uses.items()]


def suggest_for(questions: Iterable[Question], *held: str) -> Suggestion:
    return suggest(POLICY, record(questions, frozenset(held)), held, frozenset(held))


grants_drawn = st.one_of(st.just(EVERYTHING), st.frozensets(st.sampled_from(SCOPES), max_size=6))


@given(st.lists(st.sampled_from(PLAIN), max_size=12), grants_drawn)
def test_what_is_proposed_allows_every_use_and_nothing_of_it_can_be_dropped(
    questions: list[Question], grants: frozenset[str]
) -> None:
    scopes = suggest_for(questions, *grants).scopes
    done = [question for question in questions if is_allowed(question, grants)]
    assert all(is_allowed(question, scopes) for question in done)
    for scope in scopes:
        assert not all(is_allowed(question, {*scopes} - {scope}) for question in done), scope


@given(st.lists(st.sampled_from([*PLAIN, *MORE]), max_size=12), grants_drawn)
def test_what_is_proposed_suffices_and_is_held_already(questions: list[Question], grants: frozenset[str]) -> None:
    suggestion = suggest_for(questions, *grants)
    done = [question for question in questions if is_allowed(question, grants)]
    assert all(is_allowed(question, suggestion.scopes) for question in done)
    assert all(covers(grants, scope) for scope in suggestion.scopes)
    assert frozenset(suggestion.scopes) == simplify(suggestion.scopes)


@given(st.lists(st.sampled_from([*PLAIN, *MORE]), max_size=12), grants_drawn)
def test_what_is_unused_can_be_taken_away(questions: list[Question], grants: frozenset[str]) -> None:
    suggestion = suggest_for(questions, *grants)
    done = [question for question in questions if is_allowed(question, grants)]
    assert all(is_allowed(question, grants - {*suggestion.unused}) for question in done)


def test_selectors_are_named_while_they_are_few_and_not_where_they_are_many() -> None:
    few = [call("one", f"w{number}") for number in range(MAX_SELECTORS)]
    assert len(suggest_for(few, "*").scopes) == MAX_SELECTORS
    many = suggest_for([*few, call("one", "another")], "*")
    assert many.scopes == ("a:run",)
    assert many.widened == ("a:run",)
    assert many.proposals[0].count == MAX_SELECTORS + 1


def test_a_key_that_holds_many_selectors_one_by_one_is_not_widened() -> None:
    names = [f"w{number:02}" for number in range(MAX_SELECTORS + 5)]
    held = [f"a:run:{name}" for name in names]
    suggestion = suggest_for([call("one", name) for name in names], *held)
    assert list(suggestion.scopes) == held
    assert suggestion.widened == ()


def test_where_any_of_several_suffices_the_one_that_serves_most_is_chosen() -> None:
    both = suggest_for([call("either"), call("either_more")], "a:list", "b:list", "c:list")
    assert len(both.scopes) == 1
    assert both.scopes[0] in ("b:list", "c:list")
    assert both.chosen
    needed = suggest_for([call("list"), call("either")], "a:list", "b:list")
    assert needed.scopes == ("a:list",)
    named = suggest_for([call("either_name", "x"), call("other", "x")], "a:run", "b:run")
    assert named.scopes == ("b:run:x",)
    assert named.unused == ("a:run",)


def test_a_guess_is_not_made_where_a_use_rests_on_more_than_its_rule() -> None:
    within = Question("POST", "/mcp", "tools/call", {"name": "within", "arguments": {"tool": "list"}})
    assert suggest_for([within, call("either_more")], "a:list", "b:list").scopes == ("a:list", "b:list")


def test_a_narrow_use_is_not_proposed_wide_because_an_alternative_is() -> None:
    assert suggest_for([call("list_or_name", "x")], "b:run:x").scopes == ("b:run:x",)
    assert suggest_for([call("either_name", "x")], "*").scopes == ("a:run:x",)


def test_what_any_key_may_needs_nothing() -> None:
    suggestion = suggest_for([Question("POST", "/mcp", "ping")], "a:list", "*")
    assert suggestion.scopes == ()
    assert suggestion.unused == ("a:list", "*")
    assert not suggestion.chosen


def test_denials_are_told_with_what_they_would_need_and_never_proposed() -> None:
    questions = [call("one", "x"), call("list"), call("list"), call("nobody_knows_it")]
    suggestion = suggest_for(questions, "b:list")
    assert suggestion.scopes == ()
    assert [(use.rule, use.scopes, use.count) for use in suggestion.denied] == [
        ("mcp/tool:list", ("a:list",), 2),
        ("mcp/tool:one", ("a:run:x",), 1),
        ("", (), 1),
    ]


def test_uses_by_rules_that_are_gone_still_count_and_scopes_that_are_gone_are_told() -> None:
    gone = [
        Use("mcp/tool:gone", ("a:run:x",), True, 3, NOW),
        Use("mcp/tool:gone", ("a:run:x",), True, 4, NOW + timedelta(days=1)),
        Use("mcp/tool:either", ("old:scope",), True, 1, NOW),
    ]
    suggestion = suggest(POLICY, gone, ["*"], EVERYTHING)
    assert suggestion.scopes == ("a:run:x",)
    assert [(one.count, one.last_at) for one in suggestion.proposals] == [(7, NOW + timedelta(days=1))]
    assert suggestion.lapsed == (gone[2],)


def test_what_a_use_rested_on_before_its_rule_changed_is_what_counts() -> None:
    used = [Use("mcp/tool:list", ("b:list",), True, 1, NOW), Use("mcp/tool:either", ("a:run:x",), True, 1, NOW)]
    assert suggest(POLICY, used, ["*"], EVERYTHING).scopes == ("a:run:x", "b:list")
