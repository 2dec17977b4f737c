"""The other commands: version, schema, policy, and the proxy itself until it is told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mcp import MCPError

from proxy import __version__
from proxy.database import list_migrations
from proxy.demo.sample_server import SampleServer
from proxy.policy import Policy
from proxy.settings import find_shipped
from tests.cli.command import Command
from tests.staging import GUARD_SECONDS, connect


async def test_the_version_is_told(aegis: Command) -> None:
    outcome = await dataclasses.replace(aegis, nursery=None).run("--version")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, f"aegis-proxy {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("nonsense",), ("keys", "nonsense"), ("keys", "list", "--nonsense")])
async def test_an_unknown_word_is_a_usage_error(aegis: Command, arguments: tuple[str, ...]) -> None:
    outcome = await aegis.run(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "nonsense" in outcome.stderr


async def test_the_schema_is_brought_up_to_date_by_whoever_comes_first(early: Command) -> None:
    first, second = await asyncio.gather(early.run("db", "migrate"), early.run("db", "migrate"))
    assert (first.code, first.stdout) == (second.code, second.stdout) == (0, "")
    applied = "".join(f"applied {name}\n" for _, name, _ in list_migrations())
    assert {first.stderr, second.stderr} == {applied, "The schema is up to date.\n"}
    assert (await early.run("keys", "list", "--json")).json == {"api_keys": []}


async def test_the_shipped_policy_is_checked_by_default(aegis: Command, policy: Policy) -> None:
    plain, machine = await asyncio.gather(aegis.run("policy", "check"), aegis.run("policy", "check", "--json"))
    path = find_shipped("policy.yaml")
    assert plain.code == 0
    assert plain.stderr.startswith(f"ok {path}: revision {policy.revision}, ")
    assert plain.stderr.endswith("presets read-only, execution, developer, full-access\n")
    assert (machine.code, machine.json["faults"]) == (0, [])
    assert machine.json["file"] == str(path)
    assert machine.json["revision"] == policy.revision
    assert machine.json["presets"] == list(policy.presets)
    assert f" {len(machine.json['notes'])} notes, " in plain.stderr


async def test_a_policy_with_faults_is_refused_with_each_of_them(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "[bold]policy.yaml"
    path.write_text(find_shipped("policy.yaml").read_text().replace("version: 1", "version: 2").replace("...", ""))
    outcome = await aegis.run("policy", "check", str(path))
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("The configuration cannot be used:\n  ")
    assert all(line.startswith(f"  {path}:") for line in outcome.stderr.splitlines()[1:])
    line = path.read_text().splitlines().index("version: 2") + 1
    assert f"{path}:{line}: version" in outcome.stderr
    assert "the document end marker ... is missing" in outcome.stderr


async def test_a_good_policy_in_an_odd_place_is_named_as_it_is(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "[red]:key:.yaml"
    path.write_text(find_shipped("policy.yaml").read_text())
    outcome = await aegis.run("policy", "check", str(path))
    assert outcome.code == 0
    assert outcome.stderr.startswith(f"ok {path}: ")


async def test_a_configuration_with_faults_is_refused_with_all_of_them(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("listen: nowhere\nlog_level: loud\n")
    outcome = await aegis.run("keys", "list", "--config", str(path))
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"{path}:1: listen:" in outcome.stderr
    assert f"{path}:2: log_level " in outcome.stderr


async def test_serving_without_a_database_is_refused(aegis: Command) -> None:
    """A private, empty authority must not come up by accident."""
    del aegis.environment["AEGIS_DATABASE_URL"]
    outcome = await aegis.run("serve")
    assert outcome.code == 1
    assert "there is no database to verify keys against" in outcome.told
    assert "run with --embedded" in outcome.told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_proxy_migrates_serves_and_leaves_when_told(early: Command, number: signal.Signals) -> None:
    process = await early.start("serve", AEGIS_LISTEN="127.0.0.1:0", AEGIS_OPS_LISTEN="127.0.0.1:0")
    assert process.stdout is not None
    heard: list[str] = []
    try:
        async with asyncio.timeout(GUARD_SECONDS), aiohttp.ClientSession() as http:
            line = {"event": "nothing yet"}
            while line["event"] != "listening":
                line = json.loads(await process.stdout.readline())
                heard.append(line["event"])
            async with http.get(f"{line['ops']}/healthz") as answer:
                assert answer.status == 200
            process.send_signal(number)
            rest, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
    assert "schema" in heard
    events = [json.loads(line)["event"] for line in rest.splitlines()]
    assert events.index("draining") < events.index("stopped")


async def test_a_hangup_has_the_policy_read_again_and_ends_nothing(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(find_shipped("policy.yaml").read_text())
    listen = {"AEGIS_LISTEN": "127.0.0.1:0", "AEGIS_OPS_LISTEN": "127.0.0.1:0", "AEGIS_POLICY": str(path)}
    process = await aegis.start("serve", **listen)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(2 * GUARD_SECONDS), aiohttp.ClientSession() as http:
            line = await read_until(process.stdout, "listening")
            async with http.get(f"{line['ops']}/healthz") as answer:  # the signal is handled from here on
                assert answer.status == 200
            process.send_signal(signal.SIGHUP)
            assert (await read_until(process.stdout, "policy_unchanged"))["policy"] == line["policy"]
            path.write_text(path.read_text().replace("version: 1", "version: 1 "))
            process.send_signal(signal.SIGHUP)
            assert (await read_until(process.stdout, "policy_enforced"))["replaced"] == line["policy"]
            process.terminate()
            await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_second_interrupt_ends_what_still_runs(aegis: Command, sample: SampleServer) -> None:
    """The first one would let the call run for as long as the budget of ten seconds lasts."""
    sample.platform.run_seconds, sample.platform.steps = 600, 6000
    token = await aegis.mint("--name", "impatient")
    listen = {"AEGIS_LISTEN": "127.0.0.1:0", "AEGIS_OPS_LISTEN": "127.0.0.1:0", "AEGIS_UPSTREAM_MCP": sample.url}
    process = await aegis.start("serve", **listen)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(2 * GUARD_SECONDS):
            line = await read_until(process.stdout, "listening")
            async with connect(f"{line['data']}/mcp/v1", token, "legacy") as client:
                call = asyncio.create_task(client.call_tool("aegis.workflow.run", {"name": "nightly-etl"}))
                await sample.platform.runs.wait_for(started=1)
                process.send_signal(signal.SIGINT)
                await read_until(process.stdout, "draining")
                assert not call.done()
                process.send_signal(signal.SIGINT)
                with pytest.raises(MCPError, match="shutting down"):
                    await call
            await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read_until(output: asyncio.StreamReader, event: str) -> dict[str, Any]:
    """The log line of this event."""
    while True:
        line: dict[str, Any] = json.loads(await output.readline())
        if line["event"] == event:
            return line


async def test_an_embedded_database_beside_a_configured_one_is_a_contradiction(aegis: Command) -> None:
    outcome = await aegis.run("serve", "--embedded")
    assert outcome.code == 1
    assert "which one is meant?" in outcome.told
