"""Race 2: a key is admitted and dies before its call has come to an end, at every place where the call gives way.

Two kinds of death at each place, where both can be: *ended* (the row was read again, the exchange has its reason), and
*in doubt* (the news was heard, the row cannot be read yet), which is when only asking before each step helps.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.hostile_origin import HostileOrigin, Peer
from tests.races.barriers import (
    PATIENT,
    connect_client,
    hold_claims,
    hold_connections,
    hold_rows,
    pass_through,
    revoke_and_wait_ended,
    revoke_and_wait_heard,
    revoke_and_wait_read,
    tally_answers,
    wait_until,
)
from tests.raw_client import ask_raw, form_request, open_raw
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, form_call

SECRET = b"what only a living key may see"
CALL = form_call("aegis.runtime.list")
MARKED = form_call("aegis.runtime.list", {"note": "sent after its key died"})
MARK = b"sent after its key died"
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"said":"' + SECRET + b'"}}'


def form_chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def answer_whole(body: bytes, *lines: bytes) -> bytes:
    return b"".join([JSON, *lines, b"Content-Length: %d\r\n\r\n" % len(body), body])


async def answer_all(peer: Peer) -> None:
    """A session for whoever asks, an empty result for everybody."""
    while True:
        await peer.read_request()
        await peer.send(answer_whole(b'{"jsonrpc":"2.0","id":1,"result":{}}', b"Mcp-Session-Id: the-session\r\n"))


def was_sent(origin: HostileOrigin) -> bool:
    """Did the marked call reach the upstream?"""
    return any(MARK in request for request in origin.requests)


# Before the connection to the upstream exists.


async def test_a_call_whose_key_dies_while_its_session_is_claimed_is_not_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle connection waits for it: there would be no dialling in which to notice."""
    key, claiming = await stage.mint(), hold_claims(monkeypatch)
    async with HostileOrigin(answer_all) as origin, stage.proxy(f"http://127.0.0.1:{origin.port}", **PATIENT) as proxy:
        opened = await ask_raw(proxy.data_address, form_request(token=key.token, body=INITIALIZE))
        session = f"Mcp-Session-Id: {opened.headers['Mcp-Session-Id']}"
        async with open_raw(proxy.data_address) as client, asyncio.timeout(GUARD_SECONDS):
            await client.send(form_request("POST", "/mcp/v1", session, token=key.token, body=MARKED))
            await claiming.reached.wait()
            await revoke_and_wait_ended(stage, proxy, key)
            claiming.open.set()
            refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        assert not was_sent(origin)


async def test_a_call_whose_key_is_in_doubt_when_the_connection_stands_is_not_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, connecting = await stage.mint(), hold_connections(monkeypatch)
    async with (
        HostileOrigin(answer_all) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", **PATIENT) as proxy,
        open_raw(proxy.data_address) as client,
        asyncio.timeout(GUARD_SECONDS),
    ):
        await client.send(form_request(token=key.token, body=MARKED))
        await connecting.reached.wait()
        async with hold_rows(stage):
            await revoke_and_wait_heard(stage, proxy, key)
            connecting.open.set()
            await pass_through(proxy)
            assert not was_sent(origin)
        refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        assert not was_sent(origin)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that accepts no connection: its backlog is full, so that the next SYN stays unanswered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


async def test_a_call_that_is_still_dialling_ends_with_its_key(stage: Stage, deaf_port: int) -> None:
    key = await stage.mint()
    async with stage.proxy(f"http://127.0.0.1:{deaf_port}", **PATIENT) as proxy, open_raw(proxy.data_address) as client:
        upstream = proxy.destinations["mcp"].upstream
        await client.send(form_request(token=key.token, body=MARKED))
        await wait_until(lambda: upstream.active_connections == 1)
        await stage.revoke_by_sql(key)
        async with asyncio.timeout(GUARD_SECONDS):
            refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        await wait_until(lambda: upstream.active_connections == 0)


