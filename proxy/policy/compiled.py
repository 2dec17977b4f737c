"""The compiled policy: look-ups in dictionaries, patterns after them, and the decision.  [pure]

A route match, a method and its params, grants and an owner come in; `Allowed` or `Denied` goes out. Nothing raises:
an error while deciding denies. The file, its lines and its faults are not known here (see `build`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain, product
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import unquote

from proxy.identity import Owner, OwnerId
from proxy.policy.lookalikes import Lookalikes
from proxy.policy.patterns import Pattern, PatternIndex, is_tricky_uri, overlaps, parse_uri_template
from proxy.policy.rules import (
    ABSENT,
    Allowed,
    Condition,
    Decision,
    Denied,
    FieldPath,
    ReadLevel,
    Rule,
    blame,
    describe,
    find_cover,
    find_narrowest,
    get_read_levels,
    is_object,
    read_field,
)
from proxy.policy.scopes import EVERYTHING, Scope, get_scope_fault, intersect, is_grantable, show, simplify

# Which method names what it uses (specification 2024-11-05 to 2026-07-28): these are never judged by their method name.
URI_METHODS: Final = ("resources/read", "resources/subscribe", "resources/unsubscribe", "completion/complete")
NAMED_METHODS: Final = frozenset(("tools/call", "prompts/get", *URI_METHODS))

# The members of params that are read here, whose case variants are refused like those of arguments.
READ_LEVELS: Final[Mapping[str, tuple[ReadLevel, ...]]] = {
    **dict.fromkeys(("tools/call", "prompts/get"), get_read_levels([("name",), ("arguments",)])),
    **dict.fromkeys(URI_METHODS, get_read_levels([("uri",)])),
    "completion/complete": get_read_levels(
        [("ref", "type"), ("ref", "name"), ("ref", "uri"), ("context", "arguments")]
    ),
    "subscriptions/listen": get_read_levels([("notifications", "resourceSubscriptions")]),
}
NESTED_CALL_LIMIT = 4  # calls inside calls; the platform's own tools nest once
_LISTENED_URIS_LIMIT = 1000  # some 20 ms of everybody's time; a body has room for two hundred times as many
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_STREAMED, _POSTED = frozenset({"GET"}), frozenset({"POST"})  # by the two paths of HTTP+SSE (MCP 2024-11-05)
_NOBODY: Final = Owner(OwnerId(""), "", "", "", "")  # no condition takes an empty tenant or user for the owner's own
_BROKEN = Denied(None, "the policy could not judge this request, so it is refused")

ListedKind = Literal["tool", "prompt", "uri", "uri_template", "task"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Rules by what they name: exact names first, then patterns, the most specific first."""

    exact: Mapping[str, Rule] = field(default_factory=dict)
    patterns: PatternIndex[Rule] = field(default_factory=PatternIndex)

    def find(self, name: str) -> Rule | None:
        rule = self.exact.get(name)
        if rule is None and self.patterns:
            found = self.patterns.find(name)
            rule = found[0] if found else None
        return rule

    def find_uri(self, uri: str) -> tuple[Rule, Mapping[str, str]] | None:
        rule = self.exact.get(uri)
        if rule is not None:
            return rule, _NO_VARIABLES
        return None if is_tricky_uri(uri) else self.patterns.find(uri)


_NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RuleTable:
    """All rules of a route, by kind. `uris` has one look-up for each of `URI_METHODS`."""

    http: Mapping[str, Rule] = field(default_factory=dict)
    rpc: Lookup = field(default_factory=Lookup)
    tools: Lookup = field(default_factory=Lookup)
    prompts: Lookup = field(default_factory=Lookup)
    uris: Mapping[str, Lookup] = field(default_factory=dict)
    tool_lists: tuple[FieldPath, ...] = ()  # where results of tools hold lists of tools

    def list_rules(self) -> list[Rule]:
        """Each of them once."""
        lookups = (self.rpc, self.tools, self.prompts, *self.uris.values())
        found = [*self.http.values()]
        for lookup in lookups:
            found += [*lookup.exact.values(), *(rule for _, rule in lookup.patterns)]
        return list({id(rule): rule for rule in found}.values())

    def lists_tools(self, name: object) -> bool:
        """Whether the result of this tool is a list of tools."""
        rule = self.tools.find(name) if isinstance(name, str) else None
        return rule is not None and rule.lists_tools is not None

    def judge_message(self, method: str, params: Mapping[str, Any], grants: frozenset[str], owner: Owner) -> Decision:
        for level in READ_LEVELS.get(method, ()):
            variant = level.find_variant(params)
            if variant is not None:
                why = f"{describe('rpc', method)} must not have a member {show(variant)}: {blame(variant)}"
                return Denied(None, why)
        if method == "tools/call":
            return self._judge_tool(params.get("name"), params.get("arguments"), grants, owner, 0)
        if method not in NAMED_METHODS:
            return self._judge_method(method, params, grants, owner)
        if method == "prompts/get":
            return self._judge_prompt(params.get("name"), params.get("arguments"), grants, owner)
        if method == "completion/complete":
            return self._judge_completion(params, grants, owner)
        return self.judge_uri(method, params.get("uri"), grants, owner)

    def _judge_tool(
        self,
        name: Any,  # noqa: ANN401 - as the client sent it
        arguments: Any,  # noqa: ANN401
        grants: frozenset[str],
        owner: Owner,
        depth: int,
    ) -> Decision:
        if type(name) is not str:
            return Denied(None, "a tool call must name its tool")
        rule = self.tools.find(name)
        if rule is None:
            return Denied(None, f"no rule allows {describe('tool', name)}")
        if arguments is None:
            arguments = _NOTHING
        elif not is_object(arguments):
            return Denied(rule.id, f"{describe('tool', name)} needs its arguments to be an object")
        decision = rule.judge(name, arguments, grants, owner)
        if rule.nested is None:
            return decision
        if depth >= NESTED_CALL_LIMIT:
            return Denied(rule.id, f"{describe('tool', name)} nests calls too deep")
        nested_name = read_field(arguments, rule.nested.name_path)
        nested_arguments = read_field(arguments, rule.nested.arguments_path)
        if nested_arguments is ABSENT:
            nested_arguments = _NOTHING
        nested = self._judge_tool(nested_name, nested_arguments, grants, owner, depth + 1)
        if isinstance(nested, Denied):
            nested = replace(nested, why=f"{describe('tool', name)} must be allowed what it calls: {nested.why}")
        return _join((decision, nested))

    def _judge_prompt(self, name: Any, arguments: Any, grants: frozenset[str], owner: Owner) -> Decision:  # noqa: ANN401
        rule = self.prompts.find(name) if type(name) is str else None
        if rule is None:
            return Denied(None, f"no rule allows {describe('prompt', str(name))}")
        if arguments is not None and not is_object(arguments):
            return Denied(rule.id, f"{describe('prompt', name)} needs its arguments to be an object")
        return rule.judge(name, arguments or _NOTHING, grants, owner)

    def judge_uri(self, method: str, uri: Any, grants: frozenset[str], owner: Owner) -> Decision:  # noqa: ANN401
        lookup = self.uris.get(method)
        found = lookup.find_uri(uri) if lookup is not None and type(uri) is str else None
        if found is None:
            return Denied(None, f"no rule allows {method} of {describe('uri', str(uri))}")
        rule, variables = found
        return rule.judge(uri, variables, grants, owner)

    def _judge_completion(self, params: Mapping[str, Any], grants: frozenset[str], owner: Owner) -> Decision:
        """A completion tells about the prompt or resource it completes, so the rule of that one decides."""
        reference = params.get("ref")
        kind = reference.get("type") if is_object(reference) else None
        if is_object(reference) and kind == "ref/prompt":
            known = read_field(params, ("context", "arguments"))
            return self._judge_prompt(reference.get("name"), None if known is ABSENT else known, grants, owner)
        if is_object(reference) and kind == "ref/resource":
            return self.judge_uri("completion/complete", reference.get("uri"), grants, owner)
        return Denied(None, "a completion must refer to a prompt or a resource")

    def _judge_method(self, method: str, params: Mapping[str, Any], grants: frozenset[str], owner: Owner) -> Decision:
        rule = self.rpc.find(method)
        if rule is None:
            return Denied(None, f"no rule names {describe('rpc', method)}", unknown_method=True)
        decision = rule.judge(method, params, grants, owner)
        if method != "subscriptions/listen":
            return decision
        return self._judge_listened_uris(decision, params, grants, owner)

    def _judge_listened_uris(
        self, listen: Decision, params: Mapping[str, Any], grants: frozenset[str], owner: Owner
    ) -> Decision:
        """2026-07-28 folds `resources/subscribe` into `subscriptions/listen`: each URI answers to the same rule, and
        the stream rests on the scopes of all of them."""
        uris = read_field(params, ("notifications", "resourceSubscriptions"))
        if uris is ABSENT or uris is None:
            return listen
        if not isinstance(uris, list):
            return Denied(None, "resourceSubscriptions must be a list of URIs")
        if len(uris) > _LISTENED_URIS_LIMIT:
            return Denied(None, f"a stream may listen to {_LISTENED_URIS_LIMIT} resources at most")
        return _join((listen, *(self.judge_uri("resources/subscribe", uri, grants, owner) for uri in uris)))

    def may_list(self, kind: ListedKind, name: str, grants: frozenset[str], owner: Owner) -> bool:
        match kind:
            case "tool" | "prompt":
                rule = (self.tools if kind == "tool" else self.prompts).find(name)
                return rule is not None and rule.could_allow(grants)
            case "uri":
                uses = (method for method in URI_METHODS if method != "completion/complete")
                return any(not isinstance(self.judge_uri(use, name, grants, owner), Denied) for use in uses)
            case "uri_template":
                return self._may_list_template(parse_uri_template(name), grants)
            case "task":
                return False  # whose a task is, no rule can know

    def _may_list_template(self, template: Pattern, grants: frozenset[str]) -> bool:
        for lookup in self.uris.values():
            if any(rule.could_allow(grants) for uri, rule in lookup.exact.items() if template.find(uri) is not None):
                return True
            if any(rule.could_allow(grants) for pattern, rule in lookup.patterns if overlaps(pattern, template)):
                return True
        return False


