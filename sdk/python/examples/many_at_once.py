"""Read several things at once, without threads.

AEGIS_API_KEY=… AEGIS_BASE_URL=… python many_at_once.py
"""

from __future__ import annotations

import asyncio

from aegis_sdk import AsyncAegisClient


async def main() -> None:
    async with AsyncAegisClient() as client:
        names = [agent.name async for agent in client.agents.list(page_size=2)]
        agents = await asyncio.gather(*(client.agents.lookup(name) for name in names))
        for agent in agents:
            print(agent.name, "-", agent.description)
        quota = await client.volumes.quota()
        print(f"{quota.volumes} volumes, {quota.used_bytes} bytes")


if __name__ == "__main__":
    asyncio.run(main())
