"""A client to paste: connects with the official `mcp` package, lists the tools, runs a workflow and shows its progress.

AEGIS_API_KEY=aegis_… python -m proxy.demo.client http://127.0.0.1:8080/mcp/v1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import httpx2
from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(highlight=False)


async def run(url: str, key: str, mode: str, workflow: str) -> int:
    """One session: list, then run; the exit code. Raises MCPError."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=300)) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        tools = (await client.list_tools()).tools
        console.print(f"connected, revision {client.protocol_version}: this key sees {len(tools)} tools")
        for tool in tools:
            console.print(f"  {tool.name}")
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
        ) as display:
            bar = display.add_task(f"running {workflow}", total=None)

            async def show(progress: float, total: float | None, message: str | None) -> None:
                display.update(bar, completed=progress, total=total, description=f"{workflow}: {message or ''}")

            result = await client.call_tool("aegis.workflow.run", {"name": workflow}, progress_callback=show)
        color = "red" if result.is_error else "green"
        for block in result.content:
            console.print(getattr(block, "text", ""), style=color, markup=False)
    return 1 if result.is_error else 0


def main() -> None:
    """Parse, run, and say what went wrong in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m proxy.demo.client", description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080/mcp/v1", help="the MCP endpoint")
    parser.add_argument("--workflow", default="nightly-etl", help="which workflow to run")
    parser.add_argument("--mode", default="auto", choices=["auto", "legacy", "2026-07-28"], help="protocol era")
    options = parser.parse_args()
    key = os.environ.get("AEGIS_API_KEY")
    if key is None:
        parser.error("set AEGIS_API_KEY to a key; keys do not belong on command lines, where others can read them")
    if not key.isascii() or not key.isprintable():
        parser.error("AEGIS_API_KEY is not a key: paste a whole one, as the demo prints it")
    try:
        sys.exit(asyncio.run(run(options.url, key, options.mode, options.workflow)))
    except* MCPError as group:
        for error in find_causes(group):
            console.print(f"refused: {error}", style="red", markup=False)
        console.print(f"(asked {options.url}; the MCP endpoint ends in /mcp/v1)", markup=False)
        sys.exit(1)
    except* (httpx2.HTTPError, httpx2.InvalidURL) as group:
        for error in find_causes(group):
            why = str(error) or type(error).__name__
            console.print(
                f"cannot reach {options.url}: {why} (is `make run` still running?)", style="red", markup=False
            )
        sys.exit(1)
    except* KeyboardInterrupt:
        sys.exit(130)


def find_causes(group: BaseExceptionGroup) -> list[BaseException]:
    """The errors inside nested groups."""
    return [
        cause
        for error in group.exceptions
        for cause in (find_causes(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


if __name__ == "__main__":
    main()
