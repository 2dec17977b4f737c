"""What a test stages: a database of its own, keys, upstreams and proxies, all of them real."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType
from typing import Any

import aiohttp
import asyncpg
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic import SecretStr

from proxy.database import Database
from proxy.keys.constraints import parse_constraints
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintedKey, MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.policy import Policy
from proxy.policy_files import PolicyFiles
from proxy.server import Proxy, run_proxy
from proxy.settings import Settings, load_settings
from proxy.upstream_address import parse_upstream_address
from tests.ear import Ear

GUARD_SECONDS = 20.0
"""How long a test waits for something that should come at once, on a busy machine, before it fails."""

MODERN = "2026-07-28"
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
ACCEPT = "application/json, text/event-stream"


def form_settings(
    database_url: str, upstream_url: str, *, listen: str = "127.0.0.1:0", **sections: dict[str, Any]
) -> Settings:
    """Settings for a test: free ports, the cheapest hashes, the lease that is shipped."""
    settings = read_shipped_settings(listen)
    assert settings.upstreams.mcp is not None
    upstream = settings.upstreams.mcp.model_copy(update={"url": parse_upstream_address(upstream_url)})
    defaults: dict[str, dict[str, Any]] = {
        "upstreams": {"mcp": upstream},
        "hashing": {"memory_cost_kib": 1024},
        "failures": {"burst": 10_000},  # tests are full of them
        "revocation": {"heartbeat_seconds": 0.1},  # who waits for a beat need not wait for long
        "database": {"url": SecretStr(database_url), "pool_min_size": 1, "pool_max_size": 4},
    }
    for name in {*defaults, *sections}:
        update = {**defaults.get(name, {}), **sections.get(name, {})}
        section = getattr(settings, name).model_copy(update=update)
        settings = settings.model_copy(update={name: section})
    return settings


@cache
def read_shipped_settings(listen: str) -> Settings:
    """Those of the shipped file; it takes 30 ms to read."""
    return load_settings(
        None,
        {
            "AEGIS_DATABASE_URL": "postgresql://127.0.0.1:1/a-test-names-its-own",
            "AEGIS_LISTEN": listen,
            "AEGIS_OPS_LISTEN": "127.0.0.1:0",
            "AEGIS_SECRET_KEY": "the same secret for every instance of a test",
        },
    )


@dataclass(slots=True)
class Stage:
    """One test's world: a database, and what was put into it."""

    database_url: str
    policy: Policy
    database: Database
    store: KeyStore
    hasher: Hasher
    ear: Ear

    async def mint(
        self,
        preset: str | None = "execution",
        *,
        scopes: tuple[str, ...] = (),
        owner: str = "ada",
        name: str | None = None,
        tenant: str | None = None,
        tier: str | None = None,
        lifetime: timedelta | None = None,
        constraints: Mapping[str, Any] = MappingProxyType({}),
    ) -> MintedKey:
        """A key, as the command line would mint it; `scopes` instead of the preset when given."""
        request = MintRequest(
            name=name or f"key {datetime.now(UTC).isoformat()}",
            owner=owner,
            actor="test",
            tenant=tenant,
            tier=tier,
            preset=None if scopes else preset,
            scopes=scopes,
            expires_at=datetime.now(UTC) + lifetime if lifetime else None,
            constraints=parse_constraints(constraints),
        )
        minted = await mint(request, policy=self.policy, store=self.store, hasher=self.hasher)
        self.note_secret(minted.token)
        return minted

    def note_secret(self, token: str) -> None:
        """From now on it must be heard nowhere."""
        self.ear.secrets.append(token)

    @contextlib.asynccontextmanager
    async def proxy(
        self, upstream_url: str, policy_files: PolicyFiles | None = None, /, **sections: dict[str, Any]
    ) -> AsyncIterator[Proxy]:
        """A proxy in front of an upstream, once it trusts its news; `via` may name a relay as `database_url`, and an
        address to `listen` at."""
        policy = policy_files.load() if policy_files is not None else self.policy
        via = {"database_url": self.database_url, "listen": "127.0.0.1:0", **sections.pop("via", {})}
        settings = form_settings(via["database_url"], upstream_url, listen=via["listen"], **sections)
        async with run_proxy(settings, policy, policy_files) as proxy:
            await proxy.wait_trusted()
            yield proxy
            self.ear.hear(await scrape(proxy), "the metrics")

    async def sql(self, statement: str, *arguments: object) -> None:
        """Change something by hand, as psql would: on a connection of its own, past every room of ours."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def revoke_by_sql(self, key: MintedKey) -> None:
        """What the owner of the database types."""
        await self.sql("UPDATE api_keys SET status = 'revoked' WHERE id = $1", key.summary.id)


async def scrape(proxy: Proxy) -> bytes:
    """What Prometheus would read now."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{proxy.ops_address}/metrics") as answer:
        return await answer.read()


def get_mcp_url(proxy: Proxy) -> str:
    """Where MCP clients connect."""
    return f"http://{proxy.data_address}/mcp/v1"


@contextlib.asynccontextmanager
async def connect(url: str, token: str | None, mode: str = "auto") -> AsyncIterator[Client]:
    """The official client, with a key as any user configures it."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(GUARD_SECONDS)) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@dataclass(frozen=True, slots=True)
class Wire:
    """A plain HTTP client for what no MCP client would send."""

    http: aiohttp.ClientSession
    url: str

    async def post(self, token: str | None, message: object, **headers: str) -> aiohttp.ClientResponse:
        """POST one JSON-RPC message (or raw bytes); the answer is open, and closed with the session."""
        sent = {"Accept": ACCEPT, "Content-Type": "application/json", **headers}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        body = {"data": message} if isinstance(message, bytes) else {"json": message}
        return await self.http.post(self.url, headers=sent, **body)

    async def call(self, token: str | None, tool: str, arguments: dict[str, Any] | None = None) -> int:
        """One whole `tools/call` of revision 2026-07-28, which needs no session; the status of its answer."""
        message = form_call(tool, arguments)
        message["params"]["_meta"] = MODERN_META
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        async with await self.post(token, message, **headers) as answer:
            await answer.read()
            return answer.status

    async def request(self, method: str, token: str | None, **headers: str) -> aiohttp.ClientResponse:
        """A bare GET or DELETE."""
        sent = {"Accept": ACCEPT, **headers}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return await self.http.request(method, self.url, headers=sent)


def form_call(tool: str, arguments: dict[str, Any] | None = None, rpc_id: int = 1) -> dict[str, Any]:
    """A `tools/call` as the revisions before 2026-07-28 send it."""
    return {
        "jsonrpc": "2.0",
        "id": rpc_id,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments or {}},
    }


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    },
}
