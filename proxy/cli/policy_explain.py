"""`aegis-proxy policy explain`: would this be allowed, why, and what would suffice?"""

from __future__ import annotations

import asyncio
import json as json_text
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.cli.context import ConfigOption, JsonOption, open_database, read_settings
from proxy.cli.key_options import DENIED, NOT_FOUND, read_id
from proxy.cli.output import print_json, print_lines, quote, say, say_error
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.explaining import find_key_fault, form_explanation, list_losses
from proxy.keys.record import KeyRecord
from proxy.keys.store import KeyStore
from proxy.policy import Denied, Policy, load_policy
from proxy.policy.explanations import Explanation, explain
from proxy.policy.questions import Question, find_message_target
from proxy.policy.scopes import EVERYTHING
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request it is: effective scopes, owner, and the scopes another key would be minted from.

    `fault`: that the key may not be used, whatever the policy says.
    """

    grants: frozenset[str]
    owner: Owner
    scopes: tuple[str, ...]
    record: KeyRecord | None = None
    fault: str | None = None


def explain_policy(
    key: Annotated[str | None, typer.Option(help="Whose request: a key's id; its rights are in the database.")] = None,
    preset: Annotated[str | None, typer.Option(help="Or: what a preset holds.")] = None,
    scopes: Annotated[str | None, typer.Option(help="Or: scopes, separated by commas.")] = None,
    tier: Annotated[str | None, typer.Option(help="The owner's tier, without --key. Default: no ceiling.")] = None,
    tenant: Annotated[str, typer.Option(help="The owner's tenant, without --key.")] = "own-tenant",
    subject: Annotated[str, typer.Option(help="The owner's user id, without --key.")] = "own-user",
    tool: Annotated[str | None, typer.Option(help="What is asked: a tool call.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Or: a prompt.")] = None,
    uri: Annotated[str | None, typer.Option(help="Or: a resource, to read it; --rpc says what else.")] = None,
    rpc: Annotated[str | None, typer.Option(help="Or: any other JSON-RPC method.")] = None,
    path: Annotated[str | None, typer.Option(help="Or: a REST path, with its query.")] = None,
    method: Annotated[str, typer.Option(help="The HTTP method, with --path.")] = "GET",
    arg: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=TEXT, an argument; NAME=json:VALUE if it is no text; A.B=TEXT: B inside A. Repeatable."
        ),
    ] = None,
    args: Annotated[
        str | None, typer.Option("--args", "--params", help="All arguments, or the params of --rpc, as JSON.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="The MCP route messages come by. Default: the first.")] = None,
    policy: Annotated[Path | None, typer.Option(help="The policy file. Default: the configured one.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether a request would be allowed, why, and the smallest scope that would suffice.

    Exit code 0: allowed. 4: denied. 5: there is no such key.

    `aegis-proxy policy explain --preset read-only --tool aegis.workflow.run --arg name=nightly-etl`

    `aegis-proxy policy explain --key ID --method POST --path /v1/workflows/nightly-etl/run`
    """
    settings = read_settings(config)
    loaded = load_policy(policy or settings.policy)
    asked = {"--tool": tool, "--prompt": prompt, "--uri": uri, "--rpc": rpc if uri is None else None, "--path": path}
    what, name = _choose("what is asked", asked)
    if what == "--path":
        question = Question(method.upper(), name)
    else:
        message = _form_message(what, name, rpc, _read_fields(args, arg or []))
        question = Question("POST", _find_target(loaded, route), *message)
    whose, holder = _choose("whose request it is", {"--key": key, "--preset": preset, "--scopes": scopes})
    if whose == "--key":
        asker = _find_asker(settings, loaded, read_id(holder))
    else:
        owner = Owner(OwnerId("asked"), tenant, "asked", subject, _check_tier(loaded, tier))
        asker = _form_asker(loaded, _find_scopes(loaded, whose, holder), owner)
    explanation = explain(loaded, question, asker.grants, asker.owner)
    losses = list_losses(explanation, asker.record, asker.fault)
    if json:
        print_json(form_explanation(explanation, asker.fault, losses))
    else:
        _print_verdict(explanation, asker.fault)
        _say_reasons(explanation, asker, losses)
    if asker.fault is not None or not explanation.allowed:
        raise typer.Exit(DENIED)


def _choose(what: str, options: Mapping[str, str | None]) -> tuple[str, str]:
    """The one option that is given."""
    given = [(name, value) for name, value in options.items() if value is not None]
    if len(given) != 1:
        raise typer.BadParameter(f"say {what}: one of {', '.join(options)}")
    return given[0]


# What is asked.


