"""May this key be used now? The judgement everything rests on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from proxy.errors import Reason
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.record import Ancestor, KeyRecord, Secret

NOW = 1_800_000_000.0
JUST_AFTER, JUST_BEFORE = NOW + 0.000_001, NOW - 0.000_001
NEVER_ENDING = (None, JUST_AFTER, float("inf"))
ENDED = (NOW, JUST_BEFORE, 0.0, float("-inf"))
REASONS = {
    "active": None,
    "disabled": Reason.KEY_DISABLED,
    "revoked": Reason.KEY_REVOKED,
    "Active": Reason.KEY_DISABLED,
    "suspended": Reason.KEY_DISABLED,  # a word of a later release
    "": Reason.KEY_DISABLED,
}

RECORD = KeyRecord(
    id=KeyId("key000000000"),
    owner=Owner(OwnerId("f3b1"), "default", "local", "ada", "pro"),
    owner_disabled=False,
    owner_version=1,
    status="active",
    scopes=("workflow:run",),
    expires_at=None,
    version=1,
    secrets={1: Secret(1, b"tag1", "$argon2id$one", None)},
    ancestors=(),
)


def form_ancestor(status: str = "active", expires_at: float | None = None) -> Ancestor:
    return Ancestor(KeyId("parent000000"), status, ("workflow:run",), expires_at, 1)


@pytest.mark.parametrize(("status", "reason"), REASONS.items())
def test_only_active_is_admitted(status: str, reason: Reason | None) -> None:
    assert replace(RECORD, status=status).find_fault(NOW) == reason


@pytest.mark.parametrize("expires_at", NEVER_ENDING)
def test_a_key_before_its_end_is_admitted(expires_at: float | None) -> None:
    assert replace(RECORD, expires_at=expires_at).find_fault(NOW) is None


@pytest.mark.parametrize("expires_at", ENDED)
def test_a_key_is_expired_from_the_very_instant_on(expires_at: float) -> None:
    assert replace(RECORD, expires_at=expires_at).find_fault(NOW) is Reason.KEY_EXPIRED


@pytest.mark.parametrize("depth", [1, 2, 32])
@pytest.mark.parametrize(("status", "reason"), REASONS.items())
def test_every_ancestor_has_to_be_active(status: str, reason: Reason | None, depth: int) -> None:
    lineage = (*[form_ancestor()] * (depth - 1), form_ancestor(status))
    assert replace(RECORD, ancestors=lineage).find_fault(NOW) == reason


@pytest.mark.parametrize("expires_at", ENDED)
def test_a_key_ends_with_its_ancestor(expires_at: float) -> None:
    lineage = (form_ancestor(), form_ancestor(expires_at=expires_at))
    assert replace(RECORD, ancestors=lineage).find_fault(NOW) is Reason.KEY_EXPIRED


def test_a_key_of_a_disabled_owner_is_refused() -> None:
    assert replace(RECORD, owner_disabled=True).find_fault(NOW) is Reason.OWNER_DISABLED


def test_nothing_but_everything_being_well_is_admitted() -> None:
    """The whole table, against the one sentence it stands for."""
    admitted = 0
    for status, expires_at, parent_status, parent_end, disabled in itertools.product(
        REASONS, (*NEVER_ENDING, *ENDED), REASONS, (*NEVER_ENDING, *ENDED), (False, True)
    ):
        record = replace(
            RECORD,
            status=status,
            expires_at=expires_at,
            ancestors=(form_ancestor(parent_status, parent_end),),
            owner_disabled=disabled,
        )
        well = (
            status == parent_status == "active"
            and expires_at in NEVER_ENDING
            and parent_end in NEVER_ENDING
            and not disabled
        )
        assert (record.find_fault(NOW) is None) == well, record
        admitted += well
    assert admitted == len(NEVER_ENDING) ** 2


def test_a_keys_own_fault_is_told_before_its_ancestors_and_its_owners() -> None:
    record = replace(
        RECORD, status="disabled", expires_at=NOW, ancestors=(form_ancestor("revoked"),), owner_disabled=True
    )
    assert record.find_fault(NOW) is Reason.KEY_DISABLED
    assert replace(record, status="active").find_fault(NOW) is Reason.KEY_EXPIRED
    assert replace(record, status="active", expires_at=None).find_fault(NOW) is Reason.KEY_REVOKED
    well = replace(record, status="active", expires_at=None, ancestors=())
    assert well.find_fault(NOW) is Reason.OWNER_DISABLED


@pytest.mark.parametrize("not_after", NEVER_ENDING)
def test_a_secret_before_its_end_is_admitted(not_after: float | None) -> None:
    record = replace(RECORD, secrets={1: Secret(1, b"tag1", "hash", not_after)})
    assert record.find_secret_fault(1, NOW) is None


@pytest.mark.parametrize("not_after", ENDED)
def test_a_rotated_secret_is_retired_from_the_very_instant_on(not_after: float) -> None:
    secrets = {1: Secret(1, b"tag1", "hash", not_after), 2: Secret(2, b"tag2", "hash", None)}
    record = replace(RECORD, secrets=secrets)
    assert record.find_secret_fault(1, NOW) is Reason.SECRET_RETIRED
    assert record.find_secret_fault(2, NOW) is None


@pytest.mark.parametrize("version", [0, 2, -1])
def test_a_secret_that_is_gone_is_retired(version: int) -> None:
    assert RECORD.find_secret_fault(version, NOW) is Reason.SECRET_RETIRED


@pytest.mark.parametrize(
    ("key_end", "parent_end", "secret_end", "end"),
    [
        (None, None, None, None),
        (3.0, None, None, 3.0),
        (None, 2.0, None, 2.0),
        (None, None, 1.0, 1.0),
        (3.0, 2.0, 1.0, 1.0),
        (3.0, 2.0, 4.0, 2.0),
        (float("inf"), None, None, float("inf")),
        (float("inf"), 2.0, None, 2.0),
    ],
)
def test_the_end_is_the_first_of_keys_ancestors_and_secrets_and_says_which(
    key_end: float | None, parent_end: float | None, secret_end: float | None, end: float | None
) -> None:
    record = replace(
        RECORD,
        expires_at=key_end,
        ancestors=(form_ancestor(), form_ancestor(expires_at=parent_end)),
        secrets={1: Secret(1, b"tag1", "hash", secret_end), 2: Secret(2, b"tag2", "hash", 0.5)},
    )
    reason = Reason.SECRET_RETIRED if end == secret_end else Reason.KEY_EXPIRED
    assert record.find_end(1) == (None if end is None else (end, reason))


def test_a_record_tells_the_versions_of_all_it_was_read_from_and_what_of_it_is_revoked() -> None:
    record = replace(RECORD, version=5, owner_version=7, ancestors=(replace(form_ancestor("revoked"), version=6),))
    assert record.versions == {RECORD.id: 5, RECORD.owner.id: 7, "parent000000": 6}
    assert record.revoked_ids == ["parent000000"]
    assert replace(record, status="revoked").revoked_ids == [RECORD.id, "parent000000"]


def test_a_record_shows_neither_tag_nor_hash() -> None:
    assert "tag1" not in repr(RECORD)
    assert "argon2id" not in repr(RECORD)
