from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import EventBoundary, EventRewriter, get_values, replace_field

# Everything the grammar gives a meaning to, in pieces that combine into every trap.
PIECES = [
    b"\r",
    b"\n",
    b"\r\n",
    b":",
    b": ping",
    b"data",
    b"data:",
    b"data: x",
    b"id: 7",
    b"event:e",
    b" ",
    b"\xef\xbb\xbf",
]
streams = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)


def chunks_of(stream: bytes, cuts: set[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(stream)), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def run(stream: bytes, rewrite: dict[bytes, bytes], cuts: set[int], limit: int = 1000) -> tuple[bytes, int]:
    rewriter = EventRewriter(lambda event: rewrite.get(get_id(event), event), max_event_bytes=limit)
    sent = b"".join([rewriter.feed(chunk) for chunk in chunks_of(stream, cuts)])
    return sent + rewriter.finish(), rewriter.dropped


def get_id(event: bytes) -> bytes:
    return b"".join(get_values(event, b"id")[-1:])


def read_events(stream: bytes) -> list[list[tuple[bytes, bytes]]]:
    """The specification's own words (HTML §9.2.6), over the whole stream at once; also what a dangling event holds."""
    return split_events(stream.removeprefix(b"\xef\xbb\xbf"))


def split_events(text: bytes) -> list[list[tuple[bytes, bytes]]]:
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events = []
    for block in text.split(b"\n\n"):
        lines = [line for line in block.split(b"\n") if line and not line.startswith(b":")]
        fields = [line.partition(b":") for line in lines]
        if fields:
            events.append([(name, value.removeprefix(b" ")) for name, _, value in fields])
    return events


@given(streams, st.sets(st.integers(0, 60)))
def test_a_stream_that_nobody_changes_comes_out_byte_for_byte(stream: bytes, cuts: set[int]) -> None:
    assert run(stream, {}, cuts) == (stream, 0)


@given(streams, st.sets(st.integers(0, 60)))
def test_however_it_is_cut_a_stream_is_rewritten_alike(stream: bytes, cuts: set[int]) -> None:
    rewrite = {b"7": b""}
    assert run(stream, rewrite, cuts) == run(stream, rewrite, set())


@given(streams)
def test_every_event_is_shown_once_and_whole_as_the_specification_cuts_them(stream: bytes) -> None:
    shown: list[bytes] = []

    def rewrite(event: bytes) -> bytes:
        shown.append(event)
        return event

    rewriter = EventRewriter(rewrite, max_event_bytes=1000)
    assert rewriter.feed(stream) + rewriter.finish() == stream
    fields = [split_events(event) for event in shown]
    assert [event for found in fields for event in found] == read_events(stream)
    assert all(len(found) <= 1 for found in fields)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_leaves_with_its_last_byte_in_every_dialect(end: bytes) -> None:
    rewriter = EventRewriter(lambda event: event, max_event_bytes=1000)
    for _ in range(2):
        assert rewriter.feed(b"id: 1" + end + b"data: x" + end) == b""
        event = b"id: 1" + end + b"data: x" + end + end
        assert rewriter.feed(end) == event
    assert rewriter.feed(b": ping" + end) == b": ping" + end
    assert rewriter.feed(end) == end


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_dropped_event_leaves_no_byte_behind(end: bytes) -> None:
    kept = b"id: 8" + end + b"data: y" + end + end
    stream = b"id: 7" + end + b"data: x" + end + end + kept
    for cut in range(len(stream)):
        assert run(stream, {b"7": b""}, {cut}) == (kept, 1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_that_is_too_large_is_dropped_and_the_next_one_passes(end: bytes) -> None:
    kept = b"data: y" + end + end
    stream = b"id: 1" + end + b"data: " + b"x" * 200 + end + b"data: z" + end + end + kept
    for cut in range(len(stream)):
        assert run(stream, {}, {cut}, limit=100) == (kept, 1)
    assert run(stream, {}, set(range(len(stream))), limit=100) == (kept, 1)


def test_an_endless_event_is_not_held_in_memory() -> None:
    rewriter = EventRewriter(lambda event: event, max_event_bytes=100)
    assert all(rewriter.feed(b"data: " + b"x" * 1000) == b"" for _ in range(100))
    assert rewriter.finish() == b""
    assert rewriter.dropped == 1


def test_an_event_without_its_blank_line_is_judged_when_the_stream_ends() -> None:
    assert run(b"id: 7\ndata: x", {b"7": b""}, set()) == (b"", 1)
    assert run(b"id: 8\ndata: x", {b"7": b""}, set()) == (b"id: 8\ndata: x", 0)
    assert run(b"\xef\xbb", {}, set()) == (b"\xef\xbb", 0)


def test_a_byte_order_mark_does_not_hide_the_first_field() -> None:
    stream = b"\xef\xbb\xbfid: 7\ndata: x\n\n"
    for cut in range(len(stream)):
        assert run(stream, {b"7": b"id: 8\n\n"}, {cut}) == (b"\xef\xbb\xbfid: 8\n\n", 0)


def test_comments_and_blank_lines_between_events_are_nobodys_to_drop() -> None:
    rewriter = EventRewriter(lambda event: b"", max_event_bytes=1000)
    assert rewriter.feed(b"\n: ping\r\n\r\ndata: x\n\n\n:\n") == b"\n: ping\r\n\r\n\n:\n"
    assert rewriter.dropped == 1


def test_fields_are_read_as_the_specification_says() -> None:
    event = b"data\r\ndata:a\rdata:  b\ndata : no\n:data: no\nDATA: no\nid: 1\nid:2\n\n"
    assert get_values(event, b"data") == [b"", b"a", b" b"]
    assert get_values(event, b"id") == [b"1", b"2"]
    assert get_values(event, b"event") == []


def test_a_replaced_field_keeps_its_place_and_line_end_and_the_rest_stays() -> None:
    event = b"id:1\r\n: note\r\ndata: a\r\nretry: 5\r\ndata\r\nevent: message\r\n\r\n"
    assert replace_field(event, b"data", b"z") == b"id:1\r\n: note\r\ndata: z\r\nretry: 5\r\nevent: message\r\n\r\n"
    assert replace_field(b"data:a\rdata:b\r\r", b"data", b"z") == b"data: z\r\r"
    assert replace_field(b"data:a", b"data", b"z") == b"data: z"
    assert replace_field(b"id: 1\n\n", b"data", b"z") == b"id: 1\n\n"


# the boundary


def rests_between_events(stream: bytes) -> bool:
    """Whether an event appended here is read by itself: neither joined to a line, nor to fields before it."""
    expected = [*read_events(stream), [(b"event", b"ours")]]
    return read_events(stream + b"event:ours\n\n") == expected and stream[-1:] in (b"", b"\r", b"\n")


@given(streams, st.sets(st.integers(0, 60)))
def test_the_boundary_is_where_an_event_can_be_appended(stream: bytes, cuts: set[int]) -> None:
    boundary = EventBoundary()
    sent = b""
    for chunk in chunks_of(stream, cuts):
        boundary.feed(chunk)
        sent += chunk
        # A BOM counts as a field: until the first blank line the answer is a cautious no.
        assert boundary.at_boundary <= rests_between_events(sent)
        assert boundary.at_boundary or sent.startswith(b"\xef\xbb\xbf") or not rests_between_events(sent)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], True),
        ([b""], True),
        ([b"data: x\n\n"], True),
        ([b"data: x\r\n\r", b"\n"], True),
        ([b"data: x\r\n\r"], True),
        ([b"data: x\r", b"\n"], False),
        ([b"data: x\n"], False),
        ([b"data: x"], False),
        ([b": ping\n"], True),
        ([b": ping"], False),
        ([b"id: 1\n", b": ping\n"], False),
        ([b"data: x\n\n", b"data"], False),
        ([b"data: x\n", b"\n", b": pi", b"ng\n"], True),
    ],
)
def test_the_boundary_knows_where_the_stream_rests(chunks: list[bytes], expected: bool) -> None:
    boundary = EventBoundary()
    for chunk in chunks:
        boundary.feed(chunk)
    assert boundary.at_boundary is expected
