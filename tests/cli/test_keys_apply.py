"""`aegis-proxy keys apply`, run as an operator runs it: again and again."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxy.database import Database
from proxy.keys.token import parse_token
from tests.cli.command import Command, Outcome

DECLARED = """
version: 1
keys:
  - { name: ci, owner: ada, tier: pro, preset: execution, expires: 90d, constraints: { sources: [10.0.0.0/8] } }
  - { name: etl, owner: ada, scopes: ["workflow:run:nightly-etl"], expires: 2127-01-31 }
  - { name: "odd/../name", owner: bob, preset: read-only, expires: never, disabled: true }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(DECLARED)
    return path


def note(aegis: Command, outcome: Outcome) -> dict[str, str]:
    """The new keys, by name."""
    found = {name: token for _, name, token in (line.split("\t") for line in outcome.stdout.splitlines())}
    for token in found.values():
        aegis.note_secret(token)
    return found


async def list_keys(aegis: Command) -> dict[str, dict[str, object]]:
    return {key["name"]: key for key in (await aegis.run("keys", "list", "--json")).json["api_keys"]}


async def test_applying_makes_keys_once_and_then_changes_nothing(
    aegis: Command, file: Path, database: Database
) -> None:
    rehearsed = await aegis.run("keys", "apply", str(file), "--dry-run")
    assert (rehearsed.code, rehearsed.stdout) == (0, "")
    assert "Would do ada/ci: mint" in rehearsed.told
    assert await list_keys(aegis) == {}
    outcome = await aegis.run("keys", "apply", str(file))
    assert outcome.code == 0, outcome.stderr
    tokens, keys = note(aegis, outcome), await list_keys(aegis)
    assert {name: parse_token(token).key_id for name, token in tokens.items()} == {n: k["id"] for n, k in keys.items()}
    assert (keys["ci"]["preset"], keys["ci"]["constraints"]) == ("execution", {"sources": ["10.0.0.0/8"]})
    assert (keys["etl"]["scopes"], keys["etl"]["expires_at"]) == (["workflow:run:nightly-etl"], "2127-01-31T00:00:00Z")
    assert (keys["odd/../name"]["status"], keys["odd/../name"]["expires_at"]) == ("disabled", None)
    (before,) = await database.fetch("SELECT count(*) FROM audit_events")
    again = await aegis.run("keys", "apply", str(file))
    assert (again.code, again.stdout, again.stderr) == (0, "", "3 of 3 keys were as declared.\n")
    assert await list_keys(aegis) == keys
    assert await database.fetch("SELECT count(*) FROM audit_events") == [before]


async def test_what_differs_is_changed_and_nothing_else(aegis: Command, file: Path) -> None:
    note(aegis, await aegis.run("keys", "apply", str(file)))
    stray = await aegis.mint("--name", "stray")
    before = await list_keys(aegis)
    text = (
        DECLARED.replace("preset: execution", "preset: read-only")
        .replace("2127", "2126")
        .replace(", disabled: true", "")
    )
    file.write_text(text.replace(", constraints: { sources: [10.0.0.0/8] }", ""))
    outcome = await aegis.run("keys", "apply", str(file), "--json")
    assert outcome.code == 0, outcome.stderr
    assert [(key["name"], key["changes"]) for key in outcome.json["keys"]] == [
        ("ci", ["scopes", "constraints"]), ("etl", ["expires_at"]), ("odd/../name", ["enable"]),
    ]  # fmt: skip
    after = await list_keys(aegis)
    assert (after["ci"]["preset"], after["ci"]["constraints"]) == ("read-only", {})
    assert after["ci"]["expires_at"] == before["ci"]["expires_at"]
    assert (after["etl"]["expires_at"], after["odd/../name"]["status"]) == ("2126-01-31T00:00:00Z", "active")
    assert after["stray"]["id"] == parse_token(stray).key_id
    assert after["stray"] == before["stray"]


