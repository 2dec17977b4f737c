"""What crosses the wall, and in which direction."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.headers import (
    HOP_BY_HOP,
    JUDGED,
    RELAYED,
    WITHHELD,
    WITHHELD_PREFIXES,
    form_client_headers,
    form_upstream_headers,
)
from proxy.upstream_identity import NO_IDENTITY, add_credential

OURS = {"accept-encoding", "x-request-id"}
names = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=20)
values = st.text(st.characters(min_codepoint=1, max_codepoint=0x10FFFF), max_size=10)


def cross(*fields: tuple[str, str], bearer_token: str | None = None) -> CIMultiDict[str]:
    """The fields as the upstream sees them."""
    identity = NO_IDENTITY if bearer_token is None else add_credential(NO_IDENTITY, bearer_token)
    return CIMultiDict(form_upstream_headers(fields, request_id="ours", identity=identity.form_own()))


def fold(name: str) -> str:
    """A name as CGI and WSGI see it."""
    return "".join(character if character.isalnum() else "_" for character in name.upper())


FOLDED = {fold(name) for name in WITHHELD | HOP_BY_HOP}
FOLDED_PREFIXES = tuple(fold(prefix) for prefix in WITHHELD_PREFIXES)


@st.composite
def aliases(draw: st.DrawFn) -> str:
    """A name of ours to say, in some other spelling."""
    name = draw(st.sampled_from(sorted(WITHHELD | HOP_BY_HOP) + [f"{prefix}x" for prefix in WITHHELD_PREFIXES]))
    return "".join(draw(st.sampled_from([c, c.upper()] if c.isalnum() else list("-_.!~+"))) for c in name)


@given(st.lists(st.tuples(names | aliases(), values), max_size=6))
def test_nothing_crosses_that_could_be_folded_into_a_name_of_ours(fields: list[tuple[str, str]]) -> None:
    for name, value in form_upstream_headers(fields, request_id="ours"):
        if (name, value) in (("Accept-Encoding", "identity"), ("X-Request-Id", "ours")):
            continue
        assert (name, value) in fields
        assert fold(name) not in FOLDED
        assert not fold(name).startswith(FOLDED_PREFIXES)
        assert value.isascii()
        assert value.isprintable()


@given(st.lists(st.tuples(names | aliases(), values), max_size=6))
def test_what_is_ours_to_say_is_said_once(fields: list[tuple[str, str]]) -> None:
    seen = cross(*fields, bearer_token="the-upstream-s-own")
    assert seen.getall("Authorization") == ["Bearer the-upstream-s-own"]
    assert seen.getall("X-Request-Id") == ["ours"]
    assert seen.getall("Accept-Encoding") == ["identity"]


def test_without_a_credential_of_our_own_none_is_sent() -> None:
    assert "Authorization" not in cross(("Authorization", "Bearer client"), ("Cookie", "a=b"))


def test_what_a_client_has_to_say_crosses_in_its_order() -> None:
    fields = [("Accept", "a"), ("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Param-Region", "eu"), ("Accept", "b"),
              ("User-Agent", "x"), ("Mcp-Session-Id", "s"), ("traceparent", "00-1")]  # fmt: skip
    assert form_upstream_headers(fields, request_id="r")[: len(fields)] == fields


@pytest.mark.parametrize(
    "name", ["X_Key_Id", "X.Key.Id", "X-Key-Id", "x-forwarded-for", "X_Forwarded_For", "Forwarded"]
)
def test_claims_of_identity_and_address_end_here(name: str) -> None:
    assert name not in cross((name, "forged"))


@pytest.mark.parametrize("value", ["a\tb", "ä", "\x7f", "a\u2028b", "\udcff"])
def test_a_value_two_readers_may_see_differently_is_dropped(value: str) -> None:
    assert "X-A" not in cross(("X-A", value))


def test_connection_names_are_struck_out_with_connection_itself() -> None:
    seen = cross(("Connection", "close, X-A"), ("connection", " x-b ,, TE"), ("X-A", "1"), ("X-B", "2"), ("X-C", "3"))
    assert list(seen) == ["X-C", "Accept-Encoding", "X-Request-Id"]


@pytest.mark.parametrize("name", sorted(JUDGED | OURS))
def test_connection_strikes_out_neither_what_was_judged_nor_what_is_ours(name: str) -> None:
    seen = cross((name, "client"), ("Connection", name.upper()))
    assert seen.getall(name) == (["ours"] if name == "x-request-id" else ["identity"] if name in OURS else ["client"])


@given(st.lists(st.tuples(names | st.sampled_from(sorted(RELAYED)), values), max_size=8))
def test_an_upstream_says_to_the_client_only_what_is_known_to_be_harmless(fields: list[tuple[str, str]]) -> None:
    seen = form_client_headers(CIMultiDict(fields), request_id="ours")
    assert {name.lower() for name in seen} <= RELAYED | {
        "x-content-type-options", "content-security-policy", "server", "x-request-id",
    }  # fmt: skip
    assert seen.getall("X-Content-Type-Options") == ["nosniff"]
    assert seen.getall("Server") == ["aegis-proxy"]
    assert seen.getall("X-Request-Id") == ["ours"]
    assert [item for item in seen.items() if item[0].lower() in RELAYED] == [
        item for item in fields if item[0].lower() in RELAYED
    ]


def test_the_upstream_s_own_affairs_are_not_on_the_list() -> None:
    private = {"set-cookie", "www-authenticate", "proxy-authenticate", "location", "server", "via", "x-powered-by",
               "transfer-encoding", "content-length", "content-encoding", "connection", "refresh", "link",
               "access-control-allow-origin", "x-request-id", "strict-transport-security"}  # fmt: skip
    assert not private & RELAYED
