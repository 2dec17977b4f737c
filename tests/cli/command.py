"""The command, as an operator runs it: a process of its own, with an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.nursery import ROOT, Nursery
from tests.ear import Ear
from tests.staging import GUARD_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command said, and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def told(self) -> str:
        """Stderr as one line, however it was wrapped."""
        return " ".join(self.stderr.split())


@dataclass(frozen=True, slots=True)
class Command:
    """`python -m proxy` with nothing of this process' environment but the path, forked by a nursery if there is one."""

    environment: dict[str, str]
    ear: Ear
    nursery: Nursery | None = None

    def note_secret(self, token: str) -> None:
        """From now on it must be heard nowhere."""
        self.ear.secrets.append(token)

    async def run(self, *arguments: str, stdin: bytes | None = None, **environment: str) -> Outcome:
        code, stdout, stderr = await self._wait(arguments, environment, stdin)
        outcome = Outcome(code, stdout.decode(), stderr.decode())
        assert "Traceback" not in outcome.stderr
        self.ear.hear(stderr, "what a command said")
        return outcome

    async def _wait(
        self, arguments: tuple[str, ...], environment: dict[str, str], stdin: bytes | None
    ) -> tuple[int, bytes, bytes]:
        if self.nursery is not None:
            whole = {**self.environment, **environment}
            return await asyncio.to_thread(self.nursery.run, arguments, whole, stdin or b"", 2 * GUARD_SECONDS)
        process = await self._spawn(arguments, environment, DEVNULL if stdin is None else PIPE)
        async with asyncio.timeout(2 * GUARD_SECONDS):
            stdout, stderr = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, stdout, stderr

    async def start(self, *arguments: str, **environment: str) -> Process:
        return await self._spawn(arguments, environment, None)

    async def _spawn(self, arguments: tuple[str, ...], environment: dict[str, str], stdin: int | None) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", *arguments,
            cwd=ROOT, env={**self.environment, **environment}, stdin=stdin, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip

    async def mint(self, *arguments: str) -> str:
        """The token of a new key of Ada's."""
        if "--scope" not in arguments:
            arguments = (*arguments, "--preset", "execution")
        outcome = await self.run("keys", "mint", "--owner", "ada", *arguments)
        assert outcome.code == 0, outcome.stderr
        token = outcome.stdout.removesuffix("\n")
        self.note_secret(token)
        return token


def form_environment(database_url: str, state_dir: Path) -> dict[str, str]:
    """What an operator sets."""
    return {
        "PATH": os.environ["PATH"],
        "COLUMNS": "80",
        "LOGNAME": "operator",
        "AEGIS_DATABASE_URL": database_url,
        "AEGIS_STATE_DIR": str(state_dir),
    }
