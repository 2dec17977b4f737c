"""What is asked for, read and told, value by value: paths, pages, events, the end of a key."""

from __future__ import annotations

import io
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import unquote

import pytest
from httpx2 import ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

from aegis_sdk import InputError, KeyExpiryWarning, KeyRevokedError, StreamEvent
from aegis_sdk.calls import encode_file_path, encode_segment, form_path, form_time, get, post
from aegis_sdk.events import read_event
from aegis_sdk.expiry import ExpiryNotice, parse_moment
from aegis_sdk.paging import Page, form_counted_page, form_linked_page
from aegis_sdk.pieces import CHUNK_BYTES, AsyncPieces, Pieces, form_async_pieces, form_pieces
from proxy.envelope import parse_target
from proxy.errors import RequestError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXT)
def test_a_name_is_one_segment_that_the_proxy_reads_as_it_was_meant_or_refuses(name: str) -> None:
    if name in (".", ".."):
        with pytest.raises(InputError):
            encode_segment(name)
        return
    path = form_path("workflows", name)
    assert path.count("/") == 3
    assert unquote(path.rpartition("/")[2]) == name
    try:
        assert parse_target(path).path == path
    except RequestError:  # it holds what no path may: a slash, a control character, …
        assert not name.isalnum()


@pytest.mark.parametrize("path", ["", "/", "a//b", "../a", "a/.", "/./"])
def test_a_path_of_files_stays_within(path: str) -> None:
    with pytest.raises(InputError) as refused:
        encode_file_path(path)
    assert refused.value.status is None
    assert len(refused.value.faults) == 1


def test_a_path_of_files_keeps_its_slashes() -> None:
    assert encode_file_path("/notes/à faire?.txt") == "notes/%C3%A0%20faire%3F.txt"


def test_what_is_not_given_is_not_sent() -> None:
    assert get("/v1/x", {"a": None, "b": 0, "c": ""}).query == {"b": 0, "c": ""}
    assert post("/v1/x", {"a": None, "b": False}).body == {"b": False}
    assert post("/v1/x").body == {}
    assert get("/v1/x").repeatable
    assert not post("/v1/x").repeatable


def test_times_are_sent_in_utc_and_need_a_zone() -> None:
    moment = datetime(2027, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    assert form_time(moment) == "2027-01-31T10:00:00Z"
    assert form_time(None) is None
    with pytest.raises(InputError, match="zone"):
        form_time(moment.replace(tzinfo=None))


@dataclass(frozen=True)
class Counted:
    limit: int
    offset: int
    total: int | None = None


@dataclass(frozen=True)
class Linked:
    next_cursor: str | None


def test_a_counted_list_goes_on_until_its_total() -> None:
    items = ["a", "b"]
    assert form_counted_page(Counted(2, 0, 5), items) == Page(items, 5, {"limit": 2, "offset": 2})
    assert form_counted_page(Counted(2, 3, 5), items).next_query is None
    assert form_counted_page(Counted(2, 2, 5), []).next_query is None, "it has shrunk: no endless asking"


def test_a_list_that_nobody_counts_goes_on_while_pages_are_full() -> None:
    assert form_counted_page(Counted(2, 4), ["a", "b"]).next_query == {"limit": 2, "offset": 6}
    assert form_counted_page(Counted(3, 4), ["a", "b"]).next_query is None


def test_a_linked_list_goes_on_while_there_is_a_cursor() -> None:
    assert form_linked_page(Linked("c"), ["a"]) == Page(["a"], None, {"cursor": "c"})
    assert form_linked_page(Linked(None), ["a"]).next_query is None


@pytest.mark.parametrize(
    ("event", "read"),
    [
        (ServerSentEvent("log", '{"line": 1}'), StreamEvent("log", {"line": 1})),
        (ServerSentEvent(data='{"type": "log"}', id="7"), StreamEvent("log", {"type": "log"}, "7")),
        (ServerSentEvent(data='{"type": 7}'), StreamEvent("message", {"type": 7})),
        (ServerSentEvent(data="[" * 100_000), StreamEvent("message", "[" * 100_000)),
        (ServerSentEvent("log", "plain"), StreamEvent("log", "plain")),
        (
            ServerSentEvent("error", '{"error": "the platform\'s own"}'),
            StreamEvent("error", {"error": "the platform's own"}),
        ),
    ],
)
def test_an_event_is_read(event: ServerSentEvent, read: StreamEvent) -> None:
    assert read_event(event) == read


def test_the_proxys_last_event_is_raised() -> None:
    problem = (
        '{"type": "urn:aegis-proxy:problem:key_revoked", "status": 401, "code": "key_revoked", "detail": "revoked"}'
    )
    with pytest.raises(KeyRevokedError, match="revoked") as ended:
        read_event(ServerSentEvent("error", problem))
    assert ended.value.status == 401


def test_the_end_of_a_key_is_told_once() -> None:
    told: list[datetime] = []
    notice = ExpiryNotice(told.append)
    for value in (None, "nonsense", "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"):
        notice.hear(value)
    assert told == [datetime(2026, 12, 1, tzinfo=UTC)]


def test_the_end_of_a_key_is_a_warning_where_nobody_asked_for_it() -> None:
    notice = ExpiryNotice(None)
    with pytest.warns(KeyExpiryWarning, match="2026-12-01"):
        notice.hear("2026-12-01T00:00:00Z")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notice.hear("2026-12-01T00:00:00Z")


@pytest.mark.parametrize(
    "value",
    ["2026-12-01T00:00:00Z", "2026-12-01T00:00:00+00:00", "Tue, 01 Dec 2026 00:00:00 GMT", "2026-12-01T00:00:00"],
)
def test_a_moment_is_read_in_either_form(value: str) -> None:
    assert parse_moment(value) == datetime(2026, 12, 1, tzinfo=UTC)


def test_what_is_uploaded_is_taken_as_it_is(tmp_path: Path) -> None:
    assert form_pieces("grün") == "grün".encode()
    assert form_pieces(b"raw") == b"raw"
    large = tmp_path / "large"
    large.write_bytes(b"x" * (CHUNK_BYTES + 1))
    with large.open("rb") as file:
        pieces = form_pieces(file)
        assert isinstance(pieces, Pieces)
        assert [len(piece) for piece in pieces] == [CHUNK_BYTES, 1]
    assert list(Pieces([b"a", b"", b"b"])) == [b"a", b"b"]


async def test_what_is_uploaded_without_blocking_may_come_in_any_way() -> None:
    async def give() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    for content in (give(), [b"a", b"", b"b"], io.BytesIO(b"ab")):
        pieces = form_async_pieces(content)
        assert isinstance(pieces, AsyncPieces)
        assert b"".join([piece async for piece in pieces]) == b"ab"
    assert form_async_pieces("ab") == b"ab"
