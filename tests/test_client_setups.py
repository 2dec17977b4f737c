"""What is to be pasted into clients: right, runnable, and never with a key in it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.client_setups import CLIENTS, KEY_VARIABLE, MCP_PATH, PLACEHOLDER, Step, form_setup, parse_base_url
from proxy.server import Proxy
from tests.staging import GUARD_SECONDS, Stage, get_mcp_url

BASE_URL = "https://aegis.example/gate"
URL = BASE_URL + MCP_PATH


def find_step(client: str, language: str, base_url: str = BASE_URL) -> Step:
    return next(step for step in form_setup(client, base_url).steps if step.language == language)


def get_server(client: str, member: str = "mcpServers") -> dict[str, Any]:
    server: dict[str, Any] = json.loads(find_step(client, "json").text)[member]["aegis"]
    return server


@pytest.mark.parametrize("client", CLIENTS)
def test_every_setup_leads_to_us_and_says_where_the_key_comes_from(client: str) -> None:
    setup = form_setup(client, BASE_URL)
    assert any(BASE_URL in step.text for step in setup.steps)
    texts = " ".join(step.text for step in setup.steps)
    assert KEY_VARIABLE in texts or PLACEHOLDER in texts or "${input:" in texts
    for step in setup.steps:
        if step.language == "json":
            json.loads(step.text)
        elif step.language == "toml":
            tomllib.loads(step.text)
        elif step.language == "sh":
            assert shlex.split(step.text)


@pytest.mark.parametrize(
    ("client", "member", "url", "authorization"),
    [
        ("claude-code", "mcpServers", "url", "Bearer ${AEGIS_API_KEY}"),
        ("cursor", "mcpServers", "url", "Bearer ${env:AEGIS_API_KEY}"),
        ("vscode", "servers", "url", "Bearer ${input:aegis-api-key}"),
        ("windsurf", "mcpServers", "serverUrl", "Bearer ${env:AEGIS_API_KEY}"),
        ("zed", "context_servers", "url", "Bearer YOUR_API_KEY"),
        ("gemini", "mcpServers", "httpUrl", "Bearer $AEGIS_API_KEY"),
    ],
)
def test_a_file_speaks_its_clients_dialect(client: str, member: str, url: str, authorization: str) -> None:
    server = get_server(client, member)
    assert server[url] == URL
    assert server["headers"] == {"Authorization": authorization}


def test_claude_desktop_takes_the_bridge() -> None:
    server = get_server("claude-desktop")
    assert [server["command"], *server["args"]] == [
        "npx", "-y", "mcp-remote", URL, "--header", "Authorization:${AUTHORIZATION}",
    ]  # fmt: skip
    assert server["env"] == {"AUTHORIZATION": "Bearer YOUR_API_KEY"}


def test_codex_reads_the_variable_either_way() -> None:
    table = tomllib.loads(find_step("codex", "toml").text)["mcp_servers"]["aegis"]
    assert table == {"url": URL, "bearer_token_env_var": KEY_VARIABLE}
    command = shlex.split(find_step("codex", "sh").text)
    assert command == ["codex", "mcp", "add", "aegis", "--url", URL, "--bearer-token-env-var", KEY_VARIABLE]


@pytest.mark.parametrize("text", ["https://aegis.example", "http://127.0.0.1:8080", "http://[::1]:8080", BASE_URL])
def test_an_address_is_taken_with_or_without_a_slash_at_its_end(text: str) -> None:
    assert parse_base_url(text) == parse_base_url(text + "/") == parse_base_url(f"{text}/mcp/v1/") == text


@pytest.mark.parametrize(
    "text",
    [
        "", "aegis.example", "ftp://aegis.example", "https://", "https://user:word@aegis.example", "https://a.example?x",
        "https://a.example#", "https://a.example:99999", "https://[::1", "https://a.example/'; rm -rf ~; '",
        "https://a.example/$(id)", 'https://a.example/"', "https://ä.example", "https://a.example/\n",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_base_url(text)


async def test_the_python_program_runs_as_printed(proxy: Proxy, stage: Stage, tmp_path: Path) -> None:
    key = await stage.mint(scopes=("workflow:run:nightly-etl",))
    program = tmp_path / "list_tools.py"
    program.write_text(find_step("python", "python", f"http://{proxy.data_address}").text)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program),
        cwd=tmp_path, env={"PATH": os.environ["PATH"], KEY_VARIABLE: key.token}, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    async with asyncio.timeout(2 * GUARD_SECONDS):
        stdout, stderr = await process.communicate()
    assert stdout.decode().split() == ["aegis.workflow.run"], stderr.decode()


async def test_what_curl_is_told_to_send_lists_the_tools(
    proxy: Proxy, stage: Stage, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint(scopes=("workflow:run:nightly-etl",))
    told, _, command = find_step("curl", "sh", f"http://{proxy.data_address}").text.partition(" | ")
    assert shlex.split(told) == ["printf", 'header = "Authorization: Bearer %s"\\n', f"${KEY_VARIABLE}"]
    words = shlex.split(command)
    sent = [words[index + 1].split(": ", 1) for index, word in enumerate(words) if word == "--header"]
    headers = {**dict(sent), "Authorization": f"Bearer {key.token}"}
    assert words[-1] == get_mcp_url(proxy)
    async with http.post(words[-1], headers=headers, data=words[words.index("--data") + 1]) as answer:
        listed = await answer.json()
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["aegis.workflow.run"]
