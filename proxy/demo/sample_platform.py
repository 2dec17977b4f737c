"""The state behind the sample MCP server: a small AEGIS platform in memory.  [io]

In: what the tools ask for. Out: records, or a `ToolError` a model can read and act on. Every server has a platform of
its own, seeded alike; whatever is created, deleted or cancelled really is. Nothing runs in the background: a task is
done when the clock says so, a workflow runs as long as somebody waits for it.
Refuses to know: MCP messages, HTTP, identities; whoever gets here is allowed everything.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
from mcp.server.mcpserver.exceptions import ToolError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Kind = Literal["agent", "workflow"]
Report = Callable[[float, float, str], Awaitable[None]]

TASK_SECONDS = 5.0
KEPT_REQUESTS = 1000
VOLUME_LIMIT_BYTES = 1 << 30

SEEDED_AGENTS = {
    "invoice-reader": "Reads invoices and extracts amounts, dates and suppliers.",
    "release-notes": "Writes release notes from merged changes.",
    "support-triage": "Sorts support requests and drafts first answers.",
}
SEEDED_WORKFLOWS = {
    "nightly-etl": "Loads yesterday's orders into the warehouse.",
    "report-weekly": "Builds the weekly report and files it.",
    "onboard-customer": "Creates the workspace of a new customer.",
}
SEEDED_VOLUMES = {
    "reports": {
        "weekly/2026-W46.md": "# Week 46\n\nOrders: 1,204 (+3 %)\n",
        "README.md": "Reports, one file a week.\n",
    },
    "etl-scratch": {"orders.csv": "id,total\n1,19.90\n2,7.50\n"},
}


def manifest_of(kind: Kind, name: str, description: str) -> str:
    return (
        f"apiVersion: aegis/v1\nkind: {kind.capitalize()}\nmetadata:\n"
        f"  name: {name}\n  version: 1.0.0\nspec:\n  description: {description}\n"
    )


@dataclass
class Definition:
    """An agent or a workflow."""

    kind: Kind
    name: str
    manifest_yaml: str
    description: str = ""
    scope: str = "tenant"
    revision: int = 1
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def summarise(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "scope": self.scope,
            "revision": self.revision,
        }


@dataclass
class Execution:
    """One run of an agent, a workflow or a pipeline. `due` is a reading of the platform's clock; None: when told."""

    kind: str
    subject: str
    input: object
    due: float | None
    outcome: str | None = None
    log: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.log.append(outcome)
        self.ended.set()


@dataclass
class Volume:
    label: str
    size_limit_bytes: int = VOLUME_LIMIT_BYTES
    files: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def used_bytes(self) -> int:
        return sum(len(content.encode()) for content in self.files.values())


