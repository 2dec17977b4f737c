"""What stands before revocation is measured: two proxies on one database, keys, and connections to ask on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import aiohttp
import asyncpg

from bench.processes import drain_output, form_request, read_listening, read_port, start
from proxy.database import Database
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.policy import load_policy
from proxy.settings_source import find_shipped

PROXIES = 2
READY_SECONDS = 20.0


def say(line: str) -> None:
    """To whoever watches. Between measurements only, and no bar that draws itself: it would share their cores."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where a proxy takes requests, and where it tells how it is."""

    port: int
    ops: str


async def mint_keys(url: str, number: int, preset: str = "execution") -> list[str]:
    """That many keys of one owner, hashed cheaply: hashing is not what is measured here."""
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=1, timeout_seconds=30)
    policy = load_policy(find_shipped("policy.yaml"))
    async with Database.open(
        url, min_size=1, max_size=1, connect_timeout_seconds=5, query_timeout_seconds=5
    ) as database:
        store = KeyStore(database)
        requests = (
            MintRequest(name=f"key {count}", owner="bench", actor="bench", preset=preset) for count in range(number)
        )
        keys = [(await mint(request, policy=policy, store=store, hasher=hasher)).token for request in requests]
    hasher.close()
    return keys


@contextlib.asynccontextmanager
async def run_proxies(url: str, listener_url: str | None = None) -> AsyncIterator[list[ProxyAddress]]:
    """Two proxies, trusted, in front of an upstream that answers every GET with a silent stream."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(start("bench.upstream"))
        environ = {
            "AEGIS_DATABASE_URL": url,
            "AEGIS_LISTENER_DATABASE_URL": listener_url or url,
            "AEGIS_UPSTREAM_MCP": f"http://127.0.0.1:{read_port(upstream)}",
            "AEGIS_LISTEN": "127.0.0.1:0",
            "AEGIS_OPS_LISTEN": "127.0.0.1:0",
            "AEGIS_SECRET_KEY": "the secret of a benchmark, long enough",
        }
        proxies = []
        for _ in range(PROXIES):
            process = stack.enter_context(start("proxy", "serve", environ=environ))
            listening = await asyncio.to_thread(read_listening, process)  # its database may be reached through us
            proxies.append(ProxyAddress(int(listening["data"].rpartition(":")[2]), listening["ops"]))
            drain_output(process)
        await wait_settled(proxies)
        yield proxies


async def wait_settled(proxies: Sequence[ProxyAddress]) -> None:
    """Return once every proxy hears the news and carries nothing."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(READY_SECONDS):
        for proxy in proxies:
            while True:
                async with http.get(f"{proxy.ops}/readyz") as answer:
                    if answer.status == 200 and (await answer.json())["exchanges"] == 0:
                        break
                await asyncio.sleep(0.05)


async def revoke(connection: asyncpg.Connection, tokens: Sequence[str]) -> float:
    """Revoke by SQL, in one statement; the time at which it had returned."""
    await connection.execute(
        "UPDATE api_keys SET status = 'revoked' WHERE id = ANY($1::text[])", [token[6:18] for token in tokens]
    )
    return time.perf_counter()


class Wire:
    """One connection to a proxy, kept while the proxy keeps it, on which one key asks again and again."""

    def __init__(self, proxy: ProxyAddress, token: str) -> None:
        self._port = proxy.port
        self._request = form_request(proxy.port, token)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> int:
        """The status of one `tools/call`."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        if b"\r\nconnection: close\r\n" in head:
            self.close()
        return int(head.split(b" ")[1])

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
