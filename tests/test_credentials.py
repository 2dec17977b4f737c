"""What was presented: one key, none, or something that is no key."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.credentials import parse_credential
from proxy.errors import CredentialError, Reason
from proxy.identity import KeyId
from proxy.keys.legacy import LegacyToken
from proxy.keys.token import ALPHABET, ID_LENGTH, SECRET_LENGTH, form_token

TOKEN = form_token(KeyId("0123456789ab"), "S" * SECRET_LENGTH)
tokens = st.builds(
    form_token,
    st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH).map(KeyId),
    st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH),
)


def refuse(*values: str, query: str = "") -> CredentialError:
    """The refusal of these Authorization headers."""
    with pytest.raises(CredentialError) as refused:
        parse_credential(CIMultiDict(("Authorization", value) for value in values), query)
    return refused.value


def test_nothing_presented_is_none() -> None:
    assert parse_credential(CIMultiDict({"Cookie": f"key={TOKEN.text}"}), "workflow=a&page=2") is None


@given(tokens, st.sampled_from(["Bearer", "bearer", "BEARER", "bEaReR"]), st.sampled_from([" ", "  ", "   "]))
def test_a_key_is_read_whatever_the_case_of_its_scheme(token: object, scheme: str, gap: str) -> None:
    assert isinstance(token, type(TOKEN))
    presented = parse_credential(CIMultiDict({"authorization": f"{scheme}{gap}{token.text}"}))
    assert presented is not None
    assert presented.token == token


def test_the_secret_stands_in_no_repr() -> None:
    presented = parse_credential(CIMultiDict({"Authorization": f"Bearer {TOKEN.text}"}))
    assert TOKEN.secret not in repr(presented)
    assert TOKEN.key_id in repr(presented)


@given(st.text(ALPHABET, min_size=40, max_size=40))
def test_a_token_of_the_older_form_is_read_as_its_digest(text: str) -> None:
    presented = parse_credential(CIMultiDict({"Authorization": f"Bearer aegis_{text}"}))
    assert presented is not None
    assert isinstance(presented.token, LegacyToken)
    assert presented.token.digest == hashlib.sha256(f"aegis_{text}".encode()).digest()
    assert presented.key_id is None
    assert text not in repr(presented)
    assert presented.token.digest.hex() not in repr(presented)


@given(st.text(max_size=100))
def test_what_is_no_key_is_refused_and_never_quoted(text: str) -> None:
    refusal = refuse(f"Bearer #{text}#")
    assert refusal.reason is Reason.CREDENTIAL_MALFORMED
    assert f"#{text}#" not in refusal.detail


@pytest.mark.parametrize(
    "value",
    [
        "", "Bearer", "Bearer ", "Basic YTpi", TOKEN.text, f"Bearer\t{TOKEN.text}", f"Bearer{TOKEN.text}",
        f" Bearer {TOKEN.text}", f"Bearer {TOKEN.text}\t", f"Bearer {TOKEN.text}\0", f"Bearer {TOKEN.text},x",
        f"Bearer {TOKEN.text} {TOKEN.text}", f"Bearer \"{TOKEN.text}\"", f"Bearer {TOKEN.text[:-1]}",
        f"Bearer {TOKEN.text}0", f"Bearer {TOKEN.text.replace('0', '٠')}", f"Bearer {TOKEN.text.upper()}",
        f"Token {TOKEN.text}", f"Bearer: {TOKEN.text}", f"Bearer {TOKEN.text.replace('S', 'T', 1)}",
        f"Bearer aegis_{'a' * 39}", f"Bearer aegis_{'a' * 41}", f"Bearer aegis_{'a' * 39}-",
        f"Bearer aegis_{'a' * 39}_", f"Bearer Aegis_{'a' * 40}", f"Bearer aegis_{'a' * 39}٠",
    ],
)  # fmt: skip
def test_a_header_that_is_not_exactly_one_bearer_key_is_malformed(value: str) -> None:
    refusal = refuse(value)
    assert refusal.reason is Reason.CREDENTIAL_MALFORMED
    assert TOKEN.secret not in refusal.detail


@pytest.mark.parametrize("values", [(f"Bearer {TOKEN.text}",) * 2, (f"Bearer {TOKEN.text}", "Basic x"), ("", "")])
def test_two_authorization_headers_are_refused_even_if_they_agree(values: tuple[str, ...]) -> None:
    assert refuse(*values).reason is Reason.CREDENTIAL_REPEATED
    assert refuse(*reversed(values)).reason is Reason.CREDENTIAL_REPEATED


@pytest.mark.parametrize("name", ["access_token", "ACCESS_TOKEN", "token", "api_key", "apikey", "Key"])
@pytest.mark.parametrize("form", ["{}=x", "{}=", "a=b&{}=x&c=d", "a&{}=x", "{}%3Dx", "next=%2Fa%3Fb%26{}%3Dx"])
def test_a_query_member_that_holds_keys_is_refused(name: str, form: str) -> None:
    refusal = refuse(f"Bearer {TOKEN.text}", query=form.format(name))
    assert refusal.reason is Reason.CREDENTIAL_MISPLACED


@given(
    tokens.map(lambda token: token.text) | st.text(ALPHABET, min_size=40, max_size=40).map("aegis_{}".format),
    st.sampled_from(["{}", "x={}", "{}=x", "a=b&c={}&d=e", "a=%20{}", "xyz{}0", "x={}&x={}"]),
)
def test_a_key_anywhere_in_the_query_is_refused(text: str, form: str) -> None:
    refusal = refuse(query=form.replace("{}", text))
    assert refusal.reason is Reason.CREDENTIAL_MISPLACED
    assert text not in refusal.detail
    assert "revoke" in refusal.detail


def test_escapes_hide_neither_a_key_nor_the_name_of_its_member() -> None:
    for query in ("x=" + "".join(f"%{ord(c):02x}" for c in TOKEN.text), "%61ccess%5Ftoken=x"):
        assert refuse(query=query).reason is Reason.CREDENTIAL_MISPLACED


@pytest.mark.parametrize("query", ["tokens=3", "monkey=1", "a=token", "a=key=", "page_token_count=1", "q=aegis_"])
def test_a_query_that_only_looks_a_little_like_it_is_left_alone(query: str) -> None:
    assert parse_credential(CIMultiDict(), query) is None
