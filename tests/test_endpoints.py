"""Where messages go in HTTP+SSE: as a client would find it, and never anywhere else."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.endpoints import MAX_TARGET_BYTES, Endpoints, form_reference, read_session_member, resolve_target
from proxy.errors import Reason, RequestError, UpstreamError

STREAM = "http://up.example:9000/base/mcp/v1/sse"
segments = st.text("abc.~:@!$&'()*+,=-_019", min_size=1, max_size=4).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(paths, paths, st.lists(segments, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts)))
def test_a_reference_leads_from_the_stream_to_the_messages_under_any_prefix(
    stream: str, messages: str, prefix: str
) -> None:
    reference = form_reference(stream, messages)
    assert not reference.startswith("/")
    assert urljoin(f"https://h{prefix}{stream}", f"{reference}?session_id=x") == (
        f"https://h{prefix}{messages}?session_id=x"
    )


@pytest.mark.parametrize(
    ("stream", "messages", "reference"),
    [
        ("/mcp/v1/sse", "/mcp/v1/messages", "messages"),
        ("/mcp/v1/sse", "/mcp/v1", "../v1"),
        ("/sse", "/a/b", "a/b"),
        ("/a/b/sse", "/c", "../../c"),
        ("/sse", "/http:x", "./http:x"),
    ],
)
def test_a_reference_is_short(stream: str, messages: str, reference: str) -> None:
    assert form_reference(stream, messages) == reference


@pytest.mark.parametrize(
    "query", ["", "session_id", "session=x", "a=b&session_id=x", "session_id=x&a=b", "SESSION_ID=x"]
)
def test_a_message_names_its_session_in_one_member(query: str) -> None:
    if query == "session_id":
        assert read_session_member(query) == ""  # which is nobody's
        return
    with pytest.raises(RequestError) as refused:
        read_session_member(query)
    assert refused.value.reason is Reason.QUERY_NOT_ALLOWED


@given(st.text("!$'()*+,;:@/?~._-abc09="))
def test_the_member_is_all_that_follows_its_name(value: str) -> None:
    assert read_session_member(f"session_id={value}") == value


@given(st.text())
def test_whatever_an_upstream_names_becomes_a_target_of_its_own_or_is_refused(reference: str) -> None:
    try:
        target = resolve_target(STREAM, reference)
    except UpstreamError:
        return
    assert target.startswith("/")
    assert target.isascii()
    assert target.isprintable()
    assert not set(target) & set(" \\#")
    assert urlsplit(f"http://up.example:9000{target}").netloc == "up.example:9000"


@pytest.mark.parametrize(
    ("stream", "reference"),
    [
        ("http://up.example/sse", "http://up.example:80/m"),
        ("https://up.example/sse", "https://UP.example:443/m"),
        ("http://up.example:80/sse", "http://up.example/m"),
        ("http://[::1]:9000/sse", "http://[::1]:9000/m"),
    ],
)
def test_one_origin_has_several_spellings(stream: str, reference: str) -> None:
    assert resolve_target(stream, reference) == "/m"


@pytest.mark.parametrize(
    "reference",
    [
        "", "https://up.example:9000/m", "http://up.example/m", "http://up.example:9001/m", "//up.example/m",
        "http://up.example.evil:9000/m", "http://a@up.example:9000/m", "http://up.example:9000@evil/m", "mailto:a@b",
        "http://up.example:x/m", "http://[/m", "\\\\evil\\m", "/m\t", "/m\n/n", "/é", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_another_origin_is_refused_in_every_spelling(reference: str) -> None:
    with pytest.raises(UpstreamError) as refused:
        resolve_target(STREAM, reference)
    assert refused.value.reason is Reason.UPSTREAM_PROTOCOL


@pytest.mark.parametrize(("length", "good"), [(MAX_TARGET_BYTES, True), (MAX_TARGET_BYTES + 1, False)])
def test_a_target_fits_into_a_request_line(length: int, good: bool) -> None:
    reference = "/" + "m" * (length - 1)
    if good:
        assert resolve_target(STREAM, reference) == reference
    else:
        with pytest.raises(UpstreamError):
            resolve_target(STREAM, reference)


# Events


def make_endpoints(bound: list[str]) -> Endpoints:
    def bind(target: str) -> str:
        bound.append(target)
        return "sealed"

    return Endpoints(STREAM, "messages", bind)


@pytest.mark.parametrize(
    ("event", "rewritten"),
    [
        (b"event: endpoint\ndata: /m?s=1\n\n", b"event: endpoint\ndata: messages?session_id=sealed\n\n"),
        (b"event:endpoint\r\ndata:/m?s=1\r\n\r\n", b"event:endpoint\r\ndata: messages?session_id=sealed\r\n\r\n"),
        (
            b"id: 1\nretry: 5\ndata: /m?s=1\nevent: Endpoint \n\n",
            b"id: 1\nretry: 5\ndata: messages?session_id=sealed\nevent: Endpoint \n\n",
        ),
        (
            b"event: message\ndata: /m?s=1\nevent: endpoint\n\n",
            b"event: message\ndata: messages?session_id=sealed\nevent: endpoint\n\n",
        ),
    ],
)
def test_of_an_endpoint_only_the_url_changes(event: bytes, rewritten: bytes) -> None:
    bound: list[str] = []
    assert make_endpoints(bound).rewrite_event(event) == rewritten
    assert bound == ["/m?s=1"]


@pytest.mark.parametrize("event", [b"data: /m\n\n", b"event: message\ndata: endpoint\n\n", b"event: ping\n\n", b"\n"])
def test_any_other_event_passes_byte_for_byte(event: bytes) -> None:
    bound: list[str] = []
    assert make_endpoints(bound).rewrite_event(event) is event
    assert bound == []


def test_every_endpoint_is_rewritten_not_only_the_first() -> None:
    bound: list[str] = []
    endpoints = make_endpoints(bound)
    for number in range(3):
        endpoints.rewrite_event(b"event: endpoint\ndata: /m%d\n\n" % number)
    assert bound == ["/m0", "/m1", "/m2"]
