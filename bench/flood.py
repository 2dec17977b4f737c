"""`python -m bench.flood`: a good key's latency while its address floods the proxy with bad tokens.

Rounds of quiet and each kind of flood in turn, in one run. What floods asks for 5,000 answers a second, whatever
becomes of them: a third garbage, a third ids that nobody has, a third the good key's own id with wrong secrets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.__main__ import console, prepare, print_ratio
from bench.processes import (
    MEASURED,
    OTHERS,
    drain_output,
    form_request,
    read_cpu_seconds,
    read_listening,
    read_port,
    start,
)
from proxy.identity import KeyId
from proxy.keys.token import ID_LENGTH, SECRET_LENGTH, draw, form_token

GOOD_RATE, GOOD_CONNECTIONS = 300.0, 8
SETTLE_SECONDS = 1.0  # between two measurements
# Name, connections at most, and whether each of them asks only once.
FLOODS = (("kept, 64", 64, False), ("kept, 1,000", 1_000, False), ("fresh, 256", 256, True))


def form_bad_tokens(key_id: str, number: int) -> list[str]:
    """A third of each kind; every one of them another."""

    def draw_any(length: int) -> str:
        return draw(length, secrets.choice)

    kinds = (
        lambda: f"aegis_{draw_any(ID_LENGTH)}_{draw_any(SECRET_LENGTH)}000000",
        lambda: form_token(KeyId(draw_any(ID_LENGTH)), draw_any(SECRET_LENGTH)).text,
        lambda: form_token(KeyId(key_id), draw_any(SECRET_LENGTH)).text,
    )
    return [kinds[count % len(kinds)]() for count in range(number)]


def send_out(port: int, tokens: list[str], **errand: float) -> subprocess.Popen[bytes]:
    """A crowd of paced clients, in a process of its own."""
    crowd = subprocess.Popen(
        [sys.executable, "-m", "bench.paced"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {OTHERS}),
    )
    assert crowd.stdin is not None
    requests = [form_request(port, token).decode() for token in tokens]
    crowd.stdin.write(json.dumps({"port": port, "requests": requests, **errand}).encode())
    crowd.stdin.close()
    return crowd


def hear(crowd: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert crowd.stdout is not None
    said: dict[str, Any] = json.loads(crowd.stdout.read())
    crowd.wait()
    return said


def read_rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def serve(database_url: str) -> Iterator[tuple[int, int]]:
    """The proxy's process id and port, with the settings that are shipped."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(start("bench.upstream", core=OTHERS))
        environ = {
            "AEGIS_DATABASE_URL": database_url,
            "AEGIS_UPSTREAM_MCP": f"http://127.0.0.1:{read_port(upstream)}",
            "AEGIS_LISTEN": "127.0.0.1:0",
            "AEGIS_OPS_LISTEN": "127.0.0.1:0",
            "AEGIS_SECRET_KEY": "the secret of a benchmark, long enough",
        }
        proxy = stack.enter_context(start("proxy", "serve", core=MEASURED, environ=environ))
        port = int(read_listening(proxy)["data"].rpartition(":")[2])
        drain_output(proxy)
        yield proxy.pid, port


def measure(
    pid: int, port: int, token: str, seconds: float, flood: tuple[int, bool] | None, rate: float
) -> dict[str, Any]:
    """One time of the good key's, flooded or not."""
    crowd = None
    if flood is not None:
        connections, fresh = flood
        bad = form_bad_tokens(token[6 : 6 + ID_LENGTH], int(rate * (seconds + 1)))
        crowd = send_out(port, bad, connections=connections, fresh=fresh, rate=rate, seconds=seconds + 1)
    cpu = read_cpu_seconds(pid)
    good = hear(
        send_out(
            port, [token], connections=GOOD_CONNECTIONS, fresh=False, rate=GOOD_RATE, seconds=seconds + 0.2
        )
    )  # fmt: skip
    figures = {"good": good, "cpu": (read_cpu_seconds(pid) - cpu) / (seconds + 0.7)}
    if crowd is not None:
        figures["bad"] = hear(crowd)
    figures["rss"] = read_rss_mib(pid)
    return figures


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=5_000.0, help="of bad tokens, a second")
    options = parser.parse_args()
    async with prepare() as (database_url, token):
        with serve(database_url) as (pid, port):
            results = await asyncio.to_thread(run, pid, port, token, options)
    print_results(results)


def run(pid: int, port: int, token: str, options: argparse.Namespace) -> dict[str, list[Any]]:
    results: dict[str, list[Any]] = {}
    measure(pid, port, token, 0.5, None, 0)  # the first request pays for argon2
    for _ in range(options.rounds):
        for name, flood in (("quiet", None), *((name, (many, fresh)) for name, many, fresh in FLOODS)):
            figures = measure(pid, port, token, options.seconds, flood, options.rate)
            assert set(figures["good"]["answers"]) == {"200"}, f"the good key was answered {figures['good']}"
            results.setdefault(name, []).append(figures)
            subprocess.run(["sleep", str(SETTLE_SECONDS)], check=True)
    return results


def print_results(results: dict[str, list[Any]]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("", "p50 ms", "p99 ms", "bad answered/s", "held", "answers", "CPU %", "RSS MiB"):
        table.add_column(column, justify="right" if column else "left")
    for name, rounds in results.items():
        answers: Counter[str] = Counter()
        for one in rounds:
            answers.update(one.get("bad", {}).get("answers", {}))
        middle = {figure: statistics.median(one["good"][figure] for one in rounds) for figure in ("p50_ms", "p99_ms")}
        table.add_row(
            name,
            f"{middle['p50_ms']:.2f}",
            f"{middle['p99_ms']:.2f}",
            f"{statistics.median(one['bad']['rate'] for one in rounds):,.0f}" if "bad" in rounds[0] else "",
            f"{statistics.median(one['bad']['held'] for one in rounds):,.0f}" if "bad" in rounds[0] else "",
            " ".join(f"{status}: {count:,}" for status, count in answers.most_common()),
            f"{100 * statistics.median(one['cpu'] for one in rounds):.0f}",
            f"{rounds[0]['rss']:.1f} … {rounds[-1]['rss']:.1f}",
        )
    console.print(table)
    for name, _, _ in FLOODS:
        pairs = zip(results[name], results["quiet"], strict=True)
        print_ratio(
            f"good key's p99 ÷ quiet, flood {name}", [a["good"]["p99_ms"] / b["good"]["p99_ms"] for a, b in pairs]
        )


if __name__ == "__main__":
    asyncio.run(main())
