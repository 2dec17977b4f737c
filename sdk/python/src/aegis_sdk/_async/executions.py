"""Executions: of agents, workflows and pipelines alike."""

from __future__ import annotations

from aegis_sdk._async.lists import AsyncListing
from aegis_sdk._async.resource import AsyncResource
from aegis_sdk._async.streams import AsyncEventStream
from aegis_sdk.calls import Call, delete, encode_file_path, form_path, get, post
from aegis_sdk.models import Execution, ExecutionPage
from aegis_sdk.paging import form_counted_page


class AsyncExecutions(AsyncResource):
    """`client.executions`."""

    def list(
        self,
        *,
        agent_id: str | None = None,
        workflow_name: str | None = None,
        status: str | None = None,
        page_size: int | None = None,
    ) -> AsyncListing[Execution]:
        """The latest first; of one agent, one workflow or one status. Takes `execution:list`."""
        call = get(
            form_path("executions"),
            {"agent_id": agent_id, "workflow_name": workflow_name, "status": status, "limit": page_size},
        )
        return AsyncListing(self._transport, call, ExecutionPage, lambda page: form_counted_page(page, page.executions))

    async def start(self, agent_id: str, *, intent: str | None = None, input: object = None) -> Execution:
        """Set an agent to work. Takes `agent:execute`, for all agents: `agents.execute` is content with one."""
        call = post(form_path("executions"), {"agent_id": agent_id, "intent": intent, "input": input})
        return await self._transport.fetch(call, Execution)

    async def get(self, execution_id: str) -> Execution:
        """Takes `execution:read`."""
        return await self._transport.fetch(get(form_path("executions", execution_id)), Execution)

    async def cancel(self, execution_id: str) -> Execution:
        """Takes `execution:cancel`."""
        return await self._transport.fetch(post(form_path("executions", execution_id, "cancel")), Execution)

    async def delete(self, execution_id: str) -> None:
        """Out of the history. Takes `execution:remove`."""
        await self._transport.ask(delete(form_path("executions", execution_id)))

    def stream(self, execution_id: str) -> AsyncEventStream:
        """Everything it writes, from the first line to its end: `async for event in client.executions.stream(id):`.

        Takes `execution:stream`. A key that is revoked meanwhile raises `KeyRevokedError` in the loop.
        """
        return AsyncEventStream(self._transport, get(form_path("executions", execution_id, "stream")))

    async def read_file(self, execution_id: str, path: str) -> bytes:
        """A file it left behind. Takes `execution:read`."""
        below = form_path("executions", execution_id, "files")
        answer = await self._transport.ask(Call("GET", f"{below}/{encode_file_path(path)}", repeatable=True))
        return answer.content
