"""The client: one key, one proxy, and the resources behind it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx2

from aegis_sdk._async.agents import AsyncAgents
from aegis_sdk._async.executions import AsyncExecutions
from aegis_sdk._async.keys import AsyncKeys
from aegis_sdk._async.streams import WHO_AM_I
from aegis_sdk._async.transport import AsyncTransport
from aegis_sdk._async.volumes import AsyncVolumes
from aegis_sdk._async.workflows import AsyncWorkflows
from aegis_sdk.configuration import OnKeyExpiry, Retry, configure
from aegis_sdk.mcp_session import connect_mcp
from aegis_sdk.models import Identity

if TYPE_CHECKING:
    from mcp.client import Client


class AsyncAegisClient:
    """The AEGIS platform, as far as one API key opens it.

    `api_key` and `base_url` come from `AEGIS_API_KEY` and `AEGIS_BASE_URL` unless they are given. `timeout`: seconds of
    silence in which an answer has to come. `retry`: how often what may be done twice is tried. `on_key_expiry` is
    called once when the key has no more than 14 days left; without it, that is a `KeyExpiryWarning`. `http_client`: a
    client of httpx2's with settings of your own (proxies, certificates), which stays yours to close.

    Raises `ConfigurationError` when there is no key or no base URL. Close it, or use it as a context:
    `async with AsyncAegisClient() as client:`.
    """

    _base_url: str | None = None  # of one that could not be made, which errors may show all the same

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = 30.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        on_key_expiry: OnKeyExpiry | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._configuration = configure(api_key, base_url, timeout, retry, on_key_expiry)
        self._base_url = self._configuration.base_url
        self._transport = AsyncTransport(self._configuration, http_client)
        self.agents = AsyncAgents(self._transport)
        self.workflows = AsyncWorkflows(self._transport)
        self.executions = AsyncExecutions(self._transport)
        self.volumes = AsyncVolumes(self._transport)
        self.keys = AsyncKeys(self._transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of its connections."""
        await self._transport.aclose()

    async def whoami(self) -> Identity:
        """Whose key this is, and what it may do. Any key may ask."""
        return await self._transport.fetch(WHO_AM_I, Identity)

    def mcp(self) -> AbstractAsyncContextManager[Client]:
        """A connected session of the official MCP client: `async with client.mcp() as session:`.

        It is asynchronous in either client, as the official one is. Takes the extra `aegis-sdk[mcp]`.
        """
        return connect_mcp(self._configuration)
