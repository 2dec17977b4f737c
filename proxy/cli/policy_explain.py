"""`aegis-proxy policy explain`: would this be allowed, why, and what would suffice?"""

from __future__ import annotations

import asyncio
import json as json_lines
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.cli.context import ConfigOption, JsonOption, open_database, read_settings
from proxy.cli.keys import NOT_FOUND, read_id
from proxy.cli.output import print_json, quote, say, say_error
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.record import KeyRecord
from proxy.keys.store import KeyStore
from proxy.policy import Denied, Policy, load_policy
from proxy.policy.explanations import Explanation, explain
from proxy.policy.questions import Question
from proxy.policy.scopes import EVERYTHING, covers
from proxy.settings import Settings

DENIED = 4


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request it is: effective scopes, owner, and what is to be said about a key beside the policy."""

    grants: frozenset[str]
    owner: Owner
    record: KeyRecord | None = None


def explain_policy(
    key: Annotated[str | None, typer.Option(help="A key's id: its rights are read from the database.")] = None,
    preset: Annotated[str | None, typer.Option(help="Instead of a key: what a preset holds.")] = None,
    scopes: Annotated[str | None, typer.Option(help="Instead of a key: scopes, separated by commas.")] = None,
    tier: Annotated[str | None, typer.Option(help="The owner's tier. Default: no ceiling at all.")] = None,
    tenant: Annotated[str, typer.Option(help="The owner's tenant.")] = "own-tenant",
    subject: Annotated[str, typer.Option(help="The owner's user id.")] = "own-user",
    tool: Annotated[str | None, typer.Option(help="A tool call.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt.")] = None,
    uri: Annotated[str | None, typer.Option(help="A resource; with --rpc: what is done with it.")] = None,
    rpc: Annotated[str | None, typer.Option(help="Any other JSON-RPC method.")] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, an argument; NAME=json:VALUE for anything but a text.")
    ] = None,
    method: Annotated[str, typer.Option(help="With --path: the HTTP method.")] = "GET",
    path: Annotated[str | None, typer.Option(help="A REST request, query included.")] = None,
    route: Annotated[str | None, typer.Option(help="The MCP route messages come by. Default: the first.")] = None,
    policy: Annotated[Path | None, typer.Option(help="The policy file. Default: the configured one.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether a request would be allowed, why, and the smallest scope that would suffice.

    Exit code 0: allowed. 4: denied. 5: there is no such key.

    Example: aegis-proxy policy explain --preset read-only --tool aegis.workflow.run --arg name=nightly-etl
    """
    settings = read_settings(config)
    loaded = load_policy(policy or settings.policy)
    question = _form_question(loaded, tool, prompt, uri, rpc, arg or [], method, path, route)
    if sum(given is not None for given in (key, preset, scopes)) != 1:
        raise typer.BadParameter("say whose request it is: one of --key, --preset, --scopes")
    if key is not None:
        asker = _find_asker(settings, loaded, read_id(key))
    else:
        held = _find_scopes(loaded, preset, scopes)
        asker = Asker(_cut_down(loaded, held, tier), Owner(OwnerId("asked"), tenant, "asked", subject, tier or ""))
    explanation = explain(loaded, question, asker.grants, asker.owner)
    losses = _find_losses(loaded, explanation, asker.record)
    if json:
        print_json({**explanation.form(), "lost": losses})
    else:
        _say_explanation(explanation, losses)
    if not explanation.allowed:
        raise typer.Exit(DENIED)


def _form_question(
    policy: Policy,
    tool: str | None,
    prompt: str | None,
    uri: str | None,
    rpc: str | None,
    arguments: Iterable[str],
    method: str,
    path: str | None,
    route: str | None,
) -> Question:
    subjects = [one for one in (tool, prompt, uri, rpc if uri is None else None, path) if one is not None]
    if len(subjects) != 1:
        raise typer.BadParameter("say what is asked: one of --tool, --prompt, --uri, --rpc, --path")
    if path is not None:
        return Question(method.upper(), path)
    target = _find_target(policy, route)
    fields = dict(_read_argument(text) for text in arguments)
    if tool is not None or prompt is not None:
        named = "tools/call" if tool is not None else "prompts/get"
        return Question("POST", target, named, {"name": tool or prompt, "arguments": fields})
    if uri is not None:
        return Question("POST", target, rpc or "resources/read", {**fields, "uri": uri})
    return Question("POST", target, rpc, fields)


