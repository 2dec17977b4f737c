"""`python -m bench.usage`: what counting 100,000 calls costs the database, and whether the counts add up.

One proxy, several keys, settings as shipped. It is told to stop the moment the last call is answered, so that the last
batch is written by its shutdown. Everything is counted by the database: rows written and batches by its own statistics,
which a backend has told by the time it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections import Counter

import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

from bench.processes import drain_output, read_listening, read_port, start
from bench.stage import ProxyAddress, Wire, mint_keys, say, wait_settled
from proxy.database import migrate
from proxy.embedded_postgres import run_embedded_postgres
from proxy.settings import load_settings

CONNECTIONS = 32
TABLES = ("key_usage", "key_last_uses", "key_networks", "flushes")
COUNTED = """
SELECT k.id, (SELECT coalesce(sum(count), 0)::bigint FROM key_usage u WHERE u.key_id = k.id AND u.allowed) AS by_day,
       (SELECT coalesce(sum(count), 0)::bigint FROM key_last_uses l WHERE l.key_id = k.id) AS in_all
  FROM api_keys k
"""


async def ask_all(proxy: ProxyAddress, tokens: list[str], calls: int) -> Counter[str]:
    """So many calls, the keys in turn, over a few connections; how many of each key were answered 200."""
    answered: Counter[str] = Counter()
    left = iter(range(calls))

    async def ask_on(connection: int) -> None:
        token = tokens[connection % len(tokens)]
        wire = Wire(proxy, token)
        for _ in left:
            if await wire.ask() == 200:
                answered[token[6:18]] += 1
        wire.close()

    await asyncio.gather(*map(ask_on, range(CONNECTIONS)))
    return answered


async def read_writes(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch(
        "SELECT relname, n_tup_ins + n_tup_upd AS writes FROM pg_stat_user_tables WHERE relname = ANY($1::text[])",
        list(TABLES),
    )
    return {row["relname"]: row["writes"] for row in rows}


async def measure(calls: int, keys: int) -> bool:
    """Print what it cost; whether all that was promised holds."""
    async with run_embedded_postgres(None) as server:
        await migrate(server.url)
        tokens = await mint_keys(server.url, keys)
        with start("bench.upstream") as upstream:
            environ = {
                "AEGIS_DATABASE_URL": server.url,
                "AEGIS_UPSTREAM_MCP": f"http://127.0.0.1:{read_port(upstream)}",
                "AEGIS_LISTEN": "127.0.0.1:0",
                "AEGIS_OPS_LISTEN": "127.0.0.1:0",
                "AEGIS_SECRET_KEY": "the secret of a benchmark, long enough",
            }
            with start("proxy", "serve", environ=environ) as process:
                listening = read_listening(process)
                drain_output(process)
                proxy = ProxyAddress(int(listening["data"].rpartition(":")[2]), listening["ops"])
                await wait_settled([proxy])
                say(f"{calls:,} calls of {keys} keys …")
                began = time.perf_counter()
                answered = await ask_all(proxy, tokens, calls)
                took = time.perf_counter() - began
                process.terminate()
                code = await asyncio.to_thread(process.wait)
        connection = await asyncpg.connect(server.url)
        try:
            return report(answered, await connection.fetch(COUNTED), await read_writes(connection), took, code)
        finally:
            await connection.close()


def report(
    answered: Counter[str], counted: list[asyncpg.Record], writes: dict[str, int], took: float, code: int
) -> bool:
    """The first batch begins an interval after the start, the last is the shutdown's."""
    intervals = math.ceil(took / load_settings(None, {}).usage.flush_seconds) + 1
    exact = all(row["by_day"] == row["in_all"] == answered[row["id"]] for row in counted)
    bound = intervals * len(counted)
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    table.add_row("answered 200", f"{answered.total():,} in {took:.1f} s")
    table.add_row(
        "counted by day, by last use", " ".join(f"{sum(r[n] for r in counted):,}" for n in ("by_day", "in_all"))
    )
    table.add_row("flush intervals begun", str(intervals))
    table.add_row("batches written, of all kinds", str(writes["flushes"]))
    for name in ("key_usage", "key_last_uses", "key_networks"):
        table.add_row(f"rows written in {name}", f"{writes[name]} (one for each interval and key: {bound})")
    Console().print(table)
    within = all(writes[name] <= bound for name in ("key_usage", "key_last_uses", "key_networks"))
    holds = exact and within and code == 0
    say("Every count is exact, and no key was written more than once an interval." if holds else "It does NOT hold.")
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=8)
    options = parser.parse_args()
    sys.exit(0 if uvloop.run(measure(options.calls, options.keys)) else 1)


if __name__ == "__main__":
    main()
