"""The lease: three states of trust, and the instants between them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lease import Lease, Trust

LEASE_SECONDS, GRACE_SECONDS = 2.0, 1.0
STAMP = 1_000.0


@pytest.fixture
def lease() -> Lease:
    return Lease(lease_seconds=LEASE_SECONDS, grace_seconds=GRACE_SECONDS)


def test_nothing_is_trusted_before_the_first_nonce(lease: Lease) -> None:
    assert lease.judge(0.0) is lease.judge(-1e12) is Trust.CLOSED


@pytest.mark.parametrize(
    ("now", "trust"),
    [
        (STAMP, Trust.TRUSTED),
        (math.nextafter(STAMP + 2.0, 0), Trust.TRUSTED),
        (STAMP + 2.0, Trust.READ_THROUGH),
        (math.nextafter(STAMP + 3.0, 0), Trust.READ_THROUGH),
        (STAMP + 3.0, Trust.CLOSED),
        (STAMP + 1e9, Trust.CLOSED),
    ],
)
def test_trust_ends_with_the_lease_and_everything_with_the_grace(lease: Lease, now: float, trust: Trust) -> None:
    lease.renew(STAMP)
    assert lease.judge(now) is trust


def test_a_lease_without_grace_closes_when_it_runs_out() -> None:
    lease = Lease(lease_seconds=2.0, grace_seconds=0.0)
    lease.renew(STAMP)
    assert lease.judge(STAMP + 2.0) is Trust.CLOSED


def test_renewing_with_an_older_stamp_shortens_nothing(lease: Lease) -> None:
    lease.renew(STAMP)
    lease.renew(STAMP - 1.0)
    lease.extend(STAMP - 1.0)
    assert (lease.trusted_until, lease.open_until) == (STAMP + 2.0, STAMP + 3.0)


def test_distrust_takes_effect_at_once_and_leaves_reading_allowed(lease: Lease) -> None:
    lease.renew(STAMP)
    lease.distrust()
    assert lease.judge(STAMP) is Trust.READ_THROUGH
    assert lease.judge(STAMP + 3.0) is Trust.CLOSED


def test_a_lease_is_renewed_after_distrust(lease: Lease) -> None:
    lease.renew(STAMP)
    lease.distrust()
    lease.renew(STAMP)
    assert lease.judge(STAMP) is Trust.TRUSTED


def test_a_revalidation_keeps_open_and_makes_nothing_trusted(lease: Lease) -> None:
    lease.extend(STAMP)
    assert lease.judge(STAMP) is Trust.READ_THROUGH
    lease.renew(STAMP)
    lease.extend(STAMP + 5.0)
    assert lease.judge(STAMP + 2.0) is lease.judge(math.nextafter(STAMP + 8.0, 0)) is Trust.READ_THROUGH
    assert lease.judge(STAMP + 8.0) is Trust.CLOSED


@pytest.mark.parametrize("proof", ["a nonce", "its own row"])
def test_something_flows_for_lease_and_grace_after_its_latest_proof(lease: Lease, proof: str) -> None:
    read_at = STAMP if proof == "its own row" else STAMP - 50.0
    lease.renew(STAMP - 50.0 if proof == "its own row" else STAMP)
    assert lease.is_flowing(read_at, math.nextafter(STAMP + 3.0, 0))
    assert not lease.is_flowing(read_at, STAMP + 3.0)


def test_a_revalidation_of_others_keeps_nothing_flowing_whose_own_row_is_old(lease: Lease) -> None:
    lease.renew(STAMP)
    lease.extend(STAMP + 10.0)
    assert not lease.is_flowing(STAMP, STAMP + 3.0)
    assert lease.is_flowing(STAMP + 10.0, STAMP + 12.0)


def test_closed_nothing_is_believed_until_it_is_proven_anew(lease: Lease) -> None:
    lease.renew(STAMP)
    lease.close()
    assert lease.judge(STAMP) is Trust.CLOSED
    assert not lease.is_flowing(STAMP - 3.0, STAMP)
    lease.renew(STAMP)
    assert lease.judge(STAMP) is Trust.TRUSTED


@given(
    st.lists(st.tuples(st.sampled_from(["renew", "extend", "distrust"]), st.floats(0, 100)), max_size=30),
    st.floats(0, 200),
)
def test_trust_follows_from_the_latest_nonce_and_the_latest_proof_of_life(
    steps: list[tuple[str, float]], now: float
) -> None:
    lease = Lease(lease_seconds=LEASE_SECONDS, grace_seconds=GRACE_SECONDS)
    nonces: list[float] = []
    signs: list[float] = []
    for act, stamp in steps:
        if act == "distrust":
            lease.distrust()
            nonces.clear()
            continue
        signs.append(stamp)
        if act == "renew":
            lease.renew(stamp)
            nonces.append(stamp)
        else:
            lease.extend(stamp)
    if any(now < stamp + LEASE_SECONDS for stamp in nonces):
        expected = Trust.TRUSTED
    elif any(now < stamp + LEASE_SECONDS + GRACE_SECONDS for stamp in signs):
        expected = Trust.READ_THROUGH
    else:
        expected = Trust.CLOSED
    assert lease.judge(now) is expected
