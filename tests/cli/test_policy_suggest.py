"""`policy suggest`, as a security team narrows a key by what it did."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from proxy.database import Database
from proxy.flushing import Flusher
from proxy.identity import KeyId
from proxy.keys.token import parse_token
from proxy.usage import Usage
from tests.cli.command import Command
from tests.clocks import ManualClock

RUN, INFO = "mcp/tool:aegis.workflow.run", "mcp/tool:aegis.system.info"
NIGHTLY = ("workflow:run:nightly-etl",)


async def count(
    database: Database, key_id: KeyId, *decisions: tuple[str, tuple[str, ...], bool], days_ago: int = 0
) -> None:
    """What the proxy counts of decisions of that day."""
    wall = (datetime.now(UTC) - timedelta(days=days_ago)).timestamp()
    usage = Usage(Flusher(database, uuid4(), 3600), ManualClock(wall=wall), lambda: None)
    for decision in decisions:
        usage.count(key_id, *decision)
    assert await usage.flush()


async def mint(aegis: Command, database: Database, *arguments: str, days_ago: int = 0) -> KeyId:
    key_id = parse_token(await aegis.mint(*arguments)).key_id
    await database.fetch(
        "UPDATE api_keys SET created_at = now() - make_interval(days => $2) WHERE id = $1", key_id, days_ago
    )
    return key_id


async def test_a_key_is_narrowed_to_what_it_did_by_the_command_that_is_printed(
    aegis: Command, database: Database
) -> None:
    key_id = await mint(aegis, database, "--name", "nightly job", "--expires", "never", days_ago=40)
    for ago in range(30):
        decisions = [(RUN, NIGHTLY, True)] * 2 + [(INFO, ("agent:list",), True), ("mcp/rpc:ping", (), True)]
        await count(database, key_id, *decisions, days_ago=ago)
    outcome = await aegis.run("policy", "suggest", "--key", key_id)
    assert outcome.code == 0, outcome.stderr
    assert "workflow:run:nightly-etl 60 " in " ".join(outcome.stdout.split())
    assert "volume:read" in outcome.stdout.partition("Held, and not needed")[2]
    assert "From 30 days of records" in outcome.told
    assert "of the key" not in outcome.told
    (command,) = (line for line in outcome.stdout.splitlines() if line.startswith("aegis-proxy"))
    assert "'nightly job-narrow' --owner ada" in command
    minted = await aegis.run(*shlex.split(command)[1:], "--json")
    assert minted.code == 0, minted.stderr
    aegis.note_secret(minted.json["key"])
    assert minted.json["scopes"] == ["agent:list", "workflow:run:nightly-etl"]
    assert minted.json["expires_at"] is None
    allowed = await aegis.run(
        "policy", "explain", "--key", minted.json["id"], "--tool", "aegis.workflow.run", "--arg", "name=nightly-etl"
    )
    assert allowed.code == 0


async def test_denials_are_told_with_what_they_would_need(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, database, "--name", "k")
    await count(database, key_id, (RUN, NIGHTLY, True), ("", (), False), ("mcp/tool:x", ("team:manage",), False))
    outcome = await aegis.run("policy", "suggest", "--key", key_id)
    denied = " ".join(outcome.stdout.partition("Denied")[2].split())
    assert "mcp/tool:x team:manage 1" in denied
    assert "none - 1" in denied


async def test_what_the_counts_do_not_cover_is_told(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, database, "--name", "k", days_ago=9)
    await count(database, key_id, (RUN, NIGHTLY, True), days_ago=3)
    await count(database, KeyId("another00000"), (RUN, NIGHTLY, True), days_ago=4)
    outcome = await aegis.run("policy", "suggest", "--key", key_id)
    assert "The key was there on 10 of these 30 days" in outcome.told
    assert "On 8 of its 10 days nothing was recorded" in outcome.told
    assert "From 2 days of records" in outcome.told
    machine = await aegis.run("policy", "suggest", "--key", key_id, "--days", "5", "--json")
    assert {name: machine.json["days"][name] for name in ("of_key", "recorded", "used")} == {
        "of_key": 5, "recorded": 2, "used": 1,
    }  # fmt: skip
    assert machine.json["scopes"] == [*NIGHTLY]
    assert machine.json["proposals"][0]["count"] == 1
    assert machine.json["command"].startswith("aegis-proxy keys mint --name k-narrow --owner ada")


async def test_a_key_that_needs_all_it_holds_and_one_that_needs_nothing_get_no_command(
    aegis: Command, database: Database
) -> None:
    narrow = await mint(aegis, database, "--name", "narrow", "--scope", NIGHTLY[0])
    await count(database, narrow, (RUN, NIGHTLY, True))
    outcome = await aegis.run("policy", "suggest", "--key", narrow)
    assert "narrow needs all that it holds" in outcome.told
    assert "keys mint" not in outcome.stdout
    unused = await mint(aegis, database, "--name", "unused", "--scope", NIGHTLY[0])
    outcome = await aegis.run("policy", "suggest", "--key", unused, "--json")
    assert (outcome.code, outcome.json["command"], outcome.json["unused"]) == (0, None, [*NIGHTLY])


async def test_what_any_of_several_scopes_would_open_is_told_to_be_a_choice(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, database, "--name", "k")
    await count(
        database, key_id, (INFO, ("agent:list",), True), ("mcp/tool:aegis.workflow.list", ("workflow:list",), True)
    )
    outcome = await aegis.run("policy", "suggest", "--key", key_id, "--json")
    assert outcome.json["scopes"] == ["workflow:list"]
    assert any("greedily" in remark for remark in outcome.json["remarks"])


async def test_a_whole_key_names_its_id_and_an_unknown_one_exits_with_five(aegis: Command) -> None:
    token = await aegis.mint("--name", "k")
    outcome = await aegis.run("policy", "suggest", "--key", token, "--json")
    assert (outcome.code, outcome.json["key"]) == (0, parse_token(token).key_id)
    assert token not in outcome.stdout + outcome.stderr
    outcome = await aegis.run("policy", "suggest", "--key", "nobody000000")
    assert (outcome.code, outcome.stdout) == (5, "")
    assert "There is no key nobody000000" in outcome.told


async def test_lines_fit_eighty_columns_whatever_was_used(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, database, "--name", "k")
    selector = "long-name-" * 20
    await count(
        database, key_id, (RUN, (f"workflow:run:{selector}",), True), (RUN, (f"workflow:run:{selector}",), False)
    )
    outcome = await aegis.run("policy", "suggest", "--key", key_id)
    lines = [line for line in outcome.stdout.splitlines() if not line.startswith("aegis-proxy")]
    assert max(map(len, lines)) <= 80
    assert selector in "".join(line[:60].split("  ")[0] for line in lines)