# Between headers and body.


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream sends before the key is in doubt, and after; and how the client is told."""

    before: bytes
    after: bytes
    told: bytes


LARGE = 2**30  # bytes, announced: more than is ever waited for before it flows
ANSWERS = {
    "half of an answer": Answer(answer_whole(RESULT)[:-20], RESULT[-20:], b"HTTP/1.1 401 "),
    "a whole answer": Answer(b"", answer_whole(RESULT), b"HTTP/1.1 401 "),
    "a piece of a large answer": Answer(
        JSON + b"Content-Length: %d\r\n\r\n" % LARGE + b" " * 10, SECRET, b"HTTP/1.1 200 "
    ),
    "the head of a stream": Answer(b"", EVENTS + form_chunk(b"data: " + SECRET + b"\n\n"), b"HTTP/1.1 401 "),
    "an event": Answer(
        EVENTS + form_chunk(b": well\n\n"), form_chunk(b"data: " + SECRET + b"\n\n"), b'"reason":"key_revoked"'
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_arrives_while_a_key_is_in_doubt_never_reaches_the_client(
    name: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, answer, asked, tally = await stage.mint(), ANSWERS[name], asyncio.Event(), tally_answers(monkeypatch)

    async def begin(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(answer.before)
        asked.set()

    async with (
        HostileOrigin(begin) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", **PATIENT) as proxy,
        connect_client(proxy.data_address) as client,
    ):
        client.send(form_request("POST", "/mcp/v1", "Connection: close", token=key.token, body=CALL))
        async with asyncio.timeout(GUARD_SECONDS):
            await asked.wait()
        await tally.wait_taken(answer.before, proxy)
        async with hold_rows(stage):
            await revoke_and_wait_heard(stage, proxy, key)
            origin.peers[0].send_at_once(answer.after)
            await tally.wait_taken(answer.before + answer.after, proxy)
        received = await client.wait_end()
        assert answer.told in received
        assert SECRET[-20:] not in received


@pytest.mark.parametrize(
    ("before", "told"), [(EVENTS, b"200"), (answer_whole(RESULT)[:-20], b"401")], ids=["a stream", "an answer"]
)
async def test_an_answer_that_stops_after_its_head_ends_with_its_key(
    before: bytes, told: bytes, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, tally = await stage.mint(), tally_answers(monkeypatch)

    async def begin(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(before)

    async with (
        HostileOrigin(begin) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", **PATIENT) as proxy,
        connect_client(proxy.data_address) as client,
    ):
        client.send(form_request("POST", "/mcp/v1", "Connection: close", token=key.token, body=CALL))
        await tally.wait_taken(before, proxy)
        await stage.revoke_by_sql(key)
        received = await client.wait_end()
        assert received.startswith(b"HTTP/1.1 " + told)
        assert b'"reason":"key_revoked"' in received
        await origin.peers[0].wait_gone()


# While the body is uploading.


async def test_a_body_still_coming_when_its_key_dies_is_not_forwarded(stage: Stage) -> None:
    """`100 Continue` is the barrier: it is sent once the key was verified, before the body is read."""
    key = await stage.mint()
    head, _, body = form_request("POST", "/mcp/v1", "Expect: 100-continue", token=key.token, body=MARKED).partition(
        b"\r\n\r\n"
    )
    async with (
        HostileOrigin(answer_all) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", **PATIENT) as proxy,
        open_raw(proxy.data_address) as client,
        asyncio.timeout(GUARD_SECONDS),
    ):
        await client.send(head + b"\r\n\r\n")
        assert (await client.read_head())[0] == "HTTP/1.1 100 Continue"
        await client.send(body[:10])
        await revoke_and_wait_read(stage, proxy, key)
        await client.send(body[10:])
        refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        assert not was_sent(origin)


async def test_a_body_on_its_way_to_the_upstream_is_cut_off_when_its_key_dies(stage: Stage) -> None:
    """The upstream takes nothing more than the head, and the kernel no more than its buffers hold."""
    key, asked = await stage.mint(), asyncio.Event()
    body = json.dumps(form_call("aegis.runtime.list", {"note": "x" * 16_000_000})).encode()

    async def take_the_head(peer: Peer) -> None:
        await peer.read_head()
        asked.set()
        await let_go.wait()

    let_go = asyncio.Event()
    async with (
        HostileOrigin(take_the_head) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", server={"max_body_bytes": 32_000_000}, **PATIENT) as proxy,
        connect_client(proxy.data_address) as client,
    ):
        client.send(form_request(token=key.token, body=body))
        async with asyncio.timeout(GUARD_SECONDS):
            await asked.wait()
        await stage.revoke_by_sql(key)
        await client.wait_for(b'"reason":"key_revoked"')
        let_go.set()
        await origin.peers[0].wait_gone()
        assert len(origin.peers[0].stray_bytes) < len(body)


# While queued behind a pipelined request.


async def test_a_request_queued_behind_another_is_judged_when_its_turn_comes(stage: Stage) -> None:
    """Both were read from the socket while the second one's key lived, and was known to."""
    first, second = await stage.mint(), await stage.mint(owner="bob")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold_the_first(peer: Peer) -> None:
        while True:
            if b"the first" in await peer.read_request():
                asked.set()
                await answer.wait()
            await peer.send(answer_whole(b'{"jsonrpc":"2.0","id":1,"result":{}}'))

    async with (
        HostileOrigin(hold_the_first) as origin,
        stage.proxy(f"http://127.0.0.1:{origin.port}", **PATIENT) as proxy,
        open_raw(proxy.data_address) as client,
        asyncio.timeout(GUARD_SECONDS),
    ):
        assert (await ask_raw(proxy.data_address, form_request(token=second.token, body=CALL))).status == 200
        leading = form_call("aegis.runtime.list", {"note": "the first"})
        await client.send(form_request(token=first.token, body=leading) + form_request(token=second.token, body=MARKED))
        await asked.wait()
        async with hold_rows(stage):
            await revoke_and_wait_heard(stage, proxy, second)
            answer.set()
            assert (await client.read_answer()).status == 200
            await pass_through(proxy)
            assert not was_sent(origin)
        refused = await client.read_answer()
        assert (refused.status, refused.reason) == (401, "key_revoked")
        assert not was_sent(origin)
