"""Minting: what may be asked for, what is refused and in which words, and where the secret goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UnavailableError
from proxy.identity import KeyId
from proxy.keys.hashing import Hasher, MismatchError
from proxy.keys.minting import (
    CLOCK_SLACK,
    EXPIRY_OPTIONS,
    MintedKey,
    MintError,
    MintRequest,
    check_longest,
    get_default_expiry,
    list_expiries,
    mint,
    parse_expiry,
    settle_expiry,
)
from proxy.keys.store import KeyConflictError
from proxy.keys.token import fast_tag, parse_token
from proxy.policy import Policy
from tests.staging import Stage

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ODD_CHARACTERS = "\0\t\n\r\x1b\x7f\x85\x9b\u2028\u2029\u202a\u202e\u2066\udcff"


async def mint_on(stage: Stage, **changes: Any) -> MintedKey:
    values: dict[str, Any] = {"name": "ci", "owner": "ada", "actor": "test", "preset": "execution"}
    request = MintRequest(**{**values, **changes})
    minted = await mint(request, policy=stage.policy, store=stage.store, hasher=stage.hasher)
    stage.note_secret(minted.token)
    return minted


async def count_rows(stage: Stage) -> int:
    (row,) = await stage.database.fetch("SELECT (SELECT count(*) FROM owners) + (SELECT count(*) FROM api_keys)")
    return int(row[0])


# Expiry


@pytest.mark.parametrize(("option", "days"), [("7d", 7), ("30d", 30), ("90d", 90), ("1y", 365)])
def test_each_option_counts_from_now(option: str, days: int) -> None:
    assert parse_expiry(option, NOW) == NOW + timedelta(days=days)


def test_never_is_no_end_and_there_are_no_options_beside_those_of_the_page() -> None:
    assert parse_expiry("never", NOW) is None
    assert list(EXPIRY_OPTIONS) == ["7d", "30d", "90d", "1y"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:30", datetime(2027, 1, 31, 18, 30, tzinfo=UTC)),
        ("2027-01-31 18:30:15", datetime(2027, 1, 31, 18, 30, 15, tzinfo=UTC)),
        ("2027-01-31T18:30Z", datetime(2027, 1, 31, 18, 30, tzinfo=UTC)),
        ("2027-01-31T18:30+02:00", datetime(2027, 1, 31, 16, 30, tzinfo=UTC)),
        ("2026-06-01T12:00:00.000001", NOW + timedelta(microseconds=1)),
        ("2026-06-01T10:00:01-02:00", NOW + timedelta(seconds=1)),
    ],
)
def test_a_date_is_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert parse_expiry(text, NOW) == moment


@pytest.mark.parametrize("text", ["2026-06-01", "2026-06-01T12:00", "2026-06-01T13:59+02:00", "1999-12-31"])
def test_an_end_that_has_come_is_refused(text: str) -> None:
    with pytest.raises(MintError) as caught:
        parse_expiry(text, NOW)
    assert str(caught.value) == f"expiry {text!r} lies in the past"


@pytest.mark.parametrize(
    "text",
    ["", " ", "7", "7D", "7 d", " 7d", "-7d", "0d", "1d", "2y", "now", "tomorrow", "Never", "infinity", "nan",
     "2027-02-30", "2027-13-01", "31.01.2027", "01/31/2027", "2027-01-31T25:00", "٢٠٢٧-٠١-٣١",
     "9999-12-31T23:59:59-12:00", "0001-01-01T00:00+14:00", "2027-01-31\n"],
)  # fmt: skip
def test_any_other_text_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(MintError) as caught:
        parse_expiry(text, NOW)
    assert str(caught.value) == (
        f"expiry {text!r} is neither one of 7d, 30d, 90d, 1y, never nor an ISO date such as 2027-01-31"
    )


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_any_written_moment_is_read_back_or_lies_in_the_past(moment: datetime) -> None:
    text, moment = moment.isoformat(), moment.astimezone(UTC)  # across zones, moments of a repeated hour never compare
    if moment <= NOW:
        with pytest.raises(MintError, match="lies in the past"):
            parse_expiry(text, NOW)
    else:
        assert parse_expiry(text, NOW) == moment


@given(st.text(max_size=40))
def test_no_text_makes_an_expiry_by_accident(text: str) -> None:
    try:
        end = parse_expiry(text, NOW)
    except MintError:
        return
    assert (end is None) == (text == "never")
    assert end is None or end > NOW


# What is minted


async def test_the_token_opens_what_was_stored_and_is_stored_nowhere(stage: Stage) -> None:
    minted = await mint_on(stage, expires_at=NOW + timedelta(days=36_500))
    token = parse_token(minted.token)
    assert token.key_id == minted.summary.id
    record = (await stage.store.read_keys([token.key_id]))[token.key_id]
    secret = record.secrets[1]
    assert secret.tag == fast_tag(token.key_id, token.secret)
    await stage.hasher.verify(secret.hash, token.secret)
    with pytest.raises(MismatchError):
        await stage.hasher.verify(secret.hash, token.text)
    rows = await stage.database.fetch(
        "SELECT api_keys::text || api_key_secrets::text || owners::text || audit_events::text"
        " FROM api_keys, api_key_secrets, owners, audit_events"
    )
    assert rows
    assert all(token.secret not in row[0] for row in rows)
    assert minted.summary.expires_at == NOW + timedelta(days=36_500)


async def test_the_secret_is_in_no_representation_of_what_is_minted(stage: Stage) -> None:
    minted = await mint_on(stage)
    secret = parse_token(minted.token).secret
    assert secret not in repr(minted)
    assert secret not in str(minted)
    assert minted.summary.id in repr(minted)


async def test_no_two_keys_share_an_id_or_a_secret(stage: Stage) -> None:
    tokens = [parse_token((await mint_on(stage, name=f"key {number}")).token) for number in range(20)]
    assert len({token.key_id for token in tokens}) == len({token.secret for token in tokens}) == 20


@pytest.mark.parametrize("preset", ["read-only", "execution", "developer", "full-access"])
async def test_a_preset_is_written_out_into_the_key(stage: Stage, preset: str) -> None:
    summary = (await mint_on(stage, preset=preset)).summary
    assert summary.preset == preset
    assert summary.scopes == stage.policy.presets[preset].scopes != ()


async def test_scopes_are_stored_once_each_and_in_the_order_given(stage: Stage) -> None:
    scopes = ("workflow:run:nightly-etl", "agent:list", "workflow:run:nightly-etl")
    summary = (await mint_on(stage, preset=None, scopes=scopes)).summary
    assert summary.preset is None
    assert summary.scopes == ("workflow:run:nightly-etl", "agent:list")


@pytest.mark.parametrize("scopes", [["agent:list"], ("agent:list",)])
@pytest.mark.parametrize("preset", ["execution", ""])
async def test_a_preset_and_scopes_together_are_refused(stage: Stage, preset: str, scopes: Any) -> None:
    with pytest.raises(MintError, match=r"^give either a preset or at least one scope, and not both$"):
        await mint_on(stage, preset=preset, scopes=scopes)


async def test_neither_preset_nor_scopes_is_refused(stage: Stage) -> None:
    with pytest.raises(MintError, match=r"^give either a preset or at least one scope, and not both$"):
        await mint_on(stage, preset=None)


@pytest.mark.parametrize("preset", ["", "admin", "Execution", "execution "])
async def test_an_unknown_preset_is_refused_with_the_choices(stage: Stage, preset: str) -> None:
    with pytest.raises(MintError) as caught:
        await mint_on(stage, preset=preset)
    assert str(caught.value) == (
        f"unknown preset {preset!r}: choose one of read-only, execution, developer, full-access"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "hint"),
    [
        ("workflow:rum", "did you mean workflow:run?"),
        ("workflows:run:nightly-etl", "did you mean workflow:run?"),
        ("zebra", "the catalogue under scopes: lists what there is"),
        ("", "the catalogue under scopes: lists what there is"),
        ("workflow:run:", "name one workflow name, or write workflow:run for all"),
        ("workflow:run:*", "without * or control characters"),
        ("workflow:list:mine", "write workflow:list"),
    ],
)
async def test_a_scope_that_is_not_in_the_catalogue_is_refused_with_a_hint(stage: Stage, scope: str, hint: str) -> None:
    with pytest.raises(MintError) as caught:
        await mint_on(stage, preset=None, scopes=("agent:list", scope))
    assert hint in str(caught.value)
    assert await count_rows(stage) == 0


async def test_an_unknown_tier_is_refused_with_the_choices(stage: Stage) -> None:
    with pytest.raises(MintError, match=r"^unknown tier 'gold': choose one of free, pro, business, enterprise$"):
        await mint_on(stage, tier="gold")


async def test_a_new_owner_gets_the_policys_tier_and_keeps_it(stage: Stage) -> None:
    assert (await mint_on(stage)).summary.tier == stage.policy.default_tier
    with pytest.raises(KeyConflictError, match="has tier 'pro', not 'free'"):
        await mint_on(stage, name="other", tier="free")


# Names


async def test_a_name_is_kept_as_it_was_given(stage: Stage) -> None:
    names = ["a", "n" * 64, "ключ № 1", "鍵", "🔑" * 64, "👩\u200d💻", "a  b", "a\u00a0b", "[bold]", "-", "''--"]
    for name in names:
        assert (await mint_on(stage, name=name)).summary.name == name
    assert {key.name for key in await stage.store.list_keys()} == set(names)


async def test_a_name_nobody_could_read_in_a_list_is_refused(stage: Stage) -> None:
    blanks = ["", "n" * 65, "🔑" * 65, " ci", "ci ", " ", "\u00a0ci"]
    for name in (*blanks, *(f"a{character}b" for character in ODD_CHARACTERS)):
        with pytest.raises(MintError) as caught:
            await mint_on(stage, name=name)
        assert str(caught.value) == "a key's name has 1 to 64 printable characters and no space at its ends"
    assert await count_rows(stage) == 0


@pytest.mark.parametrize("cut", [64, 40])
async def test_a_key_that_was_pasted_for_its_name_is_not_kept(stage: Stage, cut: int) -> None:
    """As much of it as the page's field lets in is enough to guess the rest; nor does the error repeat it."""
    pasted = (await mint_on(stage, name="first")).token
    for name in (pasted[:cut], f"my {pasted[: max(cut - 3, 42)]}", f"aegis_{'a' * 40}"):
        with pytest.raises(MintError, match="looks like an API key") as caught:
            await mint_on(stage, name=name)
        assert pasted[20:30] not in str(caught.value)
    assert await count_rows(stage) == 2  # the first, and its owner
    await mint_on(stage, name=f"what {pasted[:18]} was for, aegis_deployment01_ci")


