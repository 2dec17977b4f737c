"""Tasks (extension io.modelcontextprotocol/tasks, SEP-2663): tools whose answer is fetched later, by a task's id."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp.server.context import HandlerResult
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import Field

from tests.conformance.fixtures import Caller, State, ToolAnswer, ToolFixture, say
from tests.conformance.questions import Rounds, form

EXTENSION = "io.modelcontextprotocol/tasks"
LIVES_MILLISECONDS = 60_000
POLL_MILLISECONDS = 200


@dataclass(slots=True)
class Task:
    """A running job, and what has become of it."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = "working"
    outcome: dict[str, Any] = field(default_factory=dict)
    questions: dict[str, types.InputRequest] = field(default_factory=dict)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None

    def start(self, job: Job) -> None:
        self.runner = asyncio.create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            result = await job(self)
            self.outcome = {"result": result.model_dump(by_alias=True, mode="json", exclude_none=True)}
            self.status = "completed"
        except MCPError as error:
            self.outcome = {"error": {"code": error.code, "message": error.message}}
            self.status = "failed"
        except asyncio.CancelledError:
            self.status = "cancelled"
            raise

    async def ask(self, **questions: types.InputRequest) -> None:
        """Wait until every question is answered."""
        self.questions, self.status = questions, "input_required"
        await self.answered.wait()
        self.status = "working"

    def answer(self, names: Mapping[str, Any]) -> None:
        self.questions = {name: question for name, question in self.questions.items() if name not in names}
        if not self.questions:
            self.answered.set()

    def describe(self) -> dict[str, Any]:
        """The members every answer about a task has."""
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created.isoformat(),
            "lastUpdatedAt": datetime.now(UTC).isoformat(),
            "ttlMs": LIVES_MILLISECONDS,
            "pollIntervalMs": POLL_MILLISECONDS,
        }


Job = Callable[[Task], Awaitable[types.CallToolResult]]


class TaskUpdate(types.GetTaskRequestParams):
    """`inputResponses` as they come: this fixture does not look into them."""

    input_responses: dict[str, Any] = Field(default_factory=dict)


def is_declared(caller: Caller) -> bool:
    declared = caller.session.client_capabilities
    return declared is not None and EXTENSION in (declared.extensions or {})


def require_extension(caller: Caller) -> None:
    """Raises MCPError."""
    if not is_declared(caller):
        needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This needs a client that knows tasks.", needed)


def start(caller: Caller, job: Job) -> dict[str, Any]:
    """The answer that stands for the one to come."""
    task = Task()
    caller.lifespan_context.tasks[task.id] = task
    task.start(job)
    return {"resultType": "task", **task.describe()}


def find(caller: Caller, task_id: str) -> Task:
    """Raises MCPError."""
    require_extension(caller)
    if caller.request is not None and caller.request.headers.get("mcp-name") != task_id:
        raise MCPError(types.HEADER_MISMATCH, "Mcp-Name does not name the task.")
    task = caller.lifespan_context.tasks.get(task_id)
    if task is None:
        raise MCPError(types.INVALID_PARAMS, "There is no such task.")
    return task


async def get(caller: Caller, params: types.GetTaskRequestParams) -> HandlerResult:
    task = find(caller, params.task_id)
    questions = {
        name: question.model_dump(by_alias=True, mode="json", exclude_none=True)
        for name, question in task.questions.items()
    }
    asked = {"inputRequests": questions} if questions else {}
    return {"resultType": "complete", **task.describe(), **task.outcome, **asked}


async def update(caller: Caller, params: TaskUpdate) -> HandlerResult:
    find(caller, params.task_id).answer(params.input_responses)
    return {"resultType": "complete"}


async def cancel(caller: Caller, params: types.CancelTaskRequestParams) -> HandlerResult:
    runner = find(caller, params.task_id).runner
    if runner is not None:
        runner.cancel()
    return {"resultType": "complete"}


def add_tasks(server: Server[State]) -> None:
    server.extensions[EXTENSION] = {}
    server.add_request_handler("tasks/get", types.GetTaskRequestParams, get)
    server.add_request_handler("tasks/update", TaskUpdate, update)
    server.add_request_handler("tasks/cancel", types.CancelTaskRequestParams, cancel)


# The tools.


async def greet(_: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
    return say(f"Hello, {(params.arguments or {}).get('name')}!")


async def compute(caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
    """A task where the client knows tasks, an answer where not."""
    seconds = float((params.arguments or {}).get("seconds", 0))

    async def sleep(_: Task) -> types.CallToolResult:
        await asyncio.sleep(seconds)
        return say(f"Slept {seconds} s.")

    return start(caller, sleep) if is_declared(caller) else await sleep(Task())


def always_task(job: Job) -> Callable[[Caller, types.CallToolRequestParams], Awaitable[ToolAnswer]]:
    """A tool that cannot do without tasks."""

    async def run(caller: Caller, _params: types.CallToolRequestParams) -> ToolAnswer:
        require_extension(caller)
        return start(caller, job)

    return run


async def fail(_: Task) -> types.CallToolResult:
    return say("It did not work.").model_copy(update={"is_error": True})


async def break_down(_: Task) -> types.CallToolResult:
    raise MCPError(types.INTERNAL_ERROR, "It broke down.")


async def confirm(task: Task) -> types.CallToolResult:
    await task.ask(confirm=form("Really?", "confirm", "boolean"))
    return say("Deleted.")


async def ask_twice(task: Task) -> types.CallToolResult:
    await task.ask(first=form("Your first name?", "name"), second=form("And your second?", "name"))
    return say("Asked.")


async def ask_then_start(caller: Caller, params: types.CallToolRequestParams) -> ToolAnswer:
    """Rounds first, a task in the end."""
    question = Rounds([{"user_name": form("What is your name?", "name")}]).ask(params)
    if question is not None:
        return question
    given = (params.input_responses or {})["user_name"]
    name = (given.content or {}).get("name") if isinstance(given, types.ElicitResult) else None

    async def hail(_: Task) -> types.CallToolResult:
        return say(f"Hello, {name}!")

    return start(caller, hail)


TOOLS = (
    ToolFixture("greet", greet),
    ToolFixture("slow_compute", compute),
    ToolFixture("failing_job", always_task(fail)),
    ToolFixture("protocol_error_job", always_task(break_down)),
    ToolFixture("confirm_delete", always_task(confirm)),
    ToolFixture("multi_input", always_task(ask_twice)),
    ToolFixture("test_tool_with_task", ask_then_start),
)
