"""Where a conformance run plays: the fixture server, and a real proxy with a key in front of any server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from proxy.database import Database, migrate
from proxy.embedded_postgres import run_embedded_postgres
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.logs import configure_logging
from proxy.policy import Policy, load_policy
from proxy.server import run_proxy
from proxy.settings import load_settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATH = "/mcp"
# How the client's process, which the suite starts, learns of the stage.
DATABASE_VARIABLE = "AEGIS_CONFORMANCE_DATABASE"
TOKEN_VARIABLE = "AEGIS_CONFORMANCE_TOKEN"


@dataclass(frozen=True, slots=True)
class Stage:
    """A database with one key in it that may do everything."""

    database_url: str = field(repr=False)
    token: str = field(repr=False)

    def form_environ(self) -> dict[str, str]:
        return {**os.environ, DATABASE_VARIABLE: self.database_url, TOKEN_VARIABLE: self.token}

    @staticmethod
    def read_environ() -> Stage:
        return Stage(os.environ[DATABASE_VARIABLE], os.environ[TOKEN_VARIABLE])

    @contextlib.asynccontextmanager
    async def run_proxy(self, url: str) -> AsyncIterator[str]:
        """A proxy in front of the MCP server at `url`; yields the URL that clients use instead.

        Servers of the suite that name no path answer at any.
        """
        listen = f"127.0.0.1:{_find_port()}"
        parts = urlsplit(url)
        environ = {
            "AEGIS_DATABASE_URL": self.database_url,
            "AEGIS_UPSTREAM_MCP": f"{parts.scheme}://{parts.netloc}",
            "AEGIS_LISTEN": listen,
            "AEGIS_OPS_LISTEN": "127.0.0.1:0",
            "AEGIS_SECRET_KEY": "the secret of a conformance run, long enough",
        }
        settings = load_settings(None, environ)
        # dns-rebinding-protection sends the origin of the server itself, and wants to be let in.
        opened = settings.server.model_copy(update={"allowed_origins": [f"http://{listen}"]})
        # One session at a time: nobody else's events could be replayed.
        assert settings.upstreams.mcp is not None
        resumed = settings.upstreams.mcp.model_copy(update={"resumable": True})
        upstreams = settings.upstreams.model_copy(update={"mcp": resumed})
        settings = settings.model_copy(update={"server": opened, "upstreams": upstreams})
        async with run_proxy(settings, find_policy()) as proxy:
            await proxy.wait_trusted()
            yield f"http://{listen}{PATH}"


def find_policy() -> Policy:
    return load_policy(HERE / "policy.yaml")


def _find_port() -> int:
    """One that is free now: the proxy's own origin must be known before it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def set_stage() -> AsyncIterator[Stage]:
    """A PostgreSQL of its own, thrown away at the end."""
    configure_logging("error", sys.stderr)
    async with run_embedded_postgres(None) as postgres:
        await migrate(postgres.url)
        yield Stage(postgres.url, await _mint(postgres.url))


async def _mint(database_url: str) -> str:
    hasher = Hasher(memory_cost_kib=8192, time_cost=1, threads=1, queue_size=1, timeout_seconds=30)
    try:
        async with Database.open(
            database_url, min_size=1, max_size=1, connect_timeout_seconds=5, query_timeout_seconds=5
        ) as database:
            wanted = MintRequest(name="conformance", owner="conformance", actor="conformance", preset="everything")
            minted = await mint(wanted, policy=find_policy(), store=KeyStore(database), hasher=hasher)
            return minted.token
    finally:
        hasher.close()


@contextlib.contextmanager
def run_fixture_server() -> Iterator[str]:
    """The fixture server in a process of its own; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the fixture server did not start"
        yield url
    finally:
        process.terminate()
        process.communicate()


async def run_suite(*arguments: str, environ: dict[str, str], log: Path) -> None:
    """One run of the official suite; what it says goes to a file. Its exit code is not looked at: checks are."""
    binaries = HERE / "node_modules" / ".bin"
    command = (str(binaries / "node"), "--import", str(HERE / "authorization.mjs"), str(binaries / "conformance"))
    with log.open("wb") as output:
        suite = await asyncio.create_subprocess_exec(
            *command, *arguments, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        await suite.wait()
