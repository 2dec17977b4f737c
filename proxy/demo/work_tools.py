"""The tools of the sample server that do work: agents, tasks, workflows, executions, pipelines.  [io]

In: arguments as the platform names them. Out: JSON objects. Refuses to know: who calls, and how.
"""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.sample_definition import Kind, manifest_of, parse_manifest, search
from proxy.demo.sample_execution import Execution
from proxy.demo.sample_platform import Platform
from proxy.demo.tool_table import DESTROYS, READS, WRITES, Answer, tool

Attachments = list[dict[str, Any]]
WAIT_SECONDS = 300.0


def page_log(execution: Execution, limit: int, offset: int) -> Answer:
    lines = execution.log[offset : offset + limit]
    return {"execution_id": execution.id, "lines": lines, "offset": offset, "total": len(execution.log)}


def draft(kind: Kind, request: str) -> Answer:
    words = [word for word in "".join(c if c.isalnum() else " " for c in request.lower()).split() if len(word) > 2]
    name = "-".join(words[:3]) or f"new-{kind}"
    return {"name": name, "manifest_yaml": manifest_of(kind, name, " ".join(request.split()))}


class AgentTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.agent.list", READS)
    async def list_agents(self) -> Answer:
        """List the agents you may see."""
        return {"agents": [agent.summarise() for agent in self.platform.list_definitions("agent")]}

    @tool("aegis.agent.search", READS)
    async def search_agents(self, query: str, tenant_id: str | None = None, limit: int = 20) -> Answer:
        """Find agents by words in their name or description."""
        return {"agents": search(self.platform.list_definitions("agent"), query, limit)}

    @tool("aegis.agent.export", READS)
    async def export_agent(self, name: str) -> Answer:
        """Return the manifest of an agent."""
        agent = self.platform.get_definition("agent", name)
        return {"name": agent.name, "manifest_yaml": agent.manifest_yaml}

    @tool("aegis.agent.logs", READS)
    async def read_agent_logs(self, agent_id: str, limit: int = 100, offset: int = 0) -> Answer:
        """Read what the executions of an agent wrote, oldest first."""
        agent = self.platform.get_definition("agent", agent_id)
        lines = [line for each in self.platform.list_executions("task", agent.name) for line in each.log]
        return {"agent_id": agent.id, "lines": lines[offset : offset + limit], "total": len(lines)}

    @tool("aegis.agent.create", WRITES)
    async def create_agent(self, manifest_yaml: str, force: bool = False) -> Answer:
        """Deploy a new agent from its manifest; `force` replaces one of the same name."""
        return self.platform.deploy("agent", manifest_yaml, replace=force).summarise()

    @tool("aegis.agent.update", WRITES)
    async def update_agent(self, manifest_yaml: str, force: bool = False) -> Answer:
        """Deploy a new revision of an agent; `force` creates it when there is none."""
        if not force:
            self.platform.get_definition("agent", parse_manifest("agent", manifest_yaml)[0])
        return self.platform.deploy("agent", manifest_yaml, replace=True).summarise()

    @tool("aegis.agent.generate", WRITES)
    async def generate_agent(self, input: str = "", attachments: Attachments | None = None) -> Answer:
        """Draft the manifest of an agent from a description; nothing is deployed."""
        return draft("agent", input)

    @tool("aegis.agent.delete", DESTROYS)
    async def delete_agent(self, agent_id: str) -> Answer:
        """Delete an agent."""
        return {"deleted": self.platform.delete_definition("agent", agent_id).name}

    @tool("aegis.agent.wait", READS)
    async def wait_for_agent(self, execution_id: str, timeout_seconds: float = WAIT_SECONDS) -> Answer:
        """Wait until an execution of an agent has ended."""
        return (await self.platform.wait(execution_id, timeout_seconds)).describe()


class TaskTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.task.execute", WRITES)
    async def execute_task(
        self,
        agent_id: str | None = None,
        intent: str | None = None,
        input: dict[str, Any] | None = None,
        version: str | None = None,
        attachments: Attachments | None = None,
    ) -> Answer:
        """Start an agent, given by id or name, on a task; returns at once."""
        if agent_id is None:
            raise ToolError("agent_id is needed: the id or the name of an agent")
        agent = self.platform.get_definition("agent", agent_id)
        return self.platform.start("task", agent.name, {"intent": intent, "input": input}).describe()

    @tool("aegis.task.list", READS)
    async def list_tasks(self, agent_id: str | None = None, limit: int = 50) -> Answer:
        """List tasks, of one agent or of all."""
        subject = None if agent_id is None else self.platform.get_definition("agent", agent_id).name
        return {"executions": [each.describe() for each in self.platform.list_executions("task", subject)[-limit:]]}

    @tool("aegis.task.status", READS)
    async def get_task_status(self, execution_id: str) -> Answer:
        """Say how a task is doing."""
        return self.platform.get_execution(execution_id).describe()

    @tool("aegis.task.wait", READS)
    async def wait_for_task(self, execution_id: str, timeout_seconds: float = WAIT_SECONDS) -> Answer:
        """Wait until a task has ended."""
        return (await self.platform.wait(execution_id, timeout_seconds)).describe()

    @tool("aegis.task.logs", READS)
    async def read_task_logs(self, execution_id: str, limit: int = 100, offset: int = 0) -> Answer:
        """Read what a task wrote."""
        return page_log(self.platform.get_execution(execution_id), limit, offset)

    @tool("aegis.task.cancel", DESTROYS)
    async def cancel_task(self, execution_id: str) -> Answer:
        """Cancel a running task."""
        return self.platform.cancel(execution_id).describe()

    @tool("aegis.task.remove", DESTROYS)
    async def remove_task(self, execution_id: str) -> Answer:
        """Forget a task that has ended."""
        return {"removed": self.platform.remove(execution_id).id}


class WorkflowTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.workflow.list", READS)
    async def list_workflows(
        self, tenant_id: str | None = None, scope: str | None = None, user_id: str | None = None
    ) -> Answer:
        """List the workflows you may see, of one scope (user, tenant, global) or of all."""
        found = self.platform.list_definitions("workflow", scope)
        return {"workflows": [workflow.summarise() for workflow in found]}

    @tool("aegis.workflow.search", READS)
    async def search_workflows(self, query: str, tenant_id: str | None = None, limit: int = 20) -> Answer:
        """Find workflows by words in their name or description."""
        return {"workflows": search(self.platform.list_definitions("workflow"), query, limit)}

    @tool("aegis.workflow.export", READS)
    async def export_workflow(self, name: str) -> Answer:
        """Return the manifest of a workflow."""
        workflow = self.platform.get_definition("workflow", name)
        return {"name": workflow.name, "manifest_yaml": workflow.manifest_yaml}

    @tool("aegis.workflow.validate", READS)
    async def validate_workflow(self, manifest_yaml: str) -> Answer:
        """Check the manifest of a workflow without deploying it."""
        return {"valid": True, "name": parse_manifest("workflow", manifest_yaml)[0]}

    @tool("aegis.workflow.create", WRITES)
    async def create_workflow(self, manifest_yaml: str, force: bool = False) -> Answer:
        """Deploy a new workflow from its manifest; `force` replaces one of the same name."""
        return self.platform.deploy("workflow", manifest_yaml, replace=force).summarise()

    @tool("aegis.workflow.update", WRITES)
    async def update_workflow(self, manifest_yaml: str, force: bool = False) -> Answer:
        """Deploy a new revision of a workflow; `force` creates it when there is none."""
        if not force:
            self.platform.get_definition("workflow", parse_manifest("workflow", manifest_yaml)[0])
        return self.platform.deploy("workflow", manifest_yaml, replace=True).summarise()

    @tool("aegis.workflow.generate", WRITES)
    async def generate_workflow(self, input: str) -> Answer:
        """Draft the manifest of a workflow from a description; nothing is deployed."""
        return draft("workflow", input)

    @tool("aegis.workflow.delete", DESTROYS)
    async def delete_workflow(self, name: str) -> Answer:
        """Delete a workflow."""
        return {"deleted": self.platform.delete_definition("workflow", name).name}

    @tool("aegis.workflow.run", WRITES)
    async def run_workflow(
        self,
        name: str,
        ctx: Context,
        intent: str | None = None,
        input: dict[str, Any] | None = None,
        blackboard: dict[str, Any] | None = None,
        version: str | None = None,
        tenant_id: str | None = None,
    ) -> Answer:
        """Run a workflow to its end, reporting progress; cancel the request and it stops."""
        workflow = self.platform.get_definition("workflow", name)
        execution = self.platform.start("workflow", workflow.name, {"intent": intent, "input": input}, seconds=None)
        await self.platform.run_workflow(execution, ctx.report_progress)
        return execution.describe()

    @tool("aegis.workflow.status", READS)
    async def get_workflow_status(self, execution_id: str) -> Answer:
        """Say how a run of a workflow is doing."""
        return self.platform.get_execution(execution_id).describe()

    @tool("aegis.workflow.wait", READS)
    async def wait_for_workflow(self, execution_id: str, timeout_seconds: float = WAIT_SECONDS) -> Answer:
        """Wait until a run of a workflow has ended."""
        return (await self.platform.wait(execution_id, timeout_seconds)).describe()

    @tool("aegis.workflow.logs", READS)
    async def read_workflow_logs(self, execution_id: str, limit: int = 100, offset: int = 0) -> Answer:
        """Read what a run of a workflow wrote."""
        return page_log(self.platform.get_execution(execution_id), limit, offset)

    @tool("aegis.workflow.executions.get", READS)
    async def get_workflow_execution(self, execution_id: str) -> Answer:
        """Return one run of a workflow."""
        return self.platform.get_execution(execution_id).describe()

    @tool("aegis.workflow.executions.list", READS)
    async def list_workflow_executions(self, workflow_id: str | None = None, limit: int = 50) -> Answer:
        """List runs, of one workflow or of all."""
        subject = None if workflow_id is None else self.platform.get_definition("workflow", workflow_id).name
        return {"executions": [each.describe() for each in self.platform.list_executions("workflow", subject)[-limit:]]}

    @tool("aegis.workflow.cancel", DESTROYS)
    async def cancel_workflow(self, execution_id: str) -> Answer:
        """Cancel a running workflow."""
        return self.platform.cancel(execution_id).describe()

    @tool("aegis.workflow.signal", WRITES)
    async def signal_workflow(self, execution_id: str, response: str) -> Answer:
        """Answer a workflow that waits for a person."""
        execution = self.platform.get_execution(execution_id)
        execution.signals.append(response)
        return execution.describe() | {"signals": len(execution.signals)}

    @tool("aegis.workflow.remove", DESTROYS)
    async def remove_workflow_execution(self, execution_id: str) -> Answer:
        """Forget a run of a workflow that has ended."""
        return {"removed": self.platform.remove(execution_id).id}

    @tool("aegis.workflow.promote", WRITES)
    async def promote_workflow(
        self, name: str, target_scope: str = "tenant", tenant_id: str | None = None, user_id: str | None = None
    ) -> Answer:
        """Make a workflow visible to a wider scope."""
        return self.platform.set_scope("workflow", name, target_scope).summarise()

    @tool("aegis.workflow.demote", WRITES)
    async def demote_workflow(
        self, name: str, target_scope: str = "user", tenant_id: str | None = None, user_id: str | None = None
    ) -> Answer:
        """Restrict a workflow to a narrower scope."""
        return self.platform.set_scope("workflow", name, target_scope).summarise()


class PipelineTools:
    """An intent is turned into an agent, run, and its results are put on a volume."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.execute.intent", WRITES)
    async def execute_intent(
        self,
        volume_id: str,
        intent: str | None = None,
        inputs: dict[str, Any] | None = None,
        language: str | None = None,
        timeout_seconds: int | None = None,
    ) -> Answer:
        """Write and run a program that does what you say, with a volume to work on; returns at once."""
        volume = self.platform.get_volume(volume_id)
        execution = self.platform.start("pipeline", volume.id, {"intent": intent, "inputs": inputs})
        return {"pipeline_execution_id": execution.id} | execution.describe()

    @tool("aegis.execute.status", READS)
    async def get_pipeline_status(self, pipeline_execution_id: str) -> Answer:
        """Say how a pipeline is doing."""
        return self.platform.get_execution(pipeline_execution_id).describe()

    @tool("aegis.execute.wait", READS)
    async def wait_for_pipeline(self, pipeline_execution_id: str, timeout_seconds: float = WAIT_SECONDS) -> Answer:
        """Wait until a pipeline has ended."""
        return (await self.platform.wait(pipeline_execution_id, timeout_seconds)).describe()

    @tool("aegis.execution.file", READS)
    async def read_execution_file(self, execution_id: str, path: str) -> Answer:
        """Read a file an execution left behind; there is always a `log.txt`."""
        return {"path": path, "content": self.platform.get_execution(execution_id).read_file(path)}
