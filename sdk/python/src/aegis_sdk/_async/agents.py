"""Agents: made, read, changed, deleted, set to work, followed."""

from __future__ import annotations

from aegis_sdk._async.lists import AsyncListing
from aegis_sdk._async.resource import AsyncResource
from aegis_sdk._async.streams import AsyncEventStream
from aegis_sdk.calls import delete, form_path, get, patch, post
from aegis_sdk.models import Agent, AgentPage, AgentSummary, Execution, Version, VersionPage
from aegis_sdk.paging import form_counted_page


class AsyncAgents(AsyncResource):
    """`client.agents`. An agent is named by its id, or by its name where the platform takes one."""

    def list(self, *, scope: str | None = None, page_size: int | None = None) -> AsyncListing[AgentSummary]:
        """All agents, or those that are seen by `scope`: `user`, `tenant` or `global`. Takes `agent:list`."""
        call = get(form_path("agents"), {"scope": scope, "limit": page_size})
        return AsyncListing(self._transport, call, AgentPage, lambda page: form_counted_page(page, page.agents))

    async def get(self, agent_id: str) -> Agent:
        """One agent, with its manifest. Takes `agent:read` (`agent:read:AGENT` is enough)."""
        return await self._transport.fetch(get(form_path("agents", agent_id)), Agent)

    async def lookup(self, name: str) -> Agent:
        """One agent by its name. Takes `agent:read` (`agent:read:NAME` is enough)."""
        return await self._transport.fetch(get(form_path("agents", "lookup", name)), Agent)

    async def create(self, manifest_yaml: str, *, force: bool = False) -> Agent:
        """A new agent, from its manifest; `force` replaces one of the same name. Takes `agent:deploy`."""
        call = post(form_path("agents"), {"manifest_yaml": manifest_yaml, "force": force or None})
        return await self._transport.fetch(call, Agent)

    async def update(self, agent_id: str, *, manifest_yaml: str | None = None, description: str | None = None) -> Agent:
        """A new revision: another manifest of the same name, or another description. Takes `agent:deploy`."""
        call = patch(form_path("agents", agent_id), {"manifest_yaml": manifest_yaml, "description": description})
        return await self._transport.fetch(call, Agent)

    async def delete(self, agent_id: str) -> None:
        """Takes `agent:delete` (`agent:delete:AGENT` is enough)."""
        await self._transport.ask(delete(form_path("agents", agent_id)))

    def versions(self, agent_id: str, *, page_size: int | None = None) -> AsyncListing[Version]:
        """Its manifests, the oldest first. Takes `agent:read` (`agent:read:AGENT` is enough)."""
        call = get(form_path("agents", agent_id, "versions"), {"limit": page_size})
        return AsyncListing(self._transport, call, VersionPage, lambda page: form_counted_page(page, page.versions))

    async def execute(self, agent_id: str, *, intent: str | None = None, input: object = None) -> Execution:
        """Set it to work. Takes `agent:execute` (`agent:execute:AGENT` is enough)."""
        call = post(form_path("agents", agent_id, "execute"), {"intent": intent, "input": input})
        return await self._transport.fetch(call, Execution)

    async def set_scope(self, agent_id: str, scope: str) -> AgentSummary:
        """Who sees it: `user`, `tenant` or `global`. Takes `team:manage`."""
        return await self._transport.fetch(
            patch(form_path("agents", agent_id, "scope"), {"scope": scope}), AgentSummary
        )

    def events(self, agent_id: str) -> AsyncEventStream:
        """What its executions write, from now on. Takes `agent:logs` (`agent:logs:AGENT` is enough)."""
        return AsyncEventStream(self._transport, get(form_path("agents", agent_id, "events")))
