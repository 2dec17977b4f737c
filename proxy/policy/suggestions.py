"""The least scopes that would have sufficed for what a key did.  [pure]

Counted uses come in, and what the key holds; out go the scopes to propose, what it holds beside them, and what it was
denied. Where a rule takes any one of several scopes, the few that serve most uses are sought greedily: a smallest
choice takes exponential time to find, and this one leaves nothing in that could be dropped. Nothing is proposed that
the key does not hold. What counted nothing is not known here, so that the days covered are for the reader to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from proxy.policy.compiled import Policy
from proxy.policy.rules import FieldPath, NeededScope, Rule
from proxy.policy.scopes import EVERYTHING, covers, is_grantable, simplify, split_scope

MAX_SELECTORS: Final = 10  # of one kind in a suggestion: more were hardly chosen one by one

Scopes = frozenset[str]


@dataclass(frozen=True, slots=True)
class Use:
    """How often a rule allowed or denied, resting on these scopes; of a denial: which would have sufficed, if any."""

    rule: str
    scopes: tuple[str, ...]
    allowed: bool
    count: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """A scope to hold, and what rests on it."""

    scope: str
    count: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`unused`: of the key's own scopes, those that nothing proposed rests on. `widened`: of which so many selectors
    were used that they are proposed without. `lapsed`: uses whose scopes no key can hold any more."""

    proposals: tuple[Proposal, ...]
    unused: tuple[str, ...]
    denied: tuple[Use, ...]
    widened: tuple[str, ...] = ()
    lapsed: tuple[Use, ...] = ()
    chosen: bool = False  # some use could have rested on other scopes

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(proposal.scope for proposal in self.proposals)


def suggest(policy: Policy, uses: Sequence[Use], own: Iterable[str], grants: Scopes) -> Suggestion:
    """`own`: the scopes in the key's row; `grants`: what is effective of them."""
    resting = [use for use in uses if use.allowed and use.scopes]
    widened = _find_widened(resting, grants)
    rules = _index_rules(policy)
    options = {use: _list_options(use, rules.get(use.rule), policy, grants, widened) for use in resting}
    needs = {tuple(found) for found in options.values() if found}
    scopes = _cover(needs)
    return Suggestion(
        proposals=tuple(_form_proposals(scopes, options)),
        unused=tuple(scope for scope in own if not any(covers(frozenset({scope}), one) for one in scopes)),
        denied=tuple(sorted((use for use in uses if not use.allowed), key=lambda use: -use.count)),
        widened=tuple(sorted(widened & scopes)),
        lapsed=tuple(use for use, found in options.items() if not found),
        chosen=any(len(need) > 1 for need in needs),
    )


def _find_widened(uses: Iterable[Use], grants: Scopes) -> Scopes:
    """The scopes that are proposed without their selectors; not where the key itself holds them one by one."""
    selective: dict[str, set[str]] = {}
    for scope in {scope for use in uses for scope in use.scopes}:
        head, selector = split_scope(scope)
        if selector is not None:
            selective.setdefault(head, set()).add(scope)
    return frozenset(head for head, found in selective.items() if len(found) > MAX_SELECTORS and covers(grants, head))


def _index_rules(policy: Policy) -> Mapping[str, Rule]:
    """By id, where one id is one rule: two routes may each have a rule of that id."""
    rules: dict[str, Rule] = {}
    ambiguous: set[str] = set()
    for rule in (rule for route in policy.routes for rule in route.rules.list_rules()):
        first = rules.setdefault(rule.id, rule)
        if (first.kind, first.alternatives, first.nested) != (rule.kind, rule.alternatives, rule.nested):
            ambiguous.add(rule.id)
    return {rule_id: rule for rule_id, rule in rules.items() if rule_id not in ambiguous}


def _list_options(use: Use, rule: Rule | None, policy: Policy, grants: Scopes, widened: Scopes) -> list[Scopes]:
    """Each of which would have sufficed, what was recorded first. None: no key can hold what was."""

    def settle(scopes: Iterable[str]) -> Scopes:
        return simplify(head if (head := split_scope(scope)[0]) in widened else scope for scope in scopes)

    recorded = settle(use.scopes)
    options = [recorded]
    for scopes in _list_alternatives(use, rule):
        option = settle(scopes)
        wider = all(covers(option, scope) for scope in recorded)  # so is the recorded one itself
        if not wider and all(covers(grants, scope) for scope in option):
            options.append(option)
    known = [option for option in options if all(_is_known(scope, policy) for scope in option)]
    return list(dict.fromkeys(known))


