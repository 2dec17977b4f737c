"""`aegis-proxy connect CLIENT`: ready configuration for an MCP client, a first program for an SDK."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from proxy.cli.context import ConfigOption, JsonOption, read_settings
from proxy.cli.output import print_json, quote, say
from proxy.client_setups import (
    CLIENTS,
    KEY_VARIABLE,
    PLACEHOLDER,
    ClientSetup,
    form_setup,
    parse_base_url,
)
from proxy.settings import Settings

_NAMES = ", ".join(CLIENTS)
ANYWHERE = ("0.0.0.0", "::")  # noqa: S104, listened on, not connected to


def connect(
    client: Annotated[str, typer.Argument(help=f"One of {_NAMES}.", metavar="CLIENT")],
    url: Annotated[
        str | None,
        typer.Option(
            help="Where clients reach the proxy, such as https://aegis.example. Default: server.public_url of"
            " the configuration, else its `listen`.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print what to paste into an MCP client, or for an SDK. What is to be pasted goes to stdout, the rest to stderr.

    The key is never among it: clients read it from AEGIS_API_KEY, ask for it, or leave a place for it.

    `aegis-proxy connect claude-code --url https://aegis.example`
    """
    if client not in CLIENTS:
        raise typer.BadParameter(f"{client!r} is not one of {_NAMES}", param_hint="CLIENT")
    setup = form_setup(client, _find_base_url(url, config))
    if json:
        print_json(asdict(setup))
    else:
        _print(setup)


def _find_base_url(url: str | None, config: ConfigOption) -> str:
    if url is None:
        return _describe_address(read_settings(config))
    try:
        return parse_base_url(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


def _describe_address(settings: Settings) -> str:
    """As clients on this machine write it, where nothing else is said."""
    if settings.server.public_url is not None:
        return str(settings.server.public_url).rstrip("/")
    if settings.listen.host.strip("[]") in ANYWHERE or settings.listen.port == 0:
        raise typer.BadParameter(f"{settings.listen} is no address to connect to: say where clients reach us: --url")
    return f"http://{settings.listen}"


def _print(setup: ClientSetup) -> None:
    if setup.note is not None:
        say(f"[bold]{quote(setup.title)}[/]: {quote(setup.note)}")
    for step in setup.steps:
        if step.title:
            say(f"\n[bold]{quote(step.title)}[/]")
        if step.file is not None:
            say(f"in {quote(step.file)}:")
        typer.echo(step.text, nl=False)
    if any(step.holds_placeholder for step in setup.steps):
        say(f"\nPut the key in place of {PLACEHOLDER}.")
    elif any(KEY_VARIABLE in step.text for step in setup.steps):
        say(f"\nBefore it starts: export {KEY_VARIABLE}=…, or keep it in your secret store.")
