"""Whose a key is that was found somewhere, and whether it still opens anything."""

from __future__ import annotations

from proxy.keys.changes import KeyChanges
from proxy.keys.exports import ExportedKey
from proxy.keys.findings import ACTIVE, CHUNK, UNKNOWN, Finding, judge_tokens
from proxy.keys.imports import import_keys
from proxy.keys.minting import MintedKey
from proxy.keys.rights import form_operator
from proxy.keys.token import Token, parse_token
from tests.records import form_key_id, form_legacy_token, form_secret_token
from tests.staging import Stage

OPERATOR = form_operator("test")


def read(key: MintedKey) -> Token:
    return parse_token(key.token)


async def test_each_key_is_told_with_its_owner_and_what_became_of_it(stage: Stage) -> None:
    changes = KeyChanges(stage.database, stage.hasher)
    alive, dead, resting = await stage.mint(), await stage.mint(owner="bob"), await stage.mint()
    await changes.revoke(OPERATOR, dead.summary.id, stage.policy)
    await changes.disable(OPERATOR, resting.summary.id, stage.policy)
    unknown = form_secret_token(form_key_id(1))
    found = await judge_tokens(stage.database, [read(alive), read(dead), read(resting), unknown, read(alive)])
    assert found == {
        alive.token: Finding(ACTIVE, read(alive).key_id, "ada"),
        dead.token: Finding("key_revoked", read(dead).key_id, "bob"),
        resting.token: Finding("key_disabled", read(resting).key_id, "ada"),
        unknown.text: Finding(UNKNOWN),
    }


async def test_an_old_secret_is_told_from_the_new_one_and_a_wrong_one_is_nobody_s(stage: Stage) -> None:
    key = await stage.mint()
    changes = KeyChanges(stage.database, stage.hasher)
    rotated = await changes.rotate(OPERATOR, key.summary.id, stage.policy, grace="now")
    stage.note_secret(rotated.token)
    wrong = form_secret_token(read(key).key_id)
    found = await judge_tokens(stage.database, [read(key), parse_token(rotated.token), wrong])
    assert [found[text].state for text in (key.token, rotated.token, wrong.text)] == [
        "secret_retired", ACTIVE, UNKNOWN,
    ]  # fmt: skip
    assert found[wrong.text].owner is None


async def test_a_token_of_the_older_form_is_found_by_its_digest(stage: Stage) -> None:
    tokens = [form_legacy_token(seed) for seed in range(CHUNK + 2)]
    keys = [ExportedKey(1, tokens[seed].digest, f"key {seed}", "ada", ("agent:list",)) for seed in (0, CHUNK)]
    imported = await import_keys(
        stage.database, keys, issuer="local", default_tier="pro", actor="test", source="", dry_run=False,
        advance=lambda _: None,
    )  # fmt: skip
    found = await judge_tokens(stage.database, tokens)
    assert {text: finding.key_id for text, finding in found.items() if finding.state == ACTIVE} == {
        tokens[0].text: imported[0].id, tokens[CHUNK].text: imported[1].id,
    }  # fmt: skip
    assert found[tokens[1].text] == Finding(UNKNOWN)
