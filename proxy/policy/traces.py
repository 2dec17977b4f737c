"""How the policy comes to an answer, step by step.  [pure]

A question and its answer come in, short sentences go out: which route and which rule, before which others, and what
each condition and each scope came to. All of it is asked of the compiled rules that decide; nothing is judged in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from proxy.envelope import parse_query
from proxy.errors import RequestError
from proxy.identity import Owner
from proxy.policy.compiled import NAMED_METHODS, NESTED_CALL_LIMIT, Lookup, Policy, RouteMatch, RuleTable
from proxy.policy.patterns import PatternIndex, Value
from proxy.policy.questions import Answer, Question
from proxy.policy.rules import (
    ABSENT,
    Allowed,
    Condition,
    Denied,
    Kind,
    NeededScope,
    Rule,
    blame,
    describe,
    is_object,
    read_field,
)
from proxy.policy.scopes import EVERYTHING, show

_TOLD_LIMIT: Final = 50  # things a message uses; it may listen to hundreds of resources


def trace(policy: Policy, question: Question, answer: Answer, grants: frozenset[str], owner: Owner) -> tuple[str, ...]:
    """The steps to this answer."""
    if answer.match is None:
        assert isinstance(answer.decision, Denied)
        return (answer.decision.why,)
    route = _tell_route(policy, question, answer.match)
    return (route, *_tell_rules(question, answer.match, answer.decision, grants, owner))


@dataclass(frozen=True, slots=True)
class _Use:
    """Something the request uses, and the rule that decides about it; `told` says why that one, or why none.

    `fields` are None where the request has something else in their place.
    """

    kind: Kind
    name: str
    told: str
    rule: Rule | None = None
    fields: Mapping[str, Any] | None = None

    def is_refused_by(self, rule_id: str | None, grants: frozenset[str], owner: Owner) -> bool:
        if self.rule is None or self.fields is None or self.rule.id != rule_id:
            return False
        return isinstance(self.rule.judge(self.name, self.fields, grants, owner), Denied)


def _tell_route(policy: Policy, question: Question, match: RouteMatch) -> str:
    found = _find_patterns(policy.route_templates, question.target.partition("?")[0])
    variables = ", ".join(f"{name}={show(value)}" for name, value in match.path_params.items())
    told = f"route {match.route.id}: {match.route.path}" + (f" with {variables}" if variables else "")
    return told + _tell_others(route.path for _, route in found if route is not match.route)


def _tell_rules(
    question: Question, match: RouteMatch, decision: Allowed | Denied, grants: frozenset[str], owner: Owner
) -> Iterator[str]:
    uses = list(islice(_find_uses(question, match), _TOLD_LIMIT))
    if question.rpc is None:
        yield from _tell_query(question, match, owner)
    for use in uses:
        yield use.told
        if use.rule is not None and use.fields is not None:
            yield from _tell_rule(use.rule, use.fields, grants, owner)
    if isinstance(decision, Allowed) or any(use.is_refused_by(decision.rule, grants, owner) for use in uses):
        return
    if decision.why not in (use.told for use in uses):
        yield decision.why  # by what stands around the rules: the method, the query, the form of the message


def _tell_query(question: Question, match: RouteMatch, owner: Owner) -> Iterator[str]:
    route = match.route
    try:
        query = parse_query(question.target.partition("?")[2], route.query_names, route.repeatable)
    except RequestError:
        return  # refused before anything is compared, as the decision says
    for condition in route.query:
        yield _tell_condition("its query member ", condition, query, owner)


def _find_uses(question: Question, match: RouteMatch) -> Iterator[_Use]:
    """What is judged of it: a message may use several things, and all of them must be allowed."""
    rules = match.route.rules
    if question.rpc is None:
        name = f"{question.http} {match.route.path}"
        yield _choose("http", name, rules.http.get(question.http), match.path_params)
    elif match.route.protocol != "http" and question.http == "POST" and is_object(question.params):
        yield from _find_message_uses(rules, question.rpc, question.params)


def _find_message_uses(rules: RuleTable, method: str, params: Mapping[str, Any]) -> Iterator[_Use]:
    if method == "tools/call":
        yield from _find_calls(rules.tools, params.get("name"), params.get("arguments"))
    elif method == "prompts/get":
        yield _find_named("prompt", rules.prompts, params.get("name"), params.get("arguments"))
    elif method == "completion/complete":
        yield from _find_completed(rules, params.get("ref"), read_field(params, ("context", "arguments")))
    elif method in NAMED_METHODS:
        yield _find_resource(rules, method, params.get("uri"))
    else:
        yield _find_named("rpc", rules.rpc, method, params)
        uris = read_field(params, ("notifications", "resourceSubscriptions"))
        if method == "subscriptions/listen" and isinstance(uris, list):
            yield from (_find_resource(rules, "resources/subscribe", uri) for uri in uris)


def _find_calls(tools: Lookup, name: object, arguments: object) -> Iterator[_Use]:
    """The call, and the calls inside it."""
    told = ""
    for _ in range(NESTED_CALL_LIMIT + 1):
        use = _find_named("tool", tools, name, arguments)
        yield replace(use, told=told + use.told)
        if use.rule is None or use.rule.nested is None or use.fields is None:
            return
        nested = use.rule.nested
        name, arguments = read_field(use.fields, nested.name_path), read_field(use.fields, nested.arguments_path)
        told = "what it calls must be allowed as well: "


def _find_completed(rules: RuleTable, reference: object, known: object) -> Iterator[_Use]:
    if is_object(reference) and reference.get("type") == "ref/prompt":
        yield _find_named("prompt", rules.prompts, reference.get("name"), known)
    elif is_object(reference) and reference.get("type") == "ref/resource":
        yield _find_resource(rules, "completion/complete", reference.get("uri"))


def _find_named(kind: Kind, lookup: Lookup, name: object, arguments: object) -> _Use:
    if not isinstance(name, str):
        return _Use(kind, "", f"it must name the {kind}")
    fields = arguments if is_object(arguments) else {} if arguments is None or arguments is ABSENT else None
    return _choose(kind, name, lookup.find(name), fields, lookup)


def _find_resource(rules: RuleTable, method: str, uri: object) -> _Use:
    lookup = rules.uris.get(method, Lookup())
    found = lookup.find_uri(uri) if isinstance(uri, str) else None
    if found is None:
        return _Use("uri", str(uri), f"no rule allows {method} of {describe('uri', str(uri))}")
    return _choose("uri", str(uri), *found, lookup)


def _choose(
    kind: Kind, name: str, rule: Rule | None, fields: Mapping[str, Any] | None, lookup: Lookup | None = None
) -> _Use:
    if rule is None:
        verb = "names" if kind == "rpc" else "allows"
        return _Use(kind, name, f"no rule {verb} {describe(kind, name)}")
    told = f"{describe(kind, name)} is decided by rule {rule.id}"
    if lookup is not None:
        patterns = [pattern for pattern, _ in _find_patterns(lookup.patterns, name)]
        told += ", which names it" if name in lookup.exact else f", by the pattern {patterns.pop(0)}"
        told += _tell_others(patterns)
    return _Use(kind, name, told, rule, fields)


def _find_patterns(index: PatternIndex[Value], text: str) -> Iterator[tuple[str, Value]]:
    """All that match, the most specific first."""
    return ((pattern.text, value) for pattern, value in index if pattern.find(text) is not None)


def _tell_others(others: Iterable[str]) -> str:
    """What would have decided, were it not for something more specific."""
    named = ", ".join(others)
    return f", which is more specific than {named}" if named else ""


def _tell_rule(rule: Rule, fields: Mapping[str, Any], grants: frozenset[str], owner: Owner) -> Iterator[str]:
    for level in rule.levels:
        if (variant := level.find_variant(fields)) is not None:
            yield f"it must not have the member {show(variant)}: {blame(variant)}"
    for condition in rule.conditions:
        yield _tell_condition("condition ", condition, fields, owner)
    if rule.alternatives is None:
        yield "it asks for no scope: any key may"
    for number, needed_scopes in enumerate(rule.alternatives or ()):
        for needed in needed_scopes:
            yield _tell_scope("it asks for" if number == 0 else "or for", needed, needed.resolve(fields), grants)


def _tell_condition(word: str, condition: Condition, fields: Mapping[str, Any], owner: Owner) -> str:
    verdict = "holds" if condition.holds(fields, owner) else "fails"
    return f"{word}{'.'.join(condition.path)} is {condition.describe()}: {verdict}"


def _tell_scope(way: str, needed: NeededScope, scope: str | None, grants: frozenset[str]) -> str:
    if scope is None:
        return f"{way} {needed.scope}, whose selector the request leaves out, empty or no text"
    by = next((held for held in (scope, needed.head, EVERYTHING) if held in grants), None)
    return f"{way} {show(scope)}: {f'held, by {show(by)}' if by is not None else 'not held'}"
