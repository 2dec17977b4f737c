"""Why a decision is what it is.  [pure]

A decision comes in, what there is to know about it goes out: the same words and members for the answer to a refused
client, for the command line and for whoever asks the API. The verdict is never found anew here: `questions.ask` gives
it, and the trace tells how, step by step, by asking the compiled rules the same things one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.identity import Owner
from proxy.policy.compiled import NAMED_METHODS, URI_METHODS, Lookup, Policy, RouteMatch
from proxy.policy.questions import Question, ask
from proxy.policy.rules import Allowed, Decision, Denied, Kind, Rule, describe, is_object, read_field
from proxy.policy.scopes import EVERYTHING, show


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
    """A decision, by which policy and route it was made, for whom, and how."""

    revision: str
    route: str | None
    decision: Decision
    grants: frozenset[str]
    steps: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return isinstance(self.decision, Allowed)

    def form(self) -> dict[str, Any]:
        """As one JSON object: a denial's members, and who decided."""
        decided: dict[str, Any] = {"allowed": self.allowed, "policy": self.revision, "route": self.route}
        if isinstance(self.decision, Denied):
            return {**decided, "why": self.decision.why, **form_denial(self.decision, self.grants), "trace": self.steps}
        rested = {"rule": self.decision.rule, "rests_on": list(self.decision.scopes), "held": sorted(self.grants)}
        return {**decided, **rested, "trace": self.steps}


def explain(policy: Policy, question: Question, grants: frozenset[str], owner: Owner) -> Explanation:
    """What the policy says to a key with these effective scopes, and why."""
    answer = ask(policy, question, grants, owner)
    steps = (*_tell_route(question, answer.match), *_tell_rules(question, answer.match, grants, owner))
    route = answer.match.route.id if answer.match is not None else None
    return Explanation(policy.revision, route, answer.decision, grants, steps)


def _tell_route(question: Question, match: RouteMatch | None) -> Iterator[str]:
    if match is None:
        yield f"no route has the path {show(question.target.partition('?')[0])}: it is closed"
        return
    variables = ", ".join(f"{name}={show(value)}" for name, value in match.path_params.items())
    yield f"route {match.route.id}: {match.route.path}" + (f" with {variables}" if variables else "")


def _tell_rules(question: Question, match: RouteMatch | None, grants: frozenset[str], owner: Owner) -> Iterator[str]:
    if match is None:
        return
    rules = match.route.rules
    if question.rpc is None:
        rule = rules.http.get(question.http)
        yield _tell_choice("http", f"{question.http} {match.route.path}", rule, "")
        if rule is not None:
            for condition in match.route.query:
                yield f"its query member {condition.path[0]} must be {condition.describe()}"
            yield from _tell_rule(rule, match.path_params, grants, owner)
    elif question.rpc == "tools/call":
        name, arguments = question.params.get("name"), question.params.get("arguments")
        yield from _tell_tool(rules.tools, name, arguments, grants, owner)
    elif question.rpc == "prompts/get":
        yield from _tell_named("prompt", rules.prompts, question.params, grants, owner)
    elif question.rpc in URI_METHODS and isinstance(uri := question.params.get("uri"), str):
        found = rules.uris[question.rpc].find_uri(uri) if question.rpc in rules.uris else None
        yield _tell_choice("uri", uri, found[0] if found else None, "")
        if found is not None:
            yield from _tell_rule(found[0], found[1], grants, owner)
    elif question.rpc not in NAMED_METHODS:
        rule = rules.rpc.find(question.rpc)
        yield _tell_choice("rpc", question.rpc, rule, _tell_specificity(rules.rpc, question.rpc))
        if rule is not None:
            yield from _tell_rule(rule, question.params, grants, owner)


def _tell_named(
    kind: Kind,
    lookup: Lookup,
    params: Mapping[str, Any],
    grants: frozenset[str],
    owner: Owner,
) -> Iterator[str]:
    name = params.get("name")
    rule = lookup.find(name) if isinstance(name, str) else None
    yield _tell_choice(kind, str(name), rule, _tell_specificity(lookup, str(name)))
    if rule is not None:
        arguments = params.get("arguments")
        yield from _tell_rule(rule, arguments if is_object(arguments) else {}, grants, owner)


def _tell_tool(
    lookup: Lookup, name: object, arguments: object, grants: frozenset[str], owner: Owner, depth: int = 0
) -> Iterator[str]:
    rule = lookup.find(name) if isinstance(name, str) else None
    yield _tell_choice("tool", str(name), rule, _tell_specificity(lookup, str(name)))
    if rule is None:
        return
    fields = arguments if is_object(arguments) else {}
    yield from _tell_rule(rule, fields, grants, owner)
    if rule.nested is not None and depth < 4:
        inner = read_field(fields, rule.nested.name_path), read_field(fields, rule.nested.arguments_path)
        yield "what it calls must be allowed as well:"
        yield from _tell_tool(lookup, *inner, grants, owner, depth + 1)


def _tell_specificity(lookup: Lookup, name: str) -> str:
    return ", which names it" if name in lookup.exact else ", by a pattern"


def _tell_choice(kind: Kind, name: str, rule: Rule | None, how: str) -> str:
    if rule is None:
        return f"no rule is about {describe(kind, name)}: it is closed"
    return f"{describe(kind, name)} is decided by rule {rule.id}{how}"


def _tell_rule(rule: Rule, fields: Mapping[str, Any], grants: frozenset[str], owner: Owner) -> Iterator[str]:
    for condition in rule.conditions:
        verdict = "holds" if condition.holds(fields, owner) else "fails"
        yield f"condition {'.'.join(condition.path)} is {condition.describe()}: {verdict}"
    if rule.alternatives is None:
        yield "it asks for no scope: any key may"
    for number, needed_scopes in enumerate(rule.alternatives or ()):
        for needed in needed_scopes:
            scope = needed.resolve(fields)
            way = "it asks for" if number == 0 else "or for"
            if scope is None:
                yield f"{way} {needed.scope}, whose selector the request leaves out, empty or no text"
            else:
                by = next((held for held in (scope, needed.head, EVERYTHING) if held in grants), None)
                yield f"{way} {show(scope)}: {f'held, by {show(by)}' if by is not None else 'not held'}"
