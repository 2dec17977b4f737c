"""From the model of a policy file to the compiled policy: what its words mean.  [pure]

A `PolicyFile` comes in, a `Policy` goes out. Faults of meaning are added to the source with the line they are in, and
the entry is left out; the caller raises them all together and throws the policy away. What a rule needs is built in
`requirements`, how rules are found in `tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

from proxy.policy.compiled import Policy, Preset, Route, RouteMatch, RuleTable
from proxy.policy.lookalikes import Lookalikes
from proxy.policy.model import UNREADABLE, PolicyFile, PresetEntry, RouteEntry, TierEntry, parse_lifetime
from proxy.policy.names import build_name_lists
from proxy.policy.patterns import Pattern, PatternIndex, contains, get_shared, overlaps, parse_path_pattern
from proxy.policy.queries import build_query
from proxy.policy.reserved import lies_within
from proxy.policy.rules import Condition
from proxy.policy.scopes import Scope, get_scope_fault, is_grantable, is_head, show, simplify
from proxy.policy.source import Path, Source
from proxy.policy.tables import build_table


def build_policy(file: PolicyFile, source: Source, revision: str) -> Policy:
    catalogue = _build_catalogue(file, source)
    presets = _expand("presets", file.presets, catalogue, source)
    tiers = {name: tier if isinstance(tier, TierEntry) else TierEntry(scopes=tier) for name, tier in file.tiers.items()}
    tier_scopes = _expand("tiers", tiers, catalogue, source)
    if file.default_tier not in (*file.tiers, UNREADABLE):
        known = ", ".join(file.tiers)
        source.add_fault(("default_tier",), f"unknown tier {show(file.default_tier)}", f"the tiers are {known}")
    routes = _build_routes(file, catalogue, source)
    return Policy(
        revision=revision,
        default_tier=file.default_tier,
        longest_expiry=parse_lifetime(file.longest_expiry),
        presets=MappingProxyType({name: Preset(file.presets[name].title, scopes) for name, scopes in presets.items()}),
        tiers=MappingProxyType({name: simplify(scopes) for name, scopes in tier_scopes.items()}),
        catalogue=MappingProxyType(catalogue),
        routes=tuple(route for _, route in routes),
        exact_routes=MappingProxyType(
            {
                path: RouteMatch(route, MappingProxyType({}))
                for pattern, route in routes
                if pattern.is_exact
                for path in route.paths
            }
        ),
        route_templates=PatternIndex((pattern, route) for pattern, route in routes if not pattern.is_exact),
        lookalikes=Lookalikes(path for _, route in routes for path in route.paths),
    )


def _build_catalogue(file: PolicyFile, source: Source) -> dict[str, Scope]:
    for name in file.scopes:
        if not is_head(name):
            mend = "write resource:action in small letters; selectors are not part of the catalogue"
            source.add_fault(("scopes", name), f"{show(name)} is not a scope", mend)
    lists = build_name_lists(file)
    return {
        name: Scope(entry.title, entry.selector, lists.get(entry.selector or "")) for name, entry in file.scopes.items()
    }


def _expand(
    section: str, entries: Mapping[str, PresetEntry | TierEntry], catalogue: Mapping[str, Scope], source: Source
) -> dict[str, tuple[str, ...]]:
    """Each entry's scopes after those of what it extends, in order, once each."""
    expanded: dict[str, tuple[str, ...]] = {}
    for name, entry in entries.items():
        _check_scopes((section, name), entry.scopes, catalogue, source)
        scopes: list[str] = []
        for ancestor in _get_lineage(section, name, entries, source):
            scopes += entries[ancestor].scopes
        expanded[name] = tuple(dict.fromkeys(scopes))
    return expanded


def _check_scopes(path: Path, scopes: Sequence[str], catalogue: Mapping[str, Scope], source: Source) -> None:
    for index, scope in enumerate(scopes):
        listed = (*path, index) if (*path, index) in source.lines else (*path, "scopes", index)
        if not is_grantable(scope, catalogue):
            source.add_fault(listed, *get_scope_fault(scope, catalogue))
        elif scope in scopes[:index]:
            source.add_fault(listed, f"{show(scope)} is listed twice", "take one of them out")


def _get_lineage(section: str, name: str, entries: Mapping[str, PresetEntry | TierEntry], source: Source) -> list[str]:
    """The entry and what it extends, the farthest first."""
    lineage = [name]
    while (parent := entries[lineage[-1]].extends) is not None:
        if parent not in entries:
            if len(lineage) == 1:  # reported where it is written, not again by those who extend it
                mend = f"there are {', '.join(entries)}"
                source.add_fault((section, name, "extends"), f"{show(parent)} is not one of the {section}", mend)
            break
        if parent in lineage:
            circle = " extends ".join((*lineage, parent))
            source.add_fault((section, name, "extends"), f"a circle: {circle}", "take one of the extends: out")
            break
        lineage.append(parent)
    return lineage[::-1]


