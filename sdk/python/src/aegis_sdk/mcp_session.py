"""A session of the official MCP client, with the client's key and toward the same proxy.

In: a configuration. Out: a connected `mcp.client.Client`, closed with its context. The package `mcp` is an
extra, and asked for only here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2

from aegis_sdk.configuration import CONNECT_SECONDS, Configuration
from aegis_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    from mcp.client import Client


@asynccontextmanager
async def connect_mcp(configuration: Configuration) -> AsyncIterator[Client]:
    """Raises ConfigurationError without the extra, and what the package raises when it cannot connect."""
    try:
        from mcp.client import Client
        from mcp.client.streamable_http import streamable_http_client
    except ImportError as error:
        raise ConfigurationError('mcp() needs the official client: pip install "aegis-sdk[mcp]"') from error
    # A stream may be silent for as long as a tool works.
    timeout = httpx2.Timeout(configuration.timeout, connect=min(configuration.timeout, CONNECT_SECONDS), read=None)
    async with (
        httpx2.AsyncClient(auth=configuration.credential, timeout=timeout) as http,
        Client(streamable_http_client(configuration.mcp_url, http_client=http)) as session,
    ):
        yield session
