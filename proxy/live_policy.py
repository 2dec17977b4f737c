"""The policy in force, and the candidate that is judged in its shadow.  [pure]

Whoever decides asks here, at the moment of deciding: a policy is replaced whole, between two steps of the event loop,
and holds for the next message. What a candidate says is compared and never acted upon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from proxy.identity import Owner, Principal
from proxy.keys.record import KeyRecord
from proxy.policy import Allowed, Denied, ListedKind, Policy, Route, RouteMatch
from proxy.policy.questions import Question, ask
from proxy.policy.scopes import split_scope

MAX_RIGHTS = 4096  # keys whose rights under the candidate are remembered: about 1 KiB each


@dataclass(frozen=True, slots=True)
class Flip:
    """The candidate would decide otherwise. `opens`: it would allow what the policy in force has refused. `why` holds
    nothing of the request: it goes into a log, and a candidate may read what nobody meant to be written down."""

    opens: bool
    revision: str
    rule: str | None
    why: str | None


class Candidate:
    """A policy on trial."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._find_grants = lru_cache(MAX_RIGHTS)(policy.effective_scopes)

    def find_flip(self, question: Question, principal: Principal, *, allowed: bool) -> Flip | None:
        """What would change for this request of this key if the candidate were in force."""
        claims, owner = principal.claims, principal.owner
        grants = self._find_grants(claims.scopes, claims.ancestors, owner.tier)
        decision = ask(self.policy, question, grants, owner).decision
        if isinstance(decision, Allowed):
            return None if allowed else Flip(True, self.policy.revision, decision.rule, None)
        return Flip(False, self.policy.revision, decision.rule, _give_reason(decision)) if allowed else None

    def find_new_route(self, http: str, path: str) -> Flip | None:
        """Whether it serves what the policy in force does not. Nobody's key was looked at for that, so none is judged
        here either."""
        match = self.policy.find_route(path)
        if match is None or http not in match.route.find_methods(path):
            return None
        return Flip(True, self.policy.revision, None, f"route {match.route.id} would serve it")


def _give_reason(denied: Denied) -> str:
    if denied.missing:
        pairs = map(split_scope, denied.missing)
        lacking = dict.fromkeys(head if selector is None else f"{head}:…" for head, selector in pairs)
        return f"the key lacks {', '.join(lacking)}"
    return "it is not what the rule takes" if denied.rule is not None else "no rule would allow it"


class LivePolicy:
    """Holds the two. Neither is changed, ever: they are replaced."""

    def __init__(self, enforced: Policy) -> None:
        self._routes: Mapping[str, Route] = {}
        self.candidate: Candidate | None = None
        self.enforced: Policy
        self.enforce(enforced)

    def enforce(self, policy: Policy) -> None:
        """From here on this one decides. What is open has to be judged again by whoever calls this."""
        self.enforced = policy
        self._routes = {route.id: route for route in policy.routes}

    def find_rights(self, record: KeyRecord) -> frozenset[str]:
        """The effective scopes of a key."""
        ancestors = (ancestor.scopes for ancestor in record.ancestors)
        return self.enforced.effective_scopes(record.scopes, ancestors, record.owner.tier)

    def find_same_route(self, match: RouteMatch, path: str) -> RouteMatch | None:
        """What the path means now, for a request that came when it meant `match`: None unless it would take the same
        way, so that what has been read of it still counts."""
        found = self.enforced.find_route(path)
        if found is None or found.route.find_methods(path) != match.route.find_methods(path):
            return None
        before, now = match.route, found.route
        same_way = (before.upstream, before.protocol, before.public) == (now.upstream, now.protocol, now.public)
        return found if same_way and before.rules.tool_lists == now.rules.tool_lists else None

    def may_list(self, match: RouteMatch, kind: ListedKind, name: str, grants: frozenset[str], owner: Owner) -> bool:
        """Whether a list may show the entry now, on a route that was matched some time ago."""
        route = self._routes.get(match.route.id)
        if route is None:
            return False
        current = match if route is match.route else RouteMatch(route, match.path_params)
        return self.enforced.may_list(current, kind, name, grants, owner)

    def find_paths(self) -> Mapping[str, str]:
        """Where sessions are ended: the path of MCP, by upstream."""
        return {route.upstream: route.path for route in self.enforced.routes if route.protocol == "mcp"}
