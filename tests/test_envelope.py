"""The outside of a request: one reading, or a refusal."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.envelope import (
    LOOPBACK_NAMES,
    SINGLETONS,
    Target,
    check_framing,
    check_host,
    check_json_content_type,
    check_origin,
    parse_query,
    parse_target,
)
from proxy.errors import Reason, RequestError

PLAIN = "ABCxyz019-._~!$&'()*+,=:@"
segments = st.text(PLAIN + ' äß€%;?#\\/[]{}"<>|^`\0\x7f', min_size=1, max_size=6)


def refuse(check: Callable[[], object]) -> Reason:
    with pytest.raises(RequestError) as refused:
        check()
    return refused.value.reason


def quote_canonically(text: str) -> str:
    """The one spelling of a segment: only what may not stand plain is escaped, in capitals."""
    return "".join(c if c in PLAIN else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


# Targets.


@given(st.lists(segments, min_size=1, max_size=4), st.sampled_from(["", "?", "?a=b", "?a=%20&b=/?:@", "?%c3%a4"]))
def test_the_one_spelling_of_a_path_passes_unchanged(words: list[str], query: str) -> None:
    path = "/" + "/".join(map(quote_canonically, words))
    never = any(set(word) & set("/\\%\0\x7f") for word in words) or {".", ".."} & set(words)
    if never:
        assert refuse(lambda: parse_target(path + query)) is Reason.TARGET_NOT_CANONICAL
        return
    assert parse_target(path + query) == Target(path, query[1:], path + query)
    assert unquote(path) == "/" + "/".join(words)


@given(st.text(st.sampled_from("/.%25eEfFcC0aA;\\#?x~"), max_size=12))
def test_what_passes_means_the_same_to_a_careless_reader(raw: str) -> None:
    """One that decodes twice, turns back slashes, cuts parameters and resolves dots."""
    try:
        path = parse_target(raw).path
    except RequestError:
        return
    assert raw.startswith(path)
    once = unquote_to_bytes(path).decode()
    careless = posixpath.normpath(unquote(unquote(re.sub(r";[^/]*", "", path))).replace("\\", "/"))
    assert careless == once
    assert "//" not in once


@given(st.text(PLAIN, min_size=1, max_size=8), st.data())
def test_an_escape_of_what_may_stand_plain_is_refused(word: str, data: st.DataObject) -> None:
    """Sub-delimiters are the exception: clients differ on which of them they escape."""
    plain = re.sub(r"[^A-Za-z0-9._~-]", "x", word)
    at = data.draw(st.integers(0, len(plain) - 1))
    escaped = f"/{plain[:at]}%{ord(plain[at]):02X}{plain[at + 1 :]}"
    assert refuse(lambda: parse_target(escaped)) is Reason.TARGET_NOT_CANONICAL


@pytest.mark.parametrize(
    "raw",
    ["", "*", "a", "a/b", "//", "//a", "/a/", "/a//b", "/.", "/..", "/a/.", "/a/..", "/a/../b", "/./a", "/a;b",
     "/a;", "/a#b", "/a?b#c", "/a?b c", "/a?b%", "/a?b%zz", "/a?\0", "/a?ä", "/a b", "/a\tb", "/a\\b", "/ä", "/a%",
     "/a%2", "/a%zz", "/a%2f", "/a%2F", "/a%5C", "/a%5c", "/a%2e", "/%2E%2E/a", "/a%00", "/a%0A", "/a%7F", "/a%c3%a4",
     "/a%C3%28", "/a%C0%AF", "/a%E0%80%AF", "/a%ED%A0%80", "/a%FF", "/a%25", "/a%252e", "/a%41", "/a\n", "\n/a",
     "/a\r\nX: y", "http://a/b", "https://a", "localhost:80", "/http://a", "/a[b]", "/a\"b", "/a<b>", "/a|b", "/a^b",
     "/a`b", "/a{b}"],
)  # fmt: skip
def test_a_target_that_could_be_read_in_two_ways_is_refused(raw: str) -> None:
    assert refuse(lambda: parse_target(raw)) is Reason.TARGET_NOT_CANONICAL


@pytest.mark.parametrize(
    "raw", ["/a", "/...", "/a.b/..c/d..", "/.well-known/x", "/a%20b", "/%C3%A4", "/a%3Bb", "/a?", "/a??"]
)
def test_a_target_with_one_reading_passes(raw: str) -> None:
    assert parse_target(raw).text == raw


# Framing.


def frame(*fields: tuple[str, str], version: tuple[int, int] = (1, 1)) -> None:
    check_framing(version, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields])


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (3, 0), (0, 0), (10, 1)])
def test_only_http_1_0_and_1_1_are_spoken(version: tuple[int, int]) -> None:
    assert refuse(lambda: frame(version=version)) is Reason.HTTP_VERSION_UNSUPPORTED


@pytest.mark.parametrize("name", SINGLETONS)
def test_a_header_two_readers_may_pick_differently_comes_once(name: str) -> None:
    value = "identity" if name == "Content-Encoding" else "100-continue" if name == "Expect" else "chunked"
    frame((name, value))
    assert refuse(lambda: frame((name, value), ("X-Between", ""), (name.swapcase(), value))) is Reason.HEADER_REPEATED


@pytest.mark.parametrize("name", sorted(set(SINGLETONS) - {"Transfer-Encoding", "Content-Encoding", "Expect"}))
@pytest.mark.parametrize("value", ["\xe9", "a\xff", "\0", "a\0b"])
def test_a_header_that_is_used_here_is_plain_ascii(name: str, value: str) -> None:
    assert refuse(lambda: frame((name, value))) is Reason.HEADER_INVALID


def test_other_headers_may_come_twice_and_say_anything() -> None:
    frame(("Accept", "a"), ("Accept", "b"), ("X-A", "\xe9"), ("X-A", ""))


def test_a_repeated_credential_is_left_to_those_who_challenge_for_another() -> None:
    frame(("Authorization", "a"), ("Authorization", "b"))


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, gzip", "gzip", "identity", "", "xchunked", ",chunked"])
def test_no_transfer_coding_but_chunked_is_read(coding: str) -> None:
    assert refuse(lambda: frame(("Transfer-Encoding", coding))) is Reason.TRANSFER_ENCODING_UNSUPPORTED
    frame(("Transfer-Encoding", "Chunked "))


def test_http_1_0_knows_no_transfer_coding() -> None:
    chunked = ("Transfer-Encoding", "chunked")
    assert refuse(lambda: frame(chunked, version=(1, 0))) is Reason.TRANSFER_ENCODING_UNSUPPORTED


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "gzip, identity", "x", ""])
def test_no_content_coding_is_read(coding: str) -> None:
    assert refuse(lambda: frame(("Content-Encoding", coding))) is Reason.CONTENT_ENCODING_UNSUPPORTED
    frame(("Content-Encoding", " Identity"))


@pytest.mark.parametrize("expectation", ["", "100", "100-continue, x", "x", "200-ok"])
def test_one_expectation_is_met(expectation: str) -> None:
    assert refuse(lambda: frame(("Expect", expectation))) is Reason.EXPECTATION_FAILED
    frame(("Expect", "100-Continue"))


# Host, origin, content type.


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:80"])
def test_a_host_on_the_list_passes_on_any_port(host: str) -> None:
    check_host(CIMultiDict(Host=host), LOOPBACK_NAMES)


@pytest.mark.parametrize(
    "host", ["evil", "localhost.", "localhost.evil", "evil.localhost", "127.0.0.2", "[::2]", "127.1", "2130706433", "0"]
)
def test_a_host_that_is_not_on_the_list_is_refused(host: str) -> None:
    assert refuse(lambda: check_host(CIMultiDict(Host=host), LOOPBACK_NAMES)) is Reason.HOST_NOT_ALLOWED
    check_host(CIMultiDict(Host=host), ())


@pytest.mark.parametrize(
    "host",
    ["", " ", "a b", "a,b", "a/b", "a:b", "a:", ":80", "a:123456", "a@b", "[::1", "::1", "[x]", "a\0", "ä"],
)
def test_a_malformed_host_is_refused_on_any_list(host: str) -> None:
    for allowed in (LOOPBACK_NAMES, ()):
        assert refuse(lambda allowed=allowed: check_host(CIMultiDict(Host=host), allowed)) is Reason.HEADER_INVALID  # type: ignore[misc]


def test_a_missing_host_is_refused() -> None:
    assert refuse(lambda: check_host(CIMultiDict(), ())) is Reason.HEADER_INVALID


def test_a_list_may_bind_a_name_to_a_port() -> None:
    check_host(CIMultiDict(Host="Api.Example:8443"), ["api.example:8443"])
    assert refuse(lambda: check_host(CIMultiDict(Host="api.example"), ["api.example:8443"])) is Reason.HOST_NOT_ALLOWED


@pytest.mark.parametrize("origin", ["https://evil", "null", "", "https://good:443", "http://good", "https://GOOD", "*"])
def test_an_origin_is_compared_whole(origin: str) -> None:
    allowed = ["https://good"]
    assert refuse(lambda: check_origin(CIMultiDict(Origin=origin), allowed)) is Reason.ORIGIN_NOT_ALLOWED
    check_origin(CIMultiDict(Origin="https://good"), allowed)
    check_origin(CIMultiDict(), allowed)


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json;charset=utf-8", "application/json; charset=UTF-8",
     'application/json; charset="utf-8"', "application/json ;charset=utf-8", "application/json;"],
)  # fmt: skip
def test_json_in_utf_8_is_read(kind: str) -> None:
    check_json_content_type(CIMultiDict({"Content-Type": kind}))


@pytest.mark.parametrize(
    "kind",
    ["", "Application/JSON", "text/plain", "application/json, text/plain", "text/plain, application/json",
     "application/json;charset=utf-16", "application/json;charset=utf-8;x=y", "application/json;x=y",
     "application/jsonx", "application/json\0", "application/json-patch+json", "*/*",
     "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_any_other_content_type_is_refused(kind: str) -> None:
    unsupported = Reason.CONTENT_TYPE_UNSUPPORTED
    assert refuse(lambda: check_json_content_type(CIMultiDict({"Content-Type": kind}))) is unsupported
    assert refuse(lambda: check_json_content_type(CIMultiDict())) is unsupported


def test_the_root_is_a_target_at_which_nothing_is_served() -> None:
    assert parse_target("/") == Target("/", "", "/")


# Queries.


@given(st.dictionaries(st.from_regex(r"[b-j][b-j_]{0,5}", fullmatch=True), st.text(max_size=6), max_size=4))
def test_members_are_read_decoded(members: dict[str, str]) -> None:
    folded = {name[:1] + name[1:].replace("_", "") for name in members}
    if len(folded) == len(members):
        assert parse_query(urlencode(members)) == members


@pytest.mark.parametrize(
    ("query", "members"),
    [
        ("", {}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("&&a=1&", {"a": "1"}),
        ("a=b+c%20d", {"a": "b c d"}),
        ("a=%C3%A4&b=?/", {"a": "ä", "b": "?/"}),
        ("tenants=x&user=y", {"tenants": "x", "user": "y"}),
    ],
)
def test_a_query_is_read_as_upstreams_read_it(query: str, members: dict[str, str]) -> None:
    assert parse_query(query) == members


WITHHELD = ["tenant_id", "Tenant", "TENANT_ID", "tenantId", "userid", "tenant%5B%5D", "tenant%5Bid%5D", "tenant.id",
            "%20tenant_id", "user%5Fid", "user+id"]  # fmt: skip


@pytest.mark.parametrize("name", WITHHELD)
def test_a_query_that_speaks_for_somebody_in_any_dialect_is_refused(name: str) -> None:
    for query in (f"{name}=x", name, f"a=b&{name}=x", f"{name}=acme"):
        assert refuse(lambda query=query: parse_query(query)) is Reason.QUERY_NOT_ALLOWED  # type: ignore[misc]


@pytest.mark.parametrize("name", WITHHELD[1:-2])
def test_a_judged_member_passes_in_its_one_spelling_and_once(name: str) -> None:
    allowed = ["tenant_id", "user_id"]
    assert parse_query("tenant_id=acme&a=b", allowed) == {"tenant_id": "acme", "a": "b"}
    assert parse_query("user%5Fid=x", allowed) == {"user_id": "x"}
    for query in (f"{name}=acme", f"tenant_id=acme&{name}=acme", "tenant_id=acme&tenant_id=acme", "tenant=acme"):
        assert refuse(lambda query=query: parse_query(query, allowed)) is Reason.QUERY_NOT_ALLOWED  # type: ignore[misc]


@pytest.mark.parametrize(
    "query", ["Format=x", "format%5B%5D=x", "format=x&for_mat=y", "for.mat=x", "format=x&format=x"]
)
def test_no_other_member_passes_for_one_that_is_judged(query: str) -> None:
    assert refuse(lambda: parse_query(query, ["format"])) is Reason.QUERY_NOT_ALLOWED


@pytest.mark.parametrize("query", ["a=1&a=2", "a=1&A=1", "a&a", "a_b=1&ab=2", "a%5B%5D=1&a%5B%5D=2", "a.b=1&a_b=1"])
def test_a_member_that_stands_there_twice_is_refused(query: str) -> None:
    assert refuse(lambda: parse_query(query)) is Reason.QUERY_NOT_ALLOWED


def test_what_may_stand_twice_is_left_out_because_nothing_can_judge_it() -> None:
    assert parse_query("tag=1&a=b&tag=2", (), ["tag"]) == {"a": "b"}
    assert parse_query("tag%5B%5D=1&tag%5B%5D=2", (), ["tag[]"]) == {}
    for query in ("Tag=1&tag=2", "tag%5B%5D=1", "TAG=1", "tag=1&a=1&a=2"):
        assert refuse(lambda query=query: parse_query(query, (), ["tag"])) is Reason.QUERY_NOT_ALLOWED  # type: ignore[misc]


@pytest.mark.parametrize("name", ["token", "Access_Token", "accessToken", "apiKey", "API_KEY", "k%65y", "token%5B%5D"])
def test_no_route_takes_a_key_in_its_query(name: str) -> None:
    unescaped = unquote(name)
    for allowed, repeatable in (((), ()), ([unescaped], ()), ((), [unescaped])):
        refused = refuse(lambda a=allowed, r=repeatable: parse_query(f"{name}=x", a, r))  # type: ignore[misc]
        assert refused is Reason.CREDENTIAL_MISPLACED


@pytest.mark.parametrize(
    "query", ["a%00=1", "tenant_id%00=x", "%0Atenant_id=x", "a%7F=1", "a%FF=1", "a=%C3%28", "%C0%AF"]
)
def test_a_query_that_some_would_cut_or_mend_is_refused(query: str) -> None:
    assert refuse(lambda: parse_query(query)) is Reason.QUERY_NOT_ALLOWED


@given(st.text(st.sampled_from("tenaTENAid_[].%5B0&=+ "), max_size=20))
def test_whatever_passes_names_no_tenant_but_as_judged(query: str) -> None:
    try:
        members = parse_query(query, ["tenant_id"])
    except RequestError:
        return
    careless = [re.split(r"[\[]", name.strip().lower())[0].replace("_", "") for name, _ in parse_qsl(query, True)]
    assert "tenant" not in careless
    assert careless.count("tenantid") == ("tenant_id" in members)


def test_a_query_whose_members_some_would_separate_otherwise_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        parse_target("/mcp/v1?a=1;tenant_id=x")
    assert refused.value.reason is Reason.TARGET_NOT_CANONICAL
