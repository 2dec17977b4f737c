"""`aegis-proxy keys …`, run as an operator runs it."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.database import Database
from proxy.keys.hashing import Hasher
from proxy.keys.store import KeyStore
from proxy.keys.token import SCANNER_PATTERN, fast_tag, parse_token
from proxy.settings import find_shipped
from tests.cli.command import Command
from tests.records import form_legacy_token

MINT = ("keys", "mint", "--owner", "ada")

PRESET_OR_SCOPES = "give either a preset or scopes: --preset P, or --scope S (repeatable)"


async def count_keys(database: Database) -> int:
    return int((await database.fetch("SELECT count(*) FROM api_keys"))[0][0])


async def test_the_key_alone_stands_on_stdout_and_works(aegis: Command, database: Database, hasher: Hasher) -> None:
    outcome = await aegis.run(*MINT, "--name", "ci", "--preset", "execution")
    aegis.note_secret(outcome.stdout.strip())
    assert outcome.code == 0
    assert re.fullmatch(SCANNER_PATTERN + "\n", outcome.stdout)
    token = parse_token(outcome.stdout.strip())
    assert outcome.stderr == (
        f"Minted {token.key_id} for ada. Copy it now: it is not stored and cannot be shown again.\n"
        f"Revoke it with: aegis-proxy keys revoke {token.key_id}\n"
    )
    secret = (await KeyStore(database).read_keys([token.key_id]))[token.key_id].secrets[1]
    assert secret.tag == fast_tag(token.key_id, token.secret)
    production = Hasher(memory_cost_kib=8192, time_cost=1, threads=1, queue_size=1, timeout_seconds=10)
    await production.verify(secret.hash, token.secret)
    production.close()


async def test_minting_with_json_prints_one_object_with_the_key(aegis: Command, database: Database) -> None:
    began = datetime.now(UTC)
    outcome = await aegis.run(*MINT, "--name", "ci", "--tenant", "acme", "--tier", "free", "--expires", "7d",
                              "--scope", "workflow:run:nightly-etl", "--scope", "agent:list", "--json")  # fmt: skip
    assert (outcome.code, outcome.stderr) == (0, "")
    minted = outcome.json
    aegis.note_secret(minted["key"])
    assert parse_token(minted.pop("key")).key_id == minted["id"]
    ends, made = (datetime.fromisoformat(minted.pop(word)) for word in ("expires_at", "created_at"))
    assert timedelta(days=7) <= ends - began < timedelta(days=7, minutes=5)
    assert abs(made - began) < timedelta(minutes=5)
    (row,) = await database.fetch("SELECT id FROM api_keys")
    assert minted == {
        "id": row["id"], "name": "ci", "owner": "ada", "tenant": "acme", "tier": "free", "preset": None,
        "scopes": ["workflow:run:nightly-etl", "agent:list"], "status": "active", "created_by": "cli:operator",
        "parent_id": None, "revoked_at": None, "revoked_by": None, "revoked_reason": None, "issuer": "local",
        "constraints": {}, "version": minted["version"], "old_secret_until": None,
        "last_used_at": None, "last_used": None, "last_refused": None, "old_secret_last_used_at": None,
            "aegis_role": None,
    }  # fmt: skip


async def test_a_key_lives_for_ninety_days_unless_told_otherwise(aegis: Command, database: Database) -> None:
    await asyncio.gather(aegis.mint("--name", "plain"), aegis.mint("--name", "for ever", "--expires", "never"))
    rows = await database.fetch("SELECT name, expires_at - created_at AS lifetime FROM api_keys ORDER BY name")
    for_ever, plain = rows
    assert (for_ever["name"], for_ever["lifetime"]) == ("for ever", None)
    assert abs(plain["lifetime"] - timedelta(days=90)) < timedelta(minutes=5)  # two clocks, one of them Postgres'


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--name", "ci"), PRESET_OR_SCOPES),
        (("--name", "ci", "--preset", "execution", "--scope", "agent:list"), PRESET_OR_SCOPES),
        (("--name", "ci", "--preset", "admin"),
         "unknown preset 'admin': choose one of read-only, execution, developer, full-access"),
        (("--name", "ci", "--scope", "workflow:rum"), "unknown scope workflow:rum (did you mean workflow:run?)"),
        (("--name", "ci", "--preset", "execution", "--tier", "gold"),
         "unknown tier 'gold': choose one of free, pro, business, enterprise"),
        (("--name", "", "--preset", "execution"),
         "a key's name has 1 to 64 printable characters and no space at its ends"),
        (("--name", "ci", "--preset", "execution", "--expires", "soon"),
         "expiry 'soon' is neither one of 7d, 30d, 90d, 1y, never nor an ISO date such as 2027-01-31"),
        (("--name", "ci", "--preset", "execution", "--expires", "2020-01-01"), "expiry '2020-01-01' lies in the past"),
    ],
)  # fmt: skip
async def test_what_cannot_be_minted_is_a_usage_error_in_one_line(
    aegis: Command, database: Database, arguments: tuple[str, ...], text: str
) -> None:
    outcome = await aegis.run(*MINT, *arguments)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (2, "", text + "\n")
    assert await count_keys(database) == 0


async def test_a_missing_option_is_a_usage_error(aegis: Command) -> None:
    outcome = await aegis.run(*MINT, "--preset", "execution")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "Missing option '--name'" in outcome.told


async def test_a_taken_name_and_a_contradicted_owner_are_failures(aegis: Command, database: Database) -> None:
    await aegis.mint("--name", "ci")
    taken, tiered = await asyncio.gather(
        aegis.run(*MINT, "--name", "ci", "--preset", "execution"),
        aegis.run(*MINT, "--name", "other", "--preset", "execution", "--tier", "free"),
    )
    assert (taken.code, taken.stdout) == (tiered.code, tiered.stdout) == (1, "")
    assert taken.stderr == (
        "ada already has an active key named 'ci': choose another name, or revoke that one\n"
    )  # fmt: skip
    assert tiered.stderr == "owner ada has tier 'pro', not 'free': minting does not change it\n"
    assert await count_keys(database) == 1


async def test_names_that_look_like_markup_are_printed_as_they_are(aegis: Command) -> None:
    """The key was minted by then: failing to say so would lose it."""
    outcome = await aegis.run("keys", "mint", "--owner", "[/] [bold]ada :key:", "--name", "[red]ci[/red] :key:",
                              "--preset", "read-only")  # fmt: skip
    aegis.note_secret(outcome.stdout.strip())
    assert outcome.code == 0
    assert "for [/] [bold]ada :key:. Copy it now" in outcome.stderr
    listed, shown = await asyncio.gather(
        aegis.run("keys", "list", COLUMNS="120"), aegis.run("keys", "show", parse_token(outcome.stdout.strip()).key_id)
    )
    for told in (listed, shown):
        assert "[red]ci[/red] :key:" in told.stdout
        assert "[/] [bold]ada :key:" in told.stdout


async def test_an_empty_list_says_how_to_begin(aegis: Command) -> None:
    plain, machine = await asyncio.gather(aegis.run("keys", "list"), aegis.run("keys", "list", "--json"))
    assert (plain.code, plain.stdout) == (0, "")
    assert plain.stderr == (
        "No keys yet. Mint one with: aegis-proxy keys mint --name NAME --owner OWNER --preset read-only\n"
    )
    assert (machine.code, machine.json, machine.stderr) == (0, {"api_keys": []}, "")


async def test_the_list_shows_every_key_and_no_secret(aegis: Command) -> None:
    tokens = [await aegis.mint("--name", "first"), await aegis.mint("--name", "second", "--scope", "agent:list")]
    outcome, machine, nobodys = await asyncio.gather(
        aegis.run("keys", "list"),
        aegis.run("keys", "list", "--json", "--owner", "ada"),
        aegis.run("keys", "list", "--json", "--owner", "bob"),
    )
    first, second = (parse_token(token) for token in tokens)
    header, *lines = outcome.stdout.splitlines()
    assert header.split() == ["ID", "STATUS", "NAME", "OWNER", "SCOPES", "EXPIRES", "USED", "CREATED"]
    assert [line.split()[:5] for line in lines] == [
        [second.key_id, "active", "second", "ada", "agent:list"],
        [first.key_id, "active", "first", "ada", "execution"],
    ]
    assert [key["id"] for key in machine.json["api_keys"]] == [second.key_id, first.key_id]
    assert machine.json["api_keys"][0]["scopes"] == ["agent:list"]
    assert nobodys.json == {"api_keys": []}
    for secret in (first.secret, second.secret):
        assert secret not in outcome.stdout + outcome.stderr + machine.stdout


async def test_a_key_is_shown_with_all_it_may_do(aegis: Command) -> None:
    token = parse_token(
        await aegis.mint("--name", "ci", "--scope", "agent:list", "--scope", "workflow:run:nightly-etl")
    )
    plain, machine = await asyncio.gather(
        aegis.run("keys", "show", token.key_id), aegis.run("keys", "show", token.key_id, "--json")
    )
    assert (plain.code, plain.stderr) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in plain.stdout.splitlines())
    assert facts["scopes"].strip() == "agent:list workflow:run:nightly-etl"
    assert facts["created_by"].strip() == "cli:operator"
    assert set(facts) == {
        "id", "name", "owner", "tenant", "tier", "scopes", "status", "expires_at", "created_at", "created_by",
        "last_used",
    }  # fmt: skip
    assert (machine.code, machine.stderr) == (0, "")
    assert machine.json["id"] == token.key_id
    assert token.secret not in plain.stdout + machine.stdout


async def test_a_revoked_key_is_revoked_for_good_and_its_name_is_free(aegis: Command, database: Database) -> None:
    token = parse_token(await aegis.mint("--name", "ci"))
    outcome = await aegis.run("keys", "revoke", token.key_id, "--reason", "leaked")
    assert outcome.code == 0
    assert outcome.stderr == (f"Revoked {token.key_id}. No proxy is running on this database.\n")
    facts = dict(line.split(maxsplit=1) for line in outcome.stdout.splitlines())
    assert (facts["status"].strip(), facts["revoked_reason"].strip()) == ("revoked", "leaked")
    again = await aegis.run("keys", "revoke", token.key_id, "--reason", "to be sure", "--json")
    assert (again.code, again.stderr) == (0, "")
    assert (again.json["status"], again.json["revoked_by"]) == ("revoked", "cli:operator")
    assert again.json["revoked_reason"] == "leaked"
    rows = await database.fetch("SELECT actor, action FROM audit_events ORDER BY id")
    assert [tuple(row) for row in rows] == [("cli:operator", "mint"), ("cli:operator", "revoke")]
    await aegis.mint("--name", "ci")


@pytest.mark.parametrize("word", ["show", "revoke"])
async def test_a_key_nobody_minted_is_not_found(aegis: Command, word: str) -> None:
    plain, machine = await asyncio.gather(
        aegis.run("keys", word, "[/]unknown"), aegis.run("keys", word, "[/]unknown", "--json")
    )
    for outcome in (plain, machine):
        assert (outcome.code, outcome.stdout) == (5, "")
        assert outcome.stderr == "There is no key [/]unknown. See: aegis-proxy keys list\n"


async def test_a_database_without_a_schema_is_a_failure_in_one_line(early: Command) -> None:
    outcome = await early.run("keys", "list")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr == (
        'UndefinedTableError: relation "api_keys" does not exist'
        " (check AEGIS_DATABASE_URL, and that `aegis-proxy db migrate` has run)\n"
    )


async def test_an_unreachable_database_is_a_failure_that_shows_no_password(aegis: Command) -> None:
    url = "postgresql://ada:hunter2@127.0.0.1:1/aegis"
    outcomes = await asyncio.gather(
        aegis.run("keys", "list", AEGIS_DATABASE_URL=url),
        aegis.run(*MINT, "--name", "ci", "--preset", "execution", AEGIS_DATABASE_URL=url),
        aegis.run("keys", "revoke", "key000000001", "--json", AEGIS_DATABASE_URL=url),
    )
    for outcome in outcomes:
        assert (outcome.code, outcome.stdout) == (1, "")
        assert outcome.stderr.startswith("cannot connect to 127.0.0.1:1/aegis: ")
        assert "hunter2" not in outcome.stderr


async def test_without_a_database_the_command_says_what_to_set(aegis: Command) -> None:
    del aegis.environment["AEGIS_DATABASE_URL"]
    outcome = await aegis.run("keys", "list")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr == (
        "The configuration cannot be used:\n  AEGIS_DATABASE_URL: there is no database to talk to"
        " (set AEGIS_DATABASE_URL, or start `aegis-proxy serve --embedded` first)\n"
    )


async def test_a_whole_key_may_be_pasted_where_its_id_is_meant(aegis: Command) -> None:
    """Whoever is in a hurry to revoke will; its secret is not repeated."""
    token = await aegis.mint("--name", "pasted")
    outcome = await aegis.run("keys", "revoke", token, "--json")
    assert outcome.code == 0
    assert outcome.json["status"] == "revoked"
    assert token[19:] not in outcome.stdout + outcome.stderr


async def test_a_key_of_the_older_form_is_no_id_and_is_not_repeated(aegis: Command) -> None:
    token = form_legacy_token(10**39).text
    aegis.note_secret(token)
    for verb in ("show", "revoke", "rotate"):
        outcome = await aegis.run("keys", verb, token)
        assert (outcome.code, outcome.stdout) == (2, "")
        assert "keys scan --check -" in outcome.told
        assert token[6:18] not in outcome.stderr


async def test_the_policy_s_longest_life_holds_for_operators_too(aegis: Command, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    text = find_shipped("policy.yaml").read_text()
    path.write_text(text.replace("longest_expiry: never", "longest_expiry: 7d"))
    arguments = ("keys", "mint", "--name", "ci", "--owner", "ada", "--preset", "read-only", "--json")
    refused = await aegis.run(*arguments, "--expires", "30d", AEGIS_POLICY=str(path))
    assert (refused.code, refused.stdout) == (2, "")
    assert "the policy lets keys live for 7 days at most (longest_expiry)" in refused.told
    minted = await aegis.run(*arguments, AEGIS_POLICY=str(path))
    aegis.note_secret(minted.json["key"])
    assert datetime.fromisoformat(minted.json["expires_at"]) <= datetime.now(UTC) + timedelta(days=7)
    update = await aegis.run("keys", "update", minted.json["id"], "--expires", "never", AEGIS_POLICY=str(path))
    assert (update.code, "longest_expiry" in update.told) == (2, True)
