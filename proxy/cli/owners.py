"""`aegis-proxy owners …`: whose keys there are, and what the most is that any of them can do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.context import ConfigOption, JsonOption, get_actor, open_database, read_settings
from proxy.cli.key_options import NOT_FOUND, USAGE, exiting
from proxy.cli.output import describe_moment, print_facts, print_json, print_table, say, say_error
from proxy.identity import DEFAULT_TENANT, LOCAL_ISSUER
from proxy.keys.owners import Owners, OwnerSummary
from proxy.keys.rights import Caller, form_operator
from proxy.policy import Policy, load_policy

app = typer.Typer(
    help="Owners of keys: their tiers, which bound all of their keys, and whether they are let in.",
    no_args_is_help=True,
)
OwnerArgument = Annotated[str, typer.Argument(metavar="OWNER", help="The owner, as given to `keys mint --owner`.")]
IssuerOption = Annotated[
    str | None, typer.Option(help="The owner's identity provider, where several know one of that name.")
]


@app.command("list")
def list_owners(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's owners.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List owners, with the number of their active keys."""

    async def read() -> list[OwnerSummary]:
        async with open_database(read_settings(config)) as database:
            return await Owners(database).list(tenant=tenant)

    found = asyncio.run(read())
    if json:
        print_json({"owners": [asdict(owner) for owner in found]})
    elif found:
        print_table(("OWNER", "TIER", "KEYS", "TENANT", "ISSUER", "STATUS"), map(_form_row, found))
    else:
        say("No owners. Minting a key makes one: aegis-proxy keys mint --name NAME --owner OWNER --preset read-only")


@app.command("show")
def show_owner(
    owner: OwnerArgument, issuer: IssuerOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show one owner."""

    async def read() -> OwnerSummary:
        async with open_database(read_settings(config)) as database:
            return await _find(Owners(database), owner, issuer)

    _print_owner(asyncio.run(read()), json)


@app.command("add")
def add_owner(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="The user id: the `sub` of the provider's tokens.")],
    tenant: Annotated[str, typer.Option(help="Whose resources this owner's keys reach.")] = DEFAULT_TENANT,
    tier: Annotated[
        str | None, typer.Option(help="The most any of the owner's keys can do. Default: the policy's.")
    ] = None,
    issuer: Annotated[str, typer.Option(help="The identity provider, as its tokens name it.")] = LOCAL_ISSUER,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Add an owner without a key, so that whoever signs in elsewhere can make some here.

    `aegis-proxy owners add 8d1f… --issuer https://id.example.com/realms/aegis --tenant acme --tier pro`
    """

    async def add(owners: Owners, actor: Caller, policy: Policy) -> OwnerSummary:
        return await owners.add(
            actor, policy, issuer=issuer, subject=owner, tenant=tenant, tier=tier or policy.default_tier
        )

    _change(config, add, json)


@app.command("set-tier")
def set_tier(
    owner: OwnerArgument,
    tier: Annotated[str, typer.Argument(help="One of the policy's tiers.")],
    issuer: IssuerOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Move an owner to a tier. All of its keys are narrowed or widened at once, and live streams with them.

    `aegis-proxy owners set-tier ada business`
    """

    async def move(owners: Owners, actor: Caller, policy: Policy) -> OwnerSummary:
        return await owners.set_tier(actor, (await _find(owners, owner, issuer)).id, tier, policy)

    _change(config, move, json)


@app.command("disable")
def disable_owner(
    owner: OwnerArgument, issuer: IssuerOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Refuse an owner and all of its keys until enabled; every running proxy ends what they hold."""

    async def disable(owners: Owners, actor: Caller, policy: Policy) -> OwnerSummary:
        return await owners.disable(actor, (await _find(owners, owner, issuer)).id, policy)

    _change(config, disable, json)


@app.command("enable")
def enable_owner(
    owner: OwnerArgument, issuer: IssuerOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Let an owner and its keys in again. Keys that were revoked or disabled themselves stay so."""

    async def enable(owners: Owners, actor: Caller, policy: Policy) -> OwnerSummary:
        return await owners.enable(actor, (await _find(owners, owner, issuer)).id, policy)

    _change(config, enable, json)


def _change(config: Path | None, work: Callable[[Owners, Caller, Policy], Awaitable[OwnerSummary]], json: bool) -> None:
    async def run() -> OwnerSummary:
        settings = read_settings(config)
        async with open_database(settings) as database:
            return await work(Owners(database), form_operator(get_actor()), load_policy(settings.policy))

    with exiting():
        changed = asyncio.run(run())
    _print_owner(changed, json)


async def _find(owners: Owners, subject: str, issuer: str | None) -> OwnerSummary:
    found = await owners.list(subject=subject, issuer=issuer)
    if not found:
        say_error(f"There is no owner {subject}. See: aegis-proxy owners list")
        raise typer.Exit(NOT_FOUND)
    if len(found) > 1:
        say_error(f"Several are called {subject}: add --issuer, one of {', '.join(one.issuer for one in found)}")
        raise typer.Exit(USAGE)
    return found[0]


def _form_row(owner: OwnerSummary) -> tuple[str, ...]:
    status = "disabled" if owner.disabled_at else "active"
    return owner.subject, owner.tier, str(owner.active_keys), owner.tenant, owner.issuer, status


def _print_owner(owner: OwnerSummary, json: bool) -> None:
    if json:
        print_json(asdict(owner))
        return
    print_facts({name: value for name, value in asdict(owner).items() if name != "version"})
    if owner.disabled_at:
        say(f"Disabled since {describe_moment(owner.disabled_at, '')}: none of the keys is let in.")
