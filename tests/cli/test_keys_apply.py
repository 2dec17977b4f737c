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


async def test_what_was_minted_before_a_failure_is_still_handed_out(aegis: Command, file: Path) -> None:
    """A new owner's tier is its first key's; the second one contradicts it."""
    file.write_text(
        "version: 1\nkeys:\n  - {name: a, owner: ada, tier: pro, preset: execution}\n"
        "  - {name: b, owner: ada, tier: free, preset: execution}\n"
    )
    outcome = await aegis.run("keys", "apply", str(file))
    assert outcome.code == 1
    assert list(note(aegis, outcome)) == ["a"]
    assert "owner ada has tier 'pro', not 'free'" in outcome.told
