"""`aegis-proxy owners …`, run as an operator runs it."""

from __future__ import annotations

import asyncio

import pytest

from tests.cli.command import Command

IDP = "https://id.example.com/realms/aegis"


async def test_an_empty_list_says_how_to_begin(aegis: Command) -> None:
    plain, machine = await asyncio.gather(aegis.run("owners", "list"), aegis.run("owners", "list", "--json"))
    assert (plain.code, plain.stdout) == (0, "")
    assert "No owners. Minting a key makes one: aegis-proxy keys mint" in plain.told
    assert (machine.code, machine.json) == (0, {"owners": []})


async def test_owners_are_added_listed_and_shown(aegis: Command) -> None:
    await aegis.mint("--name", "ci")
    added = await aegis.run("owners", "add", "ada", "--issuer", IDP, "--tenant", "acme", "--tier", "free", "--json")
    assert (added.code, added.stderr) == (0, "")
    assert {**added.json, "id": "", "created_at": "", "version": 0} == {
        "id": "", "subject": "ada", "issuer": IDP, "tenant": "acme", "tier": "free", "active_keys": 0,
        "created_at": "", "disabled_at": None, "version": 0,
    }  # fmt: skip
    listed, machine, mine = await asyncio.gather(
        aegis.run("owners", "list"),
        aegis.run("owners", "list", "--tenant", "acme", "--json"),
        aegis.run("owners", "show", "ada", "--issuer", "local"),
    )
    assert listed.stdout.splitlines()[0].split() == ["OWNER", "TIER", "KEYS", "TENANT", "ISSUER", "STATUS"]
    assert len(listed.stdout.splitlines()) >= 3
    assert [owner["id"] for owner in machine.json["owners"]] == [added.json["id"]]
    facts = dict(line.split(maxsplit=1) for line in mine.stdout.splitlines())
    assert (facts["tier"].strip(), facts["active_keys"].strip()) == ("pro", "1")
    both = await aegis.run("owners", "show", "ada")
    assert (both.code, both.stdout) == (2, "")
    assert f"Several are called ada: add --issuer, one of {IDP}, local" in both.told or "local" in both.told


async def test_an_owner_moves_between_tiers_and_is_disabled(aegis: Command) -> None:
    await aegis.mint("--name", "ci")
    moved = await aegis.run("owners", "set-tier", "ada", "business", "--json")
    assert (moved.code, moved.json["tier"]) == (0, "business")
    disabled = await aegis.run("owners", "disable", "ada")
    assert disabled.code == 0
    assert "none of the keys is let in" in disabled.told
    (key,) = (await aegis.run("keys", "list", "--json")).json["api_keys"]
    assert key["status"] == "owner disabled"
    enabled = await aegis.run("owners", "enable", "ada", "--json")
    assert enabled.json["disabled_at"] is None


@pytest.mark.parametrize(
    "command", [("show", "bob"), ("set-tier", "bob", "pro"), ("disable", "bob"), ("enable", "bob")]
)
async def test_an_owner_nobody_knows_is_not_found(command: tuple[str, ...], aegis: Command) -> None:
    outcome = await aegis.run("owners", *command)
    assert (outcome.code, outcome.stdout) == (5, "")
    assert outcome.stderr == "There is no owner bob. See: aegis-proxy owners list\n"


async def test_a_tier_nobody_knows_is_a_usage_error(aegis: Command) -> None:
    await aegis.mint("--name", "ci")
    for arguments in (("set-tier", "ada", "gold"), ("add", "bob", "--tier", "gold")):
        outcome = await aegis.run("owners", *arguments)
        assert (outcome.code, outcome.stdout) == (2, "")
        assert outcome.stderr == "unknown tier 'gold': choose one of free, pro, business, enterprise\n"
