"""`aegis-proxy keys update|rotate|disable|enable`, run as an operator runs them."""

from __future__ import annotations

import asyncio
import re

import pytest

from proxy.database import Database
from proxy.keys.store import KeyStore
from proxy.keys.token import SCANNER_PATTERN, parse_token
from tests.cli.command import Command

NAME = "a key's name has 1 to 64 printable characters and no space at its ends"


async def mint(aegis: Command, *arguments: str) -> str:
    return parse_token(await aegis.mint("--name", "ci", *arguments)).key_id


async def test_a_key_is_minted_with_its_constraints_and_they_are_shown(aegis: Command) -> None:
    key_id = await mint(
        aegis, "--source", "10.0.0.0/8", "--source", "::1", "--rate", "2.5", "--burst", "9", "--max-calls", "3",
        "--max-streams", "1",
    )  # fmt: skip
    plain, machine = await asyncio.gather(
        aegis.run("keys", "show", key_id), aegis.run("keys", "show", key_id, "--json")
    )
    assert machine.json["constraints"] == {
        "sources": ["10.0.0.0/8", "::1/128"], "requests_per_second": 2.5, "burst": 9, "max_calls": 3, "max_streams": 1,
    }  # fmt: skip
    assert "sources=10.0.0.0/8,::1/128 requests_per_second=2.5 burst=9" in plain.stdout


async def test_a_key_is_changed_in_what_is_named_and_in_nothing_else(aegis: Command) -> None:
    key_id = await mint(aegis, "--max-calls", "3")
    outcome = await aegis.run("keys", "update", key_id, "--name", "nightly", "--scope", "agent:list", "--json")
    assert (outcome.code, outcome.stderr) == (0, "")
    changed = outcome.json
    assert (changed["name"], changed["preset"], changed["scopes"]) == ("nightly", None, ["agent:list"])
    assert changed["constraints"] == {"max_calls": 3}
    lifted = await aegis.run("keys", "update", key_id, "--unconstrained", "--expires", "never")
    assert lifted.code == 0
    facts = dict(line.split(maxsplit=1) for line in lifted.stdout.splitlines())
    assert not {"constraints", "expires_at"} & set(facts)
    stale = await aegis.run("keys", "update", key_id, "--name", "other", "--if-version", str(changed["version"]))
    assert (stale.code, stale.stdout) == (1, "")
    assert stale.stderr == f"key {key_id} has changed since: read it again\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ("update", "{}"),
            2,
            "say what to change: --name, --preset, --scope, --expires, --role or a constraint; see --help",
        ),
        (("update", "{}", "--name", ""), 2, NAME),
        (("update", "{}", "--role", "r" * 65), 2, "a role has 1 to 64 printable characters"),
        (("update", "{}", "--scope", "agent:rum"), 2, "unknown scope agent:rum (did you mean agent:read?)"),
        (("update", "{}", "--burst", "3"), 2, "burst is of use beside requests_per_second only"),
        (("update", "{}", "--source", "10.0.0.1/8"), 2, "write 10.0.0.0/8, or 10.0.0.1"),
        (("update", "{}", "--unconstrained", "--max-calls", "3"), 2, "give either constraints or --unconstrained"),
        (("update", "{}", "--expires", "2020-01-01"), 2, "expiry '2020-01-01' lies in the past"),
        (("rotate", "{}", "--grace", "2h"), 2, "grace '2h' is not one of now, 1h, 24h, 7d"),
        (("update", "Unknown00000", "--name", "x"), 5, "There is no key Unknown00000. See: aegis-proxy keys list"),
        (("rotate", "Unknown00000"), 5, "There is no key Unknown00000. See: aegis-proxy keys list"),
        (("disable", "Unknown00000"), 5, "There is no key Unknown00000. See: aegis-proxy keys list"),
        (("enable", "[/]odd"), 5, "There is no key [/]odd. See: aegis-proxy keys list"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, text: str, aegis: Command, database: Database
) -> None:
    key_id = await mint(aegis)
    (before,) = await database.fetch("SELECT version FROM api_keys")
    outcome = await aegis.run("keys", *(word.replace("{}", key_id) for word in arguments))
    assert (outcome.code, outcome.stdout) == (code, "")
    assert text in outcome.told
    assert len(outcome.stderr.splitlines()) == 1
    assert await database.fetch("SELECT version FROM api_keys") == [before]


