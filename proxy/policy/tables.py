"""From a route's rules to its look-ups, and what can be wrong with them.  [pure]

A route's entry comes in, a `RuleTable` goes out. A rule with several subjects becomes one compiled rule for each.
Refused, as faults of the source: rules that tie, that nothing can reach, or that judge a message by the wrong thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from types import MappingProxyType
from typing import Final

from proxy.policy.compiled import NAMED_METHODS, URI_METHODS, Lookup, RuleTable
from proxy.policy.model import UNREADABLE, RouteEntry, RuleEntry
from proxy.policy.patterns import (
    Pattern,
    PatternIndex,
    is_name_pattern,
    is_path_pattern,
    is_tricky_uri,
    overlaps,
    parse_name_pattern,
    parse_path_pattern,
)
from proxy.policy.requirements import Reader, get_levels
from proxy.policy.rules import Condition, FieldPath, Kind, Rule
from proxy.policy.scopes import Scope, show
from proxy.policy.source import Path, Source

_TOOL_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_MEMBER = re.compile(r"[A-Za-z0-9_-]+")
_NAMED_BY: Final[Mapping[str, str]] = {
    "tools/call": "tool:",
    "prompts/get": "prompt:",
    **dict.fromkeys(URI_METHODS, "uri:"),
    "completion/complete": "prompt: and uri:",
}


@dataclass(slots=True)
class _Drawer:
    """The rules of one kind while they are collected: exact ones, patterns, and where each was written."""

    exact: dict[str, Rule] = field(default_factory=dict)
    patterns: list[tuple[Pattern, Rule, Path]] = field(default_factory=list)

    def list_rules(self) -> list[Rule]:
        return [*self.exact.values(), *(rule for _, rule, _ in self.patterns)]

    def get_lookup(self) -> Lookup:
        return Lookup(MappingProxyType(self.exact), PatternIndex((pattern, rule) for pattern, rule, _ in self.patterns))


def build_table(
    entry: RouteEntry, path: Path, pattern: Pattern | None, catalogue: Mapping[str, Scope], source: Source
) -> RuleTable:
    builder = _TableBuilder(entry, path, pattern.variables if pattern else frozenset(), catalogue, source)
    return builder.build()


@dataclass(slots=True)
class _TableBuilder:
    route: RouteEntry
    path: Path
    variables: frozenset[str]
    catalogue: Mapping[str, Scope]
    source: Source
    drawers: dict[str, _Drawer] = field(default_factory=dict)  # by kind; for URIs by method
    ids: set[str] = field(default_factory=set)
    every_tool: tuple[Condition, ...] = ()

    def build(self) -> RuleTable:
        self._check_route()
        reader = Reader("tool", frozenset(), self.catalogue, self.source)
        self.every_tool = reader.parse_where(self.route.every_tool or {}, (*self.path, "every_tool"))
        if self.route.require is not None or self.route.allow is not None:
            self._add_whole_route()
        for index, rule in enumerate(self.route.rules or ()):
            if rule.id != UNREADABLE:
                self._add_rule(rule, (*self.path, "rules", index))
        for drawer in self.drawers.values():
            self._check_ties(drawer)
        lookups = {name: drawer.get_lookup() for name, drawer in self.drawers.items()}
        empty = Lookup()
        lists = (rule.lists_tools for rule in self.drawers["tool"].list_rules()) if "tool" in self.drawers else ()
        return RuleTable(
            http=lookups.get("http", empty).exact,
            rpc=lookups.get("rpc", empty),
            tools=lookups.get("tool", empty),
            prompts=lookups.get("prompt", empty),
            uris={method: lookups[method] for method in URI_METHODS if method in lookups},
            tool_lists=tuple(dict.fromkeys(path for path in lists if path is not None)),
        )

    def _check_route(self) -> None:
        route = self.route
        self._check_messages()
        given = [word for word in ("require", "allow", "rules", "rules_of") if getattr(route, word) is not None]
        wanted = ("require", "allow", "rules") if route.protocol == "http" else ("rules", "rules_of")
        if len(given) != 1 or given[0] not in wanted:
            message = f"route {show(route.id)} with protocol {route.protocol} has {' and '.join(given) or 'no rules'}"
            self.source.add_fault(self.path, message, f"write one of {', '.join(wanted)}")
        if route.protocol == "http" and (route.every_tool is not None or route.rpc_denials != "json-rpc"):
            mend = "take every_tool and rpc_denials out, or set protocol: mcp"
            self.source.add_fault(self.path, f"route {show(route.id)} carries no JSON-RPC messages", mend)
        elif route.every_tool is not None and route.rules is None:
            mend = "write it on the route whose rules these are"
            self.source.add_fault((*self.path, "every_tool"), "every_tool on a route without rules of its own", mend)

    def _check_messages(self) -> None:
        """HTTP+SSE has two paths, GET on one and POST on the other, and clients are told the second as it stands."""
        route = self.route
        if route.protocol != "mcp-sse":
            if route.messages is not None:
                mend = "take it out, or set protocol: mcp-sse"
                message = f"route {show(route.id)} with protocol {route.protocol} has no path for messages"
                self.source.add_fault((*self.path, "messages"), message, mend)
            return
        if route.messages is None:
            mend = "write messages: with the path that clients POST to"
            self.source.add_fault(self.path, f"route {show(route.id)} does not say where its messages go", mend)
        if set(route.methods) != {"GET", "POST"}:
            message = f"route {show(route.id)} with protocol mcp-sse takes GET on path and POST on messages"
            self.source.add_fault((*self.path, "methods"), message, "write methods: [GET, POST]")
        for member in ("path", "messages"):
            if is_path_pattern(getattr(route, member) or ""):
                message = f"the {member} of a route with protocol mcp-sse is a pattern"
                self.source.add_fault((*self.path, member), message, "write it out")

    def _add_whole_route(self) -> None:
        for method in self.route.methods:
            whole = RuleEntry(id=self.route.id, http=[method], require=self.route.require)
            rule = self._build_rule(whole, "http", self.route.id, self.path, self.variables)
            self._put("http", method, None, rule, (*self.path, "methods"))

    def _add_rule(self, entry: RuleEntry, path: Path) -> None:
        if entry.id is not None and entry.id in self.ids:
            self.source.add_fault((*path, "id"), f"two rules have the id {show(entry.id)}", "rename one")
        self.ids |= {entry.id} if entry.id is not None else set()
        subjects = [word for word in ("http", "rpc", "tool", "prompt", "uri") if getattr(entry, word) is not None]
        if subjects == ["rpc", "uri"]:
            subjects = ["uri"]
        if len(subjects) != 1:
            message = f"a rule about {' and '.join(subjects) or 'nothing'}"
            mend = "name one of http, rpc, tool, prompt, uri; only rpc and uri go together"
            self.source.add_fault(path, message, mend)
        elif (entry.require is None) == (entry.allow is None):
            self.source.add_fault(path, "a rule with neither or both of require and allow", "write one of them")
        else:
            self._add_subjects(entry, subjects[0], path)

    def _add_subjects(self, entry: RuleEntry, subject: str, path: Path) -> None:
        message_kind = subject != "http"
        if message_kind and self.route.protocol == "http":
            mend = "write http: rules, or set protocol: mcp"
            self.source.add_fault(path, f"a {subject} rule on a route without JSON-RPC messages", mend)
        elif message_kind and "POST" not in self.route.methods:
            mend = "add POST to the methods of the route, or take the rule out"
            self.source.add_fault(path, f"a {subject} rule nothing can reach: messages come by POST", mend)
        match subject:
            case "http":
                self._add_http(entry, path)
            case "rpc":
                self._add_names(entry, "rpc", self._check_methods(_list(entry.rpc), (*path, "rpc")), path)
            case "tool":
                self._add_names(entry, "tool", self._check_tools(_list(entry.tool), (*path, "tool")), path)
            case "prompt":
                self._add_names(entry, "prompt", _list(entry.prompt), path)
            case _:
                self._add_uri(entry, entry.uri or "", path)

    def _add_http(self, entry: RuleEntry, path: Path) -> None:
        for method in entry.http or ():
            where = (*path, "http")
            if method not in self.route.methods:
                mend = f"the methods of the route are {', '.join(self.route.methods)}"
                self.source.add_fault(where, f"an http rule nothing can reach: {method} is not routed", mend)
            elif method == "POST" and self.route.protocol != "http":
                mend = "write rpc, tool, prompt and uri rules"
                self.source.add_fault(where, "an http rule nothing can reach: POST is judged by its message", mend)
            rule = self._build_rule(entry, "http", f"http:{method}", path, self.variables)
            self._put("http", method, None, rule, path)

    def _check_methods(self, methods: list[str], path: Path) -> Iterator[str]:
        for method in methods:
            covered = _get_named_method(method)
            if covered is None:
                yield method
            else:
                mend = f"write {_NAMED_BY[covered]} rules for it"
                self.source.add_fault(path, f"{show(method)} covers {covered}, which names what it uses", mend)

    def _check_tools(self, names: list[str], path: Path) -> Iterator[str]:
        for name in names:
            if is_name_pattern(name) or _TOOL_NAME.fullmatch(name):
                yield name
            else:
                mend = "tool names are up to 128 of A-Z a-z 0-9 _ . / -"
                self.source.add_fault(path, f"nothing can reach tool {show(name)}", mend)

    def _add_names(self, entry: RuleEntry, kind: Kind, names: Iterable[str], path: Path) -> None:
        for name in names:
            try:
                pattern = parse_name_pattern(name) if is_name_pattern(name) else None
            except ValueError as error:
                self.source.add_fault((*path, kind), f"pattern {show(name)}: {error}", "write out the names")
            else:
                rule = self._build_rule(entry, kind, f"{kind}:{name}", path, frozenset())
                self._put(kind, name, pattern, rule, path)

    def _add_uri(self, entry: RuleEntry, uri: str, path: Path) -> None:
        try:
            pattern = parse_path_pattern(uri) if is_path_pattern(uri) else None
        except ValueError as error:
            self.source.add_fault((*path, "uri"), f"pattern {show(uri)}: {error}", "write out the URI")
            return
        if is_tricky_uri(uri) or (pattern is not None and any(mark in uri for mark in "?#")):
            mend = "write it canonically; a pattern has no query and no fragment"
            self.source.add_fault((*path, "uri"), f"nothing can reach {show(uri)}", mend)
        methods = _list(entry.rpc) if entry.rpc is not None else list(URI_METHODS)
        label = f"{methods[0]}:{uri}" if entry.rpc is not None else f"uri:{uri}"
        rule = self._build_rule(entry, "uri", label, path, pattern.variables if pattern else frozenset())
        for method in methods:
            if method in URI_METHODS:
                self._put(method, uri, pattern, rule, path)
            else:
                mend = f"those are {', '.join(URI_METHODS)}"
                self.source.add_fault((*path, "rpc"), f"{show(method)} is not a method that names a URI", mend)

    def _build_rule(self, entry: RuleEntry, kind: Kind, label: str, path: Path, variables: frozenset[str]) -> Rule:
        reader = Reader(kind, variables, self.catalogue, self.source)
        alternatives = reader.parse_require(entry.require, (*path, "require")) if entry.require is not None else None
        conditions = reader.parse_where(entry.where, (*path, "where")) if entry.where else ()
        nested = None
        if kind == "tool":
            conditions += self.every_tool
        if entry.also_tool is not None and kind == "tool":
            nested = reader.parse_nested(entry.also_tool, (*path, "also_tool"))
        elif entry.also_tool is not None:
            self.source.add_fault((*path, "also_tool"), f"also_tool in a {kind} rule", "only tools call tools")
        levels = get_levels(alternatives, conditions, nested) if kind in ("tool", "prompt", "rpc") else ()
        lists = self._parse_lists_tools(entry.lists_tools, kind, (*path, "lists_tools"))
        line = self.source.get_line(path)
        return Rule(entry.id or f"{self.route.id}/{label}", kind, alternatives, conditions, nested, levels, lists, line)

    def _parse_lists_tools(self, reference: str | None, kind: Kind, path: Path) -> FieldPath | None:
        if reference is None:
            return None
        names = tuple(reference.split("."))
        if kind != "tool":
            self.source.add_fault(path, f"lists_tools in a {kind} rule", "only results of tools hold such lists")
        elif not all(map(_MEMBER.fullmatch, names)):
            mend = "write names of A-Z a-z 0-9 _ -, one inside the other, with dots between them"
            self.source.add_fault(path, f"{show(reference)} names no member of a result", mend)
        elif "structuredContent" in names:
            inside = ".".join(names[names.index("structuredContent") + 1 :])
            mend = f"write what comes inside it: {show(inside) or 'tools'}"
            self.source.add_fault(path, f"{show(reference)} begins outside of structuredContent", mend)
        return names

    def _put(self, drawer_name: str, name: str, pattern: Pattern | None, rule: Rule, path: Path) -> None:
        drawer = self.drawers.setdefault(drawer_name, _Drawer())
        if pattern is not None:
            drawer.patterns.append((pattern, rule, path))
        elif name in drawer.exact:
            self.source.add_fault(path, f"two rules for {show(name)} tie", "keep one of them")
        else:
            drawer.exact[name] = rule

    def _check_ties(self, drawer: _Drawer) -> None:
        for (one, _, _), (other, _, path) in combinations(drawer.patterns, 2):
            if one.rank == other.rank and overlaps(one, other):
                mend = "keep one of them, or write out what both match"
                self.source.add_fault(path, f"{show(other.text)} ties with {show(one.text)}", mend)


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _get_named_method(method: str) -> str | None:
    """The first method of those that name what they use which this name or pattern covers; `*` covers the others."""
    if method == "*" or not is_name_pattern(method):
        return method if method in NAMED_METHODS else None
    try:
        pattern = parse_name_pattern(method)
    except ValueError:
        return None  # reported where it is parsed
    return next((name for name in sorted(NAMED_METHODS) if pattern.find(name) is not None), None)
