"""`python -m bench.decisions`: what a decision costs, and whether that grows with the rules.

Policies of 10, 100 and 1,000 rules of each kind, in one process, in turn. A row is one kind of request, from its path
to `Allowed` or `Denied`; always ten of them, spread over the policy, so that what differs is its size alone.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Policy, load_policy, parse_policy
from proxy.settings import find_shipped

SIZES = (10, 100, 1000)
TARGETS = 10
OWNER = Owner(OwnerId("00000000-0000-0000-0000-000000000001"), "acme", "https://id.example", "user-1", "pro")
GRANTS = frozenset({"agent:list", "workflow:run:nightly-etl", "volume:read", "thing:use:nightly-etl"})
DOMAINS = ("agent", "workflow", "execution", "volume", "secret", "credential", "node", "swarm", "script", "stimulus")
HEAD = """\
version: 1
default_tier: pro
scopes: { thing:use: { title: Use things, selector: thing name }, thing:list: { title: List things } }
presets: {}
tiers: { pro: ["*"] }
routes:
"""


def name_things(size: int) -> list[str]:
    """As a platform that grows names them: agent, workflow, … agent-2, workflow-2, …"""
    numbered = (f"{domain}-{number}" for number in itertools.count(2) for domain in DOMAINS)
    return list(itertools.islice(itertools.chain(DOMAINS, numbered), size))


def form_policy(size: int) -> str:
    """So many rules of each kind."""
    lines = ["  - { id: mcp, path: /mcp/v1, methods: [POST], upstream: mcp, protocol: mcp, rules: ["]
    routes = []
    for thing in name_things(size):
        use = "require: 'thing:use:{arguments.name}', where: { arguments.tenant_id: { absent_or: '{owner.tenant}' } }"
        lines += [
            f"      {{ tool: aegis.{thing}.run, {use} }},",
            f"      {{ tool: 'tools.{thing}.*', {use} }},",
            f"      {{ uri: 'aegis://{thing}/{{name}}/**', require: 'thing:use:{{name}}' }},",
        ]
        routes += [
            f"  - {{ id: {thing}, path: /v1/{thing}, methods: [GET], upstream: api, require: thing:use:nightly-etl }}",
            f"  - {{ id: {thing}-run, path: '/v1/{thing}/{{name}}/run', methods: [POST], upstream: api,",
            "      require: 'thing:use:{name}' }",
        ]
    return "\n".join([HEAD.rstrip(), *lines, "  ] }", *routes, "..."]) + "\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row: an HTTP method, and for a thing its path and, of a message, what it says."""

    http: str
    form: Callable[[str], tuple[str, str | None, Mapping[str, Any]]]
    allowed: bool = True


def call(tool: str, name: str = "nightly-etl") -> tuple[str, str, Mapping[str, Any]]:
    return "/mcp/v1", "tools/call", {"name": tool, "arguments": {"name": name, "inputs": {"day": "monday"}}}


KINDS = {
    "tool, exact": Kind("POST", lambda thing: call(f"aegis.{thing}.run")),
    "tool, pattern": Kind("POST", lambda thing: call(f"tools.{thing}.search")),
    "resource, URI": Kind(
        "POST", lambda thing: ("/mcp/v1", "resources/read", {"uri": f"aegis://{thing}/nightly-etl/a/report.csv"})
    ),
    "REST, exact": Kind("GET", lambda thing: (f"/v1/{thing}", None, {})),
    "REST, template": Kind("POST", lambda thing: (f"/v1/{thing}/nightly-etl/run", None, {})),
    "denied, another's": Kind("POST", lambda thing: call(f"aegis.{thing}.run", "report-weekly"), allowed=False),
    "denied, no rule": Kind("POST", lambda thing: call(f"aegis.{thing}.delete"), allowed=False),
}


def form_decisions(policy: Policy, kind: Kind, size: int) -> list[Callable[[], object]]:
    """One for each target; each is checked to decide as it should."""

    def decide(path: str, rpc: str | None, params: Mapping[str, Any]) -> object:
        match = policy.find_route(path)
        assert match is not None
        if rpc is None:
            return policy.decide_http(match, kind.http, {}, GRANTS, OWNER)
        return policy.decide_message(match, rpc, params, GRANTS, OWNER)

    def bind(thing: str) -> Callable[[], object]:
        path, rpc, params = kind.form(thing)
        assert isinstance(decide(path, rpc, params), Allowed) is kind.allowed, (path, params)
        return lambda: decide(path, rpc, params)

    return [bind(thing) for thing in name_things(size)[:: size // TARGETS]]


def measure_one(decisions: list[Callable[[], object]], repeats: int) -> float:
    """Microseconds for a decision."""
    began = time.perf_counter()
    for _ in range(repeats):
        for decide in decisions:
            decide()
    return (time.perf_counter() - began) / repeats / len(decisions) * 1e6


def measure(rounds: int, repeats: int) -> Iterator[tuple[str, list[float]]]:
    """Each kind with its figures by size: the best round, because whatever else the machine does only adds."""
    policies = {size: parse_policy(form_policy(size), "generated") for size in SIZES}
    for name, kind in KINDS.items():
        decisions = [form_decisions(policy, kind, size) for size, policy in policies.items()]
        figures = [[measure_one(each, repeats) for each in decisions] for _ in range(rounds)]
        yield name, [min(column) for column in zip(*figures, strict=True)]


def measure_load() -> float:
    """Milliseconds to read the shipped policy."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        load_policy(find_shipped("policy.yaml"))
        times.append((time.perf_counter() - began) * 1000)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=500, help="of ten decisions, in each round")
    options = parser.parse_args()
    table = Table(box=None, header_style="bold")
    table.add_column("µs for a decision")
    for size in SIZES:
        table.add_column(f"{size:,} rules", justify="right")
    for size in SIZES[1:]:
        table.add_column(f"{size:,} ÷ {SIZES[0]}", justify="right")
    for name, figures in measure(options.rounds, options.repeats):
        ratios = [f"{figure / figures[0]:.2f}" for figure in figures[1:]]
        table.add_row(name, *(f"{figure:.2f}" for figure in figures), *ratios)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"the shipped policy is read in {measure_load():.0f} ms")


if __name__ == "__main__":
    main()