@pytest.mark.parametrize("word", ["owner", "tenant"])
async def test_an_owner_or_tenant_nobody_could_read_is_refused(stage: Stage, word: str) -> None:
    for value in ("", "o" * 256, *(f"a{character}b" for character in ODD_CHARACTERS)):
        with pytest.raises(MintError) as caught:
            await mint_on(stage, **{word: value})
        assert str(caught.value) == f"the {word} has 1 to 255 printable characters"
    assert await count_rows(stage) == 0


async def test_an_owner_and_a_tenant_of_any_script_are_kept(stage: Stage) -> None:
    summary = (await mint_on(stage, owner="Ада|auth0 " + "o" * 245, tenant="株式会社")).summary
    assert (summary.owner, summary.tenant) == ("Ада|auth0 " + "o" * 245, "株式会社")


# Failures


async def test_a_refused_request_costs_no_hash(stage: Stage) -> None:
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=-1, timeout_seconds=1)
    request = MintRequest(name="", owner="ada", actor="test", preset="execution")
    with pytest.raises(MintError):
        await mint(request, policy=stage.policy, store=stage.store, hasher=hasher)
    hasher.close()


async def test_a_full_hash_pool_mints_nothing(stage: Stage) -> None:
    full = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=-1, timeout_seconds=1)
    request = MintRequest(name="ci", owner="ada", actor="test", preset="execution")
    with pytest.raises(UnavailableError):
        await mint(request, policy=stage.policy, store=stage.store, hasher=full)
    assert await count_rows(stage) == 0
    full.close()


