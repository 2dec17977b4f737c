"""How many invalid keys of one address are answered in full, whose they are, and what never counts."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from proxy.challenges import TABLE
from proxy.client_address import parse_client_address
from proxy.errors import CredentialError, Reason, Refusal, RequestError, UnprovenError
from proxy.failures import LOCAL, FailureLimiter, find_source

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
INVALID = UnprovenError(Reason.CREDENTIAL_INVALID, "This API key is not valid.")


def test_a_burst_is_answered_and_then_one_after_the_other() -> None:
    limiter = FailureLimiter(burst=3, per_second=2)
    assert [limiter.count("a", 10.0) for _ in range(5)] == [None, None, None, 1, 1]
    assert [limiter.count("a", 10.5) for _ in range(2)] == [None, 1]
    assert [limiter.count("a", 100.0) for _ in range(4)] == [None, None, None, 1], "nothing is saved up"
    assert limiter.count("b", 10.0) is None


def test_what_is_beyond_the_budget_does_not_count_against_it() -> None:
    limiter = FailureLimiter(burst=1, per_second=0.5)
    limiter.count("a", 0.0)
    assert {limiter.count("a", 0.0) for _ in range(1_000)} == {2}
    assert limiter.count("a", 2.0) is None


def test_asking_does_not_count() -> None:
    limiter = FailureLimiter(burst=1, per_second=1)
    assert [limiter.find_wait("a", 0.0) for _ in range(3)] == [None] * 3
    limiter.count("a", 0.0)
    assert [limiter.find_wait("a", now) for now in (0.0, 0.9, 1.0)] == [1, 1, None]


@given(
    st.integers(1, 50),
    st.floats(0.01, 100),
    st.floats(0, 3e8),
    st.lists(st.floats(0, 10), max_size=200),
)
def test_in_any_time_no_more_pass_than_burst_and_rate_say(
    burst: int, per_second: float, start: float, pauses: list[float]
) -> None:
    limiter, now, passed = FailureLimiter(burst=burst, per_second=per_second), start, 0
    for pause in pauses:
        now += pause
        wait = limiter.count("a", now)
        passed += wait is None
        assert passed <= burst + (now - start) * per_second + 0.01
        if wait is not None:
            assert limiter.find_wait("a", now + wait) is None, "whoever comes back as told is answered"


def test_what_is_remembered_is_bounded_and_the_longest_unused_goes_first() -> None:
    limiter = FailureLimiter(burst=1, per_second=0.01, max_sources=100)
    for number in range(100_000):
        limiter.count(f"source {number}", 0.0)
    assert len(limiter._forgiven_at) == 100
    assert limiter.count("source 99999", 0.0) == 100
    assert limiter.count("source 0", 0.0) is None


def test_a_network_is_one_source() -> None:
    assert find_source(parse_client_address("2001:db8:1:2::1")) == "2001:db8:1:2::/64"


def test_a_unix_socket_is_a_source_of_its_own() -> None:
    assert find_source(None) == LOCAL


def test_only_what_proved_no_secret_counts_and_is_limited() -> None:
    limiter = FailureLimiter(burst=2, per_second=0.1)
    others: list[Refusal] = [
        CredentialError(reason, "said to whoever proved the secret")
        for reason in Reason
        if reason.value.startswith(("key_", "secret_", "owner_"))
    ]
    others.append(RequestError(Reason.ROUTE_UNKNOWN, "no matter whose"))
    for _ in range(10):
        for refusal in others:
            assert limiter.weigh(refusal, HERE, 0.0) is refusal
    assert [limiter.weigh(INVALID, HERE, 0.0).reason for _ in range(3)] == [
        Reason.CREDENTIAL_INVALID, Reason.CREDENTIAL_INVALID, Reason.TOO_MANY_FAILURES,
    ]  # fmt: skip
    for refusal in others:
        assert limiter.weigh(refusal, HERE, 0.0) is refusal, "not even from there"
    assert limiter.weigh(INVALID, THERE, 0.0) is INVALID


def test_whoever_is_limited_hears_when_to_come_back_and_nothing_of_the_key() -> None:
    limiter = FailureLimiter(burst=1, per_second=0.5)
    limiter.count(find_source(HERE), 0.0)
    malformed, invalid = (
        limiter.weigh(UnprovenError(reason, "why"), HERE, 0.0)
        for reason in (Reason.CREDENTIAL_MALFORMED, Reason.CREDENTIAL_INVALID)
    )
    assert (malformed.reason, malformed.detail) == (invalid.reason, invalid.detail)
    assert malformed.retry_after_seconds == invalid.retry_after_seconds == 2
    assert TABLE[invalid.reason].challenge is None, "another credential is not what is asked for"
