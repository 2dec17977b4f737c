"""The command line: thin. Parse, call, print.

Results go to stdout, everything said about them to stderr, so that scripts can read the one and people the other.
Exit codes: 0 ok, 1 failed, 2 usage, 4 denied, 5 not found, 6 revoked but not confirmed by every instance.
"""

from __future__ import annotations

import sys

import typer

from proxy import __version__
from proxy.cli.connect import connect
from proxy.cli.database import app as database_app
from proxy.cli.keys import app as keys_app
from proxy.cli.output import say_error
from proxy.cli.owners import app as owners_app
from proxy.cli.policy import app as policy_app
from proxy.cli.serve import demo, serve
from proxy.errors import ConfigError, DatabaseError, ProxyError

app = typer.Typer(
    name="aegis-proxy",
    help="An authenticating reverse proxy for MCP servers: API keys, scopes down to tool arguments, and revocation that"
    " ends live streams.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(demo)
app.command()(connect)
app.add_typer(keys_app, name="keys")
app.add_typer(owners_app, name="owners")
app.add_typer(policy_app, name="policy")
app.add_typer(database_app, name="db")


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(f"aegis-proxy {__version__}")
        raise typer.Exit


@app.callback()
def read_options(
    version: bool = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Print the version."),
) -> None:
    """Options of every command."""


def main() -> None:
    """Run a command; what went wrong on purpose is said in one line, with what to do, instead of a traceback."""
    try:
        app()
    except ConfigError as error:
        say_error("The configuration cannot be used:")
        for fault in error.faults:
            say_error(f"  {fault}")
        sys.exit(1)
    except DatabaseError as error:
        say_error(f"{error} (check AEGIS_DATABASE_URL, and that `aegis-proxy db migrate` has run)")
        sys.exit(1)
    except ProxyError as error:
        say_error(str(error))
        sys.exit(1)
