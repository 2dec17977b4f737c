from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import EventBoundary, EventRewriter, IdRewriter, get_values, pass_any, replace_field

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
id_streams = st.lists(st.sampled_from([*PIECES, b"i", b"d", b"id:", b"id", b"x" * 37]), max_size=14).map(b"".join)


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


# large events that may pass


@given(streams, st.sets(st.integers(0, 60)), st.integers(0, 40))
def test_where_large_events_pass_a_stream_stays_byte_for_byte_at_any_limit(
    stream: bytes, cuts: set[int], limit: int
) -> None:
    rewriter = EventRewriter(lambda event: event, max_event_bytes=limit, pass_large=pass_any)
    sent = b"".join([rewriter.feed(chunk) for chunk in chunks_of(stream, cuts)]) + rewriter.finish()
    assert (sent, rewriter.dropped) == (stream, 0)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_that_is_too_large_may_pass_unjudged_and_the_next_one_is_judged(end: bytes) -> None:
    large = b"id: 7" + end + b"data: " + b"x" * 200 + end + b"data: z" + end + end
    small = b"id: 7" + end + b"data: y" + end + end
    stream = large + small + large + small
    for cut in range(len(stream)):
        rewriter = EventRewriter(lambda event: event.replace(b"7", b"8"), max_event_bytes=100, pass_large=pass_any)
        sent = b"".join([rewriter.feed(chunk) for chunk in chunks_of(stream, {cut})]) + rewriter.finish()
        assert sent == (large + small.replace(b"7", b"8")) * 2
        assert rewriter.dropped == 0


def test_an_event_that_is_too_large_passes_as_it_comes() -> None:
    rewriter = EventRewriter(lambda event: event, max_event_bytes=100, pass_large=pass_any)
    assert rewriter.feed(b"data: " + b"x" * 50) == b""
    assert rewriter.feed(b"y" * 50) == b"data: " + b"x" * 50 + b"y" * 50
    assert all(rewriter.feed(b"z" * 1000) == b"z" * 1000 for _ in range(100))
    assert rewriter.feed(b"\n\n") == b"\n\n"
    assert rewriter.feed(b"data: small\n\n") == b"data: small\n\n"


# the ids


MAX_ID_BYTES = 40


def rewrite_ids(stream: bytes, cuts: set[int], rewrite: Callable[[bytes], bytes | None]) -> bytes:
    rewriter = IdRewriter(rewrite, max_id_bytes=MAX_ID_BYTES)
    return b"".join([rewriter.feed(chunk) for chunk in chunks_of(stream, cuts)]) + rewriter.finish()


def mark(event_id: bytes) -> bytes:
    return event_id + b".signed"


def withhold(_: bytes) -> None:
    return None


@given(id_streams, st.sets(st.integers(0, 60)))
def test_however_it_is_cut_a_streams_ids_are_rewritten_alike(stream: bytes, cuts: set[int]) -> None:
    assert rewrite_ids(stream, cuts, mark) == rewrite_ids(stream, set(), mark)


@given(id_streams, st.sets(st.integers(0, 60)))
def test_however_it_is_cut_the_same_ids_are_left_out(stream: bytes, cuts: set[int]) -> None:
    assert rewrite_ids(stream, cuts, withhold) == rewrite_ids(stream, set(), withhold)


@given(id_streams)
def test_a_client_reads_the_same_events_with_other_ids(stream: bytes) -> None:
    stream = stream.replace(b"\xef\xbb\xbf", b"")
    kept = [
        [field for field in event if len(field[1]) <= MAX_ID_BYTES or field[0] != b"id"]
        for event in read_events(stream)
    ]
    expected = [[(name, mark(text) if is_id(name, text) else text) for name, text in event] for event in kept if event]
    assert read_events(rewrite_ids(stream, set(), mark)) == expected


@given(id_streams)
def test_a_client_reads_the_same_events_without_the_ids_that_are_left_out(stream: bytes) -> None:
    stream = stream.replace(b"\xef\xbb\xbf", b"")
    left = [[field for field in event if not is_id(*field)] for event in read_events(stream)]
    assert read_events(rewrite_ids(stream, set(), withhold)) == [event for event in left if event]


def is_id(name: bytes, text: bytes) -> bool:
    """Whether it is one that is rewritten."""
    return name == b"id" and text != b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("space", [b"", b" "])
