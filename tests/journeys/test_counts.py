"""A real process is told to stop the moment its last call is answered: every count it held is in the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from proxy.demo.sample_server import SampleServer
from tests.cli.command import Command, form_environment
from tests.ear import Ear
from tests.staging import GUARD_SECONDS, Stage, Wire

LIST, DELETE = "aegis.workflow.list", "aegis.workflow.delete"


@asynccontextmanager
async def run_process(command: Command, sample: SampleServer, http: aiohttp.ClientSession) -> AsyncIterator[str]:
    """Where it listens for clients, once it trusts its news; at the end it gets SIGTERM, and has left in order."""
    listen = {"AEGIS_LISTEN": "127.0.0.1:0", "AEGIS_OPS_LISTEN": "127.0.0.1:0", "AEGIS_UPSTREAM_MCP": sample.url}
    process = await command.start("serve", **listen)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(2 * GUARD_SECONDS):
            line: dict[str, Any] = {"event": "nothing yet"}
            while line["event"] != "listening":
                line = json.loads(await process.stdout.readline())
            rest = asyncio.create_task(process.stdout.read())  # or its log would fill the pipe
            while (await http.get(f"{line['ops']}/readyz")).status != 200:
                await asyncio.sleep(0.05)
        yield line["data"]
        process.terminate()
        async with asyncio.timeout(2 * GUARD_SECONDS):
            command.ear.hear(await rest, "the log of a process")
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_every_count_is_exact_after_sigterm(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession, ear: Ear, tmp_path: Path
) -> None:
    keys = [await stage.mint("execution", name=f"key {number}") for number in range(3)]
    command = Command(form_environment(stage.database_url, tmp_path), ear)
    async with run_process(command, sample, http) as url:
        wire = Wire(http, f"{url}/mcp/v1")
        calls = [
            wire.call(key.token, tool, {} if tool == LIST else {"name": "x"})
            for number, key in enumerate(keys, start=1)
            for tool, times in ((LIST, 20 * number), (DELETE, 5 * number))
            for _ in range(times)
        ]
        assert set(await asyncio.gather(*calls)) == {200}
    by_day = await stage.database.fetch(
        "SELECT key_id, allowed, sum(count)::integer AS count FROM key_usage GROUP BY key_id, allowed"
    )
    assert {(row["key_id"], row["allowed"]): row["count"] for row in by_day} == {
        (key.summary.id, allowed): times * number
        for number, key in enumerate(keys, start=1)
        for allowed, times in ((True, 20), (False, 5))
    }
    for number, key in enumerate(keys, start=1):
        shown = await stage.store.find_key(key.summary.id)
        assert shown is not None
        assert shown.last_used is not None
        assert (shown.last_used.tool, shown.last_used.count) == (LIST, 20 * number)
        assert shown.last_refused is not None
    denied = await stage.database.fetch("SELECT after FROM audit_events WHERE action = 'request.denied'")
    assert sum(json.loads(row["after"])["count"] for row in denied) == 5 * (1 + 2 + 3)
