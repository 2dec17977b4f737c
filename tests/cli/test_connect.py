"""`aegis-proxy connect`: what is to be pasted, and where it leads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.client_setups import CLIENTS
from tests.cli.command import Command, form_environment
from tests.cli.nursery import Nursery
from tests.ear import Ear


@pytest.fixture
def command(tmp_path: Path, nursery: Nursery) -> Command:
    """Without a database: nothing of this needs one."""
    environment = form_environment("", tmp_path)
    del environment["AEGIS_DATABASE_URL"]
    return Command(environment, Ear(), nursery)


async def test_what_is_to_be_pasted_goes_to_stdout_alone(command: Command) -> None:
    outcome = await command.run("connect", "cursor", "--url", "https://aegis.example/")
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["mcpServers"]["aegis"]["url"] == "https://aegis.example/mcp/v1"
    assert "~/.cursor/mcp.json" in outcome.told
    assert "export AEGIS_API_KEY=…" in outcome.told


async def test_a_place_for_the_key_is_pointed_out(command: Command) -> None:
    outcome = await command.run("connect", "zed")
    assert "Put the key in place of YOUR_API_KEY." in outcome.told


async def test_without_a_url_it_leads_where_the_proxy_listens(command: Command) -> None:
    outcome = await command.run("connect", "codex", "--json", AEGIS_LISTEN="127.0.0.1:18080")
    assert "http://127.0.0.1:18080/mcp/v1" in outcome.json["steps"][0]["text"]


async def test_the_configured_public_url_is_what_clients_are_told(command: Command, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("server:\n  public_url: https://keys.example/gate\n")
    outcome = await command.run("connect", "curl", "--config", str(config))
    assert "https://keys.example/gate/mcp/v1" in outcome.stdout


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:0"])
async def test_where_nobody_can_connect_a_url_is_asked_for(command: Command, listen: str) -> None:
    outcome = await command.run("connect", "curl", AEGIS_LISTEN=listen)
    assert outcome.code == 2
    assert "--url" in outcome.told
    assert not outcome.stdout


async def test_an_unknown_client_is_answered_with_those_that_are_known(command: Command) -> None:
    outcome = await command.run("connect", "netscape")
    assert outcome.code == 2
    assert all(name in outcome.told for name in CLIENTS)


async def test_a_url_that_is_none_is_refused(command: Command) -> None:
    outcome = await command.run("connect", "curl", "--url", "https://a.example/$(id)")
    assert outcome.code == 2
    assert "characters that no URL has" in outcome.told
