"""Memory: what is believed, for how long, and what never is again."""

from __future__ import annotations

import gc

import pytest

from proxy.errors import Reason
from proxy.identity import KeyId
from proxy.keys.record import Ancestor
from proxy.memory import FLOOR_SECONDS, KeyState, Memory, Proof
from proxy.news import EVERYTHING, News, NewsLog
from tests.clocks import ManualClock
from tests.records import ADA, BOB, find_rights, form_key_id, form_secret_token, make_ancestor, make_record, make_secret

KEY, OTHER, PARENT = form_key_id(1), form_key_id(2), form_key_id(3)
MAX_AGE_SECONDS = 15.0
UNKNOWN_SECONDS = 5.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def news() -> NewsLog:
    return NewsLog()


def make_memory(news: NewsLog, clock: ManualClock, *, digest_key: bytes = b"k" * 32, max_states: int = 4) -> Memory:
    return Memory(
        news,
        digest_key=digest_key,
        max_proofs=3,
        max_states=max_states,
        max_unknown=2,
        unknown_seconds=UNKNOWN_SECONDS,
        max_age_seconds=MAX_AGE_SECONDS,
        timer=clock.boot,
    )


@pytest.fixture
def memory(news: NewsLog, clock: ManualClock) -> Memory:
    return make_memory(news, clock)


def make_state(
    clock: ManualClock,
    news: NewsLog,
    key_id: KeyId = KEY,
    *,
    version: int = 1,
    owner_version: int = 1,
    status: str = "active",
    ancestors: tuple[Ancestor, ...] = (make_ancestor(PARENT),),
) -> KeyState:
    record = make_record(key_id, version=version, owner_version=owner_version, status=status, ancestors=ancestors)
    return KeyState(key_id, record, news.sequence, clock.boot())


def make_unknown(clock: ManualClock, news: NewsLog, key_id: KeyId) -> KeyState:
    return KeyState(key_id, None, news.sequence, clock.boot())


# Proofs.


def test_the_proof_used_least_recently_goes_first(memory: Memory) -> None:
    proofs = {bytes([number]): Proof(form_key_id(number), 1, "argon2") for number in range(4)}
    for number in range(3):
        memory.keep_proof(bytes([number]), proofs[bytes([number])])
    assert memory.find_proof(b"\0") is proofs[b"\0"], "and asking for it is using it"
    memory.keep_proof(b"\3", proofs[b"\3"])
    assert [memory.find_proof(bytes([number])) is not None for number in range(4)] == [True, False, True, True]


def test_news_leaves_proofs_alone(memory: Memory, news: NewsLog) -> None:
    proof = Proof(KEY, 1, "argon2")
    memory.keep_proof(b"d", proof)
    news.add(EVERYTHING)
    assert memory.find_proof(b"d") is proof


def test_a_digest_stands_for_one_token_in_one_process(news: NewsLog, clock: ManualClock) -> None:
    one, other = make_memory(news, clock), make_memory(news, clock, digest_key=b"K" * 32)
    token, sibling = form_secret_token(KEY).text, form_secret_token(KEY, 1).text
    assert one.digest(token) == one.digest(token) != one.digest(sibling)
    assert one.digest(token) != other.digest(token)
    assert len(one.digest(token)) == 16


