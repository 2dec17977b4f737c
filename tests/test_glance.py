"""What a request presents at a glance is what the parser reads in it, or less; and it ends where the parser says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.credentials import parse_credential
from proxy.errors import CredentialError
from proxy.glance import END, Glance, glance
from tests.records import form_key_id, form_legacy_token, form_secret_token

GOOD, LEGACY = form_secret_token(form_key_id(1)), form_legacy_token(1)
LINE, HOST = b"POST /mcp/v1 HTTP/1.1", b"Host: localhost"


def form(*lines: bytes, line: bytes = LINE, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, HOST, *lines, b"", b""]) + body


def look(data: bytes, *, takes_tokens: bool = True) -> Glance | None:
    return glance(data, data.index(END) + len(END), takes_tokens=takes_tokens)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def read(data: bytes, loop: asyncio.AbstractEventLoop) -> list[tuple[RawRequestMessage, bool]] | None:
    """What aiohttp reads, each with whether its body is whole; None: it refuses."""
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_headers=64, auto_decompress=False)
    try:
        messages, _, _ = parser.feed_data(data)
    except HttpProcessingError:
        return None
    return [(message, payload.is_eof()) for message, payload in messages]


bearers = st.sampled_from(
    [GOOD.text.encode(), LEGACY.text.encode(), GOOD.text[:-1].encode(), b"garbage", b"", b"aegis_" + b"x" * 62]
)
values = st.builds(
    lambda before, scheme, between, token, after: before + scheme + between + token + after,
    st.sampled_from([b"", b" ", b"\t", b"  ", b" \t "]),
    st.sampled_from([b"Bearer", b"bearer", b"BEARER", b"Basic", b""]),
    st.sampled_from([b" ", b"  ", b"\t", b""]),
    bearers,
    st.sampled_from([b"", b" ", b"\t", b" x", b"\r\n folded", b"\0", b"\xe9"]),
)
names = st.sampled_from([b"Authorization", b"authorization", b"AUTHORIZATION", b"Authorization ", b"X-Authorization"])
framings = st.sampled_from(
    [
        b"Content-Length: 2", b"content-length:2", b"Content-Length:  2", b"Content-Length: 02", b"Content-Length: +2",
        b"Content-Length: 2, 2", b"Content-Length : 2", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x",
        b"Connection: close", b"Connection: keep-alive", b"Expect: 100-continue", b"Content-Length: 0",
        b"X: y\nContent-Length: 2", b"X: y\rContent-Length: 2", b"X: content-length: 9",
    ]
)  # fmt: skip
fields = st.one_of(
    st.builds(lambda name, value: name + b":" + value, names, values),
    framings,
    st.just(b"X: y"),
    st.binary(max_size=12),
)
lines = st.sampled_from(
    [
        LINE,
        b"GET / HTTP/1.1",
        b"HEAD / HTTP/1.1",
        b"POST / HTTP/1.0",
        b"DELETE / HTTP/1.1",
        b"post / http/1.1",
        b"\r\n" + LINE,
    ]
)


@given(st.lists(fields, max_size=5), lines)
@example([b"Authorization: Bearer " + GOOD.text.encode()], LINE)
@example([b"X: y\nAuthorization: Bearer " + GOOD.text.encode()], LINE)
def test_a_key_that_is_read_properly_is_seen_at_a_glance_or_nothing_is(
    loop: asyncio.AbstractEventLoop, given_fields: list[bytes], line: bytes
) -> None:
    """So a right key is never taken for a wrong one."""
    data = form(*given_fields, line=line)
    messages = read(data, loop)
    if not messages or data.startswith(b"\r\n"):
        return
    try:
        presented = parse_credential(messages[0][0].headers)
    except CredentialError:
        return
    seen = look(data)
    if presented is not None and seen is not None:
        assert seen.token == presented.token
    if presented is None:
        assert seen is None


@given(st.lists(fields, max_size=4), lines)
@example([b"Authorization: x", b"Content-Length: 2"], LINE)
@example([b"Authorization: x"], LINE)
def test_a_request_ends_where_the_parser_says(
    loop: asyncio.AbstractEventLoop, given_fields: list[bytes], line: bytes
) -> None:
    """So that nobody's next request is read out of the body of another."""
    data = form(b"Authorization: x", *given_fields, line=line, body=b"ab" * 10)
    seen = look(data.lstrip(b"\r\n"))
    assert seen is not None
    if seen.length is None:
        return
    following = form(line=b"GET /next HTTP/1.1")
    messages = read(data.lstrip(b"\r\n")[: seen.length] + following, loop)
    if messages is not None:
        assert [(message.path, whole) for message, whole in messages][1:] == [("/next", True)]
        assert messages[0][1]


