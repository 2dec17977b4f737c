"""What the commands about keys have in common: how a key is named and constrained, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import typer

from proxy.cli.context import open_database
from proxy.cli.output import say_error
from proxy.database import Database
from proxy.keys.constraints import Constraints, parse_constraints
from proxy.keys.hashing import Hasher
from proxy.keys.legacy import looks_legacy
from proxy.keys.minting import MintError
from proxy.keys.rights import RightsError
from proxy.keys.store import KeyNotFoundError
from proxy.keys.token import ID_LENGTH, parse_token
from proxy.policy import Policy, load_policy
from proxy.settings import Settings

USAGE, DENIED, NOT_FOUND = 2, 4, 5
HASH_SECONDS = 30.0  # an operator waits longer than a request would
CONSTRAINTS = "Constraints"


def read_id(text: str) -> str:
    """The id, also of a whole key, which whoever is in a hurry to revoke it will paste; it is not repeated."""
    if looks_legacy(text):
        raise typer.BadParameter(
            "a key of the older form does not hold its id; give it to aegis-proxy keys scan --check - on stdin"
        )
    try:
        return parse_token(text).key_id
    except ValueError:
        return text[:ID_LENGTH] if len(text) > ID_LENGTH else text


KeyArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The key's id: the part between the first two '_'.", callback=read_id),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source", help="An address or CIDR that requests may come from; may be repeated.",
        rich_help_panel=CONSTRAINTS,
    ),
]  # fmt: skip
RateOption = Annotated[
    float | None, typer.Option("--rate", help="Requests per second, on each instance.", rich_help_panel=CONSTRAINTS)
]
BurstOption = Annotated[
    int | None,
    typer.Option("--burst", help="Requests that may come at once, beside --rate.", rich_help_panel=CONSTRAINTS),
]
CallsOption = Annotated[
    int | None,
    typer.Option("--max-calls", help="Calls under way at once, on each instance.", rich_help_panel=CONSTRAINTS),
]
StreamsOption = Annotated[
    int | None,
    typer.Option("--max-streams", help="Streams open at once, on each instance.", rich_help_panel=CONSTRAINTS),
]


def form_constraints(
    source: list[str] | None, rate: float | None, burst: int | None, max_calls: int | None, max_streams: int | None
) -> Constraints:
    """Those that were given. Raises MintError."""
    given = {
        "sources": source or None, "requests_per_second": rate, "burst": burst, "max_calls": max_calls,
        "max_streams": max_streams,
    }  # fmt: skip
    try:
        return parse_constraints({name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise MintError(str(error)) from error


def not_found(key: str) -> typer.Exit:
    """The end of a command about a key that is not there."""
    say_error(f"There is no key {key}. See: aegis-proxy keys list")
    return typer.Exit(NOT_FOUND)


@contextmanager
def exiting(key: str = "") -> Iterator[None]:
    """Around a change: what is wrong with it in one line, and the exit code that says which kind of wrong."""
    try:
        yield
    except MintError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except RightsError as error:
        say_error(str(error))
        raise typer.Exit(DENIED) from error
    except KeyNotFoundError as error:
        raise not_found(key) from error


@asynccontextmanager
async def open_changing(settings: Settings) -> AsyncIterator[tuple[Database, Hasher, Policy]]:
    """What it takes to change keys. Raises ConfigError, DatabaseError."""
    hasher = Hasher(
        memory_cost_kib=settings.hashing.memory_cost_kib, time_cost=settings.hashing.time_cost, threads=1,
        queue_size=1, timeout_seconds=HASH_SECONDS,
    )  # fmt: skip
    try:
        async with open_database(settings) as database:
            yield database, hasher, load_policy(settings.policy)
    finally:
        hasher.close()
