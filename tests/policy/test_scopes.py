"""The lattice of scopes: intersection, the catalogue, and what a key may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy import Policy, parse_policy
from proxy.policy.scopes import covers, intersect, simplify, split_scope

POLICY: Policy = parse_policy(
    """\
version: 1
default_tier: all
scopes:
  workflow:run:  { title: Run, selector: workflow name }
  workflow:list: { title: List }
  volume:read:   { title: Read, selector: volume id }
presets:
  base: { title: Base, scopes: [workflow:list] }
  more: { title: More, extends: base, scopes: [volume:read, "workflow:run:x"] }
  most: { title: Most, extends: more, scopes: [workflow:run, workflow:list] }
tiers:
  all: ["*"]
  some: [workflow:run, "volume:read:v"]
  none: []
routes: []
...
""",
    "test.yaml",
)

SCOPES = ["*", *(f"{head}{end}" for head in ("workflow:run", "volume:read") for end in ("", ":x", ":y", ":x:y"))]
scope_sets = st.frozensets(st.sampled_from([*SCOPES, "workflow:list"]), max_size=5)
stale = st.sampled_from(["old:scope", "workflow", "workflow:run:", "workflow:list:x", "workflow:run:*", "", ":", "::x"])
tiers = st.sampled_from(["all", "some", "none"])


def all_covered(scopes: frozenset[str], held: frozenset[str]) -> bool:
    return all(covers(held, scope) for scope in scopes)


@given(scope_sets, scope_sets, scope_sets)
def test_intersection_is_commutative_associative_and_idempotent(
    one: frozenset[str], other: frozenset[str], third: frozenset[str]
) -> None:
    assert intersect(one, other) == intersect(other, one)
    assert intersect(intersect(one, other), third) == intersect(one, intersect(other, third))
    assert intersect(one, one) == simplify(one)


@given(scope_sets, scope_sets, st.sampled_from(SCOPES))
def test_intersection_covers_exactly_what_both_cover(one: frozenset[str], other: frozenset[str], scope: str) -> None:
    assert covers(intersect(one, other), scope) == (covers(one, scope) and covers(other, scope))


@given(scope_sets, st.lists(scope_sets, max_size=3), tiers)
def test_effective_scopes_never_exceed_any_input(
    scopes: frozenset[str], ancestors: list[frozenset[str]], tier: str
) -> None:
    effective = POLICY.effective_scopes(scopes, ancestors, tier)
    for held in (scopes, *ancestors, POLICY.tiers[tier]):
        assert all_covered(effective, held)


@given(scope_sets, st.lists(scope_sets, max_size=3), tiers)
def test_effective_scopes_do_not_depend_on_who_holds_what_in_the_line(
    scopes: frozenset[str], ancestors: list[frozenset[str]], tier: str
) -> None:
    effective = POLICY.effective_scopes(scopes, ancestors, tier)
    for turn in range(len(ancestors) + 1):
        line = [scopes, *ancestors]
        line = line[turn:] + line[:turn]
        assert POLICY.effective_scopes(line[0], line[1:], tier) == effective


@given(scope_sets, scope_sets, st.lists(scope_sets, max_size=2), tiers)
def test_holding_more_is_never_allowed_less(
    scopes: frozenset[str], more: frozenset[str], ancestors: list[frozenset[str]], tier: str
) -> None:
    less = POLICY.effective_scopes(scopes, ancestors, tier)
    assert all_covered(less, POLICY.effective_scopes(scopes | more, ancestors, tier))
    assert all_covered(POLICY.effective_scopes(scopes, [*ancestors, more], tier), less)


@given(scope_sets, st.frozensets(stale))
def test_a_scope_that_is_not_in_the_catalogue_grants_nothing(scopes: frozenset[str], lost: frozenset[str]) -> None:
    assert POLICY.effective_scopes(scopes | lost, [], "all") == POLICY.effective_scopes(scopes, [], "all")
    assert POLICY.effective_scopes(lost, [], "all") == frozenset()
    assert POLICY.effective_scopes(["*"], [lost], "all") == frozenset()


@pytest.mark.parametrize(
    ("scopes", "ancestors", "tier", "effective"),
    [
        (["*"], [], "all", {"*"}),
        (["*"], [], "some", {"workflow:run", "volume:read:v"}),
        (["workflow:run"], [["workflow:run:x"]], "all", {"workflow:run:x"}),
        (["workflow:run:x"], [["workflow:run"], ["*"]], "some", {"workflow:run:x"}),
        (["workflow:run:x"], [["workflow:run:y"]], "all", set()),
        (["workflow:run:x"], [["workflow:run:x:y"]], "all", set()),
        (["volume:read"], [], "some", {"volume:read:v"}),
        (["workflow:run", "workflow:run:x"], [], "all", {"workflow:run"}),
        (["*", "workflow:list"], [], "all", {"*"}),
        (["*"], [[]], "all", set()),
        ([], [], "all", set()),
        (["*"], [], "none", set()),
        (["*"], [], "unknown", set()),
        (["*"], [], "", set()),
    ],
)
def test_effective_scopes_are_the_intersection(
    scopes: list[str], ancestors: list[list[str]], tier: str, effective: set[str]
) -> None:
    assert POLICY.effective_scopes(scopes, ancestors, tier) == effective


@pytest.mark.parametrize(
    "scope",
    ["*", "workflow:list", "workflow:run", "workflow:run:nightly-etl", "workflow:run:a:b", "workflow:run:zwei Wörter"],
)
def test_a_key_may_hold(scope: str) -> None:
    POLICY.check_scope(scope)


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        ("workflow:rum", r"unknown scope workflow:rum \(did you mean workflow:run\?\)"),
        ("workflow:rum:x", r"unknown scope workflow:rum:x \(did you mean workflow:run\?\)"),
        ("Workflow:run", "unknown scope Workflow:run"),
        ("zzz", "unknown scope zzz .the catalogue"),
        ("", "unknown scope"),
        ("**", "unknown scope"),
        ("workflow:*", r"unknown scope workflow:\*"),
        ("workflow:run:", "empty selector .name one workflow name, or write workflow:run for all"),
        ("workflow:list:x", "workflow:list takes no selector"),
        ("workflow:list:", "workflow:list takes no selector"),
        ("workflow:run:*", "selector that names nothing"),
        ("workflow:run:nightly-*", "selector that names nothing"),
        ("workflow:run:a\nb", "selector that names nothing"),
        ("workflow:run:a\u200bb", "selector that names nothing"),
        ("workflow:run:\ud800", "selector that names nothing"),
        ("workflow:run:" + "x" * 257, "selector that names nothing"),
        ("workflow :run", "unknown scope"),
        (" workflow:run", "unknown scope"),
    ],
)
def test_a_key_may_not_hold(scope: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        POLICY.check_scope(scope)
    assert str(caught.value).isprintable()


@given(st.text())
def test_any_text_is_either_grantable_or_refused_with_a_reason(scope: str) -> None:
    effective = POLICY.effective_scopes([scope], [], "all")
    if effective:
        assert effective == {scope}
        POLICY.check_scope(scope)
    else:
        with pytest.raises(ValueError, match="scope"):
            POLICY.check_scope(scope)


@given(st.from_regex(r"[a-z]+:[a-z]+", fullmatch=True), st.text())
def test_the_selector_is_all_that_follows_the_second_colon(head: str, selector: str) -> None:
    assert split_scope(f"{head}:{selector}") == (head, selector)
    assert split_scope(head) == (head, None)


def test_an_empty_selector_is_a_fault_and_never_any() -> None:
    assert not covers(frozenset({"workflow:run"}), "workflow:run:")
    assert not covers(frozenset({"workflow:run:"}), "workflow:run:x")


def test_presets_are_expanded_in_order_through_what_they_extend() -> None:
    assert POLICY.presets["most"].title == "Most"
    assert POLICY.presets["most"].scopes == ("workflow:list", "volume:read", "workflow:run:x", "workflow:run")


def test_a_policy_cannot_be_changed() -> None:
    for mapping in (POLICY.presets, POLICY.tiers, POLICY.catalogue, POLICY.exact_routes):
        with pytest.raises(TypeError):
            mapping["new"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        POLICY.default_tier = "none"  # type: ignore[misc]
