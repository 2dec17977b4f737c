"""`python -m bench`: the proxy beside a bare aiohttp pass-through, in turn, in one run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
from collections.abc import AsyncIterator

from rich.console import Console
from rich.table import Table

from bench.processes import MEASURED, OTHERS, drain_output, form_request, load, read_listening, read_port, start
from proxy.database import Database, migrate
from proxy.embedded_postgres import run_embedded_postgres
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.policy import load_policy
from proxy.settings import find_shipped

console = Console(highlight=False)


@contextlib.asynccontextmanager
async def prepare() -> AsyncIterator[tuple[str, str]]:
    """A database with one key: (database URL, token)."""
    async with run_embedded_postgres(None) as postgres:
        await migrate(postgres.url)
        hasher = Hasher(memory_cost_kib=8192, time_cost=1, threads=1, queue_size=1, timeout_seconds=30)
        async with Database.open(
            postgres.url, min_size=1, max_size=1, connect_timeout_seconds=5, query_timeout_seconds=5
        ) as database:
            minted = await mint(
                MintRequest(name="bench", owner="bench", actor="bench", preset="execution"),
                policy=load_policy(find_shipped("policy.yaml")),
                store=KeyStore(database),
                hasher=hasher,
            )
        hasher.close()
        yield postgres.url, minted.token


Figures = dict[str, float]


def measure(database_url: str, token: str, rounds: int, seconds: float) -> dict[tuple[str, int], list[Figures]]:
    """Rounds with 32 connections and with one, for each side in turn."""
    results: dict[tuple[str, int], list[Figures]] = {}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(start("bench.upstream", core=OTHERS))
        upstream_port = read_port(upstream)
        url = f"http://127.0.0.1:{upstream_port}"
        bare = stack.enter_context(start("bench.passthrough", url, core=MEASURED))
        environ = {
            "AEGIS_DATABASE_URL": database_url,
            "AEGIS_UPSTREAM_MCP": url,
            "AEGIS_LISTEN": "127.0.0.1:0",
            "AEGIS_OPS_LISTEN": "127.0.0.1:0",
            "AEGIS_SECRET_KEY": "the secret of a benchmark, long enough",
        }
        proxy = stack.enter_context(start("proxy", "serve", core=MEASURED, environ=environ))
        proxy_port = int(read_listening(proxy)["data"].rpartition(":")[2])
        drain_output(proxy)
        sides = {
            "proxy": (proxy.pid, proxy_port),
            "bare": (bare.pid, read_port(bare)),
            "direct": (upstream.pid, upstream_port),
        }
        for pid, port in sides.values():
            load(pid, port, 8, 0.5, form_request(port, token))  # the first request pays for argon2
        for _ in range(rounds):
            for connections in (32, 1):
                for side, (pid, port) in sides.items():
                    figures = load(pid, port, connections, seconds, form_request(port, token))
                    assert figures["refused"] == 0, f"{side} refused {figures['refused']:g} requests"
                    results.setdefault((side, connections), []).append(figures)
    return results


def print_results(results: dict[tuple[str, int], list[Figures]]) -> None:
    """Medians, and the ratios that can be compared between machines."""
    table = Table(box=None, header_style="bold")
    for column in ("", "connections", "req/s", "p50 ms", "p99 ms", "CPU µs/req"):
        table.add_column(column, justify="right" if column else "left")
    for (side, connections), rounds in results.items():
        middle = {figure: statistics.median(round_[figure] for round_ in rounds) for figure in rounds[0]}
        table.add_row(
            side,
            str(connections),
            f"{middle['rate']:,.0f}",
            f"{middle['p50_ms']:.2f}",
            f"{middle['p99_ms']:.2f}",
            f"{middle['cpu_us']:.0f}",
        )
    console.print(table)
    many = list(zip(results["proxy", 32], results["bare", 32], strict=True))
    single = list(zip(results["proxy", 1], results["bare", 1], results["direct", 1], strict=True))
    print_ratio("authorised tools/call, req/s ÷ bare aiohttp pass-through", [a["rate"] / b["rate"] for a, b in many])
    print_ratio("the same by processor time per request", [b["cpu_us"] / a["cpu_us"] for a, b in many])
    print_ratio(
        "added p50 latency ÷ that of the bare pass-through",
        [(a["p50_ms"] - d["p50_ms"]) / (b["p50_ms"] - d["p50_ms"]) for a, b, d in single],
    )


def print_ratio(name: str, ratios: list[float]) -> None:
    """The middle one, and how far the rounds spread."""
    console.print(f"{name}: [bold]{statistics.median(ratios):.2f}[/]  ({min(ratios):.2f} to {max(ratios):.2f})")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each")
    options = parser.parse_args()
    os.sched_setaffinity(0, {OTHERS})  # what reads the logs must not share the measured core
    async with prepare() as (database_url, token):
        results = await asyncio.to_thread(measure, database_url, token, options.rounds, options.seconds)
    print_results(results)


if __name__ == "__main__":
    asyncio.run(main())
