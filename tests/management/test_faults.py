"""What `keys` says no with, in the words of refusals."""

from __future__ import annotations

import pytest

from proxy.challenges import TABLE
from proxy.errors import Reason
from proxy.keys.rights import CallerError, RightsError
from proxy.management.faults import (
    MAX_FAULTS,
    refuse_caller,
    refuse_conflict,
    refuse_input,
    refuse_missing_key,
    refuse_missing_owner,
    refuse_rights,
    refuse_stale,
)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.SCOPE_MISSING,
        Reason.RIGHTS_EXCEEDED,
        Reason.EXPIRY_EXCEEDED,
        Reason.CONSTRAINTS_EXCEEDED,
        Reason.NOT_A_DESCENDANT,
        Reason.NOT_THE_OWNER,
        Reason.TOO_MANY_GENERATIONS,
        Reason.ROLE_MISSING,
    ],
)
def test_a_lack_of_rights_is_a_403_of_its_own_word(reason: Reason) -> None:
    refusal = refuse_rights(RightsError(reason, "why", ["agent:list"]), "management/x")
    assert (refusal.reason, TABLE[refusal.reason].status) == (reason, 403)
    assert (refusal.detail, refusal.data) == ("why.", {"rule": "management/x", "missing": ["agent:list"]})


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.OWNER_UNKNOWN, 403),
        (Reason.TENANT_MISMATCH, 403),
        (Reason.OWNER_DISABLED, 401),
        (Reason.KEY_REVOKED, 401),
        (Reason.SECRET_RETIRED, 401),
        (Reason.CREDENTIAL_INVALID, 401),
    ],
)
def test_a_caller_who_may_not_ask_any_more_is_told_why(reason: Reason, status: int) -> None:
    refusal = refuse_caller(CallerError(reason, "why"))
    assert (refusal.reason, TABLE[refusal.reason].status) == (reason, status)


@pytest.mark.parametrize(
    ("refusal", "reason", "status"),
    [
        (refuse_missing_key(), Reason.KEY_NOT_FOUND, 404),
        (refuse_missing_owner(), Reason.OWNER_NOT_FOUND, 404),
        (refuse_conflict("why"), Reason.KEY_CONFLICT, 409),
        (refuse_stale(), Reason.KEY_CHANGED, 412),
        (refuse_input([("name", "why")]), Reason.INPUT_INVALID, 422),
    ],
)
def test_what_contradicts_the_table_or_the_shape_has_its_word(refusal: Exception, reason: Reason, status: int) -> None:
    assert getattr(refusal, "reason", None) is reason
    assert TABLE[reason].status == status


def test_faults_are_named_by_member_and_bounded() -> None:
    refusal = refuse_input((f"member {number}", "is unknown") for number in range(1000))
    assert refusal.data is not None
    assert len(refusal.data["faults"]) == MAX_FAULTS
    assert refusal.data["faults"][0] == {"field": "member 0", "message": "is unknown"}
    long = refuse_input([("x" * 60_000 + "\x1b[31m", "is unknown")])
    assert len(long.detail) < 300
    assert "\x1b" not in long.detail
