"""What the identity provider publishes, and which of its keys may prove a token."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from proxy.provider_documents import (
    Algorithm,
    KeySet,
    ProviderError,
    check_provider_url,
    parse_keys,
    parse_metadata,
)
from tests.issuer import IssuerKey, make_key

ISSUER = "https://id.example/realms/aegis"
EVERY = get_args(Algorithm)
RSA, EC, EDWARDS = make_key(), make_key("ES256", "curve"), make_key("EdDSA", "edwards")


def form_set(*members: Any) -> bytes:
    return json.dumps({"keys": list(members)}).encode()


def read(*members: Any, algorithms: tuple[str, ...] = EVERY) -> KeySet:
    """The set with one good key behind whatever is tried, so that it is never empty."""
    return parse_keys(form_set(*members, make_key("EdDSA", "good").jwk), algorithms)


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        ISSUER,
        "https://id.example:8443/keys?appid=7",
        "https://[2001:db8::1]/",
        "http://127.0.0.1:8081/realms/aegis",
        "http://localhost:1",
        "http://[::1]:9",
    ],
)
def test_an_address_leads_to_the_provider_and_nobody_between(url: str) -> None:
    assert check_provider_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys",
        "http://10.0.0.1/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "https://user:password@id.example/",
        "https://id.example/#keys",
        "https://id.example/a b",
        "https://id.example/\n",
        "https://",
        "https:///keys",
        "https://id.example:port/",
        "https://id.example:99999/",
        "https://id.example\\@evil.example/",
        "https://[::1",
        "ftp://id.example/",
        "file:///etc/keys",
        "https://idé.example/",
    ],
)
def test_what_somebody_else_could_answer_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_provider_url(url)


# --- metadata ------------------------------------------------------------------------------------------------------


def test_metadata_says_where_the_keys_are() -> None:
    body = json.dumps({"issuer": ISSUER, "jwks_uri": "https://id.example/keys", "other": 1}).encode()
    assert parse_metadata(body, ISSUER).jwks_url == "https://id.example/keys"


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": ISSUER + "/", "jwks_uri": "https://id.example/keys"},
        {"issuer": None, "jwks_uri": "https://id.example/keys"},
        {"jwks_uri": "https://id.example/keys"},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "http://id.example/keys"},
        {"issuer": ISSUER, "jwks_uri": ["https://id.example/keys"]},
        {"issuer": ISSUER, "jwks_uri": None},
        [],
        "text",
        None,
    ],
)
def test_metadata_of_another_issuer_or_without_keys_is_none(document: object) -> None:
    with pytest.raises(ProviderError) as caught:
        parse_metadata(json.dumps(document).encode(), ISSUER)
    assert "example" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'{"issuer": NaN}', b"[" * 100_000])
def test_what_is_no_json_is_no_document(body: bytes) -> None:
    with pytest.raises(ProviderError, match="not a JSON object"):
        parse_metadata(body, ISSUER)
    with pytest.raises(ProviderError, match="not a JSON object"):
        parse_keys(body, EVERY)


# --- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_key_that_names_its_algorithm_proves_that_one_alone(algorithm: str) -> None:
    key = read(make_key(algorithm, "k").jwk).keys[0]
    assert key.kid == "k"
    assert key.algorithms == {algorithm}


@pytest.mark.parametrize(
    ("key", "proves"),
    [
        (RSA, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (EC, {"ES256"}),
        (make_key("ES512", "k"), {"ES512"}),
        (EDWARDS, {"EdDSA"}),
    ],
)
def test_a_key_that_names_none_proves_those_of_its_kind(key: IssuerKey, proves: set[str]) -> None:
    jwk = {name: value for name, value in key.jwk.items() if name != "alg"}
    assert read(jwk).keys[0].algorithms == proves
    for algorithm in EVERY:
        pinned = read(jwk, algorithms=(algorithm, "EdDSA")).find(key.kid, algorithm)
        assert (pinned is not None) is (algorithm in proves)


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
        RSA.jwk | {"use": "enc"},
        RSA.jwk | {"use": 1},
        RSA.jwk | {"key_ops": ["sign"]},
        RSA.jwk | {"d": "AQAB"},
        RSA.jwk | {"alg": "HS256"},
        RSA.jwk | {"alg": "none"},
        RSA.jwk | {"alg": "ES256"},
        RSA.jwk | {"alg": None},
        RSA.jwk | {"kty": "EC", "alg": "ES256"},
        RSA.jwk | {"kty": ["RSA"]},
        RSA.jwk | {"kid": 7},
        RSA.jwk | {"crv": "P-256"},
        RSA.jwk | {"n": "AQAB"},
        RSA.jwk | {"n": 5},
        RSA.jwk | {"n": "?"},
        RSA.jwk | {"e": None},
        make_key("RS256", "short", bits=1024).jwk,
        EC.jwk | {"crv": "P-384", "alg": "ES384"},
        EC.jwk | {"crv": "secp256k1"},
        EC.jwk | {"x": EC.jwk["y"]},
        EC.jwk | {"x": ""},
        EDWARDS.jwk | {"crv": "X25519"},
        EDWARDS.jwk | {"crv": "Ed448"},
        EDWARDS.jwk | {"x": "AQAB"},
        {},
        [],
        "text",
        None,
    ],
)
def test_what_may_not_prove_a_token_is_passed_over(member: object) -> None:
    assert [key.kid for key in read(member).keys] == ["good"]


@pytest.mark.parametrize("body", [b'{"keys": []}', b'{"keys": {}}', b"{}", form_set({"kty": "oct", "k": "AA"})])
def test_a_set_without_a_key_we_could_use_is_a_fault_of_the_provider(body: bytes) -> None:
    with pytest.raises(ProviderError, match="key set"):
        parse_keys(body, EVERY)


def test_a_key_of_an_algorithm_that_is_not_allowed_is_none() -> None:
    with pytest.raises(ProviderError, match="ES256"):
        parse_keys(form_set(RSA.jwk), ("ES256",))


# --- which key -----------------------------------------------------------------------------------------------------


def test_a_key_is_found_by_its_id_and_only_for_its_algorithm() -> None:
    keys = read(RSA.jwk, EC.jwk)
    assert keys.find("first", "RS256") is keys.keys[0]
    assert keys.find("first", "ES256") is None
    assert keys.find("curve", "ES256") is keys.keys[1]
    assert keys.find("nobody", "RS256") is None
    assert keys.find("", "RS256") is None


def test_a_token_without_an_id_means_the_one_key_of_its_algorithm() -> None:
    keys = read(RSA.jwk, EC.jwk)
    assert keys.find(None, "RS256") is keys.keys[0]
    with pytest.raises(ValueError, match="several"):
        read(RSA.jwk, make_key("RS256", "second").jwk).find(None, "RS256")


def test_two_keys_of_one_id_are_told_apart_by_algorithm_or_not_at_all() -> None:
    keys = read(make_key("RS256", "same").jwk, make_key("ES256", "same").jwk)
    assert keys.find("same", "ES256") is keys.keys[1]
    with pytest.raises(ValueError, match="several"):
        read(RSA.jwk, make_key("RS256", "second").jwk | {"kid": "first"}).find("first", "RS256")
