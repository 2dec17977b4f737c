"""Assertions, as verifiers see them: joserfc, a library of other people, is given the public keys and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError, InvalidClaimError, InvalidKeyIdError, JoseError

from proxy.assertions import (
    PRIVATE_MEMBERS,
    TYPE,
    Algorithm,
    Assertions,
    SigningKey,
    make_signing_key,
    parse_public_jwk,
    read_signing_key,
)
from proxy.errors import Reason
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.logs import get_logger
from tests.clocks import ManualClock
from tests.ear import Ear

# The name EdDSA gave way to Ed25519 (RFC 9864); the libraries of upstreams know the former.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")
OWNER = Owner(OwnerId("00000000-0000-4000-8000-00000000000a"), "acme", "local", "ada", "pro")
PRINCIPAL = Principal(
    KeyId("Key000000001"), OWNER, frozenset({"workflow:run:b", "agent:list"}), (), 1, None, 0.0, Claims(())
)
ISSUER = "https://proxy.example"
BOTH: tuple[Algorithm, ...] = ("RS256", "EdDSA")
# RFC 7638 section 3.1 and RFC 8037 appendix A.3.
RFC_7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
    "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
    "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
}
RFC_8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@cache
def get_key(algorithm: Algorithm, number: int = 0) -> SigningKey:
    """One of each for all tests: making them takes longer than using them."""
    return make_signing_key(algorithm)


class World:
    """Assertions, whose signing key and clock a test may change."""

    def __init__(self, algorithm: Algorithm = "EdDSA", **changes: Any) -> None:
        self.clock = ManualClock()
        self.key = get_key(algorithm)
        named: dict[str, Any] = {"lifetime_seconds": 60, "renew_seconds": 45, "max_remembered": 100, **changes}
        self.assertions = Assertions(lambda: self.key, issuer=ISSUER, wall=self.clock.wall, **named)

    def get(self, principal: Principal = PRINCIPAL, audience: str = "mcp") -> str:
        return self.assertions.get(principal, audience)

    def verify(self, token: str, *, audience: str = "mcp", issuer: str = ISSUER, **changes: Any) -> dict[str, Any]:
        return verify(token, changes.get("key", self.key), self.clock.wall(), audience, issuer)


def form_jwks(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [dict(key.public_jwk) for key in keys]}).encode()


def verify(token: str, key: SigningKey, now: float, audience: str, issuer: str) -> dict[str, Any]:
    """As an upstream would. Raises JoseError or ValueError."""
    key_set = jwk.KeySet.import_key_set(json.loads(form_jwks(key)))
    decoded = jwt.decode(token, key_set, algorithms=list(BOTH))
    assert decoded.header["typ"] == TYPE
    claims = jwt.JWTClaimsRegistry(
        now=lambda: math.floor(now),
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    claims.validate(decoded.claims)
    return dict(decoded.claims)


def read_part(token: str, number: Literal[0, 1]) -> dict[str, Any]:
    part = token.split(".")[number]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def encode_part(part: object) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def form_pem(private: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_algorithm=encryption
    )
    return pem


# What is said


@pytest.mark.parametrize("algorithm", BOTH)
def test_another_library_verifies_it_with_the_public_keys_alone(algorithm: Algorithm) -> None:
    world = World(algorithm)
    claims = world.verify(world.get())
    assert len(claims.pop("jti")) >= 16
    assert claims == {
        "iss": ISSUER,
        "aud": "mcp",
        "sub": "ada",
        "tenant_id": "acme",
        "zaru_tier": "pro",
        "scopes": ["agent:list", "workflow:run:b"],
        "key_id": "Key000000001",
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }


@pytest.mark.parametrize("algorithm", BOTH)
def test_its_header_names_type_algorithm_and_key(algorithm: Algorithm) -> None:
    world = World(algorithm)
    header = read_part(world.get(), 0)
    assert header == {"typ": "aegis-identity+jwt", "alg": algorithm, "kid": world.key.kid}


def test_what_the_proxy_says_about_itself_names_nobody_else() -> None:
    world = World()
    claims = world.verify(world.assertions.get_own("mcp"))
    del claims["jti"]
    assert claims == {
        "iss": ISSUER,
        "aud": "mcp",
        "sub": ISSUER,
        "zaru_tier": "free",
        "scopes": [],
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }


def test_no_two_have_the_same_id() -> None:
    world = World()
    assert len({read_part(world.get(replace(PRINCIPAL, key_id=KeyId(f"{n:012}"))), 1)["jti"] for n in range(50)}) == 50


# What does not verify


@pytest.mark.parametrize("algorithm", BOTH)
def test_another_audience_or_issuer_does_not_take_it(algorithm: Algorithm) -> None:
    world = World(algorithm)
    token = world.get()
    for wrong in ({"audience": "api"}, {"issuer": "https://other.example"}):
        with pytest.raises(InvalidClaimError):
            world.verify(token, **wrong)


def test_it_is_not_taken_after_its_time() -> None:
    world = World()
    token = world.get()
    world.clock.advance(59)
    assert world.verify(token)
    world.clock.advance(2)
    with pytest.raises(ExpiredTokenError):
        world.verify(token)


@pytest.mark.parametrize("algorithm", BOTH)
def test_a_key_of_another_name_or_under_the_same_name_does_not_verify_it(algorithm: Algorithm) -> None:
    world, other = World(algorithm), get_key(algorithm, 1)
    token = world.get()
    with pytest.raises(InvalidKeyIdError):
        world.verify(token, key=other)
    posing = {**other.public_jwk, "kid": world.key.kid}
    with pytest.raises(BadSignatureError):
        world.verify(token, key=replace(other, public_jwk=posing))


@pytest.mark.parametrize("algorithm", BOTH)
def test_without_a_signature_or_with_the_public_key_as_a_secret_it_does_not_verify(algorithm: Algorithm) -> None:
    world = World(algorithm)
    header, claims, signature = world.get().split(".")
    for alg in ("none", "HS256"):
        forged = f"{encode_part({**read_part(world.get(), 0), 'alg': alg})}.{claims}"
        mac = hmac.new(world.key.public_jwk["kid"].encode(), forged.encode(), hashlib.sha256).digest()
        for end in ("", signature, urlsafe_b64encode(mac).rstrip(b"=").decode()):
            with pytest.raises((JoseError, ValueError)):
                world.verify(f"{forged}.{end}")
    with pytest.raises(BadSignatureError):
        world.verify(f"{header}.{encode_part({**read_part(world.get(), 1), 'sub': 'root'})}.{signature}")


# How long


def test_it_is_signed_once_within_its_renewal_time_for_each_key_and_audience() -> None:
    world = World()
    first = world.get()
    world.clock.advance(44.9)
    assert world.get(replace(PRINCIPAL, read_at=99.0)) == first
    assert len({first, world.get(audience="api"), world.get(replace(PRINCIPAL, key_id=KeyId("other")))}) == 3


def test_it_is_made_anew_before_it_is_too_short_to_be_used() -> None:
    world = World()
    first = world.get()
    world.clock.advance(45)
    second = world.get()
    assert second != first
    assert read_part(second, 1)["exp"] == read_part(first, 1)["exp"] + 45
    assert world.get() == second


@pytest.mark.parametrize(
    "changed",
    [
        replace(PRINCIPAL, owner=replace(OWNER, tier="free")),
        replace(PRINCIPAL, owner=replace(OWNER, tenant_id="other")),
        replace(PRINCIPAL, owner=replace(OWNER, subject="bob")),
        replace(PRINCIPAL, grants=frozenset({"agent:list"})),
        replace(PRINCIPAL, grants=PRINCIPAL.grants | {"agent:read"}),
    ],
)
def test_a_change_of_owner_tier_or_scopes_makes_a_new_one_at_once(changed: Principal) -> None:
    world = World()
    first = world.get()
    claims = world.verify(world.get(changed))
    assert claims["jti"] != read_part(first, 1)["jti"]
    assert (claims["sub"], claims["zaru_tier"]) == (changed.owner.subject, changed.owner.tier)
    assert (claims["tenant_id"], claims["scopes"]) == (changed.owner.tenant_id, sorted(changed.grants))


def test_a_change_of_the_signing_key_makes_a_new_one_at_once() -> None:
    world = World()
    world.get()
    world.key = get_key("EdDSA", 1)
    assert world.verify(world.get())


def test_a_clock_that_was_set_back_makes_a_new_one() -> None:
    world = World()
    world.get()
    world.clock.set_wall(world.clock.wall() - 3600)
    assert read_part(world.get(), 1)["iat"] == 1_800_000_000 - 3600
    world.get(replace(PRINCIPAL, ends=(1_800_000_000 - 3590.0, Reason.KEY_EXPIRED)))
    world.clock.set_wall(world.clock.wall() - 5)  # both would end with the key
    again = world.get(replace(PRINCIPAL, ends=(1_800_000_000 - 3590.0, Reason.KEY_EXPIRED)))
    assert read_part(again, 1)["iat"] == 1_800_000_000 - 3605


def test_it_never_outlasts_the_principal() -> None:
    world = World()
    ending = replace(PRINCIPAL, ends=(1_800_000_050.9, Reason.KEY_EXPIRED))
    first = world.get(ending)
    assert read_part(first, 1)["exp"] == 1_800_000_050
    world.clock.advance(49)
    assert world.get(ending) == first, "a new one would not last longer"


def test_an_end_that_moved_forward_holds_at_once_and_one_that_moved_back_when_it_is_renewed() -> None:
    world = World()
    world.get()
    shortened = world.get(replace(PRINCIPAL, ends=(1_800_000_020.0, Reason.KEY_EXPIRED)))
    assert read_part(shortened, 1)["exp"] == 1_800_000_020
    world.clock.advance(46)
    assert read_part(world.get(), 1)["exp"] == 1_800_000_106


def test_two_secrets_of_a_key_do_not_share_theirs() -> None:
    """While a key is rotated, the one ends soon and the other does not."""
    world = World()
    old = replace(PRINCIPAL, ends=(1_800_000_002.0, Reason.SECRET_RETIRED))
    new = replace(PRINCIPAL, secret_version=2)
    tokens = {(world.get(old), world.get(new)) for _ in range(3)}
    assert len(tokens) == 1
    world.clock.advance(3)
    assert world.verify(world.get(new))


@given(
    ends=st.none() | st.floats(1_799_999_000, 1_800_001_000) | st.just(math.inf),
    steps=st.lists(st.floats(-50, 100), max_size=10),
)
def test_whatever_the_clock_does_it_ends_in_time(ends: float | None, steps: list[float]) -> None:
    world = World()
    principal = replace(PRINCIPAL, ends=None if ends is None else (ends, Reason.KEY_EXPIRED))
    for step in (0.0, *steps):
        world.clock.advance(step)
        now, claims = world.clock.wall(), read_part(world.get(principal), 1)
        latest = min(now + 60, math.inf if ends is None else ends)
        assert claims["iat"] <= now
        assert claims["exp"] <= latest
        assert claims["exp"] > latest - 46, "handed out with too little time left"


def test_only_so_many_are_remembered() -> None:
    world = World(max_remembered=2)
    first = world.get()
    for key_id in ("a", "b"):
        world.get(replace(PRINCIPAL, key_id=KeyId(key_id)))
    assert world.get() != first


# Keys


@pytest.mark.parametrize("algorithm", BOTH)
def test_the_private_half_shows_nowhere(algorithm: Algorithm, ear: Ear) -> None:
    private = rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ed25519.Ed25519PrivateKey.generate()
    pem = form_pem(private)
    key = read_signing_key(pem, algorithm)
    numbers = jwk.import_key(pem.decode(), "RSA" if algorithm == "RS256" else "OKP").as_dict(private=True)
    secrets = [str(numbers[name]) for name in PRIVATE_MEMBERS & numbers.keys()]
    secrets += pem.decode().splitlines()[1:-1]
    assert secrets
    get_logger("test").info("key", key=key, held={"key": key})
    shown = f"{key!r} {key} {dict(key.public_jwk)} {World().assertions!r} {ear.heard.getvalue().decode()}"
    assert key.kid in shown
    assert not [secret for secret in secrets if secret in shown]


@pytest.mark.parametrize("algorithm", BOTH)
def test_the_id_of_a_key_is_its_thumbprint(algorithm: Algorithm) -> None:
    key = get_key(algorithm)
    theirs = jwk.import_key(dict(key.public_jwk))
    assert key.kid == key.public_jwk["kid"] == theirs.thumbprint()
    assert key.public_jwk["use"] == "sig"
    assert key.public_jwk["alg"] == key.algorithm == algorithm


@pytest.mark.parametrize(
    ("example", "alg", "kid"),
    [
        (RFC_7638, "RS256", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        (RFC_8037, "EdDSA", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    ],
)
def test_the_examples_of_the_rfcs_have_their_ids(example: dict[str, str], alg: str, kid: str) -> None:
    written = {**example, "alg": alg, "use": "sig", "kid": kid}
    assert parse_public_jwk(json.dumps(written)) == written
    with pytest.raises(ValueError, match="under its own id"):
        parse_public_jwk(json.dumps({**written, "kid": kid[::-1]}))


@pytest.mark.parametrize("algorithm", BOTH)
def test_a_public_key_comes_back_without_what_was_added(algorithm: Algorithm) -> None:
    public = dict(get_key(algorithm).public_jwk)
    assert parse_public_jwk(json.dumps({**public, "x5c": ["…"], "key_ops": ["verify"]})) == public


@pytest.mark.parametrize("algorithm", BOTH)
@pytest.mark.parametrize("member", sorted(PRIVATE_MEMBERS))
def test_a_key_whose_private_half_was_written_down_is_none(algorithm: Algorithm, member: str) -> None:
    with pytest.raises(ValueError, match="not the public half"):
        parse_public_jwk(json.dumps({**get_key(algorithm).public_jwk, member: "AQAB"}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
members = json_values | st.sampled_from(["RSA", "OKP", "Ed25519", "X25519", "Ed448", "AQAB", "AA", "", "!", "="])


@given(st.dictionaries(st.sampled_from(["kty", "n", "e", "crv", "x", "d", "kid", "use", "alg"]), members) | json_values)
def test_what_is_no_key_is_said_to_be_none(written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_public_jwk(json.dumps(written))


@given(algorithm=st.sampled_from(BOTH), data=st.data())
def test_a_key_with_one_member_exchanged_is_none(algorithm: Algorithm, data: st.DataObject) -> None:
    public = dict(get_key(algorithm).public_jwk)
    name = data.draw(st.sampled_from(sorted(public)))
    value = data.draw(members.filter(lambda value: value != public[name]))
    with pytest.raises(ValueError, match=r"."):
        parse_public_jwk(json.dumps({**public, name: value}))


@given(st.text(max_size=50))
def test_what_is_no_json_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_public_jwk(text)


def test_keys_that_we_would_not_sign_with_are_none() -> None:
    for bits in (1024, 5120):
        modulus = ((1 << bits - 1) + 1).to_bytes(bits // 8, "big")
        written = {"kty": "RSA", "n": urlsafe_b64encode(modulus).rstrip(b"=").decode(), "e": "AQAB"}
        with pytest.raises(ValueError, match="not a key that we would sign with"):
            parse_public_jwk(json.dumps(written))


def test_a_key_file_is_read_as_it_was_written() -> None:
    for algorithm, private in (
        ("RS256", rsa.generate_private_key(65537, 2048)),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ):
        key = read_signing_key(form_pem(private), algorithm)  # type: ignore[arg-type]
        assert verify(key.sign({"iss": "i", "aud": "a", "sub": "s", "exp": 9}), key, 5.0, "a", "i")["sub"] == "s"


def test_what_is_no_usable_key_file_is_refused_in_words() -> None:
    small, large = rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate()
    public = large.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    elliptic = ec.generate_private_key(ec.SECP256R1())
    cases: list[tuple[bytes, Algorithm, str]] = [
        (form_pem(small), "RS256", "1024 bits, not 2048 to 4096"),
        (form_pem(large, b"a password"), "EdDSA", "encrypted"),
        (form_pem(large), "RS256", "RS256 needs an RSA key"),
        (form_pem(small), "EdDSA", "EdDSA needs an Ed25519 key"),
        (form_pem(elliptic), "RS256", "RS256 needs an RSA key"),
        (public, "EdDSA", "no private key in PEM form"),
        (b"", "EdDSA", "no private key in PEM form"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "RS256", "no private key in PEM form"),
    ]
    for pem, algorithm, words in cases:
        with pytest.raises(ValueError, match=words) as refused:
            read_signing_key(pem, algorithm)
        assert refused.value.__cause__ is None
