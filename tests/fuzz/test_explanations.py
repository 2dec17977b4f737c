"""Whatever the policy and the request: what is explained is enforced, and what is said to suffice does and is least."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from proxy.policy import Allowed, Denied, Policy, parse_policy
from proxy.policy.explanations import Explanation, explain
from proxy.policy.questions import Question, ask
from proxy.policy.scopes import is_grantable, split_scope
from tests.fuzz.scale import PAIRS, SEED
from tests.policy.asking import EXTRA_POLICY, NAMES, OWNER, Asking, enforce, write_policy

PAIRS_OF_A_POLICY = 500  # of those that nobody wrote


def list_smaller(scope: str, policy: Policy) -> Iterator[str]:
    """Every scope of the catalogue that is a part of this one and could matter here."""
    head, selector = split_scope(scope)
    if selector is None:
        parts = (f"{head}:{name}" for name in (*NAMES, "a b", "v-1", "x"))
        yield from (part for part in parts if is_grantable(part, policy.catalogue))


def check_pairs(policy: Policy, seed: int, count: int) -> tuple[int, int, int]:
    """Raises AssertionError. How many were allowed, how many denied, and for how many of these one scope suffices."""
    asking = Asking(policy, seed, nesting=0.1)
    allowed = named = 0
    for number in range(count):
        grants, question = asking.draw()
        case = f"{number} of seed {seed}: {sorted(grants)}, {question}"
        explanation = explain(policy, question, grants, OWNER)
        assert (explanation.allowed, explanation.decision.rule) == enforce(policy, question, grants)[:2], case
        check_trace(explanation, case)
        if isinstance(explanation.decision, Allowed):
            allowed += 1
            continue
        named += explanation.decision.smallest is not None
        check_sufficient(policy, question, grants, explanation.decision, case)
        check_enough(policy, question, grants, explanation, case)
    return allowed, count - allowed, named


def check_trace(explanation: Explanation, case: str) -> None:
    decision, steps = explanation.decision, explanation.steps
    if decision.rule is not None:
        assert any(f" rule {decision.rule}" in step for step in steps), (case, steps)
    failures = [step for step in steps if step.endswith((": fails", "not held", "or no text", "is wrong"))]
    if isinstance(decision, Denied):
        assert failures or any(step in decision.why for step in steps), (case, steps)
    else:
        assert all("not held" in step or "no text" in step for step in failures), (case, steps)  # of other alternatives


def is_allowed_with(policy: Policy, question: Question, grants: frozenset[str], *scopes: str) -> bool:
    return isinstance(ask(policy, question, grants.union(scopes), OWNER).decision, Allowed)


def check_sufficient(policy: Policy, question: Question, grants: frozenset[str], denied: Denied, case: str) -> None:
    assert denied.singles[:1] == (() if denied.smallest is None else (denied.smallest,)), case
    for scope in denied.sufficient:
        policy.check_scope(scope)
        assert is_allowed_with(policy, question, grants, scope), (case, scope)
        for smaller in list_smaller(scope, policy):
            assert not is_allowed_with(policy, question, grants, smaller), (case, scope, smaller)
    if not denied.singles:
        for scope in denied.missing:
            assert not is_allowed_with(policy, question, grants, scope), (case, scope)


def check_enough(
    policy: Policy, question: Question, grants: frozenset[str], explanation: Explanation, case: str
) -> None:
    enough = explanation.enough
    if not enough:
        assert isinstance(explanation.decision, Denied)
        assert not is_allowed_with(policy, question, grants, *explanation.decision.missing), case
        return
    assert is_allowed_with(policy, question, grants, *enough), (case, enough)
    for scope in enough:
        assert not is_allowed_with(policy, question, grants, *(other for other in enough if other != scope)), case


@pytest.mark.parametrize("which", ["shipped", "of every shape"])
def test_an_explanation_is_what_enforcement_does_and_its_smallest_scope_suffices_and_is_the_smallest(
    which: str, policy: Policy
) -> None:
    asked, count = (policy, PAIRS // 2) if which == "shipped" else (EXTRA_POLICY, PAIRS // 5)
    assert min(check_pairs(asked, SEED, count)) > count // 20


def test_the_same_holds_for_policies_nobody_wrote() -> None:
    totals = [0, 0, 0]
    count = 3 * PAIRS // 10 // PAIRS_OF_A_POLICY
    for number in range(count):
        seed = SEED * count + number
        asked = parse_policy(write_policy(random.Random(seed)), f"policy of seed {seed}")
        totals = [sum(pair) for pair in zip(totals, check_pairs(asked, seed, PAIRS_OF_A_POLICY), strict=True)]
    assert min(totals) > count * PAIRS_OF_A_POLICY // 20
