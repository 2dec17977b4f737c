"""Whom a client speaks to, as whom, and how patiently.

In: arguments, and the environment for those that are not given. Out: a `Configuration` that was checked, in which the
key is held by a thing that never shows it. Refuses to know: requests, and what is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx2

from aegis_sdk.errors import ConfigurationError

KEY_VARIABLE: Final = "AEGIS_API_KEY"
BASE_URL_VARIABLE: Final = "AEGIS_BASE_URL"
CONNECT_SECONDS: Final = 5.0
MCP_PATH: Final = "/mcp/v1"

OnKeyExpiry = Callable[[datetime], object]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often something that may be done twice is tried, and how long the waits between may be, in seconds.

    `attempts=1`: once. The first wait is up to `first_wait`, each further one up to twice the last, none longer than
    `longest_wait`; a server that asks for more patience than that is not tried again.
    """

    attempts: int = 3
    first_wait: float = 0.25
    longest_wait: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or self.longest_wait < 0:
            raise ConfigurationError("a Retry takes at least one attempt, and waits of no less than nothing")


class Credential(httpx2.Auth):
    """The key, put into each request as it leaves and found nowhere else."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<an API key>"

    def __reduce__(self) -> str:
        raise TypeError("an API key is not written down")

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


@dataclass(frozen=True, slots=True)
class Configuration:
    """`base_url` ends without a slash; `timeout`: seconds of silence; `on_key_expiry`: None warns."""

    credential: Credential
    base_url: str
    timeout: float
    retry: Retry
    on_key_expiry: OnKeyExpiry | None

    @property
    def mcp_url(self) -> str:
        return self.base_url + MCP_PATH


def configure(
    api_key: str | None, base_url: str | None, timeout: float, retry: Retry, on_key_expiry: OnKeyExpiry | None
) -> Configuration:
    """What was given, completed from the environment. Raises ConfigurationError, which repeats neither key nor URL, in
    no local of its frames either."""
    credential = _find_credential(api_key)
    del api_key
    url = base_url if base_url is not None else os.environ.get(BASE_URL_VARIABLE)
    if not url:
        raise ConfigurationError(f"there is no base URL: give base_url, or set {BASE_URL_VARIABLE}")
    if timeout <= 0:
        raise ConfigurationError("a timeout is more than no time")
    return Configuration(credential, check_base_url(url), timeout, retry, on_key_expiry)


def _find_credential(api_key: str | None) -> Credential:
    """Raises ConfigurationError."""
    key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE)
    del api_key
    if not key:
        raise ConfigurationError(f"there is no API key: give api_key, or set {KEY_VARIABLE}")
    if all("!" <= character <= "~" for character in key):
        return Credential(key)
    del key
    raise ConfigurationError("the API key has characters in it that no key has, such as a space or a line break")


def check_base_url(text: str) -> str:
    """Without a slash at the end. Raises ConfigurationError."""
    url: httpx2.URL | None
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = None
    odd = any(character.isspace() or not character.isprintable() or character == "\\" for character in text)
    if odd or url is None or url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 65536:
        raise ConfigurationError("the base URL must be http(s)://host[:port][/path]")
    if url.userinfo or "?" in text or "#" in text:
        raise ConfigurationError("the base URL must have neither user, nor query, nor fragment")
    return str(url).rstrip("/")
