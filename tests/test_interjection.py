"""What is said between two events: whole, in order, at once where that may be, and never when nothing may flow."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.interjection import MAX_UNSAID, Interjector
from proxy.upstream import UpstreamAborted


class Stream:
    """A stream that takes what is written to it; `taking`: it is not full."""

    def __init__(self) -> None:
        self.written = b""
        self.flowing = True
        self.gone = False
        self.taking = asyncio.Event()
        self.taking.set()
        self.interjector = Interjector(lambda: self.flowing, self.write)

    async def write(self, event: bytes) -> None:
        if self.gone:
            raise UpstreamAborted
        self.written += event
        await self.taking.wait()

    async def relay(self, chunk: bytes) -> None:
        """What the upstream says."""
        self.interjector.boundary.feed(chunk)
        await self.write(chunk)
        await self.interjector.flush()


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_between_two_events_it_is_said_at_once() -> None:
    stream = Stream()
    await stream.relay(b"data: 1\n\n")
    assert stream.interjector.say(b"data: ours\n\n")
    await settle()
    assert stream.written == b"data: 1\n\ndata: ours\n\n"


async def test_inside_an_event_it_waits_for_the_end_of_it() -> None:
    stream = Stream()
    await stream.relay(b"data: 1")
    stream.interjector.say(b"data: ours\n\n")
    await settle()
    assert stream.written == b"data: 1"
    await stream.relay(b"\n")
    await stream.relay(b"\ndata: 2\n\n")
    assert stream.written == b"data: 1\n\ndata: 2\n\ndata: ours\n\n"


async def test_while_nothing_may_flow_nothing_is_said_and_then_in_order() -> None:
    stream = Stream()
    stream.flowing = False
    for number in range(3):
        stream.interjector.say(b"data: %d\n\n" % number)
    await settle()
    stream.interjector.wake()
    await settle()
    assert stream.written == b""
    stream.flowing = True
    stream.interjector.wake()
    await settle()
    assert stream.written == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def test_a_stream_that_is_paused_between_two_of_ours_goes_on_with_the_second() -> None:
    stream = Stream()
    stream.taking.clear()
    stream.interjector.say(b"data: 1\n\n")
    stream.interjector.say(b"data: 2\n\n")
    await settle()
    stream.flowing = False
    stream.taking.set()
    await settle()
    assert stream.written == b"data: 1\n\n"
    stream.flowing = True
    stream.interjector.wake()
    await settle()
    assert stream.written == b"data: 1\n\ndata: 2\n\n"


async def test_what_is_said_while_a_reader_takes_nothing_comes_in_order_with_what_is_relayed() -> None:
    stream = Stream()
    stream.taking.clear()
    stream.interjector.say(b"data: 1\n\n")
    await settle()
    stream.interjector.say(b"data: 3\n\n")
    relaying = asyncio.create_task(stream.relay(b"data: 2\n\n"))
    await settle()
    stream.taking.set()
    await relaying
    await settle()
    assert stream.written == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"


async def test_after_the_end_nothing_is_said() -> None:
    stream = Stream()
    stream.interjector.say(b"data: 1\n\n")
    stream.interjector.close()
    await settle()
    stream.interjector.wake()
    await settle()
    assert stream.written == b""


async def test_only_so_much_waits() -> None:
    stream = Stream()
    stream.flowing = False
    assert [stream.interjector.say(b"data: 1\n\n") for _ in range(MAX_UNSAID + 1)] == [True] * MAX_UNSAID + [False]
    stream.flowing = True
    stream.interjector.wake()
    await settle()
    assert stream.written.count(b"data: 1\n\n") == MAX_UNSAID
    assert stream.interjector.say(b"data: 2\n\n")
    await settle()


async def test_a_client_that_has_left_is_the_relays_affair() -> None:
    stream = Stream()
    stream.gone = True
    stream.interjector.say(b"data: 1\n\n")
    await settle()
    stream.interjector.say(b"data: 2\n\n")
    with pytest.raises(UpstreamAborted):
        await stream.interjector.flush()


@given(st.lists(st.tuples(st.binary(max_size=3), st.booleans()), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_however_the_stream_is_cut_ours_stand_between_two_events(cuts: list[tuple[bytes, bool]], end: bytes) -> None:
    async def run() -> tuple[bytes, int]:
        stream, said = Stream(), 0
        body = b"".join(b"data: %d%s%s" % (number, end, end) for number in range(len(cuts)))
        for filler, speak in cuts:
            size = len(filler) + 1
            chunk, body = body[:size], body[size:]
            await stream.relay(chunk)
            if speak:
                said += 1
                stream.interjector.say(b"event: ours\ndata: o\n\n")
                await settle()
        await stream.relay(body)
        return stream.written, said

    written, said = asyncio.run(run())
    lines = written.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    events = [event.lstrip(b"\n") for event in lines if event.strip(b"\n")]
    assert [event for event in events if event != b"event: ours\ndata: o"] == [
        b"data: %d" % number for number in range(len(cuts))
    ]
    assert events.count(b"event: ours\ndata: o") == said
