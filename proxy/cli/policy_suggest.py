"""`aegis-proxy policy suggest`: the least that a key needs, by what it did."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.cli.context import ConfigOption, JsonOption, open_database, read_settings
from proxy.cli.key_options import NOT_FOUND, read_id
from proxy.cli.output import describe_moment, print_json, print_lines, print_table, quote, say, say_error
from proxy.identity import LOCAL_ISSUER, KeyId
from proxy.keys.record import KeyRecord
from proxy.keys.store import KeyStore, KeySummary
from proxy.policy import Policy, load_policy
from proxy.policy.scopes import simplify
from proxy.policy.suggestions import MAX_SELECTORS, Suggestion, suggest
from proxy.settings import Settings
from proxy.usage import KeyUsage, read_usage

LONGEST_DAYS = 366  # a little less than counts are kept
NAME_LIMIT = 64
SUFFIX = "-narrow"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A key, and what it did."""

    summary: KeySummary
    record: KeyRecord
    usage: KeyUsage

    @property
    def own_days(self) -> tuple[date, ...]:
        """Those of the days asked for on which there was such a key."""
        made = self.summary.created_at.astimezone(UTC).date()
        return tuple(day for day in self.usage.days if day >= made)


def suggest_scopes(
    key: Annotated[str, typer.Option(help="The key's id.", callback=read_id)],
    days: Annotated[int, typer.Option(help="How far to look back, today included.", min=1, max=LONGEST_DAYS)] = 30,
    policy: Annotated[Path | None, typer.Option(help="The policy file. Default: the configured one.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Propose the least scopes that would have sufficed for what a key did, and the command that mints such a key.

    Also tells what it holds and did not use, what it was denied, and how far the counts behind it reach.
    Exit code 5: there is no such key.

    Example: aegis-proxy policy suggest --key 4fTgB1kQz0aX --days 90
    """
    settings = read_settings(config)
    loaded = load_policy(policy or settings.policy)
    evidence = asyncio.run(_read_evidence(settings, key, days))
    if evidence is None:
        say_error(f"There is no key {key}. See: aegis-proxy keys list")
        raise typer.Exit(NOT_FOUND)
    suggestion = _suggest(loaded, evidence)
    command = _form_command(evidence, suggestion)
    if json:
        print_json(_form_json(evidence, suggestion, command))
    else:
        _print_suggestion(evidence, suggestion, command)


async def _read_evidence(settings: Settings, key: str, days: int) -> Evidence | None:
    async with open_database(settings) as database:
        store, key_id = KeyStore(database), KeyId(key)
        summary, record = await store.find_key(key_id), await store.find_record(key_id)
        if summary is None or record is None:
            return None
        return Evidence(summary, record, await read_usage(database, key_id, days))


def _suggest(policy: Policy, evidence: Evidence) -> Suggestion:
    record = evidence.record
    ancestors = (ancestor.scopes for ancestor in record.ancestors)
    grants = policy.effective_scopes(record.scopes, ancestors, record.owner.tier)
    return suggest(policy, evidence.usage.uses, record.scopes, grants)


def _form_command(evidence: Evidence, suggestion: Suggestion) -> str | None:
    """None: there is nothing to narrow, or nothing left."""
    summary = evidence.summary
    if not suggestion.scopes or frozenset(suggestion.scopes) == simplify(summary.scopes):
        return None
    words = ["aegis-proxy", "keys", "mint", "--name", summary.name[: NAME_LIMIT - len(SUFFIX)] + SUFFIX]
    words += ["--owner", summary.owner]
    for scope in suggestion.scopes:
        words += ["--scope", scope]
    if summary.expires_at is None:
        words += ["--expires", "never"]
    elif summary.expires_at > datetime.now(UTC):
        words += ["--expires", summary.expires_at.isoformat(timespec="seconds")]
    return shlex.join(words)


def _list_remarks(evidence: Evidence, suggestion: Suggestion, command: str | None) -> Iterator[str]:
    """What whoever follows the suggestion should know."""
    usage, own_days = evidence.usage, evidence.own_days
    if len(own_days) < len(usage.days):
        yield f"The key was there on {len(own_days)} of these {len(usage.days)} days: what is rare may be unseen yet."
    missing = len(own_days) - len(usage.recorded.intersection(own_days))
    if missing:
        yield f"On {missing} of its {len(own_days)} days nothing was recorded, of any key: the counts may lack some."
    for scope in suggestion.widened:
        yield f"More than {MAX_SELECTORS} different {scope} were used, so it is proposed for all of them."
    if suggestion.chosen:
        yield "Where a rule takes any one of several scopes, few that serve all were chosen, greedily."
    for use in suggestion.lapsed:
        yield f"{use.rule} rested on {' '.join(use.scopes)}, which no key can hold any more: it is left out."
    if command is not None and evidence.record.owner.issuer != LOCAL_ISSUER:
        yield f"Its owner comes from {evidence.record.owner.issuer}: mint the key there, with the same scopes."


def _form_json(evidence: Evidence, suggestion: Suggestion, command: str | None) -> dict[str, Any]:
    usage = evidence.usage
    return {
        "key": evidence.summary.id,
        "name": evidence.summary.name,
        "owner": evidence.summary.owner,
        "days": {
            "first": usage.days[0].isoformat(),
            "last": usage.days[-1].isoformat(),
            "of_key": len(evidence.own_days),
            "recorded": len(usage.recorded.intersection(evidence.own_days)),
            "used": len(usage.used),
        },
        "scopes": list(suggestion.scopes),
        "proposals": [asdict(proposal) for proposal in suggestion.proposals],
        "unused": list(suggestion.unused),
        "denied": [
            {"rule": use.rule or None, "needs": list(use.scopes), "count": use.count, "last_at": use.last_at}
            for use in suggestion.denied
        ],
        "remarks": list(_list_remarks(evidence, suggestion, command)),
        "command": command,
    }


def _print_suggestion(evidence: Evidence, suggestion: Suggestion, command: str | None) -> None:
    if suggestion.proposals:
        rows = [(one.scope, str(one.count), describe_moment(one.last_at, "")) for one in suggestion.proposals]
        print_table(("SCOPE", "CALLS", "LAST"), rows)
    if suggestion.unused:
        print_lines([("", ""), ("Held, and not needed for any of it", "bold")])
        print_lines((f"  {quote(scope)}", "yellow") for scope in suggestion.unused)
    if suggestion.denied:
        print_lines([("", ""), ("Denied", "bold")])
        print_table(
            ("RULE", "WOULD NEED", "CALLS", "LAST"),
            [
                (use.rule or "none", " ".join(use.scopes) or "-", str(use.count), describe_moment(use.last_at, ""))
                for use in suggestion.denied
            ],
        )
    if command is not None:
        print_lines([("", ""), (quote(command), "")])
    _say_summary(evidence, suggestion, command)


def _say_summary(evidence: Evidence, suggestion: Suggestion, command: str | None) -> None:
    usage, name = evidence.usage, quote(evidence.summary.name)
    recorded = len(usage.recorded.intersection(evidence.own_days))
    if not suggestion.proposals:
        say(f"{name} used nothing that takes a scope.")
    elif command is None:
        say(f"[green]{name} needs all that it holds.[/]")
    else:
        say(f"Whoever uses {name} moves to the new key; then: aegis-proxy keys revoke {evidence.summary.id}")
    say(
        f"From {recorded} days of records between {usage.days[0]} and {usage.days[-1]};"
        f" on {len(usage.used)} of them it was used."
    )
    for remark in _list_remarks(evidence, suggestion, command):
        say(f"[yellow]note[/] {quote(remark)}")
