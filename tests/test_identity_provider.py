"""The identity provider as tokens meet it: its keys are read when they must be, no oftener, and outages are no 401."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.errors import CredentialError, Reason, Refusal, UnavailableError, UnprovenError
from proxy.identity_provider import METADATA_PATH, RETRY_SECONDS, IdentityProvider
from proxy.logs import configure_logging
from proxy.provider_client import MAX_ANSWER_BYTES, MAX_CONNECTIONS, ProviderClient
from proxy.provider_codes import ProviderPage
from proxy.provider_tokens import Expected
from tests.clocks import ManualClock
from tests.issuer import (
    AUDIENCE,
    Answer,
    Issuer,
    answer_with,
    form_hmac_token,
    form_token,
    hold_until,
    make_key,
    run_issuer,
)
from tests.staging import GUARD_SECONDS

REFRESH_SECONDS, KEEP_SECONDS = 300.0, 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def issuer(clock: ManualClock) -> AsyncIterator[Issuer]:
    async with run_issuer() as issuer:
        issuer.wall = clock.wall
        yield issuer


@pytest.fixture
def readings() -> list[bool]:
    """How each reading of the keys came out."""
    return []


def make_provider(
    issuer: Issuer,
    clock: ManualClock,
    readings: list[bool],
    *,
    jwks_url: str | None = None,
    timeout_seconds: float = 20,
) -> IdentityProvider:
    client, redeeming = (ProviderClient(timeout_seconds=timeout_seconds, ssl_context=None) for _ in range(2))
    return IdentityProvider(
        client,
        redeeming,
        expected=Expected(issuer.url, AUDIENCE, 30.0),
        jwks_url=jwks_url,
        algorithms=("RS256", "ES256"),
        refresh_seconds=REFRESH_SECONDS,
        keep_seconds=KEEP_SECONDS,
        clock=clock,
        count_reading=readings.append,
    )


@pytest.fixture
async def provider(issuer: Issuer, clock: ManualClock, readings: list[bool]) -> AsyncIterator[IdentityProvider]:
    provider = make_provider(issuer, clock, readings)
    yield provider
    await provider.aclose()


async def refuse(provider: IdentityProvider, text: str) -> Refusal:
    with pytest.raises((CredentialError, UnavailableError)) as caught:
        await provider.verify(text)
    refusal: Refusal = caught.value
    return refusal


async def reason(provider: IdentityProvider, text: str) -> Reason:
    return (await refuse(provider, text)).reason


# --- who signed in -------------------------------------------------------------------------------------------------


async def test_whoever_signed_in_is_told_by_the_providers_own_keys(issuer: Issuer, provider: IdentityProvider) -> None:
    claims = await provider.verify(issuer.sign(zaru_tier="pro", tenant_id="acme"))
    assert (claims.issuer, claims.subject, claims.tier, claims.tenant_id) == (issuer.url, "ada", "pro", "acme")


async def test_keys_may_be_where_no_metadata_says(issuer: Issuer, clock: ManualClock, readings: list[bool]) -> None:
    provider = make_provider(issuer, clock, readings, jwks_url=f"{issuer.url}/keys")
    assert (await provider.verify(issuer.sign())).subject == "ada"
    assert issuer.asked[METADATA_PATH] == 0
    await provider.aclose()


async def test_a_token_for_somebody_else_is_good_there_alone(issuer: Issuer, provider: IdentityProvider) -> None:
    text = issuer.sign(aud="the page", nonce="n")
    assert await reason(provider, text) is Reason.TOKEN_INVALID
    assert (await provider.verify(text, audience="the page")).nonce == "n"


async def test_codes_that_wait_do_not_stand_before_the_keys(issuer: Issuer, provider: IdentityProvider) -> None:
    released = asyncio.Event()
    issuer.answers["/token"] = hold_until(released, answer_with(b"{}", 400))
    page = ProviderPage("the page", None, "https://aegis.example/back")
    asked = [asyncio.create_task(provider.redeem("junk", page, verifier="v")) for _ in range(2 * MAX_CONNECTIONS)]
    async with asyncio.timeout(GUARD_SECONDS):
        while issuer.asked["/token"] < MAX_CONNECTIONS:
            await asyncio.sleep(0)
        assert (await provider.verify(issuer.sign())).subject == "ada"
        released.set()
        refused = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(refusal, UnprovenError) for refusal in refused)


async def test_the_end_of_a_token_is_the_end_of_its_use(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    text = issuer.sign()
    await provider.verify(text)
    clock.advance(300)
    assert await reason(provider, text) is Reason.TOKEN_EXPIRED


async def test_a_machine_whose_clock_is_set_back_does_not_take_tokens_from_the_future(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    text = issuer.sign()
    clock.set_wall(clock.wall() - 31)
    assert await reason(provider, text) is Reason.TOKEN_INVALID


# --- when keys are read --------------------------------------------------------------------------------------------


async def test_keys_are_read_once_for_many(issuer: Issuer, provider: IdentityProvider, clock: ManualClock) -> None:
    await asyncio.gather(*(provider.verify(issuer.sign(sub=f"user {number}")) for number in range(50)))
    clock.advance(REFRESH_SECONDS - 1)
    await provider.verify(issuer.sign())
    assert issuer.asked["/keys"] == issuer.asked[METADATA_PATH] == 1


async def test_old_keys_are_read_again(issuer: Issuer, provider: IdentityProvider, clock: ManualClock) -> None:
    await provider.verify(issuer.sign())
    clock.advance(REFRESH_SECONDS)
    await provider.verify(issuer.sign())
    assert issuer.asked["/keys"] == 2


async def test_a_withdrawn_key_proves_nothing_once_they_are_read(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    await provider.verify(issuer.sign())
    withdrawn = issuer.keys.pop(0)
    issuer.keys.append(make_key("RS256", "second"))
    clock.advance(REFRESH_SECONDS)
    assert await reason(provider, form_token(withdrawn, issuer.form_claims())) is Reason.TOKEN_INVALID
    assert (await provider.verify(issuer.sign())).subject == "ada"


async def test_a_new_key_is_found_when_a_token_names_it(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    old = issuer.sign()
    await provider.verify(old)
    clock.advance(RETRY_SECONDS)
    issuer.keys.insert(0, make_key("ES256", "second"))
    assert (await provider.verify(issuer.sign())).subject == "ada"
    assert (await provider.verify(old)).subject == "ada"
    assert issuer.asked["/keys"] == 2


async def test_made_up_key_ids_cause_no_storm(issuer: Issuer, provider: IdentityProvider, clock: ManualClock) -> None:
    forged = [form_token(make_key("RS256", "forger"), issuer.form_claims(), kid=f"kid {n}") for n in range(100)]
    for _ in range(3):
        results = await asyncio.gather(*(reason(provider, text) for text in forged))
        assert set(results) == {Reason.TOKEN_INVALID}
        assert (await provider.verify(issuer.sign())).subject == "ada"
        clock.advance(RETRY_SECONDS)
    assert issuer.asked["/keys"] == 3


async def test_a_token_without_a_key_id_needs_the_only_key_of_its_kind(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    text = form_token(issuer.keys[0], issuer.form_claims(), kid=None)
    assert (await provider.verify(text)).subject == "ada"
    issuer.keys.append(make_key("RS256", "second"))
    clock.advance(REFRESH_SECONDS)
    assert "kid" in (await refuse(provider, text)).detail


async def test_whoever_leaves_does_not_stop_the_reading_for_others(issuer: Issuer, provider: IdentityProvider) -> None:
    released = asyncio.Event()
    held = answer_with(b"")
    issuer.answers[METADATA_PATH] = hold_until(released, held)
    first, second = (asyncio.create_task(provider.verify(issuer.sign())) for _ in range(2))
    async with asyncio.timeout(GUARD_SECONDS):
        while not issuer.asked[METADATA_PATH]:
            await asyncio.sleep(0)
    first.cancel()
    del issuer.answers[METADATA_PATH]
    released.set()
    with pytest.raises(UnavailableError):
        await second  # what was held is no metadata
    assert first.cancelled()
    assert issuer.asked[METADATA_PATH] == 1


# --- outages -------------------------------------------------------------------------------------------------------


async def test_while_the_provider_is_away_its_keys_go_on_for_a_while(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock, readings: list[bool]
) -> None:
    await provider.verify(issuer.sign())
    await issuer.stop()
    clock.advance(KEEP_SECONDS - 1)
    assert (await provider.verify(issuer.sign())).subject == "ada"
    clock.advance(1)
    refusal = await refuse(provider, issuer.sign())
    assert (refusal.reason, refusal.retry_after_seconds) == (Reason.PROVIDER_UNREACHABLE, RETRY_SECONDS)
    await issuer.start()
    assert await reason(provider, issuer.sign()) is Reason.PROVIDER_UNREACHABLE  # tried a moment ago
    clock.advance(RETRY_SECONDS)
    assert (await provider.verify(issuer.sign())).subject == "ada"
    assert readings == [True, False, True]


async def test_a_key_we_could_not_look_for_is_no_401(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    await provider.verify(issuer.sign())
    await issuer.stop()
    clock.advance(RETRY_SECONDS)
    issuer.keys.insert(0, make_key("RS256", "second"))
    for _ in range(2):
        assert await reason(provider, issuer.sign()) is Reason.PROVIDER_UNREACHABLE


async def test_what_is_wrong_by_itself_is_401_in_an_outage_too(issuer: Issuer, provider: IdentityProvider) -> None:
    await issuer.stop()
    assert await reason(provider, "not.a.token") is Reason.TOKEN_INVALID
    assert await reason(provider, issuer.sign()) is Reason.PROVIDER_UNREACHABLE


BROKEN: dict[str, tuple[str, Answer]] = {
    "no metadata": (METADATA_PATH, answer_with(b"", 404)),
    "another issuer's metadata": (METADATA_PATH, answer_with(b'{"issuer": "x", "jwks_uri": "https://x"}')),
    "no keys": ("/keys", answer_with(b'{"keys": []}')),
    "keys that are no JSON": ("/keys", answer_with(b"<html>")),
    "an error": ("/keys", answer_with(b"", 500)),
    "a redirect": ("/keys", answer_with(b"", 302, {"Location": "/elsewhere"})),
    "a huge answer": ("/keys", answer_with(b" " * (MAX_ANSWER_BYTES + 1))),
}


@pytest.mark.parametrize(("path", "answer"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_provider_is_an_outage(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock, path: str, answer: Answer
) -> None:
    good = issuer.sign()
    await provider.verify(good)
    issuer.answers[path] = answer
    clock.advance(REFRESH_SECONDS - 1)
    assert (await provider.verify(issuer.sign())).subject == "ada"
    clock.advance(KEEP_SECONDS)
    assert await reason(provider, issuer.sign()) is Reason.PROVIDER_UNREACHABLE


async def test_a_silent_provider_is_an_outage(issuer: Issuer, clock: ManualClock, readings: list[bool]) -> None:
    provider = make_provider(issuer, clock, readings, timeout_seconds=0.1)
    issuer.answers["/keys"] = hold_until(asyncio.Event(), answer_with(b""))
    results = await asyncio.gather(*(reason(provider, issuer.sign()) for _ in range(20)))
    assert set(results) == {Reason.PROVIDER_UNREACHABLE}
    assert readings == [False]
    await provider.aclose()


async def test_closing_gives_up_what_is_being_read(issuer: Issuer, provider: IdentityProvider) -> None:
    issuer.answers["/keys"] = hold_until(asyncio.Event(), answer_with(b""))
    waiting = asyncio.create_task(reason(provider, issuer.sign()))
    async with asyncio.timeout(GUARD_SECONDS):
        while not issuer.asked["/keys"]:
            await asyncio.sleep(0)
    await provider.aclose()
    assert await waiting is Reason.PROVIDER_UNREACHABLE


# --- what is said --------------------------------------------------------------------------------------------------


async def test_an_outage_is_said_once_and_nothing_of_a_token_ever(
    issuer: Issuer, provider: IdentityProvider, clock: ManualClock
) -> None:
    stream = io.BytesIO()
    configure_logging("debug", stream)
    forged: list[Callable[[], str]] = [
        issuer.sign,
        lambda: issuer.sign(sub="s3cr3t-subject", aud="other"),
        lambda: issuer.sign(exp=1),
        lambda: form_token(make_key("RS256", "forger"), issuer.form_claims(), kid="s3cr3t-kid"),
        lambda: form_token(issuer.keys[0], issuer.form_claims(), jwk=make_key("RS256", "forger").jwk),
        lambda: form_hmac_token(b"s3cr3t-key", issuer.form_claims(), "first"),
        lambda: issuer.sign()[:-9] + "s3cr3tAAA",
        lambda: "s3cr3t." * 3000,
    ]
    texts = [make() for make in forged]
    await provider.verify(texts[0])
    refusals = [await refuse(provider, text) for text in texts[1:]]
    await issuer.stop()
    for _ in range(3):
        clock.advance(REFRESH_SECONDS)
        await provider.verify(issuer.sign())
    await asyncio.sleep(0)  # lines of one turn are written behind it
    lines = stream.getvalue()
    assert lines.count(b"identity_provider_failing") == 1
    said = lines.decode() + repr([(refusal, refusal.detail, refusal.data) for refusal in refusals])
    assert "s3cr3t" not in said
    assert not any(part in said for text in texts for part in text.split(".") if len(part) > 8)
