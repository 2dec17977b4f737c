"""`aegis-proxy keys apply`: keys as a file declares them. The file holds no secret, and gets none."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote as escape

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from proxy.cli.context import ConfigOption, JsonOption, get_actor, read_settings
from proxy.cli.key_options import DENIED, USAGE, open_changing
from proxy.cli.output import print_json, quote, say, say_error
from proxy.keys.changes import KeyChanges
from proxy.keys.declarations import DeclarationError, Step, parse_declaration, plan_steps
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintRequest, mint
from proxy.keys.rights import RightsError, form_operator
from proxy.keys.store import KeyStore
from proxy.policy import Policy


@dataclass(slots=True)
class Outcome:
    """What was, or would be, done about one key."""

    step: Step
    id: str | None
    token: str | None = None
    secret_file: str | None = None

    def form(self) -> dict[str, Any]:
        declared, words = self.step.declared, list(self.step.words)
        told: dict[str, Any] = {"owner": declared.owner, "name": declared.name, "id": self.id, "changes": words}
        if self.secret_file is not None:
            return told | {"secret_file": self.secret_file}
        return told | ({"key": self.token} if self.token is not None else {})


def apply_keys(
    file: Annotated[Path, typer.Argument(help="A YAML file: `version: 1`, and under `keys:` a list.", exists=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    secrets_dir: Annotated[
        Path | None,
        typer.Option(
            help="Write each new key into a file of its own there, instead of on stdout.", file_okay=False, exists=True
        ),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make keys be as a file declares them; applying it again changes nothing.

    A key is known by its owner and name. Those the file does not name are left alone. New keys go to stdout, a line for
    each: owner, name and key, between tabs.

        version: 1
        keys:
          - { name: ci, owner: ada, preset: execution, expires: 90d, constraints: { sources: [10.0.0.0/8] } }
          - { name: etl, owner: ada, scopes: ["workflow:run:nightly-etl"], expires: never }
    """
    outcomes: list[Outcome] = []
    try:
        asyncio.run(_apply(outcomes, file, dry_run, secrets_dir, config))
    except DeclarationError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except RightsError as error:
        say_error(str(error))
        raise typer.Exit(DENIED) from error
    finally:  # new keys are shown once, also if the next one failed
        _report(outcomes, dry_run, json)


def _report(outcomes: list[Outcome], dry_run: bool, json: bool) -> None:
    if json:
        print_json({"keys": [outcome.form() for outcome in outcomes]})
        return
    for outcome in outcomes:
        declared = outcome.step.declared
        if outcome.token is not None and outcome.secret_file is None:
            typer.echo(f"{declared.owner}\t{declared.name}\t{outcome.token}")
        if outcome.step.words:
            verb = "Would do" if dry_run else "Done"
            say(f"[green]{verb}[/] {quote(declared.label)}: {', '.join(outcome.step.words)}")
    same = sum(not outcome.step.words for outcome in outcomes)
    say(f"{same} of {len(outcomes)} keys were as declared.")


async def _apply(
    outcomes: list[Outcome], file: Path, dry_run: bool, secrets_dir: Path | None, config: Path | None
) -> None:
    declared = parse_declaration(_read(file))
    async with open_changing(read_settings(config)) as (database, hasher, policy):
        store = KeyStore(database)
        steps = plan_steps(declared, await store.list_keys(), policy, get_actor(), datetime.now(UTC))
        for step in steps:
            outcome = Outcome(step, step.id)
            if not dry_run:
                if step.mint is not None:
                    await _mint(outcome, step.mint, store, hasher, policy, secrets_dir)
                outcomes.append(outcome)
                await _change(outcome, KeyChanges(database, hasher), policy)
            else:
                outcomes.append(outcome)


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