async def test_a_minted_key_is_active_and_revocable(stage: Stage) -> None:
    minted = await mint_on(stage)
    key_id = KeyId(minted.summary.id)
    assert (await stage.store.read_keys([key_id]))[key_id].find_fault(NOW.timestamp()) is None
    revoked = await stage.store.revoke_key(key_id, actor="test")
    assert revoked is not None
    assert revoked.status == "revoked"


# What the policy lets keys live.


@pytest.fixture
def short(policy: Policy) -> Policy:
    """A policy under which keys live for thirty days."""
    return replace(policy, longest_expiry=timedelta(days=30))


@pytest.mark.parametrize("text", ["never", "90d", "1y", "2026-12-31", "9999-12-31"])
def test_an_expiry_beyond_the_policy_is_refused_with_its_word(text: str, short: Policy, policy: Policy) -> None:
    with pytest.raises(MintError, match=r"30 days at most \(longest_expiry\)") as refused:
        settle_expiry(text, short, NOW)
    assert refused.value.field == "expires_at"
    settle_expiry(text, policy, NOW)


def test_an_expiry_within_the_policy_is_taken_and_so_is_a_clock_that_goes_a_little_ahead(short: Policy) -> None:
    assert settle_expiry("7d", short, NOW) == NOW + timedelta(days=7)
    check_longest(settle_expiry("30d", short, NOW), short, NOW.timestamp() - CLOCK_SLACK.total_seconds())
    with pytest.raises(MintError):
        check_longest(NOW + timedelta(days=30, seconds=1), short, NOW.timestamp() - CLOCK_SLACK.total_seconds())


