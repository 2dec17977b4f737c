"""A proxy with a good key, in front of an upstream that keeps every byte."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from proxy.server import Proxy
from tests.canary_upstream import CanaryUpstream
from tests.raw_client import ask_raw
from tests.staging import GUARD_SECONDS, Stage

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
BODY = json.dumps(PING).encode()
LENGTH = f"Content-Length: {len(BODY)}"


@dataclass(frozen=True, slots=True)
class Scene:
    canary: CanaryUpstream
    proxy: Proxy
    token: str

    def form(self, *lines: str, body: bytes = BODY, line: str = "POST /mcp/v1 HTTP/1.1") -> bytes:
        """A request with a good key whose framing is up to the test."""
        fields = ["Host: localhost", "Content-Type: application/json", f"Authorization: Bearer {self.token}"]
        return "\r\n".join([line, *fields, *lines, "", ""]).encode("latin-1") + body

    async def ask(self, *lines: str, body: bytes = BODY) -> tuple[int, dict[str, list[str]]]:
        """A request that must pass; the status of its answer, and its fields as the upstream saw them."""
        answer = await ask_raw(self.proxy.data_address, self.form(LENGTH, *lines, body=body))
        return answer.status, self.canary.requests[-1].fold()


@contextlib.asynccontextmanager
async def open_scene(stage: Stage) -> AsyncIterator[Scene]:
    """Impatient with heads, patient with bodies."""
    token = (await stage.mint()).token
    limits = {"header_timeout_seconds": 0.3, "body_timeout_seconds": GUARD_SECONDS}
    async with CanaryUpstream() as canary, stage.proxy(canary.url, server=limits) as proxy:
        yield Scene(canary, proxy, token)
