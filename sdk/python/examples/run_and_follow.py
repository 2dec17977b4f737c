"""Run a workflow and follow it to its end.

AEGIS_API_KEY=… AEGIS_BASE_URL=… python run_and_follow.py [workflow]
"""

from __future__ import annotations

import sys

from aegis_sdk import AegisClient, PermissionDeniedError


def main(workflow: str) -> None:
    with AegisClient() as client:
        try:
            execution = client.workflows.run(workflow, input={"day": "monday"})
        except PermissionDeniedError as denied:
            sys.exit(f"this key lacks {denied.smallest_sufficient}")
        print("started", execution.execution_id)
        for event in client.executions.stream(execution.execution_id):
            print(event.type, event.data.get("line", ""))
            if event.data.get("number") == 3:
                client.executions.cancel(execution.execution_id)
        print(client.executions.get(execution.execution_id).status)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "nightly-etl")
