"""A program of somebody else's, checked strictly: what it ignores must be wrong, and nothing else may be."""

from __future__ import annotations

from typing import assert_type

from aegis_sdk import (
    AegisClient,
    AsyncAegisClient,
    InputError,
    InputFault,
    Listing,
    Page,
    PermissionDeniedError,
    Retry,
    StreamEvent,
    UnavailableError,
)
from aegis_sdk.models import Agent, AgentSummary, ApiKey, Constraints, Execution, MintedKey


def use(client: AegisClient) -> None:
    assert_type(client.agents.list(), Listing[AgentSummary])
    for agent in client.agents.list(page_size=10):
        assert_type(agent, AgentSummary)
    for page in client.executions.list(status="running").pages():
        assert_type(page, Page[Execution])
    assert_type(client.agents.get("a"), Agent)
    for event in client.executions.stream("e"):
        assert_type(event, StreamEvent)
    assert_type(client.volumes.download("v", "p"), bytes)
    minted = client.keys.mint("n", preset="read-only", expires_in="7d", constraints=Constraints(max_calls=1))
    assert_type(minted, MintedKey)
    assert_type(minted.key, str)
    keep(minted)


def keep(key: ApiKey) -> str:
    return key.id


def fail(client: AegisClient) -> None:
    try:
        client.workflows.run("w", input={"any": ["thing"]})
    except PermissionDeniedError as denied:
        assert_type(denied.missing, list[str])
        assert_type(denied.smallest_sufficient, str | None)
    except InputError as wrong:
        assert_type(wrong.faults, list[InputFault])
    except UnavailableError as later:
        assert_type(later.retry_after, float | None)


def mistake(client: AegisClient) -> None:
    client.agents.get(7)  # type: ignore[arg-type]
    len(client.agents.get("a").nmae)  # type: ignore[attr-defined]
    client.keys.mint("n", expires_in="8d")  # type: ignore[arg-type]
    client.keys.mint("n", "read-only")  # type: ignore[call-arg]
    client.volumes.upload("v", "p", 7)  # type: ignore[arg-type]
    AegisClient(retry=3)  # type: ignore[arg-type]
    len(client.moods)  # type: ignore[attr-defined]


async def use_without_blocking(client: AsyncAegisClient) -> None:
    assert_type(await client.agents.get("a"), Agent)
    async for agent in client.agents.list():
        assert_type(agent, AgentSummary)
    async with client.executions.stream("e") as events:
        async for event in events:
            assert_type(event, StreamEvent)
    async with client.mcp() as session:
        assert_type((await session.list_tools()).tools[0].name, str)


Retry(attempts=1)