def _is_known(scope: str, policy: Policy) -> bool:
    return scope == EVERYTHING or is_grantable(scope, policy.catalogue)


def _list_alternatives(use: Use, rule: Rule | None) -> Iterator[list[str]]:
    """What else the rule takes, as far as it can be told from the scopes that were recorded.

    Not of rules whose uses may rest on more than the rule itself: on a call within a call, or on the resources that a
    method subscribes to.
    """
    if rule is None or rule.alternatives is None or rule.nested is not None or rule.kind == "rpc":
        return
    values = next((found for needed in rule.alternatives if (found := _match(needed, use.scopes)) is not None), None)
    if values is None:
        return  # the rule was another one at that time
    for needed_scopes in rule.alternatives:
        yield [_resolve(needed, values.get) for needed in needed_scopes]


def _match(needed_scopes: Sequence[NeededScope], scopes: Sequence[str]) -> dict[FieldPath, str] | None:
    """What the fields must have been, if these scopes are those; None if they are not."""
    values: dict[FieldPath, str] = {}
    if len(needed_scopes) != len(scopes):
        return None
    for needed, scope in zip(needed_scopes, scopes, strict=True):
        head, selector = split_scope(scope)
        if needed.selector_path is None:
            if scope != needed.scope:
                return None
        elif head != needed.head or values.setdefault(needed.selector_path, selector or "") != (selector or ""):
            return None
    return values


def _resolve(needed: NeededScope, find_value: Callable[[FieldPath], str | None]) -> str:
    """Without its selector, where the field's value is not known."""
    if needed.selector_path is None:
        return needed.scope
    value = find_value(needed.selector_path)
    return f"{needed.head}:{value}" if value else needed.head


def _cover(needs: Iterable[tuple[Scopes, ...]]) -> Scopes:
    """Scopes that satisfy each need by one of its options, and none of them in vain."""
    ordered = sorted(needs, key=lambda need: [sorted(option) for option in need])
    scopes: Scopes = frozenset().union(*(need[0] for need in ordered if len(need) == 1))
    open_needs = [need for need in ordered if not _satisfies(scopes, need)]
    while open_needs:
        candidates = dict.fromkeys(option for need in open_needs for option in need)
        scopes |= _choose(candidates, scopes, open_needs)
        open_needs = [need for need in open_needs if not _satisfies(scopes, need)]
    scopes = simplify(scopes)
    for scope in sorted(scopes, key=lambda scope: (split_scope(scope)[1] is not None, scope)):
        if all(_satisfies(scopes - {scope}, need) for need in ordered):
            scopes -= {scope}
    return scopes


def _choose(candidates: Iterable[Scopes], scopes: Scopes, needs: Sequence[tuple[Scopes, ...]]) -> Scopes:
    """The one that satisfies most needs; of equals what adds least that is wide, or at all, and was recorded first."""

    def rate(option: Scopes) -> tuple[int, int, int]:
        added = [scope for scope in option if not covers(scopes, scope)]
        wide = sum(split_scope(scope)[1] is None for scope in added)
        return sum(_satisfies(scopes | option, need) for need in needs), -wide, -len(added)

    return max(candidates, key=rate)  # the first of equals


def _satisfies(scopes: Scopes, need: Iterable[Scopes]) -> bool:
    return any(all(covers(scopes, scope) for scope in option) for option in need)


def _form_proposals(scopes: Scopes, options: Mapping[Use, Sequence[Scopes]]) -> Iterator[Proposal]:
    settled = [
        (use, option)
        for use, found in options.items()
        for option in [next((option for option in found if _satisfies(scopes, [option])), None)]
        if option is not None
    ]
    for scope in sorted(scopes):
        held = frozenset({scope})
        uses = [use for use, option in settled if any(covers(held, one) for one in option)]
        yield Proposal(scope, sum(use.count for use in uses), max(use.last_at for use in uses))