@given(st.lists(st.one_of(st.binary(max_size=40), fields, lines), min_size=1, max_size=8))
def test_no_bytes_are_too_odd_to_be_looked_at(pieces: list[bytes]) -> None:
    data = b"\r\n".join([*pieces, b"", b""]).lstrip(b"\r\n") + END
    seen = look(data)
    assert seen is None or seen.length is None or seen.length >= data.index(END)


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        ([b"Authorization: Bearer " + GOOD.text.encode()], GOOD),
        ([b"AUTHORIZATION:Bearer " + LEGACY.text.encode()], LEGACY),
        ([b"Authorization: Bearer garbage"], None),
        ([b"Authorization: Basic YTpi"], None),
        ([b"Authorization: Bearer " + GOOD.text.encode()] * 2, None),
    ],
)
def test_what_is_presented(lines: list[bytes], token: object) -> None:
    seen = look(form(*lines))
    assert seen is not None
    assert seen.token == token


def test_who_presents_nothing_is_not_looked_at() -> None:
    assert look(form()) is None
    assert look(form(body=b"\r\nAuthorization: Bearer garbage\r\n")) is None, "a body is not a head"


@pytest.mark.parametrize("path", [b"/v1/api-keys", b"/v1/api-keys?limit=1", b"/v1/scopes", b"/v1/owners/x"])
def test_where_tokens_of_the_identity_provider_manage_keys_they_are_not_looked_at(path: bytes) -> None:
    lines = [b"Authorization: Bearer head.claims.signature"]
    assert look(form(*lines, line=b"GET " + path + b" HTTP/1.1")) is None
    assert look(form(b"Authorization: Bearer garbage", line=b"GET " + path + b" HTTP/1.1")) is not None
    assert look(form(*lines)) is not None, "elsewhere they are no keys"
    seen = look(form(*lines, line=b"GET " + path + b" HTTP/1.1"), takes_tokens=False)
    assert seen is not None, "nor anywhere without a provider"
    assert seen.token is None


@pytest.mark.parametrize(
    ("lines", "line", "length"),
    [
        ([], LINE, 0),
        ([b"Content-Length: 7"], LINE, 7),
        ([b"Content-Length: 7", b"Content-Length: 7"], LINE, None),
        ([b"Content-Length: 7", b"Transfer-Encoding: chunked"], LINE, None),
        ([b"Content-Length: 7x"], LINE, None),
        ([b"Connection: close"], LINE, None),
        ([b"Expect: 100-continue", b"Content-Length: 7"], LINE, None),
        ([b"X: y\nContent-Length: 7"], LINE, None),
        ([b"X: y\rContent-Length: 7"], LINE, None),
        ([b"X: y", b" Content-Length: 7"], LINE, None),
        ([b"X: y", b"\tContent-Length: 7"], LINE, None),
        ([], b"POST /mcp/v1 HTTP/1.0", None),
        ([], b"HEAD /mcp/v1 HTTP/1.1", None),
    ],
)
def test_where_it_ends(lines: list[bytes], line: bytes, length: int | None) -> None:
    data = form(b"Authorization: x", *lines, line=line)
    seen = look(data)
    assert seen is not None
    assert seen.length == (None if length is None else len(data) + length)
