"""The authorization code flow: everything derived from one cookie, and nothing of it told."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from proxy.errors import CredentialError, UnprovenError
from proxy.provider_codes import (
    ProviderPage,
    check_flow,
    form_authorization_url,
    form_redemption,
    parse_id_token,
    read_code,
    read_onward,
)
from proxy.provider_documents import ProviderError, ProviderMetadata
from proxy.provider_tokens import ProviderClaims

ISSUER, VALUE = "https://id.example", "v" * 43
PAGE = ProviderPage("the page", "a:b c%", "https://aegis.example/settings/sign-in/callback")
METADATA = ProviderMetadata("https://id.example/keys")


def ask(value: str = VALUE, base: str = "https://id.example/authorize") -> dict[str, str]:
    return dict(parse_qsl(urlsplit(form_authorization_url(base, PAGE, value, "/settings/api-keys")).query))


def test_an_address_that_has_a_query_keeps_it() -> None:
    assert ask(base="https://id.example/authorize?tenant=7")["tenant"] == "7"


def test_what_comes_back_to_the_same_browser_is_read() -> None:
    members = {"state": ask()["state"], "code": "c"}
    assert (read_code(members, VALUE, ISSUER), read_onward(members)) == ("c", "/settings/api-keys")
    assert read_code({**members, "iss": ISSUER}, VALUE, ISSUER) == "c"
    assert read_onward({}) == ""


@pytest.mark.parametrize("value", [None, "", "w" * 43])
def test_what_comes_back_to_another_is_not(value: str | None) -> None:
    with pytest.raises(CredentialError, match="another browser"):
        read_code({"state": ask()["state"], "code": "c"}, value, ISSUER)


def test_the_secret_goes_where_the_provider_wants_it() -> None:
    form, headers = form_redemption("c", PAGE, METADATA, "v")
    assert headers == {"Authorization": "Basic dGhlJTIwcGFnZTphJTNBYiUyMGMlMjU="}
    assert "client_secret" not in form
    form, headers = form_redemption("c", PAGE, ProviderMetadata("", posts_secret=True), "v")
    assert (form["client_secret"], headers) == ("a:b c%", {})
    form, headers = form_redemption("c", ProviderPage("p", None, "u"), METADATA, "v")
    assert ("client_secret" in form, headers) == (False, {})
    assert "a:b" not in repr(PAGE)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id_token": 5}', b'{"id_token": null}'])
def test_an_answer_without_an_id_token_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(ProviderError):
        parse_id_token(200, body)


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "unsupported_grant_type"])
def test_settings_that_the_provider_does_not_take_count_against_no_visitor(error: str) -> None:
    with pytest.raises(ProviderError, match=rf"{error}: look at console\.client_id"):
        parse_id_token(401, f'{{"error": "{error}"}}'.encode())


@pytest.mark.parametrize("body", [b'{"error": "invalid_grant"}', b'{"error": ["invalid_client"]}', b"[]", b"no JSON"])
def test_a_code_that_is_not_taken_counts_against_its_address(body: bytes) -> None:
    with pytest.raises(UnprovenError):
        parse_id_token(400, body)


def test_an_id_token_is_of_this_flow_and_for_us() -> None:
    good = ProviderClaims(ISSUER, "ada", None, None, None, 1.0, ask()["nonce"], "the page")
    check_flow(good, PAGE, VALUE)
    for nonce, party in ((None, None), ("", None), (ask("w" * 43)["nonce"], None), (ask()["nonce"], "another")):
        with pytest.raises(CredentialError):
            check_flow(ProviderClaims(ISSUER, "ada", None, None, None, 1.0, nonce, party), PAGE, VALUE)
