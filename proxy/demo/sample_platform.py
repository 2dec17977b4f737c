"""The state behind the sample servers, MCP and REST alike: a small AEGIS platform in memory.  [io]

In: what either face asks for. Out: records, or a `ToolError` a model can read and act on. Each platform is seeded
alike; whatever is created, deleted or cancelled really is. A task is done when the clock says so; a workflow runs for
as long as somebody waits for it, or by itself when it was launched.
Refuses to know: MCP messages, HTTP, identities; whoever gets here is allowed everything.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.assertion_check import Caller
from proxy.demo.sample_definition import Definition, Kind, manifest_of, parse_manifest
from proxy.demo.sample_execution import Bell, Event, Execution, Runs
from proxy.demo.sample_faults import InTheWay, Missing
from proxy.demo.sample_storage import LIMIT_BYTES, Repository, Script, Volume, store_text

Report = Callable[[float, float, str], Awaitable[None]]

TASK_SECONDS = 5.0
KEPT_REQUESTS = 1000
SCOPES = ("user", "tenant", "global")

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


@dataclass
class Platform:
    """`directory` is where uploads are kept. `run_seconds` and `steps` shape the runs of workflows, and may be changed
    at any time."""

    directory: Path
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
    # Whom the latest requests were in the name of, where assertions are required.
    callers_seen: deque[Caller] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    # What the next REST requests are answered with, one status each, instead of what they ask for.
    refusals: deque[int] = field(default_factory=deque)
    # Rings whenever anything happens to an execution or a definition.
    news: Bell = field(default_factory=Bell, repr=False)
    _launched: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._seed()

    def reset(self) -> None:
        """What was made of these and what was noted is forgotten, what was taken away is back."""
        self.definitions.clear()
        self.executions.clear()
        self.volumes.clear()
        self.requests_seen.clear()
        self.callers_seen.clear()
        self.refusals.clear()
        self._seed()
        self.news.ring()

    def _seed(self) -> None:
        for name, description in SEEDED_AGENTS.items():
            self.add_definition(Definition("agent", name, [manifest_of("agent", name, description)], description))
        for name, description in SEEDED_WORKFLOWS.items():
            self.add_definition(Definition("workflow", name, [manifest_of("workflow", name, description)], description))
        for label, texts in SEEDED_VOLUMES.items():
            files = {path: store_text(text) for path, text in texts.items()}
            self.volumes[label] = Volume(label, files=files, id=label)

    async def close(self) -> None:
        """End the workflows that run by themselves."""
        for task in self._launched:
            task.cancel()
        await asyncio.gather(*self._launched, return_exceptions=True)

    # Definitions

    def add_definition(self, definition: Definition) -> Definition:
        self.definitions[definition.kind, definition.name] = definition
        return definition

    def list_definitions(self, kind: Kind, scope: str | None = None) -> list[Definition]:
        return [each for each in self.definitions.values() if each.kind == kind and scope in (None, each.scope)]

    def get_definition(self, kind: Kind, name_or_id: str) -> Definition:
        for definition in self.list_definitions(kind):
            if name_or_id in (definition.name, definition.id):
                return definition
        names = ", ".join(sorted(definition.name for definition in self.list_definitions(kind)))
        raise Missing(f"there is no {kind} {name_or_id!r}; there are: {names}")

    def deploy(self, kind: Kind, manifest_yaml: str, *, replace: bool) -> Definition:
        """Create or replace what a manifest describes."""
        name, description = parse_manifest(kind, manifest_yaml)
        known = self.definitions.get((kind, name))
        if known is None:
            return self.add_definition(Definition(kind, name, [manifest_yaml], description))
        if not replace:
            raise InTheWay(f"the {kind} {name!r} exists; update it, or create it with force")
        known.description = description
        known.manifests.append(manifest_yaml)
        return known

    def set_scope(self, kind: Kind, name_or_id: str, scope: str) -> Definition:
        if scope not in SCOPES:
            raise ToolError(f"there is no scope {scope!r}; there are: {', '.join(SCOPES)}")
        definition = self.get_definition(kind, name_or_id)
        definition.scope = scope
        return definition

    def delete_definition(self, kind: Kind, name_or_id: str) -> Definition:
        definition = self.definitions.pop((kind, self.get_definition(kind, name_or_id).name))
        self.news.ring()
        return definition

    # Executions

    def start(self, kind: str, subject: str, given: object, *, seconds: float | None = TASK_SECONDS) -> Execution:
        due = None if seconds is None else self.clock() + seconds
        execution = Execution(kind, subject, given, due, news=Bell(self.news))
        self.executions[execution.id] = execution
        execution.write(f"{kind} {subject} accepted")
        execution.write("started")
        return execution

    def get_execution(self, execution_id: str, kind: str | None = None) -> Execution:
        execution = self.executions.get(execution_id)
        if execution is None or kind not in (None, execution.kind):
            raise Missing(f"there is no execution {execution_id!r}")
        self._settle(execution)
        return execution

    def list_executions(self, kind: str | None, subject: str | None) -> list[Execution]:
        found = [
            each for each in self.executions.values() if kind in (None, each.kind) and subject in (None, each.subject)
        ]
        for execution in found:
            self._settle(execution)
        return found

    def _settle(self, execution: Execution) -> None:
        if execution.outcome is None and execution.due is not None and self.clock() >= execution.due:
            execution.end("completed")

    def cancel(self, execution_id: str, kind: str | None = None) -> Execution:
        execution = self.get_execution(execution_id, kind)
        if execution.outcome is not None:
            raise InTheWay(f"execution {execution_id!r} has ended: {execution.outcome}")
        execution.end("cancelled")
        return execution

    def remove(self, execution_id: str, kind: str | None = None) -> Execution:
        execution = self.get_execution(execution_id, kind)
        if execution.outcome is None:
            raise InTheWay(f"execution {execution_id!r} is running; cancel it first")
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
                execution.write(f"step {step} of {self.steps} done")
                await report(step, self.steps, f"{execution.subject}: step {step} of {self.steps}")
            else:
                execution.end("completed")
        finally:
            if execution.outcome is None:
                execution.end("cancelled")
            self.runs.count("finished" if execution.outcome == "completed" else "cancelled")

    def launch_workflow(self, name_or_id: str, given: object) -> Execution:
        """Run a workflow for which nobody waits."""
        workflow = self.get_definition("workflow", name_or_id)
        execution = self.start("workflow", workflow.name, given, seconds=None)
        task = asyncio.create_task(self.run_workflow(execution, tell_nobody))
        self._launched.add(task)
        task.add_done_callback(self._launched.discard)
        return execution

    async def follow(self, execution: Execution) -> AsyncGenerator[Event, None]:
        """Everything it writes from the first line on, as it comes. The last event is `end`."""
        told = 0
        while True:
            self._settle(execution)
            for event in (events := execution.tell(told)):
                yield event
            told += len(events)
            if told < len(execution.log):
                continue
            if execution.outcome is not None:
                yield Event("end", execution.describe())
                return
            await self._await_news(execution.news, [execution])

    async def follow_agent(self, agent: Definition) -> AsyncGenerator[Event, None]:
        """`start`, what its executions write from then on, and `end` when there is no such agent any more."""
        told = {each.id: len(each.log) for each in self.list_executions("task", agent.name)}
        yield Event("start", agent.summarise())
        while self.definitions.get(("agent", agent.name)) is agent:
            executions = self.list_executions("task", agent.name)
            events = [event for each in executions for event in each.tell(told.get(each.id, 0))]
            told = {each.id: len(each.log) for each in executions}
            for event in events:
                yield event
            if not events:
                await self._await_news(self.news, executions)
        yield Event("end", agent.summarise())

    async def _await_news(self, news: Bell, executions: Iterable[Execution]) -> None:
        """Until it rings, or the next of them is due."""
        due = [each.due for each in executions if each.outcome is None and each.due is not None]
        with anyio.move_on_after(max(min(due) - self.clock(), 0) if due else None):
            await news.wait()

    # Storage

    def create_volume(self, label: str, size_limit_bytes: int = LIMIT_BYTES) -> Volume:
        self._check_label(label)
        volume = Volume(label, size_limit_bytes)
        self.volumes[volume.id] = volume
        return volume

    def get_volume(self, volume_id: str) -> Volume:
        volume = self.volumes.get(volume_id)
        if volume is None:
            raise Missing(f"there is no volume {volume_id!r}; there are: {', '.join(sorted(self.volumes))}")
        return volume

    def rename_volume(self, volume_id: str, label: str) -> None:
        volume = self.get_volume(volume_id)
        if label != volume.label:
            self._check_label(label)
            volume.label = label

    def _check_label(self, label: str) -> None:
        if any(volume.label == label for volume in self.volumes.values()):
            raise InTheWay(f"there is a volume {label!r} already")

    def delete_volume(self, volume_id: str) -> Volume:
        self.get_volume(volume_id).clear()
        return self.volumes.pop(volume_id)

    def describe_quota(self) -> dict[str, int]:
        volumes = self.volumes.values()
        used, limit = sum(each.used_bytes for each in volumes), sum(each.size_limit_bytes for each in volumes)
        return {"used_bytes": used, "limit_bytes": limit, "volumes": len(volumes)}

    def read_file(self, volume_id: str, path: str) -> str:
        return self.get_volume(volume_id).get_file(path).read_text()

    def get_repository(self, binding_id: str) -> Repository:
        if binding_id not in self.repositories:
            raise Missing(f"there is no repository binding {binding_id!r}")
        return self.repositories[binding_id]

    def get_script(self, script_id: str) -> Script:
        if script_id not in self.scripts:
            raise Missing(f"there is no script {script_id!r}")
        return self.scripts[script_id]


async def tell_nobody(progress: float, total: float, message: str) -> None:
    """A report that nobody asked for."""
