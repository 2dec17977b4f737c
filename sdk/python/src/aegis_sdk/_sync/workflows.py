"""Workflows and their runs."""

from __future__ import annotations

from aegis_sdk._sync.lists import Listing
from aegis_sdk._sync.resource import Resource
from aegis_sdk._sync.streams import EventStream
from aegis_sdk.calls import delete, form_path, get, patch, post
from aegis_sdk.models import (
    Execution,
    ExecutionPage,
    LogEvent,
    LogPage,
    Version,
    VersionPage,
    Workflow,
    WorkflowPage,
    WorkflowSummary,
)
from aegis_sdk.paging import form_counted_page


class Workflows(Resource):
    """`client.workflows`. A workflow is named by its name, a run by the id of its execution."""

    def list(self, *, scope: str | None = None, page_size: int | None = None) -> Listing[WorkflowSummary]:
        """All workflows, or those that are seen by `scope`: `user`, `tenant` or `global`. Takes `workflow:list`."""
        call = get(form_path("workflows"), {"scope": scope, "limit": page_size})
        return Listing(self._transport, call, WorkflowPage, lambda page: form_counted_page(page, page.workflows))

    def get(self, name: str) -> Workflow:
        """One workflow, with its manifest. Takes `workflow:read` (`workflow:read:NAME` is enough)."""
        return self._transport.fetch(get(form_path("workflows", name)), Workflow)

    def get_yaml(self, name: str) -> str:
        """The manifest alone. Takes `workflow:read` (`workflow:read:NAME` is enough)."""
        answer = self._transport.ask(get(form_path("workflows", name, "yaml")))
        return answer.text

    def create(self, manifest_yaml: str, *, force: bool = False) -> Workflow:
        """A new workflow, from its manifest; `force` replaces one of the same name. Takes `workflow:deploy`."""
        call = post(form_path("workflows"), {"manifest_yaml": manifest_yaml, "force": force or None})
        return self._transport.fetch(call, Workflow)

    def delete(self, name: str) -> None:
        """Takes `workflow:delete` (`workflow:delete:NAME` is enough)."""
        self._transport.ask(delete(form_path("workflows", name)))

    def versions(self, name: str, *, page_size: int | None = None) -> Listing[Version]:
        """Its manifests, the oldest first. Takes `workflow:read` (`workflow:read:NAME` is enough)."""
        call = get(form_path("workflows", name, "versions"), {"limit": page_size})
        return Listing(self._transport, call, VersionPage, lambda page: form_counted_page(page, page.versions))

    def run(self, name: str, *, intent: str | None = None, input: object = None) -> Execution:
        """Start it. Takes `workflow:run` (`workflow:run:NAME` is enough)."""
        return self._transport.fetch(
            post(form_path("workflows", name, "run"), {"intent": intent, "input": input}), Execution
        )

    def set_scope(self, name: str, scope: str) -> WorkflowSummary:
        """Who sees it: `user`, `tenant` or `global`. Takes `team:manage`."""
        return self._transport.fetch(patch(form_path("workflows", name, "scope"), {"scope": scope}), WorkflowSummary)

    def list_runs(
        self, *, workflow_name: str | None = None, status: str | None = None, page_size: int | None = None
    ) -> Listing[Execution]:
        """Runs, the latest first. Takes `execution:list`."""
        call = get(
            form_path("workflows", "executions"), {"workflow_name": workflow_name, "status": status, "limit": page_size}
        )
        return Listing(self._transport, call, ExecutionPage, lambda page: form_counted_page(page, page.executions))

    def get_run(self, execution_id: str) -> Execution:
        """Takes `execution:read`."""
        return self._transport.fetch(get(form_path("workflows", "executions", execution_id)), Execution)

    def cancel_run(self, execution_id: str) -> Execution:
        """Takes `workflow:cancel`."""
        return self._transport.fetch(post(form_path("workflows", "executions", execution_id, "cancel")), Execution)

    def signal_run(self, execution_id: str, signal_name: str) -> Execution:
        """Answer a run that waits for a person. Takes `workflow:signal`."""
        call = post(form_path("workflows", "executions", execution_id, "signal"), {"signal_name": signal_name})
        return self._transport.fetch(call, Execution)

    def run_logs(self, execution_id: str, *, page_size: int | None = None) -> Listing[LogEvent]:
        """What it has written so far. Takes `workflow:logs`."""
        call = get(form_path("workflows", "executions", execution_id, "logs"), {"limit": page_size})
        return Listing(self._transport, call, LogPage, lambda page: form_counted_page(page, page.events))

    def stream_run_logs(self, execution_id: str) -> EventStream:
        """What it writes, from the first line to its end. Takes `workflow:logs`."""
        return EventStream(self._transport, get(form_path("workflows", "executions", execution_id, "logs", "stream")))
