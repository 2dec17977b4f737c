"""One answer, taken apart: what is accepted, what is refused, and that the cuts between segments do not matter."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream_answer import MAX_INTERIM_ANSWERS, Answer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(*segments: bytes, to_head: bool = False, max_header_bytes: int = 65536) -> Answer:
    answer = Answer(to_head=to_head, max_header_bytes=max_header_bytes)
    for segment in segments:
        answer.feed(segment)
    return answer


def one_by_one(wire: bytes) -> list[bytes]:
    return [wire[at : at + 1] for at in range(len(wire))]


BROKEN = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nhi",
    "a signed length": OK + b"Content-Length: +2\r\n\r\nhi",
    "a negative length": OK + b"Content-Length: -2\r\n\r\nhi",
    "a hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nhi",
    "an empty length": OK + b"Content-Length:\r\n\r\nhi",
    "a length beyond 64 bits": OK + b"Content-Length: 99999999999999999999999\r\n\r\nhi",
    "a length in other digits": OK + b"Content-Length: \xb22\r\n\r\nhi",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "gzip under chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "gzip under chunks in two lines": OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice in a list": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "gzip over chunks": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhi",
    "an empty coding": OK + b"Transfer-Encoding:\r\n\r\nhi",
    "an empty element": OK + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "a parameter": OK + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "a vertical tab": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": OK + b"Content-Length : 2\r\n\r\nhi",
    "a folded line": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
    "a folded length": OK + b"Content-Length:\r\n 2\r\n\r\nhi",
    "a bare LF after a field": OK + b"X: a\nContent-Length: 2\r\n\r\nhi",
    "a bare LF after the status": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi",
    "a bare LF at the end of the head": OK + b"Content-Length: 2\r\n\nhi",
    "a bare CR in a value": OK + b"X: a\rb\r\nContent-Length: 2\r\n\r\nhi",
    "NUL in a value": OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\nhi",
    "NUL in a name": OK + b"X\0: a\r\nContent-Length: 2\r\n\r\nhi",
    "a control character": OK + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nhi",
    "a nameless field": OK + b": a\r\nContent-Length: 2\r\n\r\nhi",
    "a line without a colon": OK + b"abc\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "ICE": b"ICE/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "an empty line before": b"\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.9\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 2000": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "switching protocols": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "switching without saying to what": b"HTTP/1.1 101 S\r\n\r\n",
    "an interim answer with a length": b"HTTP/1.1 100 C\r\nContent-Length: 2\r\n\r\nhi"
    + OK
    + b"Content-Length: 0\r\n\r\n",
    "an interim answer that closes": b"HTTP/1.1 100 C\r\nConnection: close\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "a flood of interim answers": b"HTTP/1.1 103 E\r\n\r\n" * (MAX_INTERIM_ANSWERS + 1),
    "204 with a length": b"HTTP/1.1 204 N\r\nContent-Length: 2\r\n\r\nhi",
    "204 with chunks": b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "a head above the limit": OK + b"X: " + b"a" * 65536 + b"\r\n\r\n",
    "many small fields above the limit": OK + b"X: a\r\n" * 11000 + b"\r\n",
    "a head without an end": OK + b"X: " + b"a" * 65536,
    "a status line without an end": b"HTTP/1.1 200 " + b"a" * 65536,
    "a hexadecimal prefix": CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n",
    "a signed chunk": CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n",
    "a space before the chunk size": CHUNKED + b" 2\r\nhi\r\n0\r\n\r\n",
    "a space after the chunk size": CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n",
    "a bare LF after the chunk size": CHUNKED + b"2\nhi\r\n0\r\n\r\n",
    "a bare LF after the chunk": CHUNKED + b"2\r\nhi\n0\r\n\r\n",
    "a bare LF in an extension": CHUNKED + b"2;a\nb\r\nhi\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\nhi0\r\n\r\n",
    "an oversized chunk size": CHUNKED + b"fffffffffffffffff\r\nhi",
    "an empty chunk size": CHUNKED + b"\r\nhi",
    "a length in a trailer": CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer without an end": CHUNKED + b"2\r\nhi\r\n0\r\nX: " + b"a" * 70000,
    "a chunk extension without an end": CHUNKED + b"2;" + b"a" * 70000,
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN.keys())
def test_an_answer_open_to_opinion_is_broken_and_never_complete(wire: bytes) -> None:
    answer = read(*one_by_one(wire))
    assert answer.broken
    assert not answer.complete


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN.keys())
def test_it_is_as_broken_when_it_comes_in_one_segment_and_goes_on(wire: bytes) -> None:
    answer = read(wire, b"x" * 65537)
    assert not answer.complete
    assert answer.broken


WHOLE = {
    "a length": (OK + b"Content-Length: 2\r\n\r\nhi", b"hi", True),
    "a length with space around it": (OK + b"Content-Length: \t2 \r\n\r\nhi", b"hi", True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "chunks": (CHUNKED + b"1\r\nh\r\n1;a=b\r\ni\r\n0\r\n\r\n", b"hi", True),
    "chunks with trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nAuthorization: x\r\nStatus: 500\r\n\r\n", b"hi", True),
    "chunks in capitals": (OK + b"transfer-encoding: Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi", True),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
    "an interim answer first": (
        b"HTTP/1.1 103 E\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
        b"hi",
        True,
    ),
    "as many interim answers as may be": (
        b"HTTP/1.1 100 C\r\n\r\n" * MAX_INTERIM_ANSWERS + OK + b"Content-Length: 2\r\n\r\nhi",
        b"hi",
        True,
    ),
    "an unwanted upgrade": (OK + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
    "204": (b"HTTP/1.1 204 N\r\n\r\n", b"", True),
    "204 with length 0": (b"HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 N\r\n\r\n", b"", True),
    "304 with the length of the 200": (b"HTTP/1.1 304 N\r\nContent-Length: 2\r\n\r\n", b"", False),
    "a last answer": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "a last answer in a list": (OK + b"Connection: keep-alive, close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "contradicting connections": (
        OK + b"Connection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        b"hi",
        False,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "HTTP/1.0 kept alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
}


@pytest.mark.parametrize(("wire", "body", "keep_alive"), WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("cut", [one_by_one, lambda wire: [wire]], ids=["byte by byte", "at once"])
def test_a_well_framed_answer_is_read_to_its_end(
    cut: Callable[[bytes], list[bytes]], wire: bytes, body: bytes, keep_alive: bool
) -> None:
    answer = read(*cut(wire))
    assert answer.complete
    assert not answer.broken
    assert not answer.surplus
    assert answer.take() == body
    assert answer.keep_alive is keep_alive
    assert not {"Authorization", "Status", "Link"} & set(answer.headers)


@pytest.mark.parametrize("extra", [b"H", b"x", b"\0", OK + b"Content-Length: 6\r\n\r\npoison"])
@pytest.mark.parametrize(("wire", "body"), [(wire, body) for wire, body, _ in WHOLE.values()], ids=WHOLE.keys())
def test_bytes_after_the_end_are_noticed_and_never_part_of_the_answer(wire: bytes, body: bytes, extra: bytes) -> None:
    for answer in (read(wire + extra), read(wire, extra), read(*one_by_one(wire + extra))):
        assert answer.surplus
        assert answer.complete
        assert not answer.broken
        assert answer.take() == body
        assert answer.status in (200, 204, 304)


@pytest.mark.parametrize("framing", [b"Content-Length: 6", b"Transfer-Encoding: chunked", b"X: y"])
def test_an_answer_to_head_ends_with_its_head_and_is_the_last_on_its_connection(framing: bytes) -> None:
    answer = read(OK + framing + b"\r\n\r\n", to_head=True)
    assert answer.complete
    assert not answer.keep_alive
    assert not answer.surplus


def test_a_body_after_an_answer_to_head_is_surplus() -> None:
    answer = read(OK + b"Content-Length: 6\r\n\r\npoison", to_head=True)
    assert answer.surplus
    assert answer.take() == b""


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_without_a_length_ends_when_the_upstream_closes(version: bytes) -> None:
    answer = read(b"HTTP/" + version + b" 200 OK\r\n\r\nhel", b"lo")
    assert not answer.complete
    answer.finish()
    assert answer.complete
    assert not answer.keep_alive
    assert answer.take() == b"hello"


@pytest.mark.parametrize(
    "wire", [b"", b"HTTP/1.1 20", OK, OK + b"Content-Length: 2\r\n\r\nh", CHUNKED + b"2\r\nhi\r\n"]
)
def test_an_answer_cut_short_by_the_close_is_not_complete(wire: bytes) -> None:
    answer = read(wire) if wire else read()
    answer.finish()
    assert not answer.complete


def test_repeated_headers_stay_in_order_and_every_byte_survives_as_latin_1() -> None:
    answer = read(OK + b"Set-Cookie: a\r\nX: \xc3\xa9\xff \t\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n")
    assert answer.headers.getall("set-cookie") == ["a", "b"]
    assert answer.headers["X"].encode("latin-1") == b"\xc3\xa9\xff"


def test_an_abandoned_answer_hands_nothing_on() -> None:
    answer = read(OK + b"Content-Length: 2\r\n\r\nhi")
    answer.abandon()
    answer.feed(b"more")
    assert (answer.head_complete, answer.complete, answer.take()) == (False, False, b"")


def chunked(body: list[bytes], trailer: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in body if chunk)
    return CHUNKED + chunks + b"0\r\n" + trailer + b"\r\n"


def with_length(body: list[bytes], trailer: bytes) -> bytes:
    return OK + trailer + b"Content-Length: %d\r\n\r\n" % len(b"".join(body)) + b"".join(body)


@given(
    body=st.lists(st.binary(max_size=40), max_size=5),
    trailer=st.sampled_from([b"", b"X-Sum: 1\r\n", b"X-Sum: 1\r\nY: 2\r\n"]),
    frame=st.sampled_from([chunked, with_length]),
    cuts=st.lists(st.integers(1, 300), max_size=12),
)
def test_where_the_segments_are_cut_changes_nothing(
    body: list[bytes], trailer: bytes, frame: Callable[[list[bytes], bytes], bytes], cuts: list[int]
) -> None:
    wire = frame(body, trailer)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    answer = read(*(wire[start:end] for start, end in pairwise(edges)))
    assert answer.complete
    assert answer.keep_alive
    assert not answer.surplus
    assert answer.take() == b"".join(body)


@given(
    st.lists(st.binary(min_size=1, max_size=60) | st.sampled_from([OK, CHUNKED, b"\r\n", b"2\r\nhi\r\n"]), max_size=8)
)
def test_no_bytes_whatever_raise_or_grow_without_bound(segments: list[bytes]) -> None:
    answer = read(*segments, max_header_bytes=100)
    assert not (answer.broken and answer.complete)
    assert answer.buffered_bytes == sum(len(chunk) for chunk in answer.chunks) <= sum(map(len, segments))


@pytest.mark.parametrize("wire", [WHOLE["chunks"][0], BROKEN["two lengths"]])
def test_a_finished_answer_is_freed_without_the_collector(wire: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        read(wire)
        assert not any(isinstance(kept, Answer) for kept in gc.get_objects())
    finally:
        gc.enable()
