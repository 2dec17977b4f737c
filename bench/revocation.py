"""How fast a revoked key dies: `python -m bench.revocation`. Two proxy processes on one database.

Commit to last byte of every live stream, and commit to first refusal; the clock starts when the statement that revokes
has returned, so that the commit itself is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from bench.processes import OTHERS, drain_output, form_request, read_listening, read_port, start
from proxy.database import Database, migrate
from proxy.embedded_postgres import run_embedded_postgres
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.policy import load_policy
from proxy.settings_source import find_shipped

console = Console(highlight=False)
PROXIES = 2


async def mint_keys(url: str, number: int) -> list[str]:
    """That many keys of one owner."""
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=1, timeout_seconds=30)
    policy = load_policy(find_shipped("policy.yaml"))
    async with Database.open(
        url, min_size=1, max_size=1, connect_timeout_seconds=5, query_timeout_seconds=5
    ) as database:
        store = KeyStore(database)
        requests = (
            MintRequest(name=f"key {count}", owner="bench", actor="bench", preset="execution")
            for count in range(number)
        )
        keys = [(await mint(request, policy=policy, store=store, hasher=hasher)).token for request in requests]
    hasher.close()
    return keys


@contextlib.asynccontextmanager
async def run_proxies(url: str) -> AsyncIterator[list[int]]:
    """Two proxies in front of an upstream that answers every GET with a silent stream; their ports."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(start("bench.upstream", core=OTHERS))
        environ = {
            "AEGIS_DATABASE_URL": url,
            "AEGIS_UPSTREAM_MCP": f"http://127.0.0.1:{read_port(upstream)}",
            "AEGIS_LISTEN": "127.0.0.1:0",
            "AEGIS_OPS_LISTEN": "127.0.0.1:0",
            "AEGIS_SECRET_KEY": "the secret of a benchmark, long enough",
        }
        ports = []
        for _ in range(PROXIES):
            process = stack.enter_context(start("proxy", "serve", environ=environ))
            listening = read_listening(process)
            ports.append(int(listening["data"].rpartition(":")[2]))
            drain_output(process)
            await wait_ready(listening["ops"])
        yield ports


async def wait_ready(ops: str) -> None:
    """Return once the news is heard and proven."""
    async with aiohttp.ClientSession() as http:
        for _ in range(200):
            async with http.get(f"{ops}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)
    raise RuntimeError("the proxy never became ready")


async def open_stream(port: int, token: str) -> asyncio.StreamReader:
    """A live GET stream, its first event read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /mcp/v1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    writer.write((head + "Accept: text/event-stream\r\n\r\n").encode())
    answer = await reader.read(4096)
    while b": hello\n\n" not in answer:
        assert answer.startswith(b"HTTP/1.1 200"), answer.decode()
        answer += await reader.read(4096)
    reader._keep = writer  # type: ignore[attr-defined]
    return reader


async def wait_last_byte(reader: asyncio.StreamReader) -> float:
    """The time at which a stream has ended: its last chunk, or the end of its connection."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"0\r\n\r\n")
    return time.perf_counter()


async def measure_streams(url: str, ports: list[int], keys: list[str], streams: int) -> list[float]:
    """Open streams over the keys and the proxies in turn, revoke every key at once: milliseconds of each end."""
    readers: list[asyncio.StreamReader] = []
    for first in range(0, streams, 100):  # a hundred at a time: this is no test of opening them
        batch = range(first, min(first + 100, streams))
        readers += await asyncio.gather(
            *(open_stream(ports[number % len(ports)], keys[number // 2 % len(keys)]) for number in batch)
        )
    ends = [asyncio.create_task(wait_last_byte(reader)) for reader in readers]
    await asyncio.sleep(0.5)
    connection = await asyncpg.connect(url)
    await connection.execute(
        "UPDATE api_keys SET status = 'revoked' WHERE id = ANY($1::text[])", [token[6:18] for token in keys]
    )
    committed = time.perf_counter()
    ended = await asyncio.gather(*ends)
    await connection.close()
    return [(moment - committed) * 1000 for moment in ended]


async def measure_refusals(url: str, ports: list[int], keys: list[str]) -> list[float]:
    """Revoke key after key; milliseconds until each proxy refuses it, asked without pause."""
    connection = await asyncpg.connect(url)
    times = []
    for token in keys:
        asking = [await ask(port, token) for port in ports]
        await connection.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", token[6:18])
        committed = time.perf_counter()
        times += [
            (moment - committed) * 1000 for moment in await asyncio.gather(*(until_refused(*one) for one in asking))
        ]
    await connection.close()
    return times


async def ask(port: int, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A warm connection: the key was admitted on it once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = form_request(port, token)
    assert await exchange(reader, writer, request) == b"200"
    return reader, writer, request


async def until_refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> float:
    while await exchange(reader, writer, request) == b"200":
        pass
    moment = time.perf_counter()
    writer.close()
    return moment


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """One request on a kept connection; the status of its answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head.split(b" ")[1]


def print_times(rows: dict[str, list[float]]) -> None:
    """Counts, percentiles and the worst."""
    table = Table(box=None, header_style="bold")
    for column in ("", "count", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="right" if column else "left")
    for name, times in rows.items():
        ordered = sorted(times)
        middle, high = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        table.add_row(name, str(len(ordered)), f"{middle:.1f}", f"{high:.1f}", f"{ordered[-1]:.1f}")
    console.print(table)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.revocation", description=__doc__)
    parser.add_argument("--streams", type=int, default=1000, help="live streams, over a tenth as many keys")
    parser.add_argument("--refusals", type=int, default=100, help="keys revoked one after another")
    options = parser.parse_args()
    async with run_embedded_postgres(None) as postgres:
        await migrate(postgres.url)
        keys = await mint_keys(postgres.url, options.streams // 10 + options.refusals + 1)
        async with run_proxies(postgres.url) as ports:
            many, one, single = keys[: options.streams // 10], keys[-1:], keys[options.streams // 10 : -1]
            rows = {
                f"commit → last byte, {options.streams} streams of {len(many)} keys": await measure_streams(
                    postgres.url, ports, many, options.streams
                ),
                f"commit → last byte, {options.streams} streams of one key": await measure_streams(
                    postgres.url, ports, one, options.streams
                ),
                "commit → first refusal, each proxy": await measure_refusals(postgres.url, ports, single),
            }
    print_times(rows)


if __name__ == "__main__":
    asyncio.run(main())