async def test_a_key_made_by_a_key_stays_within_it(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, "--scope", "agent:list")
    await database.fetch(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id)"
        " SELECT 'child0000001', owner_id, 'child', '{agent:list}', 'test', id FROM api_keys"
    )
    outcome = await aegis.run("keys", "update", "child0000001", "--scope", "agent:read")
    assert (outcome.code, outcome.stdout) == (4, "")
    assert outcome.stderr == f"key {key_id} does not hold agent:read, and cannot give it away\n"


async def test_the_new_key_alone_stands_on_stdout(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis)
    outcome = await aegis.run("keys", "rotate", key_id, "--grace", "24h")
    aegis.note_secret(outcome.stdout.strip())
    assert outcome.code == 0
    assert re.fullmatch(SCANNER_PATTERN + "\n", outcome.stdout)
    assert parse_token(outcome.stdout.strip()).key_id == key_id
    assert re.search(
        rf"Rotated {key_id}: the old secret is good until \d{{4}}-\d\d-\d\d \d\d:\d\dZ\. Copy", outcome.told
    )
    machine = await aegis.run("keys", "rotate", key_id, "--grace", "now", "--json")
    assert machine.stderr == ""
    rotated = machine.json
    aegis.note_secret(rotated["key"])
    assert (rotated["id"], rotated["old_secret_until"], rotated["descendants_revoked"]) == (key_id, None, 0)
    secrets = (await KeyStore(database).read_keys([parse_token(rotated["key"]).key_id]))[key_id].secrets  # type: ignore[index]
    assert [version for version, secret in secrets.items() if secret.not_after is None] == [3]


async def test_a_compromised_key_takes_along_what_it_made(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis)
    await database.fetch(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id)"
        " SELECT 'child0000001', owner_id, 'child', '{agent:list}', 'test', id FROM api_keys"
    )
    outcome = await aegis.run("keys", "rotate", key_id, "--compromised")
    aegis.note_secret(outcome.stdout.strip())
    assert "the old secret is refused from now on" in outcome.told
    assert "Revoked 1 keys that were made by it." in outcome.told
    (row,) = await database.fetch("SELECT status, revoked_reason FROM api_keys WHERE id = 'child0000001'")
    assert tuple(row) == ("revoked", f"parent key {key_id} was compromised")


async def test_a_key_is_disabled_and_enabled(aegis: Command) -> None:
    key_id = await mint(aegis)
    assert (await aegis.run("keys", "disable", key_id, "--json")).json["status"] == "disabled"
    outcome = await aegis.run("keys", "enable", key_id)
    assert outcome.code == 0
    assert "active" in outcome.stdout
    await aegis.run("keys", "revoke", key_id)
    again = await aegis.run("keys", "enable", key_id)
    assert (again.code, again.stderr) == (1, f"key {key_id} is revoked, and revoked is final: mint a new one\n")


async def test_a_role_is_granted_and_taken_away(aegis: Command) -> None:
    key_id = await mint(aegis, "--role", "aegis:operator")
    assert (await aegis.run("keys", "show", key_id, "--json")).json["aegis_role"] == "aegis:operator"
    for role, shown in (("aegis:viewer", "aegis:viewer"), ("", None)):
        outcome = await aegis.run("keys", "update", key_id, "--role", role, "--json")
        assert (outcome.code, outcome.json["aegis_role"]) == (0, shown)
