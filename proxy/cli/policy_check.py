"""`aegis-proxy policy check`: what is wrong with a policy, and what is odd about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy.cli.context import ConfigOption, JsonOption, read_settings
from proxy.cli.output import print_json, print_lines, quote, say
from proxy.errors import ConfigError, Fault
from proxy.policy import Policy
from proxy.policy.load import check_policy
from proxy.policy.notes import NOTE_KINDS, Note


def check_policy_file(
    file: Annotated[Path | None, typer.Argument(help="The policy file. Default: the configured one.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there is a note, too.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="KIND", help=f"Leave notes out: {', '.join(NOTE_KINDS)}. May be repeated."),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Check a policy file: every fault at once, with its line and its mend.

    A fault keeps the policy from being used, and the exit code is 1. A note says what may be meant so: a scope that no
    rule asks for, a path inside another, a pattern that opens what is yet to come. Whether a route's upstream is
    configured is told of the configured policy, or with --config.

    Example: aegis-proxy policy check config/policy.yaml --strict --without no-preset
    """
    unknown = [kind for kind in without or () if kind not in NOTE_KINDS]
    if unknown:
        raise typer.BadParameter(f"{quote(unknown[0])} is none of {', '.join(NOTE_KINDS)}", param_hint="--without")
    settings = read_settings(config) if file is None or config is not None else None
    path = file if file is not None or settings is None else settings.policy
    assert path is not None
    upstreams = tuple(settings.upstreams.configured) if settings is not None else None
    policy, notes = _check(path, upstreams, json=json)
    notes = [note for note in notes if note.kind not in (without or ())]
    if json:
        print_json(_form(path, policy, (), notes))
    else:
        _print_notes(path, policy, notes)
    if strict and notes:
        raise typer.Exit(1)


def _check(path: Path, upstreams: Collection[str] | None, *, json: bool) -> tuple[Policy, Sequence[Note]]:
    """Raises ConfigError, or tells its faults as JSON and leaves."""
    try:
        return check_policy(path, upstreams)
    except ConfigError as error:
        if not json:
            raise
        print_json(_form(path, None, error.faults, ()))
        raise typer.Exit(1) from None


def _form(path: Path, policy: Policy | None, faults: Sequence[Fault], notes: Sequence[Note]) -> dict[str, Any]:
    return {
        "file": str(path),
        "revision": policy.revision if policy is not None else None,
        "presets": list(policy.presets) if policy is not None else [],
        "faults": [_form_finding(fault) for fault in faults],
        "notes": [_form_finding(note) for note in notes],
    }


def _form_finding(finding: Fault | Note) -> dict[str, Any]:
    members = asdict(finding)
    return {"file": members.pop("source"), **members}


def _print_notes(path: Path, policy: Policy, notes: Sequence[Note]) -> None:
    print_lines((f"[yellow]{note.kind}[/] {quote(note)}", "") for note in notes)
    counted = f", {len(notes)} notes" if notes else ""
    say(
        f"[green]ok[/] {quote(path)}: revision {policy.revision}{counted}, {len(policy.routes)} routes,"
        f" {len(policy.catalogue)} scopes, presets {quote(', '.join(policy.presets))}"
    )