def _find_target(policy: Policy, route_id: str | None) -> str:
    routes = [route for route in policy.routes if route.protocol != "http" and route_id in (None, route.id)]
    if not routes:
        raise typer.BadParameter("there is no such route for messages: ask by --path, or name one with --route")
    return routes[0].messages or routes[0].path


def _read_argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is no NAME=VALUE", param_hint="--arg")
    if not value.startswith("json:"):
        return name, value
    try:
        return name, json_lines.loads(value.removeprefix("json:"))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: not JSON: {error}", param_hint="--arg") from error


def _find_scopes(policy: Policy, preset: str | None, scopes: str | None) -> tuple[str, ...]:
    if preset is not None:
        if preset not in policy.presets:
            raise typer.BadParameter(f"the presets are {', '.join(policy.presets)}", param_hint="--preset")
        return policy.presets[preset].scopes
    held = tuple(scope for scope in (scopes or "").split(",") if scope)
    for scope in held:
        try:
            policy.check_scope(scope)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--scopes") from error
    return held


def _cut_down(policy: Policy, scopes: tuple[str, ...], tier: str | None) -> frozenset[str]:
    if tier is not None and tier not in policy.tiers:
        raise typer.BadParameter(f"the tiers are {', '.join(policy.tiers)}", param_hint="--tier")
    return policy.effective_scopes(scopes, (), tier) if tier is not None else frozenset(scopes)


def _find_asker(settings: Settings, policy: Policy, key_id: str) -> Asker:
    async def read() -> KeyRecord | None:
        async with open_database(settings) as database:
            return (await KeyStore(database).read_keys([KeyId(key_id)])).get(KeyId(key_id))

    record = asyncio.run(read())
    if record is None:
        say_error(f"There is no key {key_id}.")
        raise typer.Exit(NOT_FOUND)
    ancestors = (ancestor.scopes for ancestor in record.ancestors)
    return Asker(policy.effective_scopes(record.scopes, ancestors, record.owner.tier), record.owner, record)


def _find_losses(policy: Policy, explanation: Explanation, record: KeyRecord | None) -> list[str]:
    """Beside the policy's own words: what is with this key, and where a right that it lacks is lost."""
    if record is None:
        return []
    losses = []
    fault = record.find_fault(time.time())
    if fault is not None:
        losses.append(f"the key may not be used at all: {fault}")
    decision = explanation.decision
    for scope in decision.missing if isinstance(decision, Denied) else ():
        if not covers(frozenset(record.scopes), scope):
            losses.append(f"{scope} is not among the key's own scopes")
        losses += [
            f"{scope} is not among those of {ancestor.id}, which it was made from"
            for ancestor in record.ancestors
            if not covers(frozenset(ancestor.scopes), scope)
        ]
        if not covers(policy.tiers.get(record.owner.tier, frozenset()), scope):
            losses.append(f"{scope} is more than its owner's tier {record.owner.tier} allows")
    return losses


def _say_explanation(explanation: Explanation, losses: list[str]) -> None:
    decision = explanation.decision
    if isinstance(decision, Denied):
        typer.echo(f"denied: {quote_plain(decision.why)}")
    else:
        rests = ", ".join(decision.scopes) or "no scope: any key may"
        typer.echo(f"allowed by rule {decision.rule}, resting on {quote_plain(rests)}")
    for step in explanation.steps:
        say(f"  {quote(step)}")
    for loss in losses:
        say(f"  [yellow]{quote(loss)}[/]")
    if isinstance(decision, Denied) and decision.smallest is not None and decision.smallest != EVERYTHING:
        say(f"A key that also held [bold]{quote(decision.smallest)}[/] would be allowed, and no smaller one would do.")
    elif isinstance(decision, Denied) and decision.missing:
        say(f"It takes [bold]{quote(' and '.join(decision.missing))}[/].")
    say(f"policy {explanation.revision}")


def quote_plain(text: str) -> str:
    """For stdout, where no markup is read: nothing that a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