def _form_message(what: str, name: str, rpc: str | None, fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    match what:
        case "--tool":
            return "tools/call", {"name": name, "arguments": fields}
        case "--prompt":
            return "prompts/get", {"name": name, "arguments": fields}
        case "--uri" if rpc == "completion/complete":
            return rpc, {"ref": {"type": "ref/resource", "uri": name}}
        case "--uri" if rpc == "subscriptions/listen":
            return rpc, {"notifications": {"resourceSubscriptions": [name]}}
        case "--uri":
            return rpc or "resources/read", {**fields, "uri": name}
        case _:
            return name, fields


def _find_target(policy: Policy, route_id: str | None) -> str:
    target = find_message_target(policy, route_id)
    if target is None:
        raise typer.BadParameter("there is no such route for messages: ask by --path, or name one with --route")
    return target


def _read_fields(whole: str | None, single: Iterable[str]) -> dict[str, Any]:
    fields = _read_json(whole, "--args") if whole is not None else {}
    if not isinstance(fields, dict):
        raise typer.BadParameter("must be a JSON object", param_hint="--args")
    for text in single:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE", param_hint="--arg")
        inner = fields
        *parents, last = name.split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise typer.BadParameter(f"{text!r}: {parent} is no object", param_hint="--arg")
        inner[last] = _read_json(value[len("json:") :], "--arg") if value.startswith("json:") else value
    return fields


def _read_json(text: str, option: str) -> Any:  # noqa: ANN401 - whatever stands there
    try:
        return json_text.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON: {error}", param_hint=option) from error


# Who asks.


def _check_tier(policy: Policy, tier: str | None) -> str:
    if tier is not None and tier not in policy.tiers:
        raise typer.BadParameter(f"the tiers are {', '.join(policy.tiers)}", param_hint="--tier")
    return tier or ""


def _find_scopes(policy: Policy, whose: str, holder: str) -> tuple[str, ...]:
    if whose == "--preset":
        if holder not in policy.presets:
            raise typer.BadParameter(f"the presets are {', '.join(policy.presets)}", param_hint=whose)
        return policy.presets[holder].scopes
    held = tuple(scope for scope in holder.split(",") if scope)
    for scope in held:
        try:
            policy.check_scope(scope)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=whose) from error
    return held


def _form_asker(policy: Policy, scopes: tuple[str, ...], owner: Owner) -> Asker:
    grants = policy.effective_scopes(scopes, (), owner.tier) if owner.tier else frozenset(scopes)
    return Asker(grants, owner, scopes)


def _find_asker(settings: Settings, policy: Policy, key_id: str) -> Asker:
    async def read() -> KeyRecord | None:
        async with open_database(settings) as database:
            return await KeyStore(database).find_record(KeyId(key_id))

    record = asyncio.run(read())
    if record is None:
        say_error(f"There is no key {key_id}. See: aegis-proxy keys list")
        raise typer.Exit(NOT_FOUND)
    grants = policy.effective_scopes(record.scopes, (one.scopes for one in record.ancestors), record.owner.tier)
    return Asker(grants, record.owner, record.scopes, record, find_key_fault(record, time.time()))


# What is told.


def _print_verdict(explanation: Explanation, fault: str | None) -> None:
    decision = explanation.decision
    if fault is not None:
        print_lines([(f"denied: {quote(fault)}", "red")])
    elif isinstance(decision, Denied):
        print_lines([(f"denied: {quote(decision.why)}", "red")])
    else:
        rests = ", ".join(decision.scopes) or "no scope: any key may"
        print_lines([(f"allowed by rule {quote(decision.rule)}, resting on {quote(rests)}", "green")])


def _say_reasons(explanation: Explanation, asker: Asker, losses: Iterable[str]) -> None:
    for step in explanation.steps:
        say(f"  {quote(step)}")
    for loss in losses:
        say(f"  [yellow]{quote(loss)}[/]")
    if isinstance(explanation.decision, Denied):
        _say_mend(explanation.decision, explanation, asker)
    say(f"policy {explanation.revision}")


def _say_mend(decision: Denied, explanation: Explanation, asker: Asker) -> None:
    enough = explanation.enough
    if not enough:
        if decision.missing:
            say("No scope would mend that: the request itself is refused.")
        return
    if enough[0] in decision.singles and enough[0] != EVERYTHING:
        say(f"A key that also held [bold]{quote(enough[0])}[/] would be allowed, and no smaller one would do.")
    else:
        say(f"It takes [bold]{quote(' and '.join(enough))}[/].")
    if set(enough) & set(explanation.beyond_tier):
        say(f"No key of this owner can hold that while their tier is {quote(asker.owner.tier)}.")
        return
    scopes = dict.fromkeys((*asker.scopes, *enough))
    flags = " ".join(f"--scope {shlex.quote(scope)}" for scope in scopes)
    say(f"Keys are not widened. Another one: aegis-proxy keys mint --name NAME --owner OWNER {quote(flags)}")
