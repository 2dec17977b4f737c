"""The same client, with a proxy between it and the suite's server: `python -m tests.conformance.proxied_client URL`.

A module of its own, because starting the proxy is what costs time.
"""

from __future__ import annotations

import asyncio
import sys

from proxy.logs import configure_logging
from tests.conformance.client import play
from tests.conformance.stage import Stage


async def main(url: str) -> None:
    configure_logging("warning", sys.stderr)
    stage = Stage.read_environ()
    async with stage.run_proxy(url) as proxied_url:
        await play(proxied_url, stage.token)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
