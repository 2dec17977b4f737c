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
from aegis_sdk.errors import ApiError, ConfigurationError, form_problem_error

if TYPE_CHECKING:
    from mcp.client import Client

# What the proxy refuses for a status has the JSON-RPC code of the status beyond this, below nought.
RPC_BASE = 31_000


@asynccontextmanager
async def connect_mcp(configuration: Configuration) -> AsyncIterator[Client]:
    """Raises ConfigurationError without the extra, ApiError for what the proxy refuses, else what that package does."""
    try:
        from mcp.client import Client
        from mcp.client.streamable_http import streamable_http_client
    except ImportError as error:
        raise ConfigurationError('mcp() needs the official client: pip install "aegis-sdk[mcp]"') from error
    # A stream may be silent for as long as a tool works.
    timeout = httpx2.Timeout(configuration.timeout, connect=min(configuration.timeout, CONNECT_SECONDS), read=None)
    try:
        async with (
            httpx2.AsyncClient(auth=configuration.credential, timeout=timeout) as http,
            Client(streamable_http_client(configuration.mcp_url, http_client=http)) as session,
        ):
            yield session
            return
    except Exception as error:
        refusal = find_refusal(error)
        if refusal is None:
            raise
    raise refusal


def find_refusal(error: BaseException) -> ApiError | None:
    """What the proxy said, if that is all there is: the package wraps it in groups."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    told = getattr(error, "error", None)  # of mcp's MCPError
    code, data = getattr(told, "code", None), getattr(told, "data", None)
    status = -code - RPC_BASE if isinstance(code, int) else 0
    if not 400 <= status < 600 or not isinstance(data, dict):
        return None
    return form_problem_error({**data, "code": data.get("reason"), "detail": str(getattr(told, "message", ""))}, status)
