"""What `keys` says no with, in the words of refusals."""

from __future__ import annotations

import pytest

from proxy.challenges import TABLE
from proxy.errors import Reason
from proxy.keys.rights import CallerError, RightsCode, RightsError
from proxy.management.faults import (
    MAX_FAULTS,
    find_no_key,
    find_no_owner,
    refuse_caller,
    refuse_conflict,
    refuse_input,
    refuse_rights,
    refuse_stale,
)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("scope_missing", Reason.SCOPE_MISSING),
        ("rights_exceeded", Reason.RIGHTS_EXCEEDED),
        ("expiry_exceeded", Reason.EXPIRY_EXCEEDED),
        ("constraints_exceeded", Reason.CONSTRAINTS_EXCEEDED),
        ("not_a_descendant", Reason.NOT_A_DESCENDANT),
        ("not_the_owner", Reason.NOT_THE_OWNER),
        ("too_many_generations", Reason.TOO_MANY_GENERATIONS),
        ("role_missing", Reason.ROLE_MISSING),
    ],
)
def test_a_lack_of_rights_is_a_403_of_its_own_word(code: RightsCode, reason: Reason) -> None:
    refusal = refuse_rights(RightsError(code, "why", ["agent:list"]), "management/x")
    assert (refusal.reason, refusal.reason.value, TABLE[refusal.reason].status) == (reason, code, 403)
    assert (refusal.detail, refusal.data) == ("why.", {"rule": "management/x", "missing": ["agent:list"]})


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (CallerError.UNKNOWN_OWNER, Reason.OWNER_UNKNOWN, 403),
        (CallerError.FOREIGN_TENANT, Reason.TENANT_MISMATCH, 403),
        ("owner_disabled", Reason.OWNER_DISABLED, 401),
        ("key_revoked", Reason.KEY_REVOKED, 401),
        ("secret_retired", Reason.SECRET_RETIRED, 401),
        ("credential_invalid", Reason.CREDENTIAL_INVALID, 401),
    ],
)
def test_a_caller_who_may_not_ask_any_more_is_told_why(code: str, reason: Reason, status: int) -> None:
    refusal = refuse_caller(CallerError(code, "why"))
    assert (refusal.reason, TABLE[refusal.reason].status) == (reason, status)


@pytest.mark.parametrize(
    ("refusal", "reason", "status"),
    [
        (find_no_key(), Reason.KEY_NOT_FOUND, 404),
        (find_no_owner(), Reason.OWNER_NOT_FOUND, 404),
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
