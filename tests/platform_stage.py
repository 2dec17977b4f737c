"""The platform behind the proxy as it is in production: an MCP server and a REST API, which know only assertions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from proxy.demo.assertion_check import AssertionCheck
from proxy.demo.sample_api import SampleApi, run_sample_api
from proxy.demo.sample_platform import Platform
from proxy.demo.sample_server import SampleServer, run_sample_server
from proxy.server import Proxy
from proxy.settings import AssertionsSettings, IdentitySettings, UpstreamSettings, UpstreamsSettings
from proxy.upstream_address import parse_upstream_address
from tests.staging import Stage

ISSUER = "aegis-proxy"


@dataclass(slots=True)
class PlatformStage:
    """One platform with two faces, and proxies in front of it."""

    stage: Stage
    mcp: SampleServer
    api: SampleApi
    checks: dict[str, AssertionCheck]
    sections: dict[str, Any]
    stack: AsyncExitStack
    proxies: list[Proxy] = field(default_factory=list)

    @property
    def platform(self) -> Platform:
        return self.mcp.platform

    async def start_proxy(self, **assertions: Any) -> Proxy:
        """One more instance; the platform's servers fetch the keys from the first one."""
        update = AssertionsSettings().model_copy(update={"publish_ahead_seconds": 0, **assertions})
        sections = {**self.sections, "assertions": update.model_dump()}
        proxy = await self.stack.enter_async_context(self.stage.proxy(self.mcp.url, **sections))
        if not self.proxies:
            for check in self.checks.values():
                check.jwks_uri = f"http://{proxy.ops_address}/.well-known/jwks.json"
        self.proxies.append(proxy)
        return proxy


def form_upstreams(mcp_url: str, api_url: str | None, identity: dict[str, Any] | None = None) -> dict[str, Any]:
    """The section `upstreams`, each told by assertions who is asking."""

    def form(url: str) -> UpstreamSettings:
        return UpstreamSettings(
            url=parse_upstream_address(url),
            identity=IdentitySettings.model_validate(identity or {"profile": "assertion"}),
            keepalive_seconds=1.0,
        )

    upstreams = UpstreamsSettings(mcp=form(mcp_url), api=form(api_url) if api_url else None)
    return {"mcp": upstreams.mcp, "api": upstreams.api}


@contextlib.asynccontextmanager
async def open_platform(stage: Stage, **sections: Any) -> AsyncIterator[PlatformStage]:
    """The platform, and no proxy yet. Checks ask for unknown keys at once: how long others wait is settings' affair."""
    checks = {name: AssertionCheck(None, name, ISSUER, cooldown_seconds=0) for name in ("mcp", "api")}
    async with AsyncExitStack() as stack:
        mcp = await stack.enter_async_context(run_sample_server(run_seconds=0.3, steps=6, check=checks["mcp"]))
        api = await stack.enter_async_context(run_sample_api(mcp.platform, check=checks["api"]))
        upstreams = form_upstreams(mcp.url, api.url)
        yield PlatformStage(stage, mcp, api, checks, {"upstreams": upstreams, **sections}, stack)


@dataclass(frozen=True, slots=True)
class Rest:
    """A client of the REST routes, as an SDK would be."""

    http: aiohttp.ClientSession
    base: str
    token: str | None

    async def ask(self, method: str, path: str, **sent: Any) -> tuple[int, Any]:
        """Status, and the body as JSON where it is JSON."""
        async with self.open(method, path, **sent) as answer:
            body = await answer.read()
            is_json = answer.content_type.endswith("json")
            return answer.status, await answer.json(content_type=None) if is_json and body else body

    def open(self, method: str, path: str, **sent: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        return self.http.request(method, self.base + path, headers={**headers, **sent.pop("headers", {})}, **sent)