async def test_secrets_go_into_files_for_their_owners_eyes(aegis: Command, file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "ada.etl.key").write_text("in the way")
    blocked = await aegis.run("keys", "apply", str(file), "--secrets-dir", str(directory))
    assert (blocked.code, blocked.stdout) == (2, "")
    assert "ada.etl.key: File exists; no key was minted for it" in blocked.told
    assert set(await list_keys(aegis)) == {"ci"}
    (directory / "ada.etl.key").unlink()
    outcome = await aegis.run("keys", "apply", str(file), "--secrets-dir", str(directory), "--json")
    assert outcome.code == 0, outcome.stderr
    assert "aegis_" not in outcome.stdout
    keys = await list_keys(aegis)
    names = {"ci": "ada.ci.key", "etl": "ada.etl.key", "odd/../name": "bob.odd%2F..%2Fname.key"}
    assert {path.name for path in directory.iterdir()} == set(names.values())
    for name, file_name in names.items():
        path = directory / file_name
        aegis.note_secret(path.read_text().strip())
        assert parse_token(path.read_text().strip()).key_id == keys[name]["id"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "two members"),
        ("version: 1", "keys: Field required"),
        ("version: 2\nkeys: []", "version: Input should be 1"),
        ("version: 1\nkeys: [{name: a}]", "keys.0.owner: Field required"),
        ("version: 1\nkeys: [{name: a, owner: b, preset: execution, secret: s}]", "keys.0.secret: Extra inputs"),
        ("version: 1\nversion: 1\nkeys: []", "duplicate key"),
        ("version: 1\nkeys: [", "keys.yaml"),
        ("version: 1\nkeys: [{name: a, owner: b, scopes: [agent:rum]}]", "b/a: unknown scope agent:rum"),
        ("version: 1\nkeys: [{name: a, owner: b, preset: execution, expires: 2020-01-01}]", "lies in the past"),
        ("version: 1\nkeys: [{name: a, owner: b, preset: execution, constraints: {calls: 1}}]", "calls"),
        ("version: 1\nkeys: [{name: a, owner: b, preset: execution}, {name: a, owner: b, preset: read-only}]",
         "b/a is declared more than once"),
    ],
)  # fmt: skip
async def test_a_file_with_a_fault_changes_nothing(text: str, told: str, aegis: Command, file: Path) -> None:
    first = "{name: good, owner: b, preset: execution}"
    file.write_text(text.replace("keys: [{", f"keys: [{first}, {{") if "0" not in told else text)
    outcome = await aegis.run("keys", "apply", str(file))
    assert (outcome.code, outcome.stdout) == (2, "")
    assert told in outcome.told
    assert await list_keys(aegis) == {}


async def test_what_was_minted_before_a_failure_is_still_handed_out(
    aegis: Command, file: Path, database: Database
) -> None:
    await database.fetch("ALTER TABLE api_keys ADD CONSTRAINT no_etl CHECK (name <> 'etl')")
    outcome = await aegis.run("keys", "apply", str(file))
    assert outcome.code == 1
    assert list(note(aegis, outcome)) == ["ci"]
    assert "no_etl" in outcome.told


async def test_owners_that_contradict_the_file_are_told_before_anything_is_minted(aegis: Command, file: Path) -> None:
    await aegis.run("owners", "add", "ada", "--tier", "free")
    outcome = await aegis.run("keys", "apply", str(file))
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "ada/ci: the owner has tier 'free', not 'pro'" in outcome.told
    assert await list_keys(aegis) == {}


async def test_a_rehearsal_says_what_is_and_what_would_be(aegis: Command, file: Path) -> None:
    note(aegis, await aegis.run("keys", "apply", str(file)))
    assert (await aegis.run("keys", "apply", str(file), "--dry-run", "--exit-code")).code == 0
    text = DECLARED.replace("preset: execution, expires: 90d", "scopes: [agent:list, node:list], expires: never")
    file.write_text(text.replace("10.0.0.0/8", "10.1.0.0/16"))
    outcome = await aegis.run("keys", "apply", str(file), "--dry-run", "--exit-code")
    assert (outcome.code, outcome.stdout) == (1, "")
    for words in ("Would do ada/ci: scopes (+node:list -", "→ never)", "10.0.0.0/8", "10.1.0.0/16", "2 of 3 keys were"):
        assert words in outcome.told
    told = (await aegis.run("keys", "apply", str(file), "--dry-run", "--json")).json["keys"][0]
    assert told["differences"]["expires_at"]["after"] == "never"
    assert told["differences"]["scopes"]["after"] == ["agent:list", "node:list"]


async def test_what_the_file_does_not_name_is_told_and_only_disabled_when_asked_for(aegis: Command, file: Path) -> None:
    note(aegis, await aegis.run("keys", "apply", str(file)))
    await aegis.mint("--name", "stray")
    outcome = await aegis.run("keys", "apply", str(file))
    assert "Not in the file: ada/stray, left alone (--prune disables it)." in outcome.told
    assert (await list_keys(aegis))["stray"]["status"] == "active"
    rehearsed = await aegis.run("keys", "apply", str(file), "--prune", "--dry-run", "--exit-code")
    assert (rehearsed.code, "Would do ada/stray: disable" in rehearsed.told) == (1, True)
    pruned = await aegis.run("keys", "apply", str(file), "--prune")
    assert (pruned.code, "Done ada/stray: disable" in pruned.told) == (0, True)
    assert {name: key["status"] for name, key in (await list_keys(aegis)).items()} == {
        "ci": "active", "etl": "active", "odd/../name": "disabled", "stray": "disabled",
    }  # fmt: skip
    file.write_text(DECLARED + "  - { name: stray, owner: ada, preset: execution }\n")
    again = await aegis.run("keys", "apply", str(file), "--prune")
    assert "Done ada/stray: enable" in again.told
