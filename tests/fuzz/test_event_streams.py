"""Event streams nobody has to change arrive byte for byte, wherever the network cuts them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.filtering import ListView, SseFilter
from proxy.policy import parse_policy
from tests.fuzz.door import Door
from tests.fuzz.event_streams import RECORDED
from tests.fuzz.scale import FULL
from tests.hostile_origin import HostileOrigin, Peer
from tests.raw_client import form_chunks, form_request
from tests.staging import GUARD_SECONDS, MODERN, MODERN_META, Stage, form_call

POLICY = """
version: 1
default_tier: all
scopes: { text:read: { title: Read texts } }
presets: { execution: { title: Execution, scopes: ["*"] } }
tiers: { all: ["*"] }
routes:
  - id: mcp
    path: /mcp/v1
    methods: [POST, GET, DELETE]
    upstream: mcp
    protocol: mcp
    rules: [{ http: [GET, DELETE], allow: any-key }, { rpc: "*", allow: any-key }, { tool: echo, allow: any-key }]
...
"""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LIST = {"jsonrpc": "2.0", "id": 3, "method": "tools/list"}
DISCOVER = {"jsonrpc": "2.0", "id": 3, "method": "server/discover"}
# Before 2026-07-28 an event may bear an id to resume after: the proxy signs it or leaves it out, as its upstream needs.
EVENT_ID = re.compile(rb"(?:\A|(?<=[\r\n]))id:(?: [^\r\n]|[^ \r\n])[^\r\n]*(?:\r\n|\r|\n)")


def find_seams(stream: bytes) -> list[int]:
    """Where a cut can matter most: around every line end and colon."""
    near = {at + off for at, byte in enumerate(stream) if byte in b"\r\n:" for off in (0, 1)}
    return sorted(near | {1, 2, 3, len(stream)})


@pytest.mark.parametrize("name", RECORDED)
def test_the_filter_passes_a_recorded_stream_however_it_is_cut_twice(name: str) -> None:
    stream = RECORDED[name]
    for first, second in itertools.combinations(find_seams(stream), 2):
        sse = SseFilter(ListView(lambda kind, name: True))
        sent = [sse.feed(stream[:first]), sse.feed(stream[first:second]), sse.feed(stream[second:]), sse.finish()]
        assert b"".join(sent) == stream, (first, second)
        assert sse.dropped == 0


def cut(wire: bytes) -> Iterator[tuple[bytes, ...]]:
    """Whole, byte by byte, and in two at every place."""
    yield (wire,)
    yield tuple(wire[at : at + 1] for at in range(len(wire)))
    for at in range(1, len(wire)):
        yield wire[:at], wire[at:]


def form_modern(message: dict[str, Any], token: str, **headers: str) -> bytes:
    """A request of revision 2026-07-28, which has no events to resume after."""
    params = {**message.get("params", {}), "_meta": MODERN_META}
    headers |= {"mcp_protocol_version": MODERN, "mcp_method": message["method"]}
    return form_request(token=token, body={**message, "params": params}, **headers)


@pytest.mark.parametrize("name", RECORDED)
async def test_a_proxy_passes_a_recorded_stream_however_it_arrives(name: str, stage: Stage) -> None:
    """Of revision 2026-07-28 as it is, filtered or not; before it, and on the stream of a session, but for the ids."""
    stage = dataclasses.replace(stage, policy=parse_policy(POLICY, "policy of streams"))
    token = (await stage.mint()).token
    stream = RECORDED[name]
    pieces: tuple[bytes, ...] = ()

    async def play(peer: Peer) -> None:
        while True:
            await peer.read_request()
            for piece in pieces:
                await peer.send(piece)
                for _ in range(2):  # one turn of the loop to see that there is something to read, one to read it
                    await asyncio.sleep(0)

    requests = (
        (form_modern(form_call("echo"), token, mcp_name="echo"), True),
        (form_modern(DISCOVER, token), True),
        (form_modern(LIST, token), True),
        (form_request(token=token, body=LIST), False),
        (form_request("GET", token=token), False),
    )
    async with (
        asyncio.timeout(GUARD_SECONDS * 10),
        HostileOrigin(play) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", revocation={"lease_seconds": 10.0}) as proxy,
        Door(proxy.data_address) as door,
    ):
        middle = len(stream) // 2
        for number, pieces in enumerate(cut(HEAD + form_chunks(stream[:middle], stream[middle:]))):
            asked = requests if FULL or number < 2 else (requests[number % len(requests)],)
            for request, exactly in asked:
                answer = await door.ask(request)
                assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
                if exactly:
                    assert answer.body == stream, pieces
                else:
                    assert EVENT_ID.sub(b"", answer.body) == EVENT_ID.sub(b"", stream), pieces
