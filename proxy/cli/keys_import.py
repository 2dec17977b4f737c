"""`aegis-proxy keys import`: the platform's existing keys, taken over so that their clients need not notice."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from proxy.cli.context import ConfigOption, JsonOption, get_actor, open_database, read_settings
from proxy.cli.key_options import USAGE, exiting
from proxy.cli.output import open_progress, print_json, say, say_error
from proxy.errors import Fault
from proxy.identity import LOCAL_ISSUER
from proxy.keys.exports import MAX_FAULTS, ExportedKey, ExportError, Format, parse_export
from proxy.keys.imports import ImportedKey, import_keys
from proxy.keys.minting import check_identifier
from proxy.policy import Policy, load_policy
from proxy.settings import Settings

FORMATS: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
STDIN = "-"


def read_mapping(pairs: list[str] | None) -> list[str] | None:
    """`old=new`, the new one a scope of the policy."""
    for pair in pairs or ():
        if not all(pair.partition("=")):
            raise typer.BadParameter(f"{pair!r} is not of the form old=new")
    return pairs


def import_table(
    file: Annotated[str, typer.Argument(help="The export, .csv or .jsonl; - reads stdin, and takes --format.")],
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OLD=NEW",
            callback=read_mapping,
            help="What the policy calls a scope of the export; may be repeated, for the same scope, too.",
        ),
    ] = None,
    issuer: Annotated[
        str, typer.Option(help="The identity provider the platform's user ids come from, as its tokens name it.")
    ] = LOCAL_ISSUER,
    format_: Annotated[str | None, typer.Option("--format", help="csv or jsonl. Default: by the file's name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take over the platform's existing keys: all of them or, if anything is wrong with one, none.

    Their clients go on with the tokens they have; rotating a key gives it one of the new form. What was imported before
    is left alone. The columns are those of the platform's table api_keys: docs/keys.md.

    `psql -c "\\copy api_keys TO keys.csv CSV HEADER" && aegis-proxy keys import keys.csv --dry-run`
    """
    form = _find_format(file, format_)
    with exiting():
        check_identifier("issuer", issuer)
    renamed: dict[str, list[str]] = {}
    for pair in map_ or ():
        old, _, new = pair.partition("=")
        renamed.setdefault(old, []).append(new)
    try:
        imported = asyncio.run(_import(read_settings(config), file, form, renamed, issuer, dry_run))
    except ExportError as error:
        _say_faults(error.faults)
        raise typer.Exit(USAGE) from error
    if json:
        print_json({"dry_run": dry_run, "keys": [_form(one) for one in imported]})
    _say_outcome(imported, dry_run)


async def _import(
    settings: Settings, file: str, form: Format, renamed: dict[str, list[str]], issuer: str, dry_run: bool
) -> list[ImportedKey]:
    policy = load_policy(settings.policy)
    keys = _read(file, form, policy, renamed)
    async with open_database(settings) as database:
        with open_progress("Importing", len(keys)) as advance:
            return await import_keys(
                database, keys, issuer=issuer, default_tier=policy.default_tier, actor=get_actor(), source=file,
                dry_run=dry_run, advance=advance,
            )  # fmt: skip


def _read(file: str, form: Format, policy: Policy, renamed: dict[str, list[str]]) -> list[ExportedKey]:
    try:
        with _open(file) as lines:
            return parse_export(lines, form, policy, file, renamed, time.time())
    except OSError as error:
        raise ExportError([Fault(file, None, f"cannot be read: {error.strerror}", "name the export")]) from error
    except UnicodeDecodeError as error:
        raise ExportError([Fault(file, None, "is not UTF-8", "export it in that encoding")]) from error


@contextmanager
def _open(file: str) -> Iterator[TextIO]:
    """Line ends as they are: within quotes they are part of a value."""
    if file == STDIN:
        sys.stdin.reconfigure(encoding="utf-8-sig", newline="")  # type: ignore[union-attr]
        yield sys.stdin
    else:
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            yield lines


def _find_format(file: str, named: str | None) -> Format:
    form = FORMATS.get(f".{named}" if named is not None else Path(file).suffix.lower())
    if form is None:
        say_error("Say which format it has: --format csv or --format jsonl")
        raise typer.Exit(USAGE)
    return form


def _form(one: ImportedKey) -> dict[str, Any]:
    key = one.exported
    told = {"line": key.line, "owner": key.owner, "name": key.name, "id": one.id, "state": one.state}
    return told | ({"revoked_there": True} if one.revoked_there else {})


def _say_outcome(imported: list[ImportedKey], dry_run: bool) -> None:
    new = [one for one in imported if one.state == "new"]
    owners = {one.exported.owner for one in new}
    verb = "Would import" if dry_run else "Imported"
    say(f"[green]{verb}[/] {len(new)} keys of {len(owners)} owners; {len(imported) - len(new)} were here already.")
    for one in imported:
        if one.revoked_there:
            say(
                f"[yellow]line {one.exported.line}[/]: {one.id} was revoked at the platform since, and is not here:"
                f" aegis-proxy keys revoke {one.id}"
            )


def _say_faults(faults: Sequence[Fault]) -> None:
    for fault in faults[:MAX_FAULTS]:
        say_error(str(fault))
    if len(faults) > MAX_FAULTS:
        say_error(f"… and {len(faults) - MAX_FAULTS} more")
    say_error("Nothing was imported.")
