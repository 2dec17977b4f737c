"""The MCP server's tools, as far as this key may use them.

pip install "aegis-sdk[mcp]"
AEGIS_API_KEY=… AEGIS_BASE_URL=… python tools_over_mcp.py
"""

from __future__ import annotations

import asyncio

from aegis_sdk import AsyncAegisClient


async def main() -> None:
    async with AsyncAegisClient() as client, client.mcp() as session:
        for tool in (await session.list_tools()).tools:
            print(tool.name)
        result = await session.call_tool("aegis.workflow.list", {})
        print("error" if result.is_error else "ok")


if __name__ == "__main__":
    asyncio.run(main())
