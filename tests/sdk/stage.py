"""What the SDKs' suite runs against: PostgreSQL, the sample platform and a proxy, all real; a door to set the scene.

`python -m tests.sdk.stage` prints one line of JSON, `{"base_url": …, "control_url": …}`, and ends when its standard
input does. What may be asked of the control address is in `sdk/suite/README.md`; it is for SDKs in any language.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
from aiohttp import web

from proxy.database import Database, migrate
from proxy.demo.assertion_check import AssertionCheck
from proxy.demo.sample_api import run_sample_api
from proxy.demo.sample_platform import Platform
from proxy.demo.sample_server import run_sample_server
from proxy.embedded_postgres import run_embedded_postgres
from proxy.keys.hashing import Hasher
from proxy.keys.store import KeyStore
from proxy.logs import configure_logging
from proxy.policy import load_policy
from proxy.server import Proxy
from proxy.settings import AssertionsSettings, RevocationSettings, find_shipped
from tests.ear import Ear
from tests.platform_stage import ISSUER, form_upstreams
from tests.staging import GUARD_SECONDS, Stage

Json = dict[str, Any]
# On a busy machine nobody should be refused because a statement took its time.
PATIENCE = {"query_timeout_seconds": 10.0, "pool_min_size": 1, "pool_max_size": 4}


@dataclass(slots=True)
class RestFace:
    """The platform's REST API, which can be taken away and put back at the same address."""

    platform: Platform
    check: AssertionCheck
    url: str = ""
    _is_up: bool = False
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        if not self._is_up:
            port = int(self.url.rpartition(":")[2]) if self.url else 0
            api = await self._stack.enter_async_context(run_sample_api(self.platform, port=port, check=self.check))
            self.url, self._is_up = api.url, True

    async def stop(self) -> None:
        self._is_up = False
        await self._stack.aclose()


@dataclass(slots=True)
class SuiteStage:
    """A proxy before a platform, and what may be done to them."""

    stage: Stage
    rest: RestFace
    proxy: Proxy
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://{self.proxy.data_address}"

    async def begin(self, _: Json) -> Json:
        """As new: the platform, and no key that opens."""
        await self.stage.sql("UPDATE api_keys SET status = 'revoked' WHERE status <> 'revoked'")
        await self.rest.start()
        self.rest.platform.reset()
        return {}

    async def key(self, asked: Json) -> Json:
        lifetime = asked.get("expires_in_seconds")
        minted = await self.stage.mint(
            asked.get("preset"),
            scopes=tuple(asked.get("scopes", ())),
            owner=asked.get("owner", "ada"),
            name=asked.get("name"),
            tier=asked.get("tier", "enterprise"),
            lifetime=timedelta(seconds=lifetime) if lifetime is not None else None,
        )
        self.tokens[minted.summary.id] = minted.token
        return {"id": minted.summary.id, "key": minted.token, "name": minted.summary.name}

    async def expire(self, asked: Json) -> Json:
        """Returns once the proxy knows."""
        await self.stage.sql(
            "UPDATE api_keys SET expires_at = clock_timestamp() - interval '1 second' WHERE id = $1", asked["id"]
        )
        headers = {"Authorization": f"Bearer {self.tokens[asked['id']]}"}
        async with asyncio.timeout(GUARD_SECONDS), aiohttp.ClientSession(headers=headers) as http:
            while True:
                async with http.get(f"{self.base_url}/v1/volumes/quota") as answer:
                    if answer.status == 401:
                        return {}

    async def upstream(self, asked: Json) -> Json:
        self.rest.platform.refusals.extend(asked.get("statuses", ()))
        if asked.get("down") is True:
            await self.rest.stop()
        elif asked.get("down") is False:
            await self.rest.start()
        return {}

    async def count(self, _: Json) -> Json:
        return {"requests": len(self.rest.platform.requests_seen)}


@asynccontextmanager
async def open_suite_stage() -> AsyncIterator[SuiteStage]:
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(run_embedded_postgres(None))
        await migrate(postgres.url)
        database = await stack.enter_async_context(
            Database.open(postgres.url, min_size=1, max_size=2, connect_timeout_seconds=10, query_timeout_seconds=10)
        )
        hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=100, timeout_seconds=10)
        stack.callback(hasher.close)
        policy = load_policy(find_shipped("policy.yaml"))
        stage = Stage(postgres.url, policy, database, KeyStore(database), hasher, Ear())
        checks = {name: AssertionCheck(None, name, ISSUER, cooldown_seconds=0) for name in ("mcp", "api")}
        mcp = await stack.enter_async_context(run_sample_server(run_seconds=60.0, steps=600, check=checks["mcp"]))
        rest = RestFace(mcp.platform, checks["api"])
        stack.push_async_callback(rest.stop)
        await rest.start()
        proxy = await stack.enter_async_context(
            stage.proxy(
                mcp.url,
                upstreams=form_upstreams(mcp.url, rest.url),
                assertions=AssertionsSettings(publish_ahead_seconds=0).model_dump(),
                revocation=RevocationSettings().model_dump(),
                database=PATIENCE,
            )
        )
        for check in checks.values():
            check.jwks_uri = f"http://{proxy.ops_address}/.well-known/jwks.json"
        yield SuiteStage(stage, rest, proxy)


def build_control(suite_stage: SuiteStage) -> web.Application:
    words: dict[str, Callable[[Json], Awaitable[Json]]] = {
        name: getattr(suite_stage, name) for name in ("begin", "key", "expire", "upstream", "count")
    }

    async def answer(request: web.Request) -> web.Response:
        text = await request.text()
        return web.json_response(await words[request.match_info["word"]](json.loads(text) if text else {}))

    control = web.Application()
    control.router.add_post("/{word}", answer)
    return control


async def main() -> None:
    configure_logging(os.environ.get("AEGIS_LOG_LEVEL", "error"), sys.stderr)
    async with open_suite_stage() as suite_stage:
        runner = web.AppRunner(build_control(suite_stage), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        told = {"base_url": suite_stage.base_url, "control_url": f"http://{host}:{port}"}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