def test_nothing_that_is_kept_holds_the_token_or_its_secret(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    token = form_secret_token(KEY, 7)
    secret = make_secret(token, "an argon2 string")
    memory.keep_proof(memory.digest(token.text), Proof(KEY, 1, secret.hash))
    state = KeyState(KEY, make_record(KEY, secrets=[secret]), news.sequence, clock.boot())
    memory.keep_state(state)
    state.get_principal(1, find_rights)

    kept: dict[int, object] = {}
    waiting: list[object] = list(vars(memory).values())
    while waiting:
        thing = waiting.pop()
        if id(thing) not in kept and not isinstance(thing, type) and not callable(thing):
            kept[id(thing)] = thing
            waiting.extend(gc.get_referents(thing))
    texts = [str(thing) for thing in kept.values() if isinstance(thing, str | bytes)]
    assert secret.hash in texts, "the search reaches what is kept"
    assert not [text for text in texts if token.secret in text]
    assert secret.hash not in repr(Proof(KEY, 1, secret.hash))
    assert secret.hash not in repr(state)


# States.


def test_a_state_is_believed_until_it_is_too_old(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    state = make_state(clock, news)
    assert memory.find_state(KEY, clock.boot()) is None
    memory.keep_state(state)
    assert memory.find_state(KEY, clock.boot() + 14.999) is state
    assert memory.find_state(KEY, clock.boot() + MAX_AGE_SECONDS) is None


@pytest.mark.parametrize("said", [News(key_id=KEY), News(key_id=PARENT), News(owner_id=ADA), EVERYTHING])
def test_a_state_is_believed_until_news_concerns_it(
    said: News, memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    memory.keep_state(make_state(clock, news))
    news.add(News(key_id=OTHER))
    news.add(News(owner_id=BOB))
    assert memory.find_state(KEY, clock.boot())
    news.add(said)
    assert memory.find_state(KEY, clock.boot()) is None
    fresh = make_state(clock, news)
    memory.keep_state(fresh)
    assert memory.find_state(KEY, clock.boot()) is fresh


def test_a_row_read_before_the_news_is_not_believed_however_late_it_is_kept(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    read_before = make_state(clock, news)
    news.add(News(owner_id=ADA))
    assert memory.keep_state(read_before)
    assert memory.find_state(KEY, clock.boot()) is None


def test_a_state_makes_one_principal_for_each_secret(clock: ManualClock, news: NewsLog) -> None:
    secrets = [
        make_secret(form_secret_token(KEY), not_after=50.0),
        make_secret(form_secret_token(KEY, 1), version=2),
    ]
    parent = make_ancestor(PARENT, expires_at=70.0)
    record = make_record(KEY, secrets=secrets, scopes=("agent:list",), expires_at=90.0, ancestors=(parent,))
    state = KeyState(KEY, record, news.sequence, clock.boot())
    old, new = state.get_principal(1, find_rights), state.get_principal(2, find_rights)
    assert state.get_principal(1, find_rights) is old
    assert (old.secret_version, old.ends) == (1, (50.0, Reason.SECRET_RETIRED))
    assert (new.secret_version, new.ends) == (2, (70.0, Reason.KEY_EXPIRED))
    assert new.lineage == (KEY, PARENT)
    assert new.grants == {"agent:list"}
    assert new.owner == record.owner


# Unknown ids.


def test_a_flood_of_unknown_ids_pushes_no_key_out(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    state = make_state(clock, news)
    memory.keep_state(state)
    memory.keep_proof(b"d", Proof(KEY, 1, "argon2"))
    for number in range(100, 200):
        memory.keep_state(make_unknown(clock, news, form_key_id(number)))
    assert memory.find_state(KEY, clock.boot()) is state
    assert memory.find_proof(b"d")
    remembered = [number for number in range(100, 200) if memory.find_state(form_key_id(number), clock.boot())]
    assert remembered == [198, 199]


def test_an_id_stays_unknown_for_a_short_while_only(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    memory.keep_state(make_unknown(clock, news, KEY))
    clock.advance(UNKNOWN_SECONDS - 0.001)
    found = memory.find_state(KEY, clock.boot())
    assert found is not None
    assert found.record is None
    clock.advance(0.001)
    assert memory.find_state(KEY, clock.boot()) is None


def test_an_unknown_id_that_is_minted_is_known_at_its_news(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    memory.keep_state(make_unknown(clock, news, KEY))
    news.add(News(key_id=KEY))
    assert memory.find_state(KEY, clock.boot()) is None
    minted = make_state(clock, news)
    memory.keep_state(minted)
    assert memory.find_state(KEY, clock.boot()) is minted


def test_a_key_that_is_deleted_is_forgotten(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    memory.keep_state(make_state(clock, news))
    memory.keep_state(make_unknown(clock, news, KEY))
    found = memory.find_state(KEY, clock.boot())
    assert found is not None
    assert found.record is None


# Floors.


def test_a_row_older_than_one_already_seen_is_not_believed(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    seen = make_state(clock, news, version=7)
    assert memory.keep_state(seen)
    assert not memory.keep_state(make_state(clock, news, version=6))
    assert memory.find_state(KEY, clock.boot()) is seen
    assert memory.keep_state(make_state(clock, news, version=7))
    assert memory.keep_state(make_state(clock, news, version=8))
    assert not memory.keep_state(make_state(clock, news, version=7))
    assert not memory.is_revoked(KEY)


def test_a_row_that_stays_older_for_long_is_a_restored_backup_and_counts(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    assert memory.keep_state(make_state(clock, news, version=7))
    clock.advance(FLOOR_SECONDS - 1)
    assert not memory.keep_state(make_state(clock, news, version=6))
    clock.advance(1)
    assert memory.keep_state(make_state(clock, news, version=6))


def test_a_revocation_is_believed_however_old_its_version(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    assert memory.keep_state(make_state(clock, news, version=7))
    assert memory.keep_state(make_state(clock, news, version=2, status="revoked"))
    assert memory.is_revoked(KEY)
    parent = make_ancestor(PARENT, status="revoked", version=0)
    assert memory.keep_state(make_state(clock, news, OTHER, version=7))
    assert memory.keep_state(make_state(clock, news, OTHER, version=1, ancestors=(parent,)))


def test_an_old_row_of_a_revoked_key_lowers_no_floor(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    assert memory.keep_state(make_state(clock, news, owner_version=7))
    assert memory.keep_state(make_state(clock, news, OTHER, status="revoked", owner_version=6))
    assert not memory.keep_state(make_state(clock, news, version=2, owner_version=6))


def test_a_row_with_an_owner_or_an_ancestor_older_than_one_already_seen_is_not_believed(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    """A replica that lags behind may know the key itself, but not yet that its owner or its parent changed."""
    parent = make_ancestor(PARENT, version=7)
    assert memory.keep_state(make_state(clock, news, owner_version=5, ancestors=(parent,)))
    for owner_version, parent_version in ((4, 7), (5, 6)):
        ancestors = (make_ancestor(PARENT, version=parent_version),)
        assert not memory.keep_state(
            make_state(clock, news, OTHER, version=9, owner_version=owner_version, ancestors=ancestors)
        )
    assert memory.keep_state(make_state(clock, news, OTHER, owner_version=5, ancestors=(parent,)))


def test_an_ancestor_seen_revoked_stays_so_for_all_that_descends_from_it(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    revoked = make_ancestor(PARENT, status="revoked", version=2)
    assert memory.keep_state(make_state(clock, news, status="revoked", version=2, ancestors=(revoked,)))
    assert memory.is_revoked(PARENT)
    for status in ("active", "disabled"):
        parent = make_ancestor(PARENT, status=status, version=3)
        assert not memory.keep_state(make_state(clock, news, OTHER, ancestors=(parent,)))
    assert memory.keep_state(make_state(clock, news, OTHER, ancestors=(revoked,)))


def test_a_key_seen_revoked_stays_so_whatever_version_a_row_has(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    revoked = make_state(clock, news, version=7, status="revoked")
    assert memory.keep_state(revoked)
    assert memory.is_revoked(KEY)
    for version in (6, 7, 8, 10**9):
        assert not memory.keep_state(make_state(clock, news, version=version))
        assert not memory.keep_state(make_state(clock, news, version=version, status="disabled"))
    assert memory.find_state(KEY, clock.boot()) is revoked
    assert revoked.record is not None
    assert revoked.record.find_fault(0.0) is Reason.KEY_REVOKED
    assert memory.keep_state(make_state(clock, news, version=8, status="revoked"))


def test_a_deletion_does_not_bring_a_revoked_key_back(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    memory.keep_state(make_state(clock, news, version=7, status="revoked"))
    memory.keep_state(make_unknown(clock, news, KEY))
    assert not memory.keep_state(make_state(clock, news, version=8))
    assert memory.is_revoked(KEY)


def test_of_two_reads_the_later_one_counts_whichever_answers_first(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    earlier = make_state(clock, news)
    gone_earlier = make_unknown(clock, news, KEY)
    clock.advance(1.0)
    later = make_state(clock, news)
    for state in (later, earlier, gone_earlier):
        assert memory.keep_state(state)
    assert memory.find_state(KEY, clock.boot()) is later


def test_a_revocation_counts_even_when_a_later_read_was_quicker_and_knew_nothing_of_it(
    memory: Memory, clock: ManualClock, news: NewsLog
) -> None:
    """The later read may have come from a replica that lags behind."""
    revoked = make_state(clock, news, version=8, status="revoked")
    clock.advance(1.0)
    assert memory.keep_state(make_state(clock, news, version=7))
    assert memory.keep_state(revoked)
    assert memory.is_revoked(KEY)
    assert memory.find_state(KEY, clock.boot()) is revoked


def test_states_are_bounded_least_recently_used_first(memory: Memory, clock: ManualClock, news: NewsLog) -> None:
    for number in range(4):
        memory.keep_state(make_state(clock, news, form_key_id(number)))
    assert memory.find_state(form_key_id(0), clock.boot())
    memory.keep_state(make_state(clock, news, form_key_id(4)))
    remembered = [number for number in range(5) if memory.find_state(form_key_id(number), clock.boot())]
    assert remembered == [0, 2, 3, 4]
