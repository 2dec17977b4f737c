"""Who manages keys by a token of the identity provider: a real one, over sockets, in front of a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.assertions import TYPE
from proxy.policy import Policy
from proxy.provider_tokens import MAX_TOKEN_BYTES
from proxy.server import Proxy
from proxy.settings import FailuresSettings
from proxy.settings_management import IdentityProviderSettings
from tests.canary_upstream import CanaryUpstream
from tests.ear import Ear
from tests.issuer import AUDIENCE, Issuer, answer_with, encode, form_hmac_token, form_token, make_key
from tests.management.asking import KEYS, Api, add_owner
from tests.staging import Stage, Wire, get_mcp_url
from tests.wire_scene import PING

WANTED = {"name": "ci", "preset": "read-only"}


@pytest.fixture
async def canary() -> AsyncIterator[CanaryUpstream]:
    async with CanaryUpstream() as canary:
        yield canary


@pytest.fixture
async def proxy(stage: Stage, issuer: Issuer, canary: CanaryUpstream) -> AsyncIterator[Proxy]:
    provider = IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)
    async with stage.proxy(canary.url, management={"identity_provider": provider}) as proxy:
        yield proxy


# --- what a sign-in may do -----------------------------------------------------------------------------------------


async def test_whoever_signed_in_manages_their_own_keys(api: Api, stage: Stage, issuer: Issuer) -> None:
    await add_owner(stage, issuer)
    made = await api.ask("POST", KEYS, issuer.sign(), WANTED)
    assert made.status == 201
    assert (made.json["owner"], made.json["issuer"], made.json["created_by"]) == (
        "ada", issuer.url, f"jwt:{issuer.url}|ada",
    )  # fmt: skip
    assert await api.list_ids(issuer.sign()) == [made.json["id"]]
    assert (await api.ask("GET", f"{KEYS}/{made.json['id']}", issuer.sign())).status == 200


async def test_the_owner_of_the_same_name_under_another_issuer_is_somebody_else(
    api: Api, stage: Stage, issuer: Issuer
) -> None:
    await stage.mint("read-only", owner="ada")
    await add_owner(stage, issuer)
    assert await api.list_ids(issuer.sign()) == []


async def test_the_tier_is_the_tables_and_a_claim_can_only_lower_it(
    api: Api, stage: Stage, issuer: Issuer, policy: Policy
) -> None:
    await add_owner(stage, issuer, tier="free")
    highest = max(policy.tiers, key=lambda tier: len(policy.tiers[tier]))
    scopes = {}
    for claim in (None, highest, "free", "unheard-of"):
        answer = await api.ask("GET", "/v1/scopes", issuer.sign(zaru_tier=claim))
        scopes[claim] = {one["scope"] for one in answer.json["scopes"] if one["may"]}
    assert scopes[None] == scopes[highest] == scopes["free"] != set()
    assert scopes["unheard-of"] == set()


async def test_an_admin_sees_the_tenants_keys_and_nobody_elses(api: Api, stage: Stage, issuer: Issuer) -> None:
    await add_owner(stage, issuer)
    await add_owner(stage, issuer, "bob")
    await add_owner(stage, issuer, "eve", tenant="other")
    made = {
        name: (await api.ask("POST", KEYS, issuer.sign(sub=name), WANTED)).json["id"] for name in ("ada", "bob", "eve")
    }
    assert await api.list_ids(issuer.sign()) == [made["ada"]]
    assert await api.list_ids(issuer.sign(aegis_role="aegis:user")) == [made["ada"]]
    assert await api.list_ids(issuer.sign(aegis_role="aegis:admin")) == [made["bob"], made["ada"]]


# --- what is refused -----------------------------------------------------------------------------------------------


async def test_an_account_that_may_not_manage_keys_is_told_why(api: Api, stage: Stage, issuer: Issuer) -> None:
    owner_id = await add_owner(stage, issuer)
    unknown = await api.ask("GET", KEYS, issuer.sign(sub="stranger"))
    assert (unknown.status, unknown.code) == (403, "owner_unknown")
    foreign = await api.ask("GET", KEYS, issuer.sign(tenant_id="other"))
    assert (foreign.status, foreign.code) == (403, "tenant_mismatch")
    assert (await api.ask("GET", KEYS, issuer.sign(tenant_id="acme"))).status == 200
    await stage.sql("UPDATE owners SET disabled_at = now() WHERE id = $1::uuid", owner_id)
    disabled = await api.ask("GET", KEYS, issuer.sign())
    assert (disabled.status, disabled.code) == (401, "owner_disabled")


def forge(issuer: Issuer) -> dict[str, str]:
    """What an attacker has to offer, each but a step away from a good token."""
    key, forger, claims = issuer.keys[0], make_key("RS256", "forger"), issuer.form_claims()
    head, body, signature = issuer.sign().split(".")
    public = json.dumps(key.jwk).encode()
    return {
        "unsigned": f"{encode(b'{}')}.{body}.",
        "none": form_token(key, claims, alg="none"),
        "the public key as a secret": form_hmac_token(public, claims, key.kid),
        "another key": form_token(forger, claims),
        "another key under the right id": form_token(forger, claims, kid=key.kid),
        "a key it brings along": form_token(forger, claims, jwk=forger.jwk),
        "a key it points to": form_token(forger, claims, jku=f"{issuer.url}/forged"),
        "a certificate it points to": form_token(forger, claims, x5u=f"{issuer.url}/forged"),
        "a demand": form_token(key, claims, crit=["urn:unheard-of"]),
        "our own assertion": form_token(key, claims, typ=TYPE),
        "members twice in the head": form_token(key, claims, b'{"alg":"RS256","kid":"first","alg":"RS256"}'),
        "members twice in the claims": form_token(key, json.dumps(claims).encode()[:-1] + b',"sub":"root"}'),
        "another issuer": issuer.sign(iss="https://evil.example"),
        "our own issuer": issuer.sign(iss="aegis-proxy"),
        "another audience": issuer.sign(aud="somebody else"),
        "no audience": issuer.sign(aud=None),
        "no end": issuer.sign(exp=None),
        "the future": issuer.sign(nbf=2**40),
        "made in the future": issuer.sign(iat=2**40),
        "no subject": issuer.sign(sub=None),
        "another body": f"{head}.{encode(json.dumps(issuer.form_claims(sub='root')).encode())}.{signature}",
        "two parts": f"{head}.{body}",
        "dots": "....",
    }


async def test_hostile_tokens_are_401_change_nothing_and_leave_no_trace(
    api: Api, stage: Stage, issuer: Issuer, ear: Ear
) -> None:
    await add_owner(stage, issuer)
    await add_owner(stage, issuer, "root")
    for name, text in forge(issuer).items():
        said = await api.ask("POST", KEYS, text, WANTED)
        assert (said.status, said.code) == (401, "token_invalid"), name
        assert said.headers["WWW-Authenticate"] == 'Bearer realm="aegis", error="invalid_token"'
        parts = [part for part in text.split(".") if len(part) > 8]
        assert not any(part.encode() in said.body for part in parts), name
        assert not any(part.encode() in ear.heard.getvalue() for part in parts), name
    assert issuer.asked["/forged"] == 0
    assert issuer.asked["/keys"] == 1
    assert await api.list_ids(issuer.sign(aegis_role="aegis:admin")) == []


async def test_a_huge_token_is_not_even_read(api: Api, issuer: Issuer) -> None:
    said = await api.ask("GET", KEYS, issuer.sign(more="s3cr3t" * MAX_TOKEN_BYTES))
    assert (said.status, said.code) == (431, "head_too_large")
    assert b"s3cr3t" not in said.body
    assert not issuer.asked


async def test_an_expired_token_says_so(api: Api, stage: Stage, issuer: Issuer) -> None:
    await add_owner(stage, issuer)
    said = await api.ask("GET", KEYS, issuer.sign(exp=int(issuer.wall()) - 1))
    assert (said.status, said.code) == (401, "token_expired")


async def test_a_provider_that_cannot_be_asked_is_503(api: Api, stage: Stage, issuer: Issuer) -> None:
    await add_owner(stage, issuer)
    issuer.answers["/keys"] = answer_with(b"", 500)
    said = await api.ask("GET", KEYS, issuer.sign())
    assert (said.status, said.code) == (503, "provider_unreachable")
    assert int(said.headers["Retry-After"]) > 0


async def test_tokens_open_nothing_but_the_management_of_keys(
    http: aiohttp.ClientSession, proxy: Proxy, stage: Stage, issuer: Issuer, canary: CanaryUpstream
) -> None:
    await add_owner(stage, issuer)
    answer = await Wire(http, get_mcp_url(proxy)).post(issuer.sign(), PING)
    assert answer.status == 401
    assert (await answer.json())["error"]["data"]["reason"] == "credential_malformed"
    assert canary.requests == []


async def test_without_an_identity_provider_a_token_is_no_key(
    http: aiohttp.ClientSession, stage: Stage, issuer: Issuer, canary: CanaryUpstream
) -> None:
    async with stage.proxy(canary.url) as proxy:
        said = await Api(http, proxy, stage).ask("GET", KEYS, issuer.sign())
    assert (said.status, said.code) == (401, "credential_malformed")
    assert not issuer.asked


async def test_forged_tokens_count_against_their_address_and_good_ones_do_not(
    http: aiohttp.ClientSession, stage: Stage, issuer: Issuer, canary: CanaryUpstream
) -> None:
    await add_owner(stage, issuer)
    provider = IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)
    failures = FailuresSettings(burst=3).model_dump()
    async with stage.proxy(canary.url, management={"identity_provider": provider}, failures=failures) as proxy:
        api = Api(http, proxy, stage)
        forged = form_token(make_key("RS256", "forger"), issuer.form_claims())
        statuses = [(await api.ask("GET", KEYS, forged)).status for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await api.ask("GET", KEYS, issuer.sign())).status == 200
