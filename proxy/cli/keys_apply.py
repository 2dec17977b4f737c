"""`aegis-proxy keys apply`: keys as a file declares them. The file holds no secret, and gets none."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote as escape

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from proxy.cli.context import ConfigOption, JsonOption, get_actor, read_settings
from proxy.cli.key_options import DENIED, USAGE, open_changing
from proxy.cli.output import describe_moment, print_json, quote, say, say_error
from proxy.keys.changes import KeyChanges
from proxy.keys.declarations import DeclarationError, Step, parse_declaration, plan_pruning, plan_steps
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintRequest, mint
from proxy.keys.owners import Owners
from proxy.keys.rights import RightsError, form_operator
from proxy.keys.store import KeyStore
from proxy.policy import Policy

DIFFERENT: Final = 1


@dataclass(slots=True)
class Outcome:
    """What was, or would be, done about one key."""

    step: Step
    id: str | None
    token: str | None = None
    secret_file: str | None = None

    def form(self) -> dict[str, Any]:
        step = self.step
        told: dict[str, Any] = {"owner": step.owner, "name": step.name, "id": self.id, "changes": list(step.words)}
        told["differences"] = {
            name: {"before": before, "after": after} for name, (before, after) in step.differences.items()
        }
        if self.secret_file is not None:
            return told | {"secret_file": self.secret_file}
        return told | ({"key": self.token} if self.token is not None else {})

    def describe(self) -> str:
        """In a few words, with what it was and what it is to be."""
        differences = self.step.differences
        return ", ".join(
            f"{word} ({_describe(*differences[word])})" if word in differences else word for word in self.step.words
        )


def _describe(before: object, after: object) -> str:
    """Of two lists what comes and goes, of anything else both."""
    if isinstance(before, tuple) and isinstance(after, tuple):
        gained = [f"+{one}" for one in after if one not in before]
        return " ".join([*gained, *(f"-{one}" for one in before if one not in after)])
    return f"{_describe_value(before)} → {_describe_value(after)}"


def _describe_value(value: object) -> str:
    if isinstance(value, datetime):
        return describe_moment(value, "")
    return " ".join(value) if isinstance(value, tuple) else str(value or "none")


def apply_keys(
    file: Annotated[Path, typer.Argument(help="A YAML file: `version: 1`, and under `keys:` a list.", exists=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    secrets_dir: Annotated[
        Path | None,
        typer.Option(
            help="Write each new key into a file of its own there, instead of on stdout.", file_okay=False, exists=True
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Disable the active keys of the file's owners that it does not name."),
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit with 1 if anything would be done.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make keys be as a file declares them; applying it again changes nothing.

    A key is known by its owner and name. Those the file does not name are left alone, and told; with --prune they are
    disabled, and a name put back into the file enables its key again. New keys go to stdout, a line for each: owner,
    name and key, between tabs.

        version: 1
        keys:
          - { name: ci, owner: ada, preset: execution, expires: 90d, constraints: { sources: [10.0.0.0/8] } }
          - { name: etl, owner: ada, scopes: ["workflow:run:nightly-etl"], expires: never }
    """
    outcomes: list[Outcome] = []
    try:
        unnamed = asyncio.run(_apply(outcomes, file, dry_run, prune, secrets_dir, config))
    except DeclarationError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except RightsError as error:
        say_error(str(error))
        raise typer.Exit(DENIED) from error
    finally:  # new keys are shown once, also if the next one failed
        _report(outcomes, dry_run, json)
    for step in unnamed:
        say(f"[yellow]Not in the file[/]: {quote(step.label)}, left alone (--prune disables it).")
    if exit_code and dry_run and any(outcome.step.words for outcome in outcomes):
        raise typer.Exit(DIFFERENT)


def _report(outcomes: list[Outcome], dry_run: bool, json: bool) -> None:
    if json:
        print_json({"keys": [outcome.form() for outcome in outcomes]})
        return
    for outcome in outcomes:
        step = outcome.step
        if outcome.token is not None and outcome.secret_file is None:
            typer.echo(f"{step.owner}\t{step.name}\t{outcome.token}")
        if step.words:
            verb = "Would do" if dry_run else "Done"
            say(f"[green]{verb}[/] {quote(step.label)}: {quote(outcome.describe())}")
    same = sum(not outcome.step.words for outcome in outcomes)
    say(f"{same} of {len(outcomes)} keys were as declared.")


async def _apply(
    outcomes: list[Outcome], file: Path, dry_run: bool, prune: bool, secrets_dir: Path | None, config: Path | None
) -> list[Step]:
    """Do it, or plan it; what is left alone though it could have been pruned."""
    declared = parse_declaration(_read(file))
    async with open_changing(read_settings(config)) as (database, hasher, policy):
        store = KeyStore(database)
        present, owners = await store.list_keys(), await Owners(database).list()
        steps = plan_steps(declared, present, owners, policy, get_actor(), datetime.now(UTC))
        unnamed = plan_pruning(declared, present)
        for step in [*steps, *(unnamed if prune else [])]:
            outcome = Outcome(step, None if step.present is None else step.present.id)
            if not dry_run:
                if step.mint is not None:
                    await _mint(outcome, step.mint, store, hasher, policy, secrets_dir)
                outcomes.append(outcome)
                await _change(outcome, KeyChanges(database, hasher), policy)
            else:
                outcomes.append(outcome)
        return [] if prune else unnamed


async def _mint(
    outcome: Outcome, request: MintRequest, store: KeyStore, hasher: Hasher, policy: Policy, secrets_dir: Path | None
) -> None:
    """The file stands before the key does: a key that nobody can be handed is not minted."""
    path = None if secrets_dir is None else _reserve(secrets_dir, request)
    try:
        minted = await mint(request, policy=policy, store=store, hasher=hasher)
    except BaseException:
        if path is not None:
            path.unlink()
        raise
    outcome.id, outcome.token = minted.summary.id, minted.token
    if path is not None:
        path.write_text(f"{minted.token}\n")
        outcome.secret_file = str(path)


async def _change(outcome: Outcome, changes: KeyChanges, policy: Policy) -> None:
    operator, step = form_operator(get_actor()), outcome.step
    assert outcome.id is not None
    if step.patch is not None:
        await changes.update(operator, outcome.id, step.patch, policy)
    if step.status == "disable":
        await changes.disable(operator, outcome.id, policy)
    elif step.status == "enable":
        await changes.enable(operator, outcome.id, policy)


def _reserve(directory: Path, request: MintRequest) -> Path:
    """An empty file for the owner's eyes only, named after owner and key. Raises DeclarationError."""
    path = directory / f"{escape(request.owner, safe='')}.{escape(request.name, safe='')}.key"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise DeclarationError([f"{path}: {error.strerror}; no key was minted for it"]) from error
    return path


def _read(file: Path) -> object:
    """What the file says. Raises DeclarationError."""
    try:
        return YAML(typ="safe", pure=True).load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError([f"{file}: cannot be read"]) from error
    except YAMLError as error:
        raise DeclarationError([f"{file}: {' '.join(str(error).split())}"]) from error
