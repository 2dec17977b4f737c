"""A client that sends any bytes whatever, and reads what comes back without an HTTP library's forgiveness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict

from proxy.settings import Address
from tests.staging import ACCEPT

_REQUEST_ID = re.compile(rb"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer. `line` is the status line."""

    line: str
    headers: CIMultiDict[str]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def reason(self) -> str | None:
        """Our word for a refusal, in either dialect; None if this is none."""
        if self.headers.get("Content-Type") == "application/problem+json":
            return str(self.json["code"])
        error = self.json.get("error") if self.headers.get("Content-Type") == "application/json" else None
        return str(error["data"]["reason"]) if isinstance(error, dict) and "data" in error else None

    @property
    def anonymous_body(self) -> bytes:
        """The body without its request id, which is all that may differ between two answers that must not differ."""
        return _REQUEST_ID.sub(b"-", self.body)


class RawClient:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def read_head(self) -> tuple[str, CIMultiDict[str]]:
        """The head of the next answer, interim ones included."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        return line, CIMultiDict((name, value.strip()) for name, _, value in (text.partition(":") for text in lines))

    async def read_answer(self) -> RawAnswer:
        line, headers = await self.read_head()
        return RawAnswer(line, headers, await self._read_body(headers))

    async def _read_body(self, headers: CIMultiDict[str]) -> bytes:
        if headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
            return body
        return await self._reader.readexactly(int(headers.get("Content-Length", 0)))

    async def read_rest(self) -> bytes:
        """Everything until the proxy hangs up."""
        with contextlib.suppress(ConnectionResetError):
            return await self._reader.read()
        return b""

    def has_ended(self) -> bool:
        """Whether the proxy has hung up, by FIN or RST, with nothing left unread."""
        return self._reader.at_eof() or self._reader.exception() is not None

    def half_close(self) -> None:
        """FIN: nothing more will be sent."""
        self._writer.write_eof()

    def reset(self) -> None:
        """RST: gone without a word."""
        connected = self._writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def open_raw(address: Address, local: str | None = None) -> AsyncIterator[RawClient]:
    """`local`: the address to come from."""
    reader, writer = await asyncio.open_connection(
        address.host, address.port, limit=2**24, local_addr=None if local is None else (local, 0)
    )
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


async def ask_raw(address: Address, request: bytes) -> RawAnswer:
    """One request on a connection of its own."""
    async with open_raw(address) as client:
        await client.send(request)
        return await client.read_answer()


def form_request(
    method: str = "POST",
    target: str = "/mcp/v1",
    *extra: str,
    token: str | None = None,
    body: object = None,
    version: str = "HTTP/1.1",
    without: str | None = None,
    **replaced: str,
) -> bytes:
    """A request as a well-behaved client sends it, but for what is asked otherwise.

    `extra` are further header lines; `replaced` values of those it has (`content_type="text/plain"`); `without` the
    name of one that is left out. `body` is sent as JSON unless it is bytes.
    """
    payload = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    fields: dict[str, str] = {"Host": "localhost", "Accept": ACCEPT}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    fields |= {_spell(name): value for name, value in replaced.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if name != without]
    head = "\r\n".join([f"{method} {target} {version}", *lines, *extra, "", ""])
    return head.encode("latin-1") + payload


def _spell(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("_"))


def form_chunks(*chunks: bytes, trailers: Mapping[str, str] | None = None) -> bytes:
    """A body in chunks, with its end."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    lines = [f"{name}: {value}\r\n" for name, value in (trailers or {}).items()]
    return body + b"0\r\n" + "".join(lines).encode() + b"\r\n"
