"""`aegis-proxy keys scan`, run as somebody runs it who wants to know whether a key got out."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.keys.token import parse_token
from tests.cli.command import Command
from tests.records import form_key_id, form_legacy_token, form_secret_token

KEY, OTHER = form_secret_token(form_key_id(1)), form_secret_token(form_key_id(2))
OLD = form_legacy_token(10**39)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with keys where they usually are, and files to trip over."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / ".gitignore").write_text(".env\n")
    (folder / ".env").write_text(f"# local\nAEGIS_API_KEY={KEY.text}\n")
    (folder / "src" / "old.bin").write_bytes(b"\0\1" + OLD.text.encode() + b"\0")
    (folder / "src" / "clean.py").write_text("KEY = os.environ['AEGIS_API_KEY']\n")
    (folder / "loop").symlink_to(folder)
    return folder


async def test_keys_are_found_where_they_stand_and_never_repeated(aegis: Command, folder: Path) -> None:
    outcome = await aegis.run("keys", "scan", str(folder))
    assert outcome.code == 1
    assert outcome.stdout.splitlines() == [
        f"{folder}/.env:2 aegis_{KEY.key_id}",
        f"{folder}/src/old.bin:1 (older form, SHA-256 {OLD.digest.hex()[:12]}…)",
    ]
    assert outcome.told == "2 keys in 2 of 4 files. Revoke each, then take it out."
    for token in (KEY, OLD):
        assert token.text[20:40] not in outcome.stdout + outcome.stderr


async def test_a_clean_folder_is_said_to_be_clean(aegis: Command, folder: Path) -> None:
    outcome = await aegis.run("keys", "scan", str(folder / "src"), "--exclude", "*.bin")
    assert (outcome.code, outcome.stdout, outcome.told) == (0, "", "No keys in 1 files.")
    assert (await aegis.run("keys", "scan", str(folder), "--exclude", ".env", "--exclude", f"{folder}/src")).code == 0


async def test_stdin_is_read_and_json_says_the_same(aegis: Command, folder: Path) -> None:
    text = f"+key: {KEY.text}\n+both: {KEY.text} {OTHER.text}\n"
    outcome = await aegis.run("keys", "scan", "-", str(folder / ".env"), "--json", stdin=text.encode())
    assert outcome.code == 1
    assert outcome.json == {
        "files": 2,
        "unreadable": [],
        "keys": [
            {"path": "-", "line": 1, "form": "current", "id": KEY.key_id},
            {"path": "-", "line": 2, "form": "current", "id": KEY.key_id},
            {"path": "-", "line": 2, "form": "current", "id": OTHER.key_id},
            {"path": f"{folder}/.env", "line": 2, "form": "current", "id": KEY.key_id},
        ],
    }


async def test_with_a_database_at_hand_it_says_whose_and_whether_they_are_alive(aegis: Command, folder: Path) -> None:
    alive, dead = await aegis.mint("--name", "alive"), await aegis.mint("--name", "dead")
    await aegis.run("keys", "revoke", parse_token(dead).key_id)
    (folder / "notes").write_text(f"{alive}\n{dead}\n")
    outcome = await aegis.run("keys", "scan", str(folder), "--check")
    assert outcome.code == 1
    assert outcome.stdout.splitlines() == [
        f"{folder}/.env:2 aegis_{KEY.key_id} unknown",
        f"{folder}/notes:1 aegis_{parse_token(alive).key_id} active, of ada",
        f"{folder}/notes:2 aegis_{parse_token(dead).key_id} key_revoked, of ada",
        f"{folder}/src/old.bin:1 (older form, SHA-256 {OLD.digest.hex()[:12]}…) unknown",
    ]
    told = (await aegis.run("keys", "scan", str(folder / "notes"), "--check", "--json")).json["keys"]
    assert [(key["id"], key["state"], key["owner"]) for key in told] == [
        (parse_token(alive).key_id, "active", "ada"), (parse_token(dead).key_id, "key_revoked", "ada"),
    ]  # fmt: skip


async def test_a_key_of_the_older_form_is_given_its_id(aegis: Command, tmp_path: Path) -> None:
    export = tmp_path / "keys.csv"
    export.write_text(f"key_hash,name,user_id,scopes\n{OLD.digest.hex()},ci,ada,{{agent:list}}\n")
    (key,) = (await aegis.run("keys", "import", str(export), "--json")).json["keys"]
    outcome = await aegis.run("keys", "scan", "--check", "-", stdin=OLD.text.encode())
    assert outcome.stdout.startswith(f"-:1 aegis_{key['id']} (older form")
    assert outcome.stdout.endswith(" active, of ada\n")


async def test_what_is_not_there_is_no_clean_scan(aegis: Command, folder: Path) -> None:
    outcome = await aegis.run("keys", "scan", str(folder / "missing"))
    assert (outcome.code, outcome.stdout) == (2, "")
    assert (await aegis.run("keys", "scan")).code == 2
