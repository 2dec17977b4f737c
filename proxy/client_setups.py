"""How each client is told where we are and which key to use: the SDKs, and MCP clients.  [pure]

In go the name of a client and the address clients reach us at, out come steps to paste: commands, files, programs. The
key never stands in them: it is read from the environment where the client can do that, asked for where it asks, and
elsewhere `PLACEHOLDER` shows where it goes. Clients were looked at in November 2026. This room knows no key.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

MCP_PATH: Final = "/mcp/v1"
SERVER_NAME: Final = "aegis"  # what clients call us
KEY_VARIABLE: Final = "AEGIS_API_KEY"
URL_VARIABLE: Final = "AEGIS_BASE_URL"
PLACEHOLDER: Final = "YOUR_API_KEY"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to paste. `language`: sh, json, toml, python or typescript. `file`: where it belongs, if in a file."""

    title: str
    language: str
    text: str
    file: str | None = None

    @property
    def holds_placeholder(self) -> bool:
        """Whether a key has to be written into it."""
        return PLACEHOLDER in self.text


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """All that one client needs, and what is worth knowing about it."""

    name: str
    title: str
    steps: tuple[Step, ...]
    note: str | None = None


def parse_base_url(text: str) -> str:
    """An address as clients write it, without a slash at its end, and without the MCP endpoint's path, which is added
    where it belongs. Raises ValueError in words for whoever wrote it."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not like https://host or http://host:port")
    if parts.username is not None or parts.query or parts.fragment or "#" in text or "?" in text:
        raise ValueError("a user, a query or a fragment does not belong into it")
    if not text.isascii() or not text.isprintable() or any(character in text for character in " \"'`\\$<>{}|^"):
        raise ValueError("characters that no URL has as they are")
    return text.rstrip("/").removesuffix(MCP_PATH)


def form_setup(client: str, base_url: str) -> ClientSetup:
    """What to paste. `base_url` as `parse_base_url` gives it; raises KeyError for a client that is not in CLIENTS."""
    title, note, form = CLIENTS[client]
    return ClientSetup(client, title, form(base_url), note)


def form_environment(base_url: str) -> Step:
    """What every setup that reads the environment rests on."""
    text = f"export {KEY_VARIABLE}={PLACEHOLDER}\nexport {URL_VARIABLE}={shlex.quote(base_url)}\n"
    return Step("Once, in the shell that starts the client", "sh", text)


def _form_sdk(base_url: str, install: str, step: Step) -> tuple[Step, ...]:
    text = f"{install}\nexport {URL_VARIABLE}={shlex.quote(base_url)}\n"
    return (Step("Once, in the shell that starts the program", "sh", text), step)


def _form_python_sdk(base_url: str) -> tuple[Step, ...]:
    program = (
        "from aegis_sdk import AegisClient\n\n"
        f'client = AegisClient(api_key="{PLACEHOLDER}")\n'
        "print(client.whoami().name)\n"
    )
    step = Step("Says the key's name: python whoami.py", "python", program, "whoami.py")
    return _form_sdk(base_url, "pip install aegis-sdk", step)


def _form_typescript_sdk(base_url: str) -> tuple[Step, ...]:
    program = (
        'import { AegisClient } from "@aegis/sdk";\n\n'
        f'const client = new AegisClient({{ apiKey: "{PLACEHOLDER}" }});\n'
        "console.log((await client.whoami()).name);\n"
    )
    step = Step("Says the key's name: node whoami.mjs", "typescript", program, "whoami.mjs")
    return _form_sdk(base_url, "npm install @aegis/sdk", step)


def _form_json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _bearer(reference: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {reference}"}


def _form_claude_code(base_url: str) -> tuple[Step, ...]:
    url = base_url + MCP_PATH
    server = {"type": "http", "url": url, "headers": _bearer(f"${{{KEY_VARIABLE}}}")}
    command = (
        f"claude mcp add --scope project --transport http {SERVER_NAME} {shlex.quote(url)}"
        f" --header 'Authorization: Bearer ${{{KEY_VARIABLE}}}'\n"
    )
    return (
        Step("In a project: the variable is read whenever Claude Code connects", "sh", command),
        Step("Or by hand", "json", _form_json({"mcpServers": {SERVER_NAME: server}}), ".mcp.json"),
    )


def _form_claude_desktop(base_url: str) -> tuple[Step, ...]:
    # The header is put together by mcp-remote: a blank inside an argument breaks on Windows.
    server = {
        "command": "npx",
        "args": ["-y", "mcp-remote", base_url + MCP_PATH, "--header", "Authorization:${AUTHORIZATION}"],
        "env": {"AUTHORIZATION": f"Bearer {PLACEHOLDER}"},
    }
    file = "claude_desktop_config.json (Settings → Developer → Edit Config)"
    return (
        Step("Afterwards quit it, and start it again", "json", _form_json({"mcpServers": {SERVER_NAME: server}}), file),
    )


def _form_cursor(base_url: str) -> tuple[Step, ...]:
    server = {"url": base_url + MCP_PATH, "headers": _bearer(f"${{env:{KEY_VARIABLE}}}")}
    file = "~/.cursor/mcp.json (in a project: .cursor/mcp.json)"
    return (
        Step("Start Cursor where the variable is set", "json", _form_json({"mcpServers": {SERVER_NAME: server}}), file),
    )


def _form_vscode(base_url: str) -> tuple[Step, ...]:
    asked = {"type": "promptString", "id": "aegis-api-key", "description": "Aegis API key", "password": True}
    server = {"type": "http", "url": base_url + MCP_PATH, "headers": _bearer("${input:aegis-api-key}")}
    text = _form_json({"inputs": [asked], "servers": {SERVER_NAME: server}})
    return (Step("VS Code asks for the key once, and keeps it in its secret store", "json", text, ".vscode/mcp.json"),)


def _form_windsurf(base_url: str) -> tuple[Step, ...]:
    server = {"serverUrl": base_url + MCP_PATH, "headers": _bearer(f"${{env:{KEY_VARIABLE}}}")}
    file = "~/.codeium/windsurf/mcp_config.json"
    return (
        Step(
            "Start Windsurf where the variable is set", "json", _form_json({"mcpServers": {SERVER_NAME: server}}), file
        ),
    )


def _form_zed(base_url: str) -> tuple[Step, ...]:
    server = {"url": base_url + MCP_PATH, "headers": _bearer(PLACEHOLDER)}
    file = "settings.json (command palette → zed: open settings file)"
    return (
        Step(
            "In your own settings, not in a project's",
            "json",
            _form_json({"context_servers": {SERVER_NAME: server}}),
            file,
        ),
    )


def _form_gemini(base_url: str) -> tuple[Step, ...]:
    server = {"httpUrl": base_url + MCP_PATH, "headers": _bearer(f"${KEY_VARIABLE}")}
    return (Step("", "json", _form_json({"mcpServers": {SERVER_NAME: server}}), "~/.gemini/settings.json"),)


def _form_codex(base_url: str) -> tuple[Step, ...]:
    url = base_url + MCP_PATH
    command = f"codex mcp add {SERVER_NAME} --url {shlex.quote(url)} --bearer-token-env-var {KEY_VARIABLE}\n"
    table = f'[mcp_servers.{SERVER_NAME}]\nurl = {json.dumps(url)}\nbearer_token_env_var = "{KEY_VARIABLE}"\n'
    return (Step("", "sh", command), Step("Or by hand", "toml", table, "~/.codex/config.toml"))


def _form_inspector(base_url: str) -> tuple[Step, ...]:
    command = (
        "npx -y @modelcontextprotocol/inspector --cli"
        f" {shlex.quote(base_url + MCP_PATH)} \\\n  --transport http"
        f' \\\n  --header "Authorization: Bearer ${KEY_VARIABLE}" \\\n  --method tools/list\n'
    )
    return (Step("Lists the tools this key may use", "sh", command),)


PYTHON_PROGRAM = """\
import asyncio, os

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client