def test_without_a_word_a_key_lives_a_while_within_the_policy_and_its_maker(short: Policy, policy: Policy) -> None:
    assert settle_expiry(None, policy, NOW) == NOW + timedelta(days=90)
    assert settle_expiry(None, short, NOW) == NOW + timedelta(days=30)
    maker = NOW + timedelta(days=3)
    assert get_default_expiry(short, NOW, maker.timestamp()) == maker
    assert get_default_expiry(policy, NOW, (NOW + timedelta(days=900)).timestamp()) == NOW + timedelta(days=90)


def test_only_what_a_key_may_have_is_offered(short: Policy, policy: Policy) -> None:
    assert list_expiries(policy, NOW) == ("7d", "30d", "90d", "1y", "never")
    assert list_expiries(short, NOW) == ("7d", "30d")
    assert list_expiries(policy, NOW, (NOW + timedelta(days=89)).timestamp()) == ("7d", "30d")
    assert list_expiries(short, NOW, (NOW + timedelta(days=6)).timestamp()) == ()
    for option in list_expiries(short, NOW):
        settle_expiry(option, short, NOW)


async def test_minting_refuses_what_the_policy_does_whoever_asks(short: Policy, stage: Stage) -> None:
    request = MintRequest(name="a", owner="ada", actor="test", scopes=("agent:list",), expires_at=None)
    with pytest.raises(MintError, match="longest_expiry"):
        await mint(request, policy=short, store=stage.store, hasher=stage.hasher)
    assert await stage.store.list_keys() == []
