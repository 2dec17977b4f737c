"""The API's answers, as they are on the wire. Made from `sdk/openapi.json` by `generate.py`."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict


class AgentSummary(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    name: str
    description: str
    scope: str
    """
    Who sees it: user, tenant, global.
    """
    revision: int


class Agent(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    name: str
    description: str
    scope: str
    """
    Who sees it: user, tenant, global.
    """
    revision: int
    manifest_yaml: str


class AgentPage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    agents: list[AgentSummary]
    total: int
    limit: int
    offset: int


class WorkflowSummary(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    name: str
    description: str
    scope: str
    """
    Who sees it: user, tenant, global.
    """
    revision: int


class Workflow(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    name: str
    description: str
    scope: str
    """
    Who sees it: user, tenant, global.
    """
    revision: int
    manifest_yaml: str


class WorkflowPage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    workflows: list[WorkflowSummary]
    total: int
    limit: int
    offset: int


class Version(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    version: int
    manifest_yaml: str


class VersionPage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    versions: list[Version]
    total: int
    limit: int
    offset: int


class Execution(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    execution_id: str
    kind: str
    """
    task (of an agent), workflow, pipeline.
    """
    subject: str
    """
    The agent's or workflow's name.
    """
    status: str
    """
    running, completed, cancelled, …
    """
    started_at: AwareDatetime
    input: Any | None = None
    """
    What it was given.
    """


class ExecutionPage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    executions: list[Execution]
    total: int
    limit: int
    offset: int


class LogEvent(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    type: str
    execution_id: str | None = None
    number: int | None = None
    line: str | None = None


class LogPage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    execution_id: str
    events: list[LogEvent]
    limit: int
    offset: int


class Volume(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    id: str
    label: str
    size_limit_bytes: int
    used_bytes: int


class VolumePage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    volumes: list[Volume]
    total: int
    limit: int
    offset: int


class VolumeFile(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    path: str
    size_bytes: int | None = None
    """
    Absent: it is a directory.
    """


class FilePage(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    files: list[VolumeFile]
    total: int
    limit: int
    offset: int


class UploadedFile(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    volume_id: str
    path: str
    size_bytes: int
    sha256: str


class Quota(BaseModel):
    model_config = ConfigDict(
        extra="allow",
    )
    used_bytes: int
    limit_bytes: int
    volumes: int