@dataclass
class Repository:
    """A git repository bound to a volume; `changes` are those not yet committed."""

    label: str
    repo_url: str
    commits: list[str]
    pushed: int = 1
    changes: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Script:
    name: str
    code: str
    description: str
    tags: list[str]
    versions: list[str]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Runs:
    """How many workflow runs were started, finished or cancelled."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def count(self, what: Literal["started", "finished", "cancelled"]) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, *, started: int = 0, finished: int = 0, cancelled: int = 0) -> None:
        """Return once every count is at least this."""
        while self.started < started or self.finished < finished or self.cancelled < cancelled:
            await self._changed.wait()


@dataclass
class Platform:
    """`run_seconds` and `steps` shape `aegis.workflow.run`, and may be changed at any time."""

    run_seconds: float = 30.0
    steps: int = 30
    clock: Callable[[], float] = time.monotonic
    runs: Runs = field(default_factory=Runs)
    definitions: dict[tuple[Kind, str], Definition] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    fleet_commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Method and header names of the latest requests, never values: what does reach the upstream?
    requests_seen: deque[tuple[str, frozenset[str]]] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))

    def __post_init__(self) -> None:
        for name, description in SEEDED_AGENTS.items():
            self.add_definition(Definition("agent", name, manifest_of("agent", name, description), description))
        for name, description in SEEDED_WORKFLOWS.items():
            self.add_definition(Definition("workflow", name, manifest_of("workflow", name, description), description))
        for label, files in SEEDED_VOLUMES.items():
            self.volumes[label] = Volume(label, files=dict(files), id=label)

    # Definitions

    def add_definition(self, definition: Definition) -> Definition:
        self.definitions[definition.kind, definition.name] = definition
        return definition

    def list_definitions(self, kind: Kind) -> list[Definition]:
        return [definition for definition in self.definitions.values() if definition.kind == kind]

    def get_definition(self, kind: Kind, name_or_id: str) -> Definition:
        for definition in self.list_definitions(kind):
            if name_or_id in (definition.name, definition.id):
                return definition
        names = ", ".join(sorted(definition.name for definition in self.list_definitions(kind)))
        raise ToolError(f"there is no {kind} {name_or_id!r}; there are: {names}")

    def deploy(self, kind: Kind, manifest_yaml: str, *, replace: bool) -> Definition:
        """Create or replace what a manifest describes."""
        name, description = parse_manifest(kind, manifest_yaml)
        known = self.definitions.get((kind, name))
        if known is None:
            return self.add_definition(Definition(kind, name, manifest_yaml, description))
        if not replace:
            raise ToolError(f"the {kind} {name!r} exists; update it, or create it with force")
        known.manifest_yaml, known.description, known.revision = manifest_yaml, description, known.revision + 1
        return known

    def delete_definition(self, kind: Kind, name_or_id: str) -> Definition:
        definition = self.get_definition(kind, name_or_id)
        return self.definitions.pop((kind, definition.name))

    # Executions

    def start(self, kind: str, subject: str, given: object, *, seconds: float | None = TASK_SECONDS) -> Execution:
        due = None if seconds is None else self.clock() + seconds
        execution = Execution(kind, subject, given, due, log=[f"{kind} {subject} accepted", "started"])
        self.executions[execution.id] = execution
        return execution

    def get_execution(self, execution_id: str) -> Execution:
        execution = self.executions.get(execution_id)
        if execution is None:
            raise ToolError(f"there is no execution {execution_id!r}")
        self._settle(execution)
        return execution

    def list_executions(self, kind: str, subject: str | None) -> list[Execution]:
        found = [each for each in self.executions.values() if each.kind == kind and subject in (None, each.subject)]
        for execution in found:
            self._settle(execution)
        return found

    def _settle(self, execution: Execution) -> None:
        if execution.outcome is None and execution.due is not None and self.clock() >= execution.due:
            execution.end("completed")

    def cancel(self, execution_id: str) -> Execution:
        execution = self.get_execution(execution_id)
        if execution.outcome is not None:
            raise ToolError(f"execution {execution_id!r} has ended: {execution.outcome}")
        execution.end("cancelled")
        return execution

    def remove(self, execution_id: str) -> Execution:
        execution = self.get_execution(execution_id)
        if execution.outcome is None:
            raise ToolError(f"execution {execution_id!r} is running; cancel it first")
        return self.executions.pop(execution_id)

    async def wait(self, execution_id: str, timeout_seconds: float) -> Execution:
        """Wait until it has ended, or for that long."""
        execution = self.get_execution(execution_id)
        left = timeout_seconds if execution.due is None else min(timeout_seconds, execution.due - self.clock())
        with anyio.move_on_after(max(left, 0)):
            await execution.ended.wait()
        return self.get_execution(execution_id)

    async def run_workflow(self, execution: Execution, report: Report) -> None:
        """Work through the steps, telling each; ends early when it is cancelled, by tool or by its caller leaving."""
        self.runs.count("started")
        try:
            for step in range(1, self.steps + 1):
                with anyio.move_on_after(self.run_seconds / self.steps):
                    await execution.ended.wait()
                if execution.outcome is not None:
                    break
                execution.log.append(f"step {step} of {self.steps} done")
                await report(step, self.steps, f"{execution.subject}: step {step} of {self.steps}")
            else:
                execution.end("completed")
        finally:
            if execution.outcome is None:
                execution.end("cancelled")
            self.runs.count("finished" if execution.outcome == "completed" else "cancelled")

    # Storage

    def get_volume(self, volume_id: str) -> Volume:
        volume = self.volumes.get(volume_id)
        if volume is None:
            raise ToolError(f"there is no volume {volume_id!r}; there are: {', '.join(sorted(self.volumes))}")
        return volume

    def read_file(self, volume_id: str, path: str) -> str:
        content = self.get_volume(volume_id).files.get(path.strip("/"))
        if content is None:
            raise ToolError(f"there is no file {path!r} on volume {volume_id!r}")
        return content

    def get_repository(self, binding_id: str) -> Repository:
        if binding_id not in self.repositories:
            raise ToolError(f"there is no repository binding {binding_id!r}")
        return self.repositories[binding_id]

    def get_script(self, script_id: str) -> Script:
        if script_id not in self.scripts:
            raise ToolError(f"there is no script {script_id!r}")
        return self.scripts[script_id]


def parse_manifest(kind: str, manifest_yaml: str) -> tuple[str, str]:
    """The name and the description in a manifest; ToolError says what is wrong with it."""
    try:
        manifest = YAML(typ="safe", pure=True).load(manifest_yaml)
    except YAMLError as error:
        raise ToolError(f"the manifest is not YAML: {error}") from error
    if not isinstance(manifest, dict) or str(manifest.get("kind", "")).lower() != kind:
        raise ToolError(f"the manifest must be a mapping with kind: {kind.capitalize()}")
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise ToolError("the manifest must give metadata.name")
    return name, str(spec.get("description", "")) if isinstance(spec, dict) else ""


def search(definitions: Iterable[Definition], query: str, limit: int) -> list[dict[str, Any]]:
    words = query.lower().split()
    found = [each for each in definitions if all(word in f"{each.name} {each.description}".lower() for word in words)]
    return [definition.summarise() for definition in found[:limit]]
