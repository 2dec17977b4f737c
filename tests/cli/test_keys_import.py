"""`aegis-proxy keys import`, run as an operator runs it, and what the clients of the platform notice of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from proxy.database import Database
from tests.cli.command import Command
from tests.records import form_legacy_token

HEADER = "id,user_id,name,key_hash,scopes,expires_at,last_used_at,created_at,status,tenant_id,aegis_role,zaru_tier"


def form_row(number: int, name: str, scopes: str = '"{agent:list,workflow:run}"', status: str = "active") -> str:
    digest = hashlib.sha256(form_legacy_token(number).text.encode()).hexdigest()
    return f"{number},ada,{name},{digest},{scopes},,,2026-01-31 12:00:00+00,{status},acme,,pro"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.csv"
    path.write_text("\n".join([HEADER, form_row(1, "ci"), form_row(2, "etl"), form_row(3, "old", status="revoked")]))
    return path


async def test_an_export_is_taken_over_once(aegis: Command, file: Path) -> None:
    rehearsed = await aegis.run("keys", "import", str(file), "--dry-run")
    assert (rehearsed.code, rehearsed.stdout) == (0, "")
    assert rehearsed.told == "Would import 3 keys of 1 owners; 0 were here already."
    assert (await aegis.run("keys", "list", "--json")).json == {"api_keys": []}
    outcome = await aegis.run("keys", "import", str(file), "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.told == "Imported 3 keys of 1 owners; 0 were here already."
    keys = {key["name"]: key for key in (await aegis.run("keys", "list", "--json")).json["api_keys"]}
    assert {one["name"]: one["id"] for one in outcome.json["keys"]} == {name: key["id"] for name, key in keys.items()}
    assert [(one["line"], one["state"]) for one in outcome.json["keys"]] == [(2, "new"), (3, "new"), (4, "new")]
    assert (keys["ci"]["scopes"], keys["ci"]["tenant"]) == (["agent:list", "workflow:run"], "acme")
    assert (keys["ci"]["created_by"], keys["old"]["status"]) == ("cli:operator", "revoked")
    again = await aegis.run("keys", "import", str(file))
    assert (again.code, again.told) == (0, "Imported 0 keys of 0 owners; 3 were here already.")


async def test_json_lines_come_from_stdin(aegis: Command) -> None:
    row = {"key_hash": form_legacy_token(1).digest.hex(), "name": "é", "user_id": "ada", "scopes": ["old:list"]}
    text = json.dumps(row, ensure_ascii=False) + "\n"
    arguments = ("-", "--format", "jsonl", "--map", "old:list=agent:list", "--json")
    outcome = await aegis.run("keys", "import", *arguments, stdin=text.encode())
    assert outcome.code == 0, outcome.stderr
    (key,) = outcome.json["keys"]
    shown = (await aegis.run("keys", "show", key["id"], "--json")).json
    assert (shown["name"], shown["scopes"]) == ("é", ["agent:list"])


async def test_every_fault_is_told_with_its_line_and_nothing_is_imported(aegis: Command, file: Path) -> None:
    rows = [form_row(1, "ci"), form_row(2, "ci"), form_row(3, "etl", "{agent:run}"), form_row(4, "", "{agent:list}")]
    file.write_text("\n".join([HEADER, *rows]))
    outcome = await aegis.run("keys", "import", str(file))
    assert (outcome.code, outcome.stdout) == (2, "")
    for words in (
        f"{file}:3: name: ada has an active key 'ci' in line 2 (rename one)",
        f"{file}:4: ", "--map agent:run=SCOPE of the policy", f"{file}:5: name: is missing", "Nothing was imported.",
    ):  # fmt: skip
        assert words in outcome.told
    assert (await aegis.run("keys", "list", "--json")).json == {"api_keys": []}


async def test_what_the_database_says_against_it_is_told_the_same_way(aegis: Command, file: Path) -> None:
    await aegis.mint("--name", "ci", "--tier", "free")
    outcome = await aegis.run("keys", "import", str(file))
    assert outcome.code == 2
    for words in (
        f"{file}:2: name: ada has an active key 'ci' here", f"{file}:2: tenant_id: ada has 'default' here",
        f"{file}:3: zaru_tier: ada has 'free' here",
    ):  # fmt: skip
        assert words in outcome.told
    assert len((await aegis.run("keys", "list", "--json")).json["api_keys"]) == 1


async def test_a_key_that_was_revoked_at_the_platform_since_is_pointed_out(aegis: Command, file: Path) -> None:
    await aegis.run("keys", "import", str(file))
    file.write_text("\n".join([HEADER, form_row(1, "ci", status="revoked")]))
    outcome = await aegis.run("keys", "import", str(file), "--json")
    (key,) = outcome.json["keys"]
    assert key["revoked_there"] is True
    assert f"aegis-proxy keys revoke {key['id']}" in outcome.told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("keys.txt",), "--format csv or --format jsonl"),
        (("-",), "--format csv or --format jsonl"),
        (("keys.csv", "--format", "xml"), "--format csv or --format jsonl"),
        (("keys.csv", "--map", "old"), "is not of the form old=new"),
        (("missing.csv",), "cannot be read"),
        (("keys.csv", "--issuer", ""), "the issuer has 1 to 255 printable characters"),
    ],
)
async def test_what_makes_no_sense_is_said(aegis: Command, arguments: tuple[str, ...], words: str) -> None:
    outcome = await aegis.run("keys", "import", *arguments)
    assert outcome.code == 2
    assert words in outcome.told


async def test_another_encoding_is_said(aegis: Command, file: Path) -> None:
    file.write_bytes(f"{HEADER}\n".encode("utf-16"))
    outcome = await aegis.run("keys", "import", str(file))
    assert (outcome.code, "is not UTF-8" in outcome.told) == (2, True)


async def test_no_digest_is_ever_shown(aegis: Command, file: Path, database: Database) -> None:
    outcome = await aegis.run("keys", "import", str(file), "--json")
    digest = form_legacy_token(1).digest.hex()
    shown = await aegis.run("keys", "show", outcome.json["keys"][0]["id"], "--json")
    assert digest not in outcome.stdout + outcome.stderr + shown.stdout
    rows = await database.fetch("SELECT before::text || after::text AS said FROM audit_events")
    assert digest not in str(rows)
