"""Why a decision is what it is.  [pure]

A decision comes in, what there is to know about it goes out: the same words and members for the answer to a refused
client, for the command line and for whoever asks the API. The verdict is never found anew here: `questions.ask` gives
it, also of what would have sufficed, and `traces` tells the way there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from proxy.identity import Owner
from proxy.policy.compiled import Policy
from proxy.policy.questions import Question, ask
from proxy.policy.rules import Allowed, Decision, Denied, make_grantable
from proxy.policy.scopes import EVERYTHING, covers, show
from proxy.policy.traces import trace

_TRIED_LIMIT: Final = 50  # scopes; a message may listen to hundreds of resources


def form_denial(denied: Denied, grants: frozenset[str]) -> dict[str, Any]:
    """What a refused client is told beside the sentence."""
    return {
        "rule": denied.rule,
        "required": list(denied.required),
        "missing": list(denied.missing),
        "held": sorted(grants),
        "smallest_sufficient": denied.smallest,
    }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, by which policy and route it was made, for whom, and how.

    `enough`: with these scopes as well it would be allowed, and with none of them left out; () if no scope would help.
    `beyond_tier`: those that are missing and no key of this owner can hold, as far as the owner's tier is known.
    """

    revision: str
    route: str | None
    decision: Decision
    grants: frozenset[str]
    enough: tuple[str, ...]
    beyond_tier: tuple[str, ...]
    steps: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return isinstance(self.decision, Allowed)

    def form(self) -> dict[str, Any]:
        """As one JSON object: a denial's members, and who decided."""
        decided: dict[str, Any] = {"allowed": self.allowed, "policy": self.revision, "route": self.route}
        if isinstance(self.decision, Allowed):
            rested = {"rule": self.decision.rule, "rests_on": list(self.decision.scopes), "held": sorted(self.grants)}
            return {**decided, **rested, "trace": list(self.steps)}
        denied = {"why": self.decision.why, **form_denial(self.decision, self.grants)}
        mend = {"enough": list(self.enough), "beyond_tier": list(self.beyond_tier)}
        return {**decided, **denied, **mend, "trace": list(self.steps)}


def explain(policy: Policy, question: Question, grants: frozenset[str], owner: Owner) -> Explanation:
    """What the policy says to a key with these effective scopes, and why. An owner without a tier has no ceiling."""
    answer = ask(policy, question, grants, owner)
    decision = answer.decision
    enough: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    if isinstance(decision, Denied):
        ceiling = policy.tiers.get(owner.tier, frozenset()) if owner.tier else frozenset({EVERYTHING})
        beyond = tuple(scope for scope in _list_wanted(decision) if not covers(ceiling, scope))
        enough = _find_enough(policy, question, grants, owner, decision, beyond)
    steps = trace(policy, question, answer, grants, owner)
    steps += tuple(f"{show(scope)} is more than its owner's tier {owner.tier} allows" for scope in beyond)
    route = answer.match.route.id if answer.match is not None else None
    return Explanation(policy.revision, route, decision, grants, enough, beyond, steps)


def _list_wanted(denied: Denied) -> list[str]:
    return list(dict.fromkeys((*denied.singles, *map(make_grantable, denied.missing))))


def _find_enough(
    policy: Policy,
    question: Question,
    grants: frozenset[str],
    owner: Owner,
    denied: Denied,
    beyond: tuple[str, ...],
) -> tuple[str, ...]:
    """One scope if one suffices, otherwise as few as are left when all that can go have gone; first what the tier does
    not give."""
    if denied.singles:
        return (next((scope for scope in denied.singles if scope not in beyond), denied.singles[0]),)
    wanted = _list_wanted(denied)
    if not wanted or len(wanted) > _TRIED_LIMIT or not _is_allowed_with(policy, question, grants.union(wanted), owner):
        return ()
    for scope in sorted(wanted, key=lambda scope: scope not in beyond):
        others = [other for other in wanted if other != scope]
        if _is_allowed_with(policy, question, grants.union(others), owner):
            wanted = others
    return tuple(wanted)


def _is_allowed_with(policy: Policy, question: Question, grants: frozenset[str], owner: Owner) -> bool:
    return isinstance(ask(policy, question, grants, owner).decision, Allowed)
