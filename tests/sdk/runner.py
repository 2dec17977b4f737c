"""The suite of `sdk/suite`, run by the Python SDK: by its blocking client or by the other one.

`python -m tests.sdk.runner blocking|asynchronous` starts a stage and prints the table, scenario → outcomes, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from aegis_sdk import AegisClient, AegisError, AsyncAegisClient, Retry

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "sdk" / "suite"
FACES = {"blocking": AegisClient, "asynchronous": AsyncAegisClient}
# Of the right form, and its checksum is right: nobody made it.
NOBODYS_KEY = "aegis_000000000000_00000000000000000000000000000000000000000001VuBFs"
QUICK = Retry(first_wait=0.0025, longest_wait=0.08)
Json = Any
Client = AegisClient | AsyncAegisClient


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage is."""

    base_url: str
    control_url: str

    def ask(self, word: str, given: Json = None) -> Json:
        body = json.dumps(given or {}).encode()
        with urllib.request.urlopen(f"{self.control_url}/{word}", data=body, timeout=60) as answer:
            return json.load(answer)


@contextlib.contextmanager
def run_stage() -> Iterator[Place]:
    """A stage in a process of its own."""
    command = [sys.executable, "-m", "tests.sdk.stage"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Place(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(60)


def load_scenarios() -> dict[str, list[Json]]:
    """Steps by the scenario's name, in the order of the files."""
    found = [scenario for path in sorted(SUITE.glob("*.yaml")) for scenario in YAML(typ="safe", pure=True).load(path)]
    assert len({each["scenario"] for each in found}) == len(found)
    return {each["scenario"]: each["steps"] for each in found}


class WrongError(Exception):
    """A step went otherwise than it says."""


@dataclass(slots=True)
class Run:
    """One scenario, under way."""

    place: Place
    kind: type[Client]
    loop: asyncio.Runner
    named: dict[str, Json] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)

    def go(self, steps: list[Json]) -> list[str]:
        """The outcomes, up to the first that is wrong."""
        outcomes: list[str] = []
        self.place.ask("begin")
        try:
            for step in steps:
                outcomes.append(self.take(step))
        except WrongError as wrong:
            outcomes.append(f"wrong: {wrong}")
        finally:
            for client in self.clients.values():
                self.close(client)
        return outcomes

    def take(self, step: Json) -> str:
        """One step's outcome. Raises WrongError."""
        step = {**step, **{name: self.fill(step[name]) for name in ("args", "with", "expect") if name in step}}
        if "expires_at" in step.get("with", {}):
            step["with"] = {**step["with"], "expires_at": datetime.fromisoformat(step["with"]["expires_at"])}
        try:
            value = self.do(step)
        except AegisError as error:
            if type(error).__name__ != step.get("raises"):
                raise WrongError(f"{tell(step)} raised {type(error).__name__}: {error}") from error
            hold(step.get("expect", {}), show_error(error), tell(step))
            return type(error).__name__
        if "raises" in step:
            raise WrongError(f"{tell(step)} did not raise {step['raises']}, but gave {value}")
        if "expect" in step:
            hold(step["expect"], value, tell(step))
        if "warnings" in step and self.warned.get(step["key"], 0) != step["warnings"]:
            raise WrongError(f"{tell(step)}: {self.warned.get(step['key'], 0)} warnings")
        if "as" in step:
            self.named[step["as"]] = value
        return "ok"

    def do(self, step: Json) -> Json:
        if "stage" in step:
            return self.place.ask(step["stage"], step.get("with"))
        client = self.find_client(step["key"], step.get("retry"))
        if "mcp" in step:
            return self.loop.run(list_tools(client))
        result = find_method(client, step.get("call") or step["stream"])(*step.get("args", ()), **step.get("with", {}))
        if "stream" in step:
            return self.follow(result, step)
        if step.get("pages"):
            return {"pages": [show(list(page.items)) for page in self.iterate(result.pages())]}
        if step.get("collect"):
            return {"items": show(list(self.iterate(result)))}
        return show(self.settle(result))

    def follow(self, stream: Any, step: Json) -> Json:
        types: list[str] = []
        for number, event in enumerate(self.iterate(stream), 1):
            if event.type not in types:
                types.append(event.type)
            if number == step.get("after"):
                for nested in step["then"]:
                    self.take(nested)
        return {"types": types}

    def iterate(self, source: Any) -> Iterator[Any]:
        if not hasattr(source, "__aiter__"):
            yield from source
            return
        iterator = aiter(source)
        while True:
            try:
                item = self.loop.run(anext_of(iterator))
            except StopAsyncIteration:
                return
            yield item

    def settle(self, result: Any) -> Any:
        return self.loop.run(result) if inspect.iscoroutine(result) else result

    def close(self, client: Client) -> None:
        if isinstance(client, AegisClient):
            client.close()
        else:
            self.loop.run(client.aclose())

    def find_client(self, name: str, retry: Json) -> Client:
        key = NOBODYS_KEY if name == "none" else self.named[name]["key"]
        called = f"{name} {retry}" if retry else name
        if called not in self.clients:
            patience = dataclasses.replace(QUICK, **(retry or {}))
            self.clients[called] = self.kind(
                key, self.place.base_url, retry=patience, on_key_expiry=lambda _: self.note_warning(name)
            )
        return self.clients[called]

    def note_warning(self, name: str) -> None:
        self.warned[name] = self.warned.get(name, 0) + 1

    def fill(self, given: Json) -> Json:
        """What `$name.member` stands for, wherever it stands."""
        if isinstance(given, str) and given.startswith("$"):
            name, _, member = given[1:].partition(".")
            return self.named[name][member] if member else self.named[name]
        if isinstance(given, Mapping):
            return {name: self.fill(value) for name, value in given.items()}
        return [self.fill(each) for each in given] if isinstance(given, list) else given


async def anext_of(iterator: Any) -> Any:
    return await anext(iterator)


async def list_tools(client: Client) -> Json:
    async with client.mcp() as session:
        return {"tools": sorted(tool.name for tool in (await session.list_tools()).tools)}


def find_method(client: Client, name: str) -> Any:
    resource, _, method = name.rpartition(".")
    return getattr(getattr(client, resource) if resource else client, method)


def tell(step: Json) -> str:
    return next(f"{kind} {step[kind]}" for kind in ("stage", "call", "stream", "mcp") if kind in step)


def show(value: Any) -> Json:
    """As JSON has it; bytes as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list):
        return [show(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def show_error(error: AegisError) -> Json:
    names = [name for name in dir(error) if not name.startswith("_")]
    return {name: show(getattr(error, name)) for name in names if not callable(getattr(error, name))}


def hold(expected: Json, found: Json, where: str) -> None:
    """Raises WrongError where the two differ."""
    if isinstance(expected, Mapping):
        special = next((name for name in expected if name.startswith("$")), None)
        if special is not None:
            if not judge(special, expected[special], found):
                raise WrongError(f"{where}: {found!r} is not {dict(expected)}")
            return
        for name, value in expected.items():
            member = found.get(name, ABSENT) if isinstance(found, Mapping) else ABSENT
            hold(value, member, f"{where}.{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            hold(one, other, f"{where}[{number}]")
    elif expected != found:
        raise WrongError(f"{where}: {found!r} is not {expected!r}")


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def judge(word: str, given: Json, found: Json) -> bool:
    there = found is not ABSENT and found is not None and found not in ("", [], {})
    match word:
        case "$length":
            return bool(len(found) == given)
        case "$least":
            return bool((len(found) if isinstance(found, list) else found) >= given)
        case "$contains":
            return there and given in found
        case "$not":
            return bool(found != given)
        case "$present":
            return there
        case "$absent":
            return not there
        case _:
            raise WrongError(f"{word} is no word of the suite")


def run_scenario(place: Place, face: str, steps: list[Json]) -> list[str]:
    with asyncio.Runner() as loop:
        return Run(place, FACES[face], loop).go(steps)


def list_outcomes(steps: list[Json]) -> list[str]:
    """What a scenario says that its outcomes are."""
    return [step.get("raises", "ok") for step in steps]


def main() -> None:
    warnings.simplefilter("error")
    with run_stage() as place:
        table = {name: run_scenario(place, sys.argv[1], steps) for name, steps in load_scenarios().items()}
    sys.stdout.write(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(outcomes != list_outcomes(load_scenarios()[name]) for name, outcomes in table.items()))


if __name__ == "__main__":
    main()
