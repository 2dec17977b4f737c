"""What a server of tasks says, in both revisions that have them, for `CanaryUpstream` to answer with.

2025-11-25: a call that asks for a task is answered with `task`, its result is fetched later. SEP-2663, for 2026-07-28:
the server decides, the result of `tools/call` is the task itself, `tasks/get` holds the result, and tasks can be
listened to. It believes whoever names a task.
"""

from __future__ import annotations

import json
from typing import Any

from tests.canary_upstream import Received, form_answer

Json = dict[str, Any]


class TaskDesk:
    """`in_events`: what is answered to `tools/call` comes as an event stream. `next_id`: of the next task, if not its
    number."""

    def __init__(self, *, in_events: bool = False) -> None:
        self.in_events = in_events
        self.next_id: str | None = None
        self.tasks: dict[str, Json] = {}

    def __call__(self, received: Received) -> bytes:
        message = json.loads(received.body)
        method, params = message["method"], message["params"]
        if method == "subscriptions/listen":
            return self._listen(message["id"], params["notifications"]["taskIds"])
        result = self._answer(method, params)
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        if self.in_events and method == "tools/call":
            return form_answer(b": ping\r\n\r\ndata: " + body + b"\r\n\r\n", content_type="text/event-stream")
        return form_answer(body)

    def _answer(self, method: str, params: Json) -> Json:
        match method:
            case "tools/call":
                return self._make(params)
            case "tasks/list":
                return {"tasks": list(self.tasks.values()), "nextCursor": "a-cursor"}
            case "tasks/result":
                text = {"type": "text", "text": f"result of {params['taskId']}"}
                related = {"io.modelcontextprotocol/related-task": {"taskId": params["taskId"]}}
                return {"content": [text], "_meta": related}
            case "tasks/get":
                return self.tasks[params["taskId"]]
            case "tasks/update":
                return {}
            case "tasks/cancel":
                self.tasks[params["taskId"]]["status"] = "cancelled"
                return self.tasks[params["taskId"]]
            case _:
                raise AssertionError(f"nobody taught this server {method}")

    def _make(self, params: Json) -> Json:
        task_id = self.next_id or f"task-{len(self.tasks)}"
        task = self.tasks[task_id] = {"taskId": task_id, "status": "working", "ttl": 60000, "pollInterval": 50}
        return {"task": task} if "task" in params else {"resultType": "task", **task}

    def _listen(self, rpc_id: str | int, task_ids: list[str]) -> bytes:
        """Events without an end."""
        notices: list[Json] = [{"method": "notifications/subscriptions/acknowledged", "params": {"id": rpc_id}}]
        notices += [{"method": "notifications/tasks", "params": self.tasks[task_id]} for task_id in task_ids]
        events = [f"data: {json.dumps({'jsonrpc': '2.0', **notice})}\n\n" for notice in notices]
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + "".join(events).encode()
