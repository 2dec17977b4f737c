"""`policy explain`, as whoever was refused asks it."""

from __future__ import annotations

import json

import pytest

from proxy.database import Database
from tests.cli.command import Command

LISTEN = {"notifications": {"resourceSubscriptions": ["aegis://volumes/v/a", "aegis://volumes/w/a"]}}
FLEET = ("--tool", "aegis.edge.fleet.invoke", "--arg", "tool_name=aegis.workflow.run")


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ((*FLEET, "--arg", "args.name=x"), ["node:dispatch", "workflow:run:x"]),
        ((*FLEET, "--arg", 'args=json:{"name": "x"}'), ["node:dispatch", "workflow:run:x"]),
        ((*FLEET, "--args", '{"args": {"name": "y"}}', "--arg", "args.name=x"), ["node:dispatch", "workflow:run:x"]),
        (("--rpc", "subscriptions/listen", "--params", json.dumps(LISTEN)), ["volume:read:v", "volume:read:w"]),
        (("--uri", "aegis://volumes/v/a", "--rpc", "subscriptions/listen"), ["volume:read:v"]),
        (("--uri", "aegis://volumes/v/a", "--rpc", "completion/complete"), ["volume:read:v"]),
        (("--route", "mcp-sse", "--tool", "aegis.agent.list"), ["agent:list"]),
    ],
)
async def test_whatever_a_client_can_send_can_be_asked(
    asked: tuple[str, ...], missing: list[str], aegis: Command
) -> None:
    outcome = await aegis.run("policy", "explain", "--scopes", "", *asked, "--json")
    assert (outcome.code, outcome.json["missing"], outcome.json["enough"]) == (4, missing, missing)


@pytest.mark.parametrize(
    "asked",
    [
        ("--args", "[]"),
        ("--args", "{"),
        ("--arg", "args=x", "--arg", "args.name=x"),
    ],
)
async def test_arguments_that_mean_nothing_are_a_usage_error(asked: tuple[str, ...], aegis: Command) -> None:
    outcome = await aegis.run("policy", "explain", "--scopes", "", *FLEET, *asked)
    assert (outcome.code, outcome.stdout) == (2, "")


async def test_a_denial_says_how_to_mint_a_key_that_would_be_allowed_and_that_key_is(aegis: Command) -> None:
    asked = ("--tool", "aegis.workflow.run", "--arg", "name=nightly etl")
    outcome = await aegis.run("policy", "explain", "--scopes", "workflow:list", *asked)
    assert outcome.code == 4
    offered = "--scope workflow:list --scope 'workflow:run:nightly etl'"
    assert f"aegis-proxy keys mint --name NAME --owner OWNER {offered}" in outcome.told
    token = await aegis.mint("--name", "ci", "--scope", "workflow:list", "--scope", "workflow:run:nightly etl")
    assert (await aegis.run("policy", "explain", "--key", token, *asked)).code == 0


@pytest.mark.parametrize(
    ("tier", "told"),
    [
        ("pro", "No key of this owner can hold that while their tier is pro."),
        ("business", "aegis-proxy keys mint --name NAME --owner OWNER --scope node:dispatch --scope workflow:run:x"),
    ],
)
async def test_what_the_tier_never_gives_is_not_offered(tier: str, told: str, aegis: Command) -> None:
    asked = (*FLEET, "--arg", "args.name=x")
    outcome = await aegis.run("policy", "explain", "--scopes", "", "--tier", tier, *asked)
    assert outcome.code == 4
    assert "It takes node:dispatch and workflow:run:x." in outcome.told
    assert told in outcome.told
    assert ("node:dispatch is more than its owner's tier pro allows" in outcome.told) is (tier == "pro")


async def test_no_scope_is_offered_where_none_would_help(aegis: Command) -> None:
    outcome = await aegis.run(
        "policy", "explain", "--scopes", "", *FLEET, "--arg", "args.name=x", "--arg", "tenant_id=other"
    )
    assert outcome.stdout.startswith("denied: tool aegis.edge.fleet.invoke wants its argument tenant_id to be absent")
    assert "No scope would mend that" in outcome.told
    assert "keys mint" not in outcome.told


CHILD = """
INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id)
SELECT 'child0000001', owner_id, 'child', '{agent:list,workflow:list}', 'sql', id FROM api_keys WHERE id = $1
"""


async def test_a_key_that_may_not_be_used_is_denied_whatever_the_policy_says(aegis: Command) -> None:
    token = await aegis.mint("--name", "ci")
    key, asked = token[6:18], ("--tool", "aegis.agent.list")
    assert (await aegis.run("policy", "explain", "--key", key, *asked)).code == 0
    await aegis.run("keys", "revoke", key)
    plain = await aegis.run("policy", "explain", "--key", key, *asked)
    assert (plain.code, plain.stdout) == (4, "denied: the key may not be used at all: key_revoked\n")
    machine = await aegis.run("policy", "explain", "--key", key, *asked, "--json")
    assert (machine.code, machine.json["allowed"]) == (4, False)
    assert machine.json["why"] == "the key may not be used at all: key_revoked"


async def test_what_an_ancestor_takes_away_is_told_with_its_name(aegis: Command, database: Database) -> None:
    parent = (await aegis.mint("--name", "parent", "--scope", "agent:list"))[6:18]
    await database.fetch(CHILD, parent)
    asked = ("policy", "explain", "--key", "child0000001", "--tool")
    outcome = await aegis.run(*asked, "aegis.workflow.list", "--json")
    assert outcome.json["lost"] == [f"workflow:list is not among those of {parent}, which it was made from"]
    assert (await aegis.run(*asked, "aegis.agent.list")).code == 0
    await database.fetch("UPDATE api_keys SET status = 'disabled' WHERE id = $1", parent)
    dead = await aegis.run(*asked, "aegis.agent.list")
    assert dead.stdout == (
        f"denied: the key may not be used at all: key_disabled, through {parent}, which it was made from\n"
    )