def test_an_id_is_rewritten_in_its_place_wherever_the_stream_is_cut(end: bytes, space: bytes) -> None:
    before, after = b"event: e" + end, end + b"data: x" + end + b"retry: 5" + end + end
    stream = (before + b"id:" + space + b"7" + after) * 2
    expected = (before + b"id: 7.signed" + after) * 2
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            assert rewrite_ids(stream, {first, second}, mark) == expected
    assert rewrite_ids(stream, set(range(len(stream))), mark) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_id_that_is_left_out_takes_its_line_end_along(end: bytes) -> None:
    stream = b"event: e" + end + b"id: 7" + end + b"data: x" + end + end
    for cut in range(len(stream)):
        assert rewrite_ids(stream, {cut}, withhold) == b"event: e" + end + b"data: x" + end + end


@pytest.mark.parametrize(
    "line",
    [b"id", b"id:", b"id: ", b": id: 7", b":id: 7", b"data: id: 7", b"data:id: 7", b" id: 7", b"ID: 7", b"idle: 7",
     b"id : 7", b"i", b"event: id", b"retry: 7", b"identity"],
)  # fmt: skip
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_that_is_no_id_with_a_value_stays(line: bytes, end: bytes) -> None:
    stream = line + end + b"data: x" + end + line + end + end
    for cut in range(len(stream)):
        assert rewrite_ids(stream, {cut}, mark) == rewrite_ids(stream, {cut}, withhold) == stream
    assert rewrite_ids(line, set(), withhold) == line


def test_only_a_line_that_may_be_an_id_waits_for_its_end() -> None:
    rewriter = IdRewriter(mark, max_id_bytes=MAX_ID_BYTES)
    assert rewriter.feed(b"data: x") == b"data: x"
    assert rewriter.feed(b"\nid: and more") == b"\n"
    assert rewriter.feed(b"\ndata") == b"id: and more.signed\ndata"
    assert rewriter.feed(b"\ni") == b"\n"
    assert rewriter.feed(b"f") == b"if"
    assert rewriter.feed(b"\n: ping") == b"\n: ping"
    assert rewriter.finish() == b""


def test_only_the_line_end_of_an_id_that_is_left_out_goes_with_it() -> None:
    stream = b"id: 7\rdata: x\n\nid: 7\r\rdata: y\n\n"
    for cut in range(len(stream)):
        assert rewrite_ids(stream, {cut}, withhold) == b"data: x\n\n\rdata: y\n\n"


def test_the_first_id_after_a_withheld_one_is_rewritten() -> None:
    stream = b"id: 1\r\ndata: a\r\n\r\nid: 2\r\ndata: b\r\n\r\n"
    for cut in range(len(stream)):
        sent = rewrite_ids(stream, {cut}, lambda value: mark(value) if value == b"2" else None)
        assert sent == b"data: a\r\n\r\nid: 2.signed\r\ndata: b\r\n\r\n"


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize("length", [MAX_ID_BYTES - 1, MAX_ID_BYTES, MAX_ID_BYTES + 1, 5 * MAX_ID_BYTES])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_id_that_is_too_long_is_left_out_and_the_longest_is_rewritten_wherever_they_are_cut(
    length: int, space: bytes, end: bytes
) -> None:
    long = b"x" * length
    stream = b"data: a" + end + b"id:" + space + long + 2 * end + b"id: 7" + 2 * end
    kept = b"id: " + mark(long) + end if length <= MAX_ID_BYTES else b""
    expected = b"data: a" + end + kept + end + b"id: 7.signed" + 2 * end
    for cut in range(len(stream)):
        assert rewrite_ids(stream, {cut}, mark) == expected


def test_an_endless_line_is_not_held_in_memory() -> None:
    rewriter = IdRewriter(mark, max_id_bytes=MAX_ID_BYTES)
    assert rewriter.feed(b"id: " + b"x" * 1000) == b""
    assert all(rewriter.feed(b"x" * 1000) == b"" for _ in range(100))
    assert len(rewriter._line or b"") <= MAX_ID_BYTES
    assert rewriter.feed(b"\ndata: x\n") == b"data: x\n"


def test_an_id_behind_a_byte_order_mark_is_rewritten_wherever_it_is_cut() -> None:
    stream = b"\xef\xbb\xbfid: 7\ndata: a\n\n"
    for cut in range(len(stream)):
        assert rewrite_ids(stream, {cut}, mark) == b"\xef\xbb\xbfid: 7.signed\ndata: a\n\n"


def test_an_id_in_which_the_stream_ends_is_rewritten() -> None:
    for cut in range(5):
        assert rewrite_ids(b"id: 7", {cut}, mark) == b"id: 7.signed"
        assert rewrite_ids(b"id: 7", {cut}, withhold) == b""
