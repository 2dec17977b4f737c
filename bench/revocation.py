"""How fast a revoked key dies, on two proxy processes that share a database.

Live streams and calls in flight are watched while keys are revoked by plain SQL. The clock starts when the statement
that revokes has returned: the commit itself is not counted. With --windows the news is then cut off, all connections
to the database are, and the database itself is stopped, each without a word to the proxies, at the shipped timing
(heartbeat 0.5 s, lease 2 s, grace 1 s): nothing may be admitted later than 3 s. Takes some minutes; what it is doing
is said on stderr, the table comes on stdout. Absolute figures follow the machine: leave it alone meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import uvloop
from rich.console import Console
from rich.table import Table

from bench.refusals import measure_refusals
from bench.stage import mint_keys, run_proxies, say
from bench.streams import measure_streams
from bench.windows import BOUND_SECONDS, Rows, measure_windows
from proxy.database import migrate
from proxy.embedded_postgres import run_embedded_postgres

STREAMS_PER_KEY = 10
SECONDS_PER_CUT = 6
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def find_quantile(ordered: Sequence[float], quantile: float) -> float | None:
    """None where too few values lie beyond it to tell it from the greatest."""
    return ordered[int(len(ordered) * quantile)] if len(ordered) * (1 - quantile) >= 1 or quantile == 0.5 else None


def print_rows(rows: Mapping[str, Sequence[float]]) -> None:
    """Counts, percentiles and the worst."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("milliseconds from commit, cut or mend")
    for column in ("count", *QUANTILES, "max"):
        table.add_column(column, justify="right", min_width=6)
    for name, times in rows.items():
        ordered = sorted(times)
        figures = (*(find_quantile(ordered, quantile) for quantile in QUANTILES.values()), ordered[-1])
        cells = ("" if figure is None else f"{figure:,.1f}" for figure in figures)
        table.add_row(name, f"{len(ordered):,}", *cells)
    Console(highlight=False, width=80).print(table)


async def measure_connected(url: str, options: argparse.Namespace) -> Rows:
    """How fast it goes while the news arrives."""
    rows: Rows = {}
    many = max(1, options.streams // STREAMS_PER_KEY)
    async with run_proxies(url) as proxies:
        if options.refusals:  # first, and so not on what thousands of streams leave to clear away
            say(f"first refusal: {options.refusals:,} keys, one after another")
            tokens = await mint_keys(url, options.refusals)
            rows["first refusal, by each proxy"] = await measure_refusals(url, proxies, tokens)
        for number, keys in ((options.streams, many), (options.one_key_streams, 1)):
            name = f"{number:,} streams of {f'{keys:,} keys' if keys > 1 else 'one key'}: last byte"
            for round_ in range(options.rounds if number else 0):
                say(f"{name}, {round_ + 1} of {options.rounds}")
                tokens = await mint_keys(url, keys)
                rows.setdefault(name, []).extend(await measure_streams(url, proxies, tokens, number))
    return rows


async def measure(options: argparse.Namespace) -> None:
    say("starting a private database and two proxies")
    async with run_embedded_postgres(None) as postgres:
        await migrate(postgres.url)
        rows = await measure_connected(postgres.url, options)
        late = None
        if options.windows:
            cut_rows, late = await measure_windows(postgres, options.rounds)
            rows |= cut_rows
    print_rows(rows)
    if late is not None:
        print(f"admitted later than {BOUND_SECONDS:g} s: {late}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.revocation", description=__doc__)

    def add(name: str, default: int, text: str) -> None:
        parser.add_argument(name, type=int, default=default, metavar="N", help=f"{text} (default: {default:,})")

    add("--streams", 1000, f"live streams to end at once, {STREAMS_PER_KEY} to a key; 0 leaves the row out")
    add(
        "--one-key-streams",
        9000,
        "live streams of a single key, for which each proxy needs as many descriptors (ulimit -n)",
    )
    add("--refusals", 2000, "keys to revoke one after another, each in use on both proxies; 0 leaves the row out")
    add("--rounds", 5, "how often streams are ended and each cut is made")
    parser.add_argument(
        "--windows",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"cut the proxies off from the database, about {SECONDS_PER_CUT} s each time",
    )
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(measure(parse_options()))