def _join(decisions: Iterable[Decision]) -> Decision:
    """All of them must allow. The first that does not says why; what is missing is missing for all of them.

    At a cost that follows their number: a client may listen to as many URIs as fit into a body.
    """
    allowed: list[Allowed] = []
    denials: list[Denied] = []
    for decision in decisions:
        if isinstance(decision, Allowed):
            allowed.append(decision)
        else:
            denials.append(decision)
    if not denials:
        return Allowed(allowed[0].rule, _unite(one.scopes for one in allowed))
    first = denials[0]
    required, missing = _unite(one.required for one in denials), _unite(one.missing for one in denials)
    return Denied(first.rule, first.why, required, missing, _find_sufficient(denials))


def _unite(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(lists)))


def _find_sufficient(denials: Iterable[Denied]) -> tuple[str, ...]:
    """What suffices for each of them: of each, one is taken, and they are covered by one."""
    found, *others = dict.fromkeys(denied.sufficient for denied in denials)  # many URIs are denied alike
    for other in others:
        found = find_narrowest(map(find_cover, product(found, other)))
    return found


@dataclass(frozen=True, slots=True)
class Route:
    id: str
    path: str
    methods: frozenset[str]
    upstream: str
    protocol: Literal["mcp", "mcp-sse", "http"]
    rpc_denials: Literal["json-rpc", "http-403"]
    rules: RuleTable = field(repr=False)
    messages: str | None = None  # of HTTP+SSE: the path of its POSTs
    public: bool = False  # no key is wanted
    query: tuple[Condition, ...] = ()
    query_names: frozenset[str] = frozenset()  # of the members those conditions are about
    repeatable: frozenset[str] = frozenset()  # members of the query that may stand twice, and are not judged

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if self.messages is None else (self.path, self.messages)

    def find_methods(self, path: str) -> frozenset[str]:
        """What one of its paths takes."""
        if self.messages is None:
            return self.methods
        return _POSTED if path == self.messages else _STREAMED


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """A route and what its path's variables stand for, decoded."""

    route: Route
    path_params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preset:
    """`scopes` as the file orders them, those of the extended presets first."""

    title: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of the policy file. Only `build` makes one, after every check has passed."""

    revision: str
    default_tier: str
    longest_expiry: timedelta | None  # from when a key is made or its expiry changed; None: for ever
    presets: Mapping[str, Preset]
    tiers: Mapping[str, frozenset[str]]
    catalogue: Mapping[str, Scope]
    routes: tuple[Route, ...]
    exact_routes: Mapping[str, RouteMatch] = field(repr=False)
    route_templates: PatternIndex[Route] = field(repr=False)
    lookalikes: Lookalikes = field(repr=False)

    def find_route(self, path: str) -> RouteMatch | None:
        """`path` must be canonical: what is judged here is sent upstream byte for byte. None also where only its case
        or its escapes keep it from another route: not every upstream would see the difference."""
        exact = self.exact_routes.get(path)
        if exact is not None:
            return exact
        found = self.route_templates.find(path)
        if found is None:
            return None
        route, variables = found
        if self.lookalikes.misleads(path, route.path):
            return None
        return RouteMatch(route, _decode(variables) if "%" in path else variables)

    def check_scope(self, scope: str) -> None:
        """Raises ValueError, with the closest match in its text, unless a key may hold the scope."""
        if not is_grantable(scope, self.catalogue):
            message, mend = get_scope_fault(scope, self.catalogue)
            raise ValueError(f"{message} ({mend})")

    def effective_scopes(self, scopes: Iterable[str], ancestors: Iterable[Iterable[str]], tier: str) -> frozenset[str]:
        """The key's own, each ancestor's and the tier's, intersected exactly; an unknown tier leaves nothing.

        A scope that has left the catalogue grants nothing, whoever still holds it.
        """
        effective = self.tiers.get(tier, frozenset())
        for held in (scopes, *ancestors):
            effective = intersect(effective, simplify(scope for scope in held if self._is_known(scope)))
        return effective

    def decide_http(
        self, match: RouteMatch, method: str, query: Mapping[str, str], grants: frozenset[str], owner: Owner
    ) -> Decision:
        """A REST request, or GET and DELETE on a route whose POSTs are judged message by message.

        `query`: what `envelope.parse_query` made of it, with the names this route takes.
        """
        try:
            name = f"{method} {match.route.path}"
            rule = match.route.rules.http.get(method)
            if rule is None:
                return Denied(None, f"no rule allows {describe('http', name)}")
            for condition in match.route.query:
                if not condition.holds(query, owner):
                    what = f"query member {condition.path[0]}"
                    return Denied(rule.id, f"{describe('http', name)} wants its {what} to be {condition.describe()}")
            return rule.judge(name, match.path_params, grants, owner)
        except Exception:  # noqa: BLE001 - an error while deciding denies
            return _BROKEN

    def decide_public(self, match: RouteMatch, method: str, query: Mapping[str, str]) -> Decision:
        """A request that came without a key."""
        if not match.route.public:
            return Denied(None, f"{describe('http', f'{method} {match.route.path}')} needs a key")
        return self.decide_http(match, method, query, frozenset(), _NOBODY)

    def decide_message(
        self, match: RouteMatch, method: str, params: Mapping[str, Any], grants: frozenset[str], owner: Owner
    ) -> Decision:
        """One JSON-RPC message; requests, notifications and messages without an id alike."""
        try:
            if not is_object(params):
                return Denied(None, "the params of a message must be an object")
            return match.route.rules.judge_message(method, params, grants, owner)
        except Exception:  # noqa: BLE001 - an error while deciding denies
            return _BROKEN

    def may_list(self, match: RouteMatch, kind: ListedKind, name: str, grants: frozenset[str], owner: Owner) -> bool:
        """Whether a list answer may show the entry: some arguments could be allowed."""
        try:
            return match.route.rules.may_list(kind, name, grants, owner)
        except Exception:  # noqa: BLE001 - an error while deciding denies
            return False

    def _is_known(self, scope: str) -> bool:
        return scope == EVERYTHING or is_grantable(scope, self.catalogue)


def _decode(variables: Mapping[str, str]) -> Mapping[str, str]:
    """So that one name is one grant, for the tool and for the path. A canonical target never escapes a slash, a percent
    sign, a backslash or a control character (`envelope`): decoded once, no name has a second reading or another's."""
    return {name: unquote(value, errors="strict") for name, value in variables.items()}
