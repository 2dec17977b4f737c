"""One question to the identity provider over HTTP, and its answer, whole.  [io]

In goes an address, and a form if there is one, out comes an answer, or a ProviderError. An answer has to come in time,
in bounded size, uncompressed, from that very address: a redirect would let whoever can write one choose our keys. What
is asked, and what the answer means, is not known here.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import hdrs

from proxy.headers import SERVER
from proxy.provider_documents import ProviderError

MAX_ANSWER_BYTES: Final = 256 * 1024  # a set of twenty keys with their certificates has 50 KiB
MAX_CONNECTIONS: Final = 8
HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": SERVER[1]}


class ProviderClient:
    """`ssl_context`: whom to trust; None: the system's authorities."""

    def __init__(self, *, timeout_seconds: float, ssl_context: ssl.SSLContext | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=ssl_context or True),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            trust_env=False,
            auto_decompress=False,
        )

    async def aclose(self) -> None:
        """Let go of every connection."""
        await self._session.close()

    async def get(self, url: str) -> bytes:
        """The document at this address. Raises ProviderError."""
        status, body = await self._ask("GET", url)
        if status != 200:
            raise ProviderError(f"answered {status}")
        return body

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """What is said to a form, and with which status. Raises ProviderError."""
        return await self._ask("POST", url, form, headers)

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(method, url, data=form, headers=headers, allow_redirects=False) as answer:
                return answer.status, await _read(answer)
        except TimeoutError:
            raise ProviderError(f"no whole answer came within {self._timeout_seconds:g} s") from None
        except aiohttp.ClientConnectorCertificateError:
            raise ProviderError("shows a certificate that nobody we trust has signed for this name") from None
        except aiohttp.ClientSSLError:
            raise ProviderError("speaks no TLS that we speak") from None
        except aiohttp.ClientConnectorDNSError:
            raise ProviderError("its name leads nowhere") from None
        except aiohttp.ClientConnectorError as error:
            why = os.strerror(error.os_error.errno) if error.os_error.errno else "no connection"
            raise ProviderError(f"cannot be reached: {why}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ProviderError(f"broke the connection or the protocol: {type(error).__name__}") from None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    if answer.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise ProviderError("answered in a coding that was not asked for")
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ProviderError(f"answered with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)
