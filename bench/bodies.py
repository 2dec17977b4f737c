"""`python -m bench.bodies`: a gibibyte up and one down, directly and through the proxy, and the memory that took.

The upstream throws away what it gets and makes up what it sends. What matters is the memory: whoever carries a body
must not hold it. It is sampled while the body flows, from the proxy's own process.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import psutil  # type: ignore[import-untyped]
from aiohttp import web
from rich.console import Console
from rich.table import Table

from bench.processes import drain_output, read_listening, read_port, start
from bench.stage import ProxyAddress, mint_keys, wait_settled
from proxy.database import migrate
from proxy.embedded_postgres import run_embedded_postgres

CHUNK = bytes(1 << 16)
MIB = 1 << 20
SAMPLE_SECONDS = 0.02
UP = "/v1/volumes/v/files/upload?path=large"
DOWN = "/v1/volumes/v/files/download?path="  # and how much of it: MiB


@dataclass(frozen=True, slots=True)
class Figures:
    """`rss_mib`: before, and the most while it flowed; None where nobody is measured."""

    way: str
    seconds: float
    rss_mib: tuple[float, float] | None


async def take(request: web.Request) -> web.StreamResponse:
    async for _ in request.content.iter_any():
        pass
    return web.json_response({})


async def give(request: web.Request) -> web.StreamResponse:
    size = int(request.query["path"]) * MIB
    response = web.StreamResponse(headers={"Content-Length": str(size)})
    await response.prepare(request)
    for _ in range(size // len(CHUNK)):
        await response.write(CHUNK)
    return response


async def serve() -> None:
    """The upstream, in a process of its own: prints its port."""
    application = web.Application()
    application.router.add_post("/v1/volumes/v/files/upload", take)
    application.router.add_get("/v1/volumes/v/files/download", give)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def send(http: aiohttp.ClientSession, url: str, mib: int, headers: dict[str, str]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(mib * MIB // len(CHUNK)):
            yield CHUNK

    async with http.post(url + UP, data=pieces(), headers={**headers, "Content-Length": str(mib * MIB)}) as answer:
        assert answer.status == 200, await answer.text()


async def fetch(http: aiohttp.ClientSession, url: str, mib: int, headers: dict[str, str]) -> None:
    async with http.get(f"{url}{DOWN}{mib}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        size = 0
        async for piece in answer.content.iter_any():
            size += len(piece)
        assert size == mib * MIB


async def watch(work: Awaitable[None], proxy: psutil.Process | None, way: str) -> Figures:
    """How long it took, and how much memory the proxy held meanwhile."""
    before = most = proxy.memory_info().rss if proxy is not None else 0
    began = time.perf_counter()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=SAMPLE_SECONDS)
        most = max(most, proxy.memory_info().rss if proxy is not None else 0)
    await task
    seconds = time.perf_counter() - began
    return Figures(way, seconds, (before / MIB, most / MIB) if proxy is not None else None)


async def measure(mib: int) -> list[Figures]:
    figures: list[Figures] = []
    async with run_embedded_postgres(None) as postgres:
        await migrate(postgres.url)
        (token,) = await mint_keys(postgres.url, 1, "developer")
        with start("bench.bodies", "--serve") as upstream:
            direct = f"http://127.0.0.1:{await asyncio.to_thread(read_port, upstream)}"
            environ = {
                "AEGIS_DATABASE_URL": postgres.url,
                "AEGIS_UPSTREAM_API": direct,
                "AEGIS_LISTEN": "127.0.0.1:0",
                "AEGIS_OPS_LISTEN": "127.0.0.1:0",
                "AEGIS_SECRET_KEY": "the secret of a benchmark, long enough",
            }
            with start("proxy", "serve", environ=environ) as process:
                listening = await asyncio.to_thread(read_listening, process)
                through = listening["data"]
                drain_output(process)
                await wait_settled([ProxyAddress(int(through.rpartition(":")[2]), listening["ops"])])
                proxy = psutil.Process(process.pid)
                headers = {"Authorization": f"Bearer {token}"}
                async with aiohttp.ClientSession() as http:
                    await fetch(http, through, 1, headers)  # the first request pays for argon2
                    ways: list[tuple[str, Callable[..., Awaitable[None]]]] = [("up", send), ("down", fetch)]
                    for way, carry in ways:
                        figures.append(await watch(carry(http, direct, mib, {}), None, f"{way}, direct"))
                        figures.append(await watch(carry(http, through, mib, headers), proxy, f"{way}, proxy"))
    return figures


def show(figures: list[Figures], mib: int) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("", "seconds", "MiB/s", "RSS before, MiB", "most", "grown"):
        table.add_column(column, justify="left" if not column else "right")
    for row in figures:
        memory = ("", "", "")
        if row.rss_mib is not None:
            before, most = row.rss_mib
            memory = (f"{before:.1f}", f"{most:.1f}", f"{most - before:.1f}")
        table.add_row(row.way, f"{row.seconds:.2f}", f"{mib / row.seconds:.0f}", *memory)
    console = Console(highlight=False)
    console.print(table)
    for way, other in ((0, 1), (2, 3)):
        ratio = figures[way].seconds / figures[other].seconds
        console.print(f"{figures[way].way.split(',')[0]}: rate through the proxy ÷ direct: {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="how much, each way")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    else:
        show(asyncio.run(measure(options.mib)), options.mib)


if __name__ == "__main__":
    main()
