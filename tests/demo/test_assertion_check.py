"""Who is believed to be who, and how often the keys to find out are asked for."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from multidict import CIMultiDict

from proxy.assertions import Algorithm, Assertions, make_signing_key
from proxy.demo.assertion_check import TOKEN_HEADER, AssertionCheck, Caller, NotIdentified
from tests.demo.callers import GUARD_SECONDS
from tests.demo.identities import ADA, AUDIENCE, CLAIMS, ISSUER, Issuer, PrivateKey, form_jwk, present, run_issuer

UNSIGNED = {"alg": "none", "typ": "JWT", "kid": "rsa"}


@pytest.fixture(scope="module")
def keys() -> dict[str, PrivateKey]:
    return {"rsa": generate_private_key(65537, 2048), "ed": Ed25519PrivateKey.generate()}


@pytest.fixture
async def issuer(keys: dict[str, PrivateKey]) -> AsyncIterator[Issuer]:
    async with run_issuer(keys) as issuer:
        yield issuer


@pytest.fixture
def check(issuer: Issuer) -> AssertionCheck:
    return AssertionCheck(issuer.jwks_uri, AUDIENCE, ISSUER)


async def explain(check: AssertionCheck, headers: Mapping[str, str]) -> str:
    with pytest.raises(NotIdentified) as refused:
        await check.check(headers)
    return str(refused.value)


def write_part(part: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("kid", ["rsa", "ed"])
async def test_whoever_is_named_by_a_signed_token_is_the_caller(
    check: AssertionCheck, issuer: Issuer, kid: str
) -> None:
    assert await check.check(present(issuer.sign(kid))) == ADA
    assert await check.check(present(issuer.sign(kid, tenant_id=None))) == Caller("ada", "pro", None)


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
async def test_what_the_proxy_signs_is_believed(check: AssertionCheck, issuer: Issuer, algorithm: Algorithm) -> None:
    key = make_signing_key(algorithm)
    issuer.others.append(key.public_jwk)
    assertions = Assertions(lambda: key, issuer=ISSUER, wall=time.time, max_remembered=1)
    assert await check.check(present(assertions.get_own(AUDIENCE))) == Caller(ISSUER, "free", None)


async def test_the_header_of_its_own_is_read_before_authorization(check: AssertionCheck, issuer: Issuer) -> None:
    token = issuer.sign()
    assert await check.check(CIMultiDict({"authorization": f"bearer {token}"})) == ADA
    both = CIMultiDict({TOKEN_HEADER.lower(): token, "Authorization": "Bearer nonsense"})
    assert await check.check(both) == ADA
    both = CIMultiDict({TOKEN_HEADER: "nonsense", "Authorization": f"Bearer {token}"})
    assert "not valid" in await explain(check, both)


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Basic YTpi"}, {"Cookie": "token=x"}])
async def test_without_a_token_nobody_is_identified(
    check: AssertionCheck, issuer: Issuer, headers: dict[str, str]
) -> None:
    assert "a token is needed" in await explain(check, CIMultiDict(headers))
    assert issuer.asked == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"aud": "api"}, "Audience"),
        ({"aud": None}, "aud"),
        ({"iss": "somebody"}, "Invalid issuer"),
        ({"iss": None}, "iss"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "names nobody"),
        ({"zaru_tier": None}, "names no tier"),
        ({"zaru_tier": "zaru-pro"}, "names no tier"),
        ({"zaru_tier": ["pro"]}, "names no tier"),
        ({"tenant_id": 7}, "not a text"),
    ],
)
async def test_a_token_that_says_too_little_or_is_for_somebody_else_is_refused(
    check: AssertionCheck, issuer: Issuer, changes: dict[str, Any], why: str
) -> None:
    assert why in await explain(check, present(issuer.sign(**changes)))


async def test_a_token_nobody_signed_is_refused(check: AssertionCheck, issuer: Issuer) -> None:
    _, claims, signature = issuer.sign().split(".")
    for header in (UNSIGNED, {**UNSIGNED, "alg": "NONE"}, {**UNSIGNED, "alg": ""}, {"typ": "JWT", "kid": "rsa"}):
        for end in ("", signature):
            assert "not valid" in await explain(check, present(f"{write_part(header)}.{claims}.{end}"))


async def test_a_token_signed_with_the_public_key_as_if_it_were_a_secret_is_refused(
    check: AssertionCheck, issuer: Issuer
) -> None:
    public = issuer.keys["rsa"].public_key()
    now = int(time.time())
    claims = {**CLAIMS, "iat": now, "exp": now + 60}
    signed = f"{write_part({'alg': 'HS256', 'kid': 'rsa'})}.{write_part(claims)}"
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        secret = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        signature = urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
        assert "not valid" in await explain(check, present(f"{signed}.{signature}"))


async def test_a_token_that_was_changed_or_carries_its_own_key_is_refused(
    check: AssertionCheck, issuer: Issuer
) -> None:
    header, claims, signature = issuer.sign().split(".")
    other = write_part({**CLAIMS, "sub": "eve", "iat": int(time.time()), "exp": int(time.time()) + 60})
    assert "Signature" in await explain(check, present(f"{header}.{other}.{signature}"))
    assert "Signature" in await explain(check, present(f"{header}.{claims}.{signature[:-4]}AAAA"))
    stranger = Issuer({"rsa": generate_private_key(65537, 2048)})
    token = stranger.sign(headers={"jwk": form_jwk(stranger.keys["rsa"]), "jku": issuer.jwks_uri})
    assert "Signature" in await explain(check, present(token))


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "\xff", "é.é.é", "." * 1000])
async def test_what_is_no_token_is_refused(check: AssertionCheck, token: str) -> None:
    assert "not valid" in await explain(check, present(token))


async def test_keys_are_fetched_once_however_many_ask_at_once(check: AssertionCheck, issuer: Issuer) -> None:
    issuer.may_answer.clear()
    async with asyncio.timeout(GUARD_SECONDS):
        asking = [asyncio.create_task(check.check(present(issuer.sign(kid)))) for kid in ["rsa", "ed"] * 10]
        await issuer.reached.wait()
        issuer.may_answer.set()
        assert await asyncio.gather(*asking) == [ADA] * 20
    assert issuer.asked == 1


async def test_a_new_key_is_fetched_when_it_is_met_and_an_unknown_one_only_once_in_a_while(issuer: Issuer) -> None:
    now = 0.0
    check = AssertionCheck(issuer.jwks_uri, AUDIENCE, ISSUER, cooldown_seconds=30, clock=lambda: now)
    await check.check(present(issuer.sign()))
    stranger = Issuer({"other": Ed25519PrivateKey.generate()})
    now = 30.0
    for _ in range(3):
        assert "not published" in await explain(check, present(stranger.sign("other")))
    assert issuer.asked == 2
    assert await check.check(present(issuer.sign())) == ADA
    issuer.keys.update(stranger.keys)
    now = 59.9
    assert "not published" in await explain(check, present(stranger.sign("other")))
    now = 60.0
    assert await check.check(present(stranger.sign("other"))) == ADA
    assert issuer.asked == 3


async def test_a_key_that_was_withdrawn_is_believed_for_ten_minutes_at_most(issuer: Issuer) -> None:
    now = 0.0
    check = AssertionCheck(issuer.jwks_uri, AUDIENCE, ISSUER, clock=lambda: now)
    token = issuer.sign()
    await check.check(present(token))
    del issuer.keys["rsa"]
    now = 599.0
    assert await check.check(present(token)) == ADA
    now = 600.0
    assert "not published" in await explain(check, present(token))


async def test_where_the_keys_are_may_be_said_later_and_a_failure_is_not_remembered(issuer: Issuer) -> None:
    check = AssertionCheck(None, AUDIENCE, ISSUER)
    assert "not known yet" in await explain(check, present(issuer.sign()))
    check.jwks_uri = issuer.jwks_uri + "/nowhere"
    assert "cannot be had" in await explain(check, present(issuer.sign()))
    check.jwks_uri, issuer.broken = issuer.jwks_uri, True
    assert "cannot be had" in await explain(check, present(issuer.sign()))
    issuer.broken = False
    assert await check.check(present(issuer.sign())) == ADA


async def test_no_refusal_repeats_the_token(check: AssertionCheck, issuer: Issuer) -> None:
    for token in (issuer.sign(exp=1), issuer.sign() + "x", "canary.canary.canary"):
        told = await explain(check, present(token))
        assert token.split(".")[1] not in told
        assert token.split(".")[2] not in told
