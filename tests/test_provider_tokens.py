"""Tokens of the identity provider: what is read, what is proven, what is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.assertions import TYPE, Assertions, make_signing_key
from proxy.errors import CredentialError, Reason
from proxy.provider_documents import VerificationKey, parse_keys
from proxy.provider_tokens import (
    MAX_TOKEN_BYTES,
    Expected,
    ProvenPayload,
    ProviderClaims,
    judge_claims,
    parse_token,
    prove,
)
from tests.issuer import AUDIENCE, IssuerKey, encode, form_hmac_token, form_token, make_key

NOW = 1_800_000_000.0
ISSUER = "https://id.example"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
EXPECTED = Expected(ISSUER, AUDIENCE, 30.0)
KEY = make_key()
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": int(NOW), "exp": int(NOW) + 300}


def get_public(key: IssuerKey) -> VerificationKey:
    return parse_keys(json.dumps({"keys": [key.jwk]}).encode(), [key.algorithm]).keys[0]


def read(text: str, key: IssuerKey = KEY, now: float = NOW) -> ProviderClaims:
    """All three steps."""
    return judge_claims(prove(parse_token(text, ALGORITHMS), get_public(key)), EXPECTED, now)


def refuse(step: Callable[[], object]) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        step()
    return caught.value


def change(**changes: object) -> dict[str, Any]:
    return {name: value for name, value in (CLAIMS | changes).items() if value is not ...}


# --- good ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_says_who_signed_in(algorithm: str) -> None:
    claims = change(tenant_id="acme", zaru_tier="pro", aegis_role="aegis:admin", nonce="n", other={"a": [1]})
    key = make_key(algorithm)
    assert read(form_token(key, claims), key) == ProviderClaims(
        ISSUER, "ada", "acme", "pro", "aegis:admin", NOW + 300, "n"
    )


def test_what_a_token_does_not_say_is_none() -> None:
    assert read(form_token(KEY, CLAIMS)) == ProviderClaims(ISSUER, "ada", None, None, None, NOW + 300)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_access_tokens_and_those_that_do_not_say_are_read(kind: str | None) -> None:
    assert read(form_token(KEY, CLAIMS, typ=kind)).subject == "ada"


def test_an_audience_may_stand_in_a_list() -> None:
    assert read(form_token(KEY, change(aud=["account", AUDIENCE]))).subject == "ada"


def test_a_token_without_the_id_of_its_key_can_be_read() -> None:
    assert parse_token(form_token(KEY, CLAIMS, kid=None), ALGORITHMS).kid is None


# --- the head ------------------------------------------------------------------------------------------------------

TEXT = form_token(KEY, CLAIMS)
HEAD, BODY, SIGNATURE = TEXT.split(".")
HEADER = {"alg": "RS256", "kid": "first", "typ": "JWT"}

BAD_HEADS = {
    "empty": "",
    "one part": HEAD,
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{TEXT}.{SIGNATURE}",
    "five parts, encrypted": f"{TEXT}.{BODY}.{SIGNATURE}",
    "no signature": f"{HEAD}.{BODY}.",
    "padding": f"{HEAD}==.{BODY}.{SIGNATURE}",
    "blank": f"{HEAD}. {BODY}.{SIGNATURE}",
    "line end": TEXT + "\n",
    "plain base64": f"{HEAD}+/.{BODY}.{SIGNATURE}",
    "letters beyond ASCII": f"{HEAD}é.{BODY}.{SIGNATURE}",
    "digits beyond ASCII": f"{HEAD}٣.{BODY}.{SIGNATURE}",
    "NUL": f"{HEAD}\0.{BODY}.{SIGNATURE}",
    "impossible length": f"{HEAD[:-1]}AAAAA.{BODY}.{SIGNATURE}",
    "huge": f"{HEAD}.{'A' * MAX_TOKEN_BYTES}.{SIGNATURE}",
    "unsigned": f"{encode(json.dumps(HEADER | {'alg': 'none'}).encode())}.{BODY}.",
    "none with a signature": form_token(KEY, CLAIMS, alg="none"),
    "None": form_token(KEY, CLAIMS, alg="None"),
    "no algorithm": form_token(KEY, CLAIMS, alg=None),
    "algorithm of a list": form_token(KEY, CLAIMS, alg=["RS256"]),
    "another case": form_token(KEY, CLAIMS, alg="rs256"),
    "not pinned": form_token(make_key("RS384"), CLAIMS),
    "HMAC with the public key": form_hmac_token(json.dumps(KEY.jwk).encode(), CLAIMS, "first"),
    "header a list": form_token(KEY, CLAIMS, [HEADER]),
    "header a text": form_token(KEY, CLAIMS, "RS256"),
    "header no JSON": form_token(KEY, CLAIMS, b"{"),
    "header not UTF-8": form_token(KEY, CLAIMS, b'{"alg":"RS256","kid":"\xff"}'),
    "header with NaN": form_token(KEY, CLAIMS, b'{"alg":"RS256","kid":"first","n":NaN}'),
    "header twice alg": form_token(KEY, CLAIMS, b'{"alg":"none","alg":"RS256","kid":"first"}'),
    "header twice alg, escaped": form_token(KEY, CLAIMS, b'{"alg":"RS256","\\u0061lg":"none","kid":"first"}'),
    "header deep": form_token(KEY, CLAIMS, b'{"alg":"RS256","x":' + b"[" * 40 + b"]" * 40 + b"}"),
    "crit": form_token(KEY, CLAIMS, crit=["exp"]),
    "crit unknown": form_token(KEY, CLAIMS, crit=["urn:x"]),
    "crit empty": form_token(KEY, CLAIMS, crit=[]),
    "crit null": form_token(KEY, CLAIMS, HEADER | {"crit": None}),
    "b64": form_token(KEY, CLAIMS, b64=False),
    "jwk": form_token(make_key("RS256", "own"), CLAIMS, jwk=make_key("RS256", "own").jwk),
    "jku": form_token(KEY, CLAIMS, jku="https://evil.example/keys"),
    "x5u": form_token(KEY, CLAIMS, x5u="https://evil.example/certificate"),
    "x5c": form_token(KEY, CLAIMS, x5c=["MIIB"]),
    "kid a number": form_token(KEY, CLAIMS, kid=7),
    "kid a list": form_token(KEY, CLAIMS, kid=["first"]),
    "kid empty": form_token(KEY, CLAIMS, kid=""),
    "kid huge": form_token(KEY, CLAIMS, kid="k" * 300),
    "kid with a line end": form_token(KEY, CLAIMS, kid="first\n"),
    "logout token": form_token(KEY, CLAIMS, typ="logout+jwt"),
    "DPoP proof": form_token(KEY, CLAIMS, typ="dpop+jwt"),
    "our own assertion": form_token(KEY, CLAIMS, typ=TYPE),
    "typ a list": form_token(KEY, CLAIMS, typ=["JWT"]),
}


@pytest.mark.parametrize("text", BAD_HEADS.values(), ids=BAD_HEADS)
def test_a_bad_head_is_refused_before_any_key_is_looked_for(text: str) -> None:
    refusal = refuse(lambda: parse_token(text, ALGORITHMS))
    assert refusal.reason is Reason.TOKEN_INVALID
    assert len(refusal.detail) < 200
    assert "evil" not in refusal.detail


@given(st.text(max_size=200) | st.from_regex(r"[\w-]{1,60}\.[\w-]{1,60}\.[\w-]{1,60}", fullmatch=True))
def test_no_text_is_anything_but_refused(text: str) -> None:
    assert refuse(lambda: parse_token(text, ALGORITHMS)).reason is Reason.TOKEN_INVALID


def test_our_own_assertions_sign_nobody_in() -> None:
    signing_key = make_signing_key("RS256")
    own = Assertions(lambda: signing_key, issuer=ISSUER, wall=lambda: NOW, max_remembered=1).get_own(AUDIENCE)
    assert "typ" in refuse(lambda: parse_token(own, ALGORITHMS)).detail


# --- the signature -------------------------------------------------------------------------------------------------


def forge_signature(signature: bytes) -> str:
    return f"{HEAD}.{BODY}.{encode(signature)}"


BAD_SIGNATURES = {
    "another key's": form_token(make_key("RS256", "second"), CLAIMS, kid="first"),
    "another text's": f"{HEAD}.{encode(json.dumps(change(sub='eve')).encode())}.{SIGNATURE}",
    "another header's": f"{encode(json.dumps(HEADER | {'typ': 'jwt'}).encode())}.{BODY}.{SIGNATURE}",
    "cut short": TEXT[:-8],
    "prolonged": TEXT + "AAAA",
    "of zeros": forge_signature(bytes(256)),
    "of one byte": forge_signature(b"\x01"),
    "of many bytes": forge_signature(b"\xff" * 1000),
    "of another kind": form_token(make_key("ES256"), CLAIMS, alg="RS256"),
}


@pytest.mark.parametrize("text", BAD_SIGNATURES.values(), ids=BAD_SIGNATURES)
def test_what_the_providers_key_did_not_sign_proves_nothing(text: str) -> None:
    assert refuse(lambda: read(text)).reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "signature", [bytes(64), b"\xff" * 64, b"", b"\x01" * 63, b"\x01" * 65, b"\x30\x06" + bytes(6)]
)
def test_no_numbers_an_elliptic_curve_does_not_have_prove_anything(signature: bytes) -> None:
    key = make_key("ES256")
    head, body, _ = form_token(key, CLAIMS).split(".")
    text = f"{head}.{body}.{encode(signature) or 'AA'}"
    assert refuse(lambda: read(text, key)).reason is Reason.TOKEN_INVALID


def test_a_signature_has_one_spelling() -> None:
    """A text that decodes to the same bytes is not the same token."""
    signature = SIGNATURE[:-1] + chr(ord(SIGNATURE[-1]) + 1)
    assert refuse(lambda: read(f"{HEAD}.{BODY}.{signature}")).reason is Reason.TOKEN_INVALID


# --- the claims ----------------------------------------------------------------------------------------------------

BAD_CLAIMS: dict[str, object] = {
    "a list": [CLAIMS],
    "a text": "ada",
    "no JSON": b"{",
    "not UTF-8": b'{"sub":"\xff"}',
    "lone surrogate": b'{"sub":"\\ud800"}',
    "twice sub": json.dumps(CLAIMS).encode()[:-1] + b',"sub":"eve"}',
    "twice inside": json.dumps(CLAIMS).encode()[:-1] + b',"a":{"b":1,"b":2}}',
    "deep": json.dumps(CLAIMS).encode()[:-1] + b',"a":' + b"[" * 40 + b"]" * 40 + b"}",
    "no issuer": change(iss=...),
    "another issuer": change(iss="https://evil.example"),
    "issuer with a slash": change(iss=ISSUER + "/"),
    "issuer in another case": change(iss=ISSUER.upper()),
    "issuer in a list": change(iss=[ISSUER]),
    "our own issuer": change(iss="aegis-proxy"),
    "no audience": change(aud=...),
    "another audience": change(aud="account"),
    "audience with more behind": change(aud=AUDIENCE + "-2"),
    "empty audience": change(aud=[]),
    "audience in an object": change(aud={AUDIENCE: True}),
    "other audiences": change(aud=["account", None, 7, [AUDIENCE]]),
    "no end": change(exp=...),
    "end null": change(exp=None),
    "end a text": change(exp="1800000300"),
    "end a bool": change(exp=True),
    "end a list": change(exp=[int(NOW) + 300]),
    "end in a spelling of its own": json.dumps(change(exp=...)).encode()[:-1] + b',"exp":18e8}',
    "end beyond 64 bits": json.dumps(change(exp=...)).encode()[:-1] + b',"exp":' + b"9" * 30 + b"}",
    "end infinite": json.dumps(change(exp=...)).encode()[:-1] + b',"exp":1e999}',
    "nbf in the future": change(nbf=int(NOW) + 31),
    "nbf a text": change(nbf="1"),
    "iat in the future": change(iat=int(NOW) + 31, exp=int(NOW) + 400),
    "iat a bool": change(iat=False),
    "no subject": change(sub=...),
    "subject empty": change(sub=""),
    "subject a number": change(sub=7),
    "subject with NUL": change(sub="ada\0"),
    "subject with a line end": change(sub="ada\n"),
    "subject huge": change(sub="a" * 256),
    "tenant a number": change(tenant_id=1),
    "tenant with NUL": change(tenant_id="\0"),
    "tier a list": change(zaru_tier=["business"]),
    "tier empty": change(zaru_tier=""),
    "role a list": change(aegis_role=["aegis:admin"]),
    "role a bool": change(aegis_role=True),
}


@pytest.mark.parametrize("claims", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_well_signed_claims_that_do_not_fit_are_refused(claims: object) -> None:
    refusal = refuse(lambda: read(form_token(KEY, claims)))
    assert refusal.reason is Reason.TOKEN_INVALID
    assert not any(word in refusal.detail for word in ("evil", "eve", "ada"))


@pytest.mark.parametrize("seconds", [300, 301, 10_000])
def test_a_token_is_refused_from_its_end_on_whatever_the_leeway(seconds: float) -> None:
    text = form_token(KEY, CLAIMS)
    assert read(text, now=NOW + 299.9).ends == NOW + 300
    assert refuse(lambda: read(text, now=NOW + seconds)).reason is Reason.TOKEN_EXPIRED


def test_the_leeway_forgives_a_provider_whose_clock_is_ahead() -> None:
    assert read(form_token(KEY, change(iat=int(NOW) + 30, nbf=int(NOW) + 30))).subject == "ada"


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.text(max_size=5), st.integers() | st.text()).map(json.dumps).map(str.encode)
)
def test_no_signed_bytes_fall_over(payload: bytes) -> None:
    assert refuse(lambda: judge_claims(ProvenPayload(payload), EXPECTED, NOW)).reason is Reason.TOKEN_INVALID


def test_a_token_shows_nowhere() -> None:
    assert BODY not in repr(parse_token(TEXT, ALGORITHMS))
