"""`python -m bench.usage`: what counting 100,000 calls costs the database, and whether the counts add up.

One proxy, several keys, settings as shipped. It is told to stop the moment the last call is answered, so that the last
batch is written by its shutdown. What was decided is counted in the log, line by line; rows written and batches by the
database's own statistics, which a backend has told by the time it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

from bench.processes import read_listening, read_port, start
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


async def ask_all(proxy: ProxyAddress, tokens: list[str], calls: int) -> Counter[int]:
    """So many calls, the keys in turn, over a few connections; how many were answered with which status."""
    answered: Counter[int] = Counter()
    left = iter(range(calls))

    async def ask_on(connection: int) -> None:
        wire = Wire(proxy, tokens[connection % len(tokens)])
        for _ in left:
            answered[await wire.ask()] += 1
        wire.close()

    await asyncio.gather(*map(ask_on, range(CONNECTIONS)))
    return answered


def count_decisions(path: Path) -> Counter[str]:
    """By key, what the log says was allowed; a machine too busy to answer may refuse some of it in the end."""
    with path.open("rb") as lines:
        said = (json.loads(line) for line in lines if b'"decision":"allowed"' in line)
        return Counter(line["key_id"] for line in said)


async def read_writes(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch(
        "SELECT relname, n_tup_ins + n_tup_upd AS writes FROM pg_stat_user_tables WHERE relname = ANY($1::text[])",
        list(TABLES),
    )
    return {row["relname"]: row["writes"] for row in rows}


async def measure(calls: int, keys: int) -> bool:
    """Print what it cost; whether all that was promised holds."""
    async with run_embedded_postgres(None) as server, AsyncExitStack() as stack:
        log = stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115 - the stack closes it
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
                reader = subprocess.Popen(["cat"], stdin=process.stdout, stdout=log)
                proxy = ProxyAddress(int(listening["data"].rpartition(":")[2]), listening["ops"])
                await wait_settled([proxy])
                say(f"{calls:,} calls of {keys} keys …")
                began = time.perf_counter()
                answered = await ask_all(proxy, tokens, calls)
                took = time.perf_counter() - began
                process.terminate()
                code = await asyncio.to_thread(process.wait) or await asyncio.to_thread(reader.wait)
        connection = await asyncpg.connect(server.url)
        try:
            counted, writes = await connection.fetch(COUNTED), await read_writes(connection)
            return report(answered, count_decisions(Path(log.name)), counted, writes, took, code)
        finally:
            await connection.close()


def report(
    answered: Counter[int], decided: Counter[str], counted: list[asyncpg.Record], writes: dict[str, int], took: float,
    code: int,
) -> bool:  # fmt: skip
    """The first batch begins an interval after the start, the last is the shutdown's."""
    intervals = math.ceil(took / load_settings(None, {}).usage.flush_seconds) + 1
    exact = all(row["by_day"] == row["in_all"] == decided[row["id"]] for row in counted)
    bound = intervals * len(counted)
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    statuses = ", ".join(f"{times:,} with {status}" for status, times in answered.most_common())
    table.add_row("answered", f"{statuses}, in {took:.1f} s")
    table.add_row("allowed, by the log", f"{decided.total():,}")
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
