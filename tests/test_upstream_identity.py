"""Identity headers: what they say can be read back, and nothing in them can say more than one line."""

from __future__ import annotations

import string
from dataclasses import replace
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.identity import Asker, Claims, KeyId, Owner, OwnerId, Principal
from proxy.upstream_identity import (
    NO_IDENTITY,
    Claim,
    add_credential,
    form_claim,
    form_value,
    make_assertion_identity,
    make_header_identity,
)

OWNER = Owner(OwnerId("00000000-0000-4000-8000-00000000000a"), "acme", "local", "ada", "pro")
PRINCIPAL = Principal(
    KeyId("Key000000001"), OWNER, frozenset({"workflow:run:b", "agent:list"}), (), 1, None, 0.0, Claims(())
)
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=60) | st.text("% \r\n\t\0ä", max_size=8)


class Voucher:
    """Vouches in plain words."""

    def get(self, asker: Asker, audience: str) -> str:
        return f"{asker.owner.subject}-for-{audience}"

    def get_own(self, audience: str) -> str:
        return f"proxy-for-{audience}"


def decode(value: str) -> str:
    return unquote_to_bytes(value).decode("utf-8", "surrogatepass")


@given(texts)
def test_percent_decoding_gives_any_text_back(text: str) -> None:
    assert decode(form_value(text)) == text


@given(texts, texts)
def test_two_texts_never_have_the_same_value(one: str, other: str) -> None:
    assume(one != other)
    assert form_value(one) != form_value(other)


@given(texts)
def test_a_value_is_printable_ascii_without_outer_blanks(text: str) -> None:
    value = form_value(text)
    assert set(value) <= {*string.ascii_letters, *string.digits, *string.punctuation, " "}
    assert value == value.strip()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ada@example.org", "ada@example.org"),
        ('Ada Lovelace, Countess; "of" L\'lace', 'Ada Lovelace, Countess; "of" L\'lace'),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("", ""),
        ("  ada ", "%20%20ada%20"),
        (" ", "%20"),
        ("ada\r\nX-User-Id: root", "ada%0D%0AX-User-Id: root"),
        ("Zoë", "Zo%C3%AB"),
        ("\u2028\x7f\0\t", "%E2%80%A8%7F%00%09"),
    ],
)
def test_plain_values_stay_readable_and_the_rest_is_encoded(text: str, value: str) -> None:
    assert form_value(text) == value


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("sub", "ada"),
        ("tenant_id", "acme"),
        ("zaru_tier", "pro"),
        ("scopes", "agent:list workflow:run:b"),
        ("key_id", "Key000000001"),
    ],
)
def test_each_claim_says_what_the_principal_is(claim: Claim, value: str) -> None:
    assert form_claim(PRINCIPAL, claim) == value


@given(st.frozensets(texts.filter(bool)))
def test_scopes_are_parted_by_blanks_whatever_they_hold(scopes: frozenset[str]) -> None:
    value = form_claim(replace(PRINCIPAL, grants=scopes), "scopes")
    assert value is not None
    assert [decode(scope) for scope in value.split()] == sorted(scopes)


@given(texts)
def test_no_claim_can_end_its_line(text: str) -> None:
    owner = replace(OWNER, subject=text, tenant_id=text, tier=text)
    principal = replace(PRINCIPAL, owner=owner, grants=frozenset({text, "agent:list"}))
    identity = make_header_identity({"X-User": "sub", "X-Tenant": "tenant_id", "X-Tier": "zaru_tier", "X-S": "scopes"})
    for _, value in identity.form(principal):
        assert value.isascii()
        assert value == "" or value.isprintable()


def test_headers_carry_what_the_settings_say_in_their_order() -> None:
    identity = make_header_identity({"X-User-Id": "sub", "X_Tenant": "tenant_id"})
    assert identity.form(PRINCIPAL) == [("X-User-Id", "ada"), ("X_Tenant", "acme")]
    assert identity.names == {"xuserid", "xtenant"}
    assert identity.form_own() == []


def test_an_assertion_stands_alone_in_its_header() -> None:
    identity = make_assertion_identity(Voucher(), "mcp", "X-Zaru-User-Token")
    assert identity.form(PRINCIPAL) == [("X-Zaru-User-Token", "ada-for-mcp")]
    assert identity.form_own() == [("X-Zaru-User-Token", "proxy-for-mcp")]
    assert identity.names == {"xzaruusertoken"}


@pytest.mark.parametrize("header", ["Authorization", "authorization", "AUTHORIZATION"])
def test_in_authorization_an_assertion_is_a_bearer_token(header: str) -> None:
    identity = make_assertion_identity(Voucher(), "api", header)
    assert identity.form(PRINCIPAL) == [(header, "Bearer ada-for-api")]
    assert identity.form_own() == [(header, "Bearer proxy-for-api")]
    assert identity.names == {"authorization"}


def test_a_credential_of_our_own_is_said_beside_whoever_asks_and_alone_for_ourselves() -> None:
    identity = add_credential(make_assertion_identity(Voucher(), "mcp", "X-Zaru-User-Token"), "ours")
    assert identity.form(PRINCIPAL) == [("Authorization", "Bearer ours"), ("X-Zaru-User-Token", "ada-for-mcp")]
    assert identity.form_own() == [("Authorization", "Bearer ours"), ("X-Zaru-User-Token", "proxy-for-mcp")]
    assert identity.names == {"xzaruusertoken"}
    assert "ours" not in repr(identity)


def test_where_nobody_needs_to_know_nothing_is_said() -> None:
    assert (NO_IDENTITY.form(PRINCIPAL), NO_IDENTITY.form_own(), NO_IDENTITY.names) == ([], [], frozenset())


@given(st.text(string.printable, max_size=40))
def test_ordinary_percent_decoders_read_it_too(text: str) -> None:
    assert unquote(form_value(text)) == text
