"""docs/policy.md, followed word by word in an empty folder; and its reference, held to the language."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.policy import cases, model
from tests.staging import GUARD_SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<what>[\w.]+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
READY = "Ctrl-C deletes everything"


@dataclass
class Reader:
    """Somebody with a shell who does what the page says. Ports are the machine's to give, keys the demo's."""

    folder: Path
    ports: tuple[int, int]
    demo: Process | None = None
    told: str = ""
    exports: str = ""

    def form_command(self, line: str) -> str:
        """As printed, but for what is different at every reader's."""
        own = {"8080": str(self.ports[0]), "9090": str(self.ports[1])}
        line = re.sub("8080|9090", lambda match: own[match[0]], line)
        line = line.replace("aegis_…", self.find(r"runner +(aegis_\w+)")) if "aegis_…" in line else line
        if "postgresql://…" in line:
            line = line.replace("'postgresql://…'", self.find(r"AEGIS_DATABASE_URL=(\S+)"))
        return line

    def find(self, pattern: str) -> str:
        match = re.search(pattern, self.told)
        assert match is not None, self.told
        return match[1]

    async def run(self, line: str) -> str:
        command = self.form_command(line)
        if command.startswith("export "):
            self.exports += f"{command}\n"
            return ""
        process = await self.start(self.exports + command)
        async with asyncio.timeout(2 * GUARD_SECONDS):
            output, _ = await process.communicate()
        return output.decode()

    async def start(self, command: str) -> Process:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "COLUMNS": "200",
            "LOGNAME": "reader",
        }
        return await asyncio.create_subprocess_exec(
            "bash", "-c", command, cwd=self.folder, env=environment, stdout=PIPE, stderr=STDOUT
        )

    async def start_demo(self, line: str) -> None:
        listen = f" --listen 127.0.0.1:{self.ports[0]} --ops-listen 127.0.0.1:{self.ports[1]}"
        self.demo = await self.start(f"exec {shlex.join(shlex.split(line))}{listen}")
        assert self.demo.stdout is not None
        async with asyncio.timeout(3 * GUARD_SECONDS):
            while "claude mcp add" not in self.told:
                piece = await self.demo.stdout.read(1000)
                assert piece, self.told
                self.told += piece.decode()


def find_free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    reader = Reader(tmp_path, find_free_ports())
    yield reader
    if reader.demo is not None:
        reader.demo.terminate()
        await reader.demo.wait()


def check_output(expected: list[str], output: str) -> None:
    """Every line is there, whatever stands around it; `…` stands for anything."""
    told = " ".join(output.split())
    for line in expected:
        pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("…"))
        assert re.search(pattern, told), f"{line!r} is not in {output!r}"


async def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    _, _, rest = PAGE.partition("## Tutorial\n")
    tutorial, _, _ = rest.partition("\n## In production")
    commands = 0
    for block in BLOCK.finditer(tutorial):
        if block["kind"] == "yaml":
            (reader.folder / block["what"]).write_text(block["text"])
            continue
        first, *steps = re.split(r"^\$ ", block["text"], flags=re.MULTILINE)
        assert not first
        for step in steps:
            line, *expected = step.rstrip("\n").split("\n")
            commands += 1
            if block["what"] == "background":
                await reader.start_demo(line)
            else:
                check_output(expected, await reader.run(line))
    assert commands > 15


def test_the_reference_knows_every_word_of_the_language() -> None:
    _, _, reference = PAGE.partition("## Reference\n")
    described = {
        word for row in re.findall(r"^\| (`.*?`) \|", reference, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    words = {word for entry in (*model.ENTRIES, *cases.CASES_ENTRIES) for word in entry.model_fields}
    assert described == words
