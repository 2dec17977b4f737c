"""`aegis-proxy keys update|rotate|disable|enable`: what becomes of a key between minting and revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from proxy.cli.context import ConfigOption, JsonOption, get_actor, read_settings
from proxy.cli.key_options import (
    BurstOption,
    CallsOption,
    KeyArgument,
    RateOption,
    SourceOption,
    StreamsOption,
    exiting,
    form_constraints,
    open_changing,
)
from proxy.cli.key_tables import form_key, print_key
from proxy.cli.output import describe_moment, print_json, say
from proxy.keys.changes import Grace, KeyChanges, Patch
from proxy.keys.constraints import UNCONSTRAINED
from proxy.keys.minting import MintError, parse_expiry
from proxy.keys.rights import Caller, form_operator
from proxy.keys.store import KeySummary
from proxy.policy import Policy

T = TypeVar("T")


def change(key: str, config: Path | None, work: Callable[[KeyChanges, Caller, Policy], Awaitable[T]]) -> T:
    """Run one change in the operator's name, or leave with the code of what is wrong with it."""

    async def run() -> T:
        async with open_changing(read_settings(config)) as (database, hasher, policy):
            return await work(KeyChanges(database, hasher), form_operator(get_actor()), policy)

    with exiting(key):
        return asyncio.run(run())


def update_key(
    key: KeyArgument,
    name: Annotated[str | None, typer.Option(help="A new name, 1 to 64 characters.")] = None,
    preset: Annotated[str | None, typer.Option(help="The scopes of a preset instead of those it has.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Scopes instead of those it has; may be repeated.")] = None,
    expires: Annotated[str | None, typer.Option(help="7d, 30d, 90d, 1y (from now), never, or an ISO date.")] = None,
    role: Annotated[
        str | None, typer.Option(help="What validation says of the owner's role on the platform; '' for nothing.")
    ] = None,
    source: SourceOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    max_calls: CallsOption = None,
    max_streams: StreamsOption = None,
    unconstrained: Annotated[
        bool, typer.Option("--unconstrained", help="Lift all constraints.", rich_help_panel="Constraints")
    ] = False,
    if_version: Annotated[
        int | None, typer.Option(help="Only if the key is still at this version (keys show --json).")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Rename a key, or change its scopes, expiry or constraints. Live streams follow at once.

    Constraints are replaced as a whole: name all that are to hold. A key made by another key stays within it.

    `aegis-proxy keys update ID --scope workflow:run:nightly-etl --source 10.0.0.0/8 --max-calls 2`
    """
    with exiting(key):
        constraints = form_constraints(source, rate, burst, max_calls, max_streams)
        if unconstrained and constraints != UNCONSTRAINED:
            raise MintError("give either constraints or --unconstrained")
        end: datetime | Literal["never"] | None = None
        if expires is not None:
            end = parse_expiry(expires, datetime.now(UTC)) or "never"
        patch = Patch(
            name=name, preset=preset, scopes=tuple(scope) if scope else None, expires_at=end,
            constraints=constraints if unconstrained or constraints != UNCONSTRAINED else None, role=role,
        )  # fmt: skip
        if patch == Patch():
            raise MintError(
                "say what to change: --name, --preset, --scope, --expires, --role or a constraint; see --help"
            )
    summary = change(
        key, config, lambda changes, actor, policy: changes.update(actor, key, patch, policy, version=if_version)
    )
    _print_key(summary, json)


def rotate_key(
    key: KeyArgument,
    grace: Annotated[
        str, typer.Option(help="How long the old secret stays good beside the new one: now, 1h, 24h or 7d.")
    ] = "1h",
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="The old secret ends now, and so do, for good, the keys made by this one."),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Give a key a new secret; its id, name and rights stay. The new key alone goes to stdout, once.

    The old secret stays good for the grace, but never past the key's expiry, and what was opened with it ends then.

    `KEY=$(aegis-proxy keys rotate ID --grace 24h)`
    """
    with exiting(key):
        left = _parse_grace(grace)
    rotated = change(
        key, config,
        lambda changes, actor, policy: changes.rotate(actor, key, policy, grace=left, compromised=compromised),
    )  # fmt: skip
    if json:
        print_json({**form_key(rotated.summary), "key": rotated.token, "descendants_revoked": rotated.ended})
        return
    typer.echo(rotated.token)
    until = rotated.summary.old_secret_until
    old = f"is good until {describe_moment(until, '')}" if until else "is refused from now on"
    say(f"[green]Rotated[/] {key}: the old secret {old}. Copy the new key now: it cannot be shown again.")
    if compromised:
        say(f"[red]Revoked[/] {rotated.ended} keys that were made by it.")


def disable_key(key: KeyArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Refuse a key until it is enabled again; every running proxy ends what it holds. Keys made by it are refused, too.

    `aegis-proxy keys disable ID`
    """
    _print_key(change(key, config, lambda changes, actor, policy: changes.disable(actor, key, policy)), json)


def enable_key(key: KeyArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Let a disabled key in again. What is revoked or expired stays so.

    `aegis-proxy keys enable ID`
    """
    _print_key(change(key, config, lambda changes, actor, policy: changes.enable(actor, key, policy)), json)


def _parse_grace(text: str) -> Grace:
    match text:
        case "now" | "1h" | "24h" | "7d":
            return text
        case _:
            raise MintError(f"grace {text!r} is not one of now, 1h, 24h, 7d")


def _print_key(summary: KeySummary, json: bool) -> None:
    if json:
        print_json(form_key(summary))
    else:
        print_key(summary, datetime.now(UTC))