async def main() -> None:
    url = %URL%
    headers = {"Authorization": f"Bearer {os.environ['AEGIS_API_KEY']}"}
    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        for tool in (await client.list_tools()).tools:
            print(tool.name)


asyncio.run(main())
"""
TYPESCRIPT_PROGRAM = """\
import {
  Client,
  StreamableHTTPClientTransport,
} from "@modelcontextprotocol/client";

const url = new URL(%URL%);
const headers = { Authorization: `Bearer ${process.env.AEGIS_API_KEY}` };
const transport = new StreamableHTTPClientTransport(url, {
  requestInit: { headers },
});
const client = new Client({ name: "my-client", version: "1.0.0" });
await client.connect(transport);
const { tools } = await client.listTools();
for (const tool of tools) console.log(tool.name);
await client.close();
"""


def _form_python(base_url: str) -> tuple[Step, ...]:
    program = PYTHON_PROGRAM.replace("%URL%", json.dumps(base_url + MCP_PATH))
    return (
        Step("The official client", "sh", "pip install mcp\n"),
        Step("Lists the tools this key may use", "python", program, "list_tools.py"),
    )


def _form_typescript(base_url: str) -> tuple[Step, ...]:
    program = TYPESCRIPT_PROGRAM.replace("%URL%", json.dumps(base_url + MCP_PATH))
    return (
        Step("The official client", "sh", "npm install @modelcontextprotocol/client\n"),
        Step("Lists the tools this key may use", "typescript", program, "list-tools.mts"),
    )


def _form_curl(base_url: str) -> tuple[Step, ...]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    command = (
        # From standard input, since whoever lists processes reads command lines.
        f'printf \'header = "Authorization: Bearer %s"\\n\' "${KEY_VARIABLE}" |'
        " curl --config - --silent --show-error \\\n"
        "  --header 'Content-Type: application/json' --header 'Accept: application/json, text/event-stream' \\\n"
        "  --header 'MCP-Protocol-Version: 2026-07-28' --header 'Mcp-Method: tools/list' \\\n"
        f"  --data {shlex.quote(json.dumps(message))} \\\n"
        f"  {shlex.quote(base_url + MCP_PATH)}\n"
    )
    return (Step("Lists the tools this key may use", "sh", command),)


Form = Callable[[str], tuple[Step, ...]]
_READS = f"Reads the key from {KEY_VARIABLE}."
_IN_PROGRAM = f"Here the key stands in the program. Where it is left out, it is read from {KEY_VARIABLE}."
_WRITTEN = "Cannot read a variable: the key is written into a file. Keep that file out of repositories and backups."
CLIENTS: Final[Mapping[str, tuple[str, str | None, Form]]] = MappingProxyType(
    {
        "python-sdk": ("Python SDK", _IN_PROGRAM, _form_python_sdk),
        "typescript-sdk": ("TypeScript SDK", f"{_IN_PROGRAM} Needs Node.js 20 or later.", _form_typescript_sdk),
        "claude-code": ("Claude Code", _READS, _form_claude_code),
        "claude-desktop": (
            "Claude Desktop",
            f"Speaks to programs only, hence the bridge. {_WRITTEN}",
            _form_claude_desktop,
        ),
        "cursor": ("Cursor", _READS, _form_cursor),
        "vscode": ("VS Code", None, _form_vscode),
        "windsurf": ("Windsurf", _READS, _form_windsurf),
        "zed": ("Zed", _WRITTEN, _form_zed),
        "gemini": ("Gemini CLI", _READS, _form_gemini),
        "codex": ("Codex CLI", _READS, _form_codex),
        "inspector": (
            "MCP Inspector",
            f"{_READS} Needs Node.js 22. Others on the machine may see the key while it runs.",
            _form_inspector,
        ),
        "python": ("MCP in Python", _READS, _form_python),
        "typescript": ("MCP in TypeScript", _READS, _form_typescript),
        "curl": ("curl", _READS, _form_curl),
    }
)
