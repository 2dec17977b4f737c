"""How far a rule lets somebody go, and which of two goes farther."""

from __future__ import annotations

from itertools import product

import pytest

from proxy.policy.reaches import Asked, Demand, Reach
from proxy.policy.rules import NeededScope, Rule

X, Y = frozenset({"x"}), frozenset({"x", "y"})


@pytest.mark.parametrize(
    ("tight", "loose"),
    [
        (Demand("a", X), Demand("a", Y)),
        (Demand("a", X), Demand("a", None)),
        (Demand("a", X), Demand("a", X, absent_allowed=True)),
        (Demand("a", X, absent_allowed=True), Demand("a", Y, absent_allowed=True)),
        (Demand("a", frozenset(), absent_allowed=True), Demand("a", X, absent_allowed=True)),
    ],
)
def test_the_tighter_demand_implies_the_looser_and_not_the_other_way(tight: Demand, loose: Demand) -> None:
    assert tight.implies(loose)
    assert not loose.implies(tight)
    narrow, wide = (Reach(frozenset({frozenset[Demand]()}), frozenset({one})) for one in (tight, loose))
    assert wide.contains(narrow)
    assert not narrow.contains(wide)


def test_demands_on_other_fields_imply_nothing() -> None:
    assert not Demand("a", X).implies(Demand("b", None))


def test_what_a_reach_says_besides_makes_it_narrower() -> None:
    plain = Reach(frozenset({frozenset[Demand]()}), frozenset())
    bound = Reach(plain.ways, plain.conditions, frozenset({"the call in it must be allowed, too"}))
    assert plain.contains(bound)
    assert not bound.contains(plain)


@pytest.mark.parametrize(
    ("grants", "words"),
    [
        ((), None),
        (("a:run",), "name given"),
        (("*",), "name given"),
        (("a:run:one",), "name is one"),
        (("a:run:one", "a:run:two"), "name is one or two"),
        (("a:run:one", "a:run"), "name given"),
        (("a:runs:one", "a:ru"), None),
    ],
)
def test_what_is_held_says_what_the_field_may_be(grants: tuple[str, ...], words: str | None) -> None:
    needed = NeededScope("a:run", "a:run:{arguments.name}", ("name",))
    reach = Asked(Rule("r", "tool", ((needed,),))).find_reach(frozenset(grants))
    assert (reach.describe() if reach is not None else None) == words


SCOPES = ("a:run", "a:run:one", "a:run:two", "b:run", "b:run:one")
NEEDS = (
    NeededScope("a:run", "a:run", None),
    NeededScope("a:run", "a:run:one", None),
    NeededScope("a:run", "a:run:{arguments.name}", ("name",)),
    NeededScope("b:run", "b:run:{arguments.name}", ("name",)),
    NeededScope("b:run", "b:run:{arguments.other}", ("other",)),
)


@pytest.mark.parametrize("needs", [*product(NEEDS, repeat=2)])
def test_there_is_a_reach_where_the_rule_could_allow(needs: tuple[NeededScope, NeededScope]) -> None:
    for alternatives in ((needs,), ((needs[0],), (needs[1],))):
        rule = Rule("r", "tool", alternatives)
        for held in product((False, True), repeat=len(SCOPES)):
            grants = frozenset(scope for scope, holds in zip(SCOPES, held, strict=True) if holds)
            assert (Asked(rule).find_reach(grants) is not None) == rule.could_allow(grants), grants


def test_a_variable_that_is_fixed_by_its_path_is_no_demand() -> None:
    rule = Rule("r", "http", ((NeededScope("a:run", "a:run:{x}", ("x",)),),))
    asked = Asked(rule, variables={"x": "one"})
    reach = asked.find_reach(frozenset({"a:run:one"}))
    assert reach is not None
    assert reach.describe() == "whatever it is for"
    assert asked.find_reach(frozenset({"a:run:two"})) is None
