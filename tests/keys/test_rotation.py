"""Secrets of either kind in time: rotation retires a token of the older form like any other secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.identity import KeyId
from proxy.keys.changes import KeyChanges, RotatedKey
from proxy.keys.legacy import LEGACY_VERSION
from proxy.keys.minting import MintedKey
from proxy.keys.record import KeyRecord
from proxy.keys.rights import form_operator
from proxy.keys.rotation import KEPT_SECRETS
from proxy.keys.token import parse_token
from tests.records import form_legacy_token
from tests.staging import GUARD_SECONDS, Stage

TOKEN = form_legacy_token()


@pytest.fixture
async def imported(stage: Stage) -> MintedKey:
    """A key whose only secret is an old token."""
    key = await stage.mint()
    await stage.sql("DELETE FROM api_key_secrets WHERE key_id = $1", key.summary.id)
    await stage.sql("INSERT INTO legacy_digests (digest, key_id) VALUES ($1, $2)", TOKEN.digest, key.summary.id)
    return key


async def read(stage: Stage, key: MintedKey) -> KeyRecord:
    return (await stage.store.read_keys([KeyId(key.summary.id)]))[KeyId(key.summary.id)]


async def rotate(stage: Stage, key: MintedKey, grace: Any) -> RotatedKey:
    changes = KeyChanges(stage.database, stage.hasher)
    rotated = await changes.rotate(form_operator("test"), key.summary.id, stage.policy, grace=grace)
    stage.note_secret(rotated.token)
    return rotated


async def test_an_old_token_is_the_secret_of_version_zero(stage: Stage, imported: MintedKey) -> None:
    (secret,) = (await read(stage, imported)).secrets.values()
    assert (secret.version, secret.tag, secret.hash) == (LEGACY_VERSION, b"", TOKEN.digest.hex())
    assert secret.not_after is None


async def test_it_is_rotated_to_a_token_of_our_form_and_stays_good_for_the_grace(
    stage: Stage, imported: MintedKey
) -> None:
    rotated = await rotate(stage, imported, "1h")
    token, record = parse_token(rotated.token), await read(stage, imported)
    assert token.key_id == imported.summary.id
    await stage.hasher.verify(record.secrets[1].hash, token.secret)
    left = record.secrets[LEGACY_VERSION].not_after
    assert left is not None
    assert abs(left - datetime.now(UTC).timestamp() - 3_600) < GUARD_SECONDS
    assert rotated.summary.old_secret_until is not None
    assert abs(rotated.summary.old_secret_until.timestamp() - left) < 0.001
    (row,) = await stage.database.fetch(
        "SELECT before::text, after::text FROM audit_events WHERE key_id = $1 AND action = 'rotate'", token.key_id
    )
    assert (row["before"], row["after"]) == ('{"secret_version": 0}', '{"grace": "1h", "secret_version": 1}')


async def test_no_more_than_two_secrets_are_good_at_once_the_old_token_included(
    stage: Stage, imported: MintedKey
) -> None:
    await rotate(stage, imported, "7d")
    await rotate(stage, imported, "7d")
    record = await read(stage, imported)
    assert record.find_secret_fault(LEGACY_VERSION, datetime.now(UTC).timestamp() + GUARD_SECONDS) is not None
    assert record.find_secret_fault(1, datetime.now(UTC).timestamp() + GUARD_SECONDS) is None


async def test_an_old_token_that_was_rotated_out_stays_known_as_that(stage: Stage, imported: MintedKey) -> None:
    for _ in range(KEPT_SECRETS + 2):
        await rotate(stage, imported, "now")
    record = await read(stage, imported)
    assert sorted(record.secrets) == [LEGACY_VERSION, *range(3, KEPT_SECRETS + 3)]