def _build_routes(file: PolicyFile, catalogue: Mapping[str, Scope], source: Source) -> list[tuple[Pattern, Route]]:
    patterns = [_parse_path(entry.path, ("routes", index, "path"), source) for index, entry in enumerate(file.routes)]
    messages = {
        index: _parse_path(entry.messages, ("routes", index, "messages"), source)
        for index, entry in enumerate(file.routes)
        if entry.messages is not None
    }
    _check_routes(file, patterns, messages, source)
    tables = [
        build_table(entry, ("routes", index), pattern, catalogue, source)
        for index, (entry, pattern) in enumerate(zip(file.routes, patterns, strict=True))
    ]
    by_id = {entry.id: (entry, table) for entry, table in zip(file.routes, tables, strict=True)}
    for index, entry in enumerate(file.routes):
        tables[index] = _share_rules(entry, index, tables[index], by_id, source)
    queries = [build_query(entry, ("routes", index), source) for index, entry in enumerate(file.routes)]
    return [
        (pattern, _build_route(entry, table, query))
        for entry, pattern, table, query in zip(file.routes, patterns, tables, queries, strict=True)
        if pattern is not None
    ]


def _build_route(entry: RouteEntry, table: RuleTable, query: tuple[Condition, ...]) -> Route:
    return Route(
        id=entry.id,
        path=entry.path,
        methods=frozenset(entry.methods),
        upstream=entry.upstream,
        protocol=entry.protocol,
        rpc_denials=entry.rpc_denials,
        rules=table,
        messages=entry.messages,
        public=entry.allow == "anyone",
        query=query,
        query_names=frozenset(entry.query or ()),
        repeatable=frozenset(entry.repeatable or ()),
    )


def _share_rules(
    entry: RouteEntry,
    index: int,
    own: RuleTable,
    by_id: Mapping[str, tuple[RouteEntry, RuleTable]],
    source: Source,
) -> RuleTable:
    """The table of the route named by `rules_of`, so that two transports of one server cannot drift apart."""
    if entry.rules_of is None:
        return own
    path: Path = ("routes", index, "rules_of")
    origin, table = by_id.get(entry.rules_of, (None, own))
    if origin is None or origin is entry or origin.rules is None or "http" in (origin.protocol, entry.protocol):
        mend = "name a route with protocol mcp that has rules of its own"
        source.add_fault(path, f"route {show(entry.rules_of)} has no rules to share", mend)
    return table


def _parse_path(text: str, path: Path, source: Source) -> Pattern | None:
    problem = None if text.startswith("/") else "it must start with a slash"
    if any(mark in text for mark in "?#%\\") or not text.isprintable() or not text.isascii():
        problem = "only plain characters: no query, no percent, no backslash"
    segments = text.split("/")[1:]
    if text != "/" and any(segment in ("", ".", "..") for segment in segments):
        problem = "it has an empty or a dot segment, which canonical paths have not"
    try:
        pattern = parse_path_pattern(text)
    except ValueError as error:
        problem = str(error)
    else:
        if problem is None:
            return pattern
    source.add_fault(path, f"path {show(text)}: {problem}", "write the path as clients must send it")
    return None


def _check_routes(
    file: PolicyFile, patterns: Sequence[Pattern | None], messages: Mapping[int, Pattern | None], source: Source
) -> None:
    for (_, one), (second, other) in combinations(enumerate(file.routes), 2):
        if one.id == other.id:
            source.add_fault(("routes", second, "id"), f"two routes have the id {show(one.id)}", "rename one")
    written: list[tuple[Path, Pattern]] = []
    for index, pattern in enumerate(patterns):
        for member, one_of in (("path", pattern), ("messages", messages.get(index))):
            written += [(("routes", index, member), one_of)] if one_of is not None else []
    for path, pattern in written:
        if lies_within(pattern):
            message = f"path {show(pattern.text)} is answered by the proxy itself: it manages keys there"
            source.add_fault(path, message, "take the route out; management is never forwarded")
    shapes = {(pattern.pieces, pattern.tail) for _, pattern in written}
    for (_, mine), (path, theirs) in combinations(written, 2):
        if overlaps(mine, theirs):
            _check_overlap(mine, theirs, path, shapes, source)


def _check_overlap(
    mine: Pattern, theirs: Pattern, path: Path, shapes: set[tuple[tuple[str | None, ...], str | None]], source: Source
) -> None:
    """One may lie inside the other, and then decides. Where two cross, an upstream may choose otherwise than we do."""
    inside, around = contains(theirs, mine), contains(mine, theirs)
    if inside and around:
        source.add_fault(path, f"{show(theirs.text)} matches the same paths as {show(mine.text)}", "keep one route")
    elif not (inside or around) and (shared := get_shared(mine, theirs)) not in shapes:
        text = "".join("{…}" if piece is None else piece for piece in shared[0]) + (
            "**" if shared[1] is not None else ""
        )
        message = f"{show(theirs.text)} and {show(mine.text)} both match {text}"
        source.add_fault(path, message, f"add a route for {text}, or change one of the two")
