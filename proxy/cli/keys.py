"""`aegis-proxy keys …`: mint, list, show, revoke. What changes a key stands in `keys_life`, many in `keys_apply` and
`keys_import`, what became of them in `keys_usage` and `keys_audit`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from proxy.cli.context import ConfigOption, JsonOption, get_actor, open_database, read_settings
from proxy.cli.key_options import (
    BurstOption,
    CallsOption,
    KeyArgument,
    RateOption,
    SourceOption,
    StreamsOption,
    exiting,
    form_constraints,
    not_found,
    open_changing,
)
from proxy.cli.key_tables import form_key, print_key, print_keys
from proxy.cli.keys_apply import apply_keys
from proxy.cli.keys_audit import show_audit
from proxy.cli.keys_import import import_table
from proxy.cli.keys_life import disable_key, enable_key, rotate_key, update_key
from proxy.cli.keys_scan import scan_files
from proxy.cli.keys_usage import show_usage
from proxy.cli.output import (
    form_receipt,
    print_json,
    print_receipt,
    quote,
    say,
)
from proxy.identity import LOCAL_ISSUER
from proxy.keys.minting import MintedKey, MintError, MintRequest, mint, settle_expiry
from proxy.keys.store import KeyStore, KeySummary
from proxy.receipts import Receipt, wait_receipt
from proxy.settings import Settings

app = typer.Typer(help="API keys: mint, look at, change, rotate and end them.", no_args_is_help=True)
UNCONFIRMED = 6


@app.command("mint")
def mint_key(
    name: Annotated[str, typer.Option(help="What the key is for, 1 to 64 characters.")],
    owner: Annotated[str, typer.Option(help="Whose key it is.")],
    tenant: Annotated[str | None, typer.Option(help="The owner's tenant, for a new owner. Default: 'default'.")] = None,
    tier: Annotated[str | None, typer.Option(help="The owner's tier, for a new owner. Default: the policy's.")] = None,
    preset: Annotated[str | None, typer.Option(help="read-only, execution, developer or full-access.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="A single scope, such as workflow:run:nightly-etl; may be repeated.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="7d, 30d, 90d, 1y, never, or an ISO date. Default: 90d, or what the policy allows of it."),
    ] = None,
    issuer: Annotated[str, typer.Option(help="The owner's identity provider, as its tokens name it.")] = LOCAL_ISSUER,
    role: Annotated[
        str | None, typer.Option(help="What validation says of the owner's role on the platform. Default: nothing.")
    ] = None,
    source: SourceOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    max_calls: CallsOption = None,
    max_streams: StreamsOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Mint a key. The key alone goes to stdout, once; nobody can show it again.

    `KEY=$(aegis-proxy keys mint --name ci --owner ada --preset execution)`
    """
    with exiting():
        if (preset is not None) == bool(scope):
            raise MintError("give either a preset or scopes: --preset P, or --scope S (repeatable)")
        request = MintRequest(
            name=name, owner=owner, actor=get_actor(), tenant=tenant, tier=tier, preset=preset,
            scopes=tuple(scope or ()), issuer=issuer,
            constraints=form_constraints(source, rate, burst, max_calls, max_streams), role=role,
        )  # fmt: skip
        minted = asyncio.run(_mint(read_settings(config), request, expires))
    if json:
        print_json({**form_key(minted.summary), "key": minted.token})
        return
    typer.echo(minted.token)
    say(
        f"[green]Minted[/] {minted.summary.id} for {quote(owner)}."
        " Copy it now: it is not stored and cannot be shown again."
        f"\nRevoke it with: aegis-proxy keys revoke {minted.summary.id}"
    )


async def _mint(settings: Settings, request: MintRequest, expires: str | None) -> MintedKey:
    async with open_changing(settings) as (database, hasher, policy):
        request = replace(request, expires_at=settle_expiry(expires, policy, datetime.now(UTC)))
        return await mint(request, policy=policy, store=KeyStore(database), hasher=hasher)


@app.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only this owner's keys.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List keys, newest first."""

    async def read(settings: Settings) -> list[KeySummary]:
        async with open_database(settings) as database:
            return await KeyStore(database).list_keys(owner)

    summaries = asyncio.run(read(read_settings(config)))
    if json:
        print_json({"api_keys": [form_key(summary) for summary in summaries]})
    elif summaries:
        print_keys(summaries, datetime.now(UTC))
    elif owner is not None:
        say(f"{quote(owner)} has no keys. See: aegis-proxy keys list")
    else:
        say("No keys yet. Mint one with: aegis-proxy keys mint --name NAME --owner OWNER --preset read-only")


@app.command("show")
def show_key(key: KeyArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one key: what it may do, until when, and what became of it."""

    async def read(settings: Settings) -> KeySummary | None:
        async with open_database(settings) as database:
            return await KeyStore(database).find_key(key)

    _print_found(asyncio.run(read(read_settings(config))), key, json)


@app.command("revoke")
def revoke_key(
    key: KeyArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for the audit.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Revoke a key, for good: every running proxy refuses it at once and ends what it holds.

    Waits up to five seconds for every running proxy to confirm; exits 6, naming those that did not."""

    async def revoke(settings: Settings) -> tuple[KeySummary | None, Receipt]:
        async with open_database(settings) as database:
            summary = await KeyStore(database).revoke_key(key, actor=get_actor(), reason=reason)
            return summary, await wait_receipt(database, key)

    summary, receipt = asyncio.run(revoke(read_settings(config)))
    if summary is None:
        raise not_found(key)
    if json:
        print_json({**form_key(summary), "receipt": form_receipt(receipt)})
    else:
        print_key(summary, datetime.now(UTC))
        print_receipt(summary.id, receipt)
    if not receipt.confirmed:
        raise typer.Exit(UNCONFIRMED)


def _print_found(summary: KeySummary | None, key: str, json: bool) -> None:
    if summary is None:
        raise not_found(key)
    if json:
        print_json(form_key(summary))
    else:
        print_key(summary, datetime.now(UTC))


app.command("update")(update_key)
app.command("rotate")(rotate_key)
app.command("disable")(disable_key)
app.command("enable")(enable_key)
app.command("apply")(apply_keys)
app.command("import")(import_table)
app.command("usage")(show_usage)
app.command("audit")(show_audit)
app.command("scan")(scan_files)
