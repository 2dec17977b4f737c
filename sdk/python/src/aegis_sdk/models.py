"""The API's answers, as they are on the wire. Made from `openapi.json` by `sdk/generate_python.py`."""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import AwareDatetime, ConfigDict

from aegis_sdk.answers import Answer


class Confirmation(Answer):
    """
    One instance's word. `milliseconds` after the revocation; null until it confirmed.
    """

    instance: str
    state: str
    milliseconds: float | None
    streams: int
    calls: int


class Constraints(Answer):
    """
    None: not constrained. `burst`: how many requests may come at once; a second's worth unless told.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    sources: list[str] | None = None
    """
    Addresses and CIDRs that requests may come from.
    """
    requests_per_second: float | None = None
    burst: int | None = None
    """
    Requests that may come at once.
    """
    max_calls: int | None = None
    """
    Calls under way at once, on one instance.
    """
    max_streams: int | None = None
    """
    Streams open at once, on one instance.
    """


class DayUse(Answer):
    """
    How often a key was let through and denied on one day, UTC.
    """

    day: date
    allowed: int
    denied: int


class AuditEvent(Answer):
    """
    One thing that was done to a key, or that a request showed of it. `before`, `after`: what differs.
    """

    id: int
    at: AwareDatetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(Answer):
    """
    The newest first. `next_cursor`: null when there are no more.
    """

    events: list[AuditEvent]
    next_cursor: str | None


class Explanation(Answer):
    """
    `explanation`: why, as denials and `policy explain --json` say it.
    """

    allowed: bool
    explanation: dict[str, Any]


class Fault(Answer):
    """
    What is wrong with one member.
    """

    field: str
    message: str


class GrantablePreset(Answer):
    """
    A preset may be given whole, or not at all.
    """

    name: str
    title: str
    scopes: list[str]
    may: bool
    why_not: str | None
    missing: list[str]


class GrantableScope(Answer):
    """
    A scope of the catalogue. `selectors`: what of it may be given where not all of it may; `listed`: the platform
    lists what a selector may name.
    """

    scope: str
    title: str
    selector: str | None
    may: bool
    why_not: str | None
    selectors: list[str]
    listed: bool


class ScopeCatalogue(Answer):
    """
    What this caller may give to a key, and why not the rest.
    """

    scopes: list[GrantableScope]
    presets: list[GrantablePreset]
    expiries: list[str]


class LastRefusal(Answer):
    """
    The last time a key was refused.
    """

    at: AwareDatetime
    reason: str


class LastUse(Answer):
    """
    The last time a key was let in; `count`: how often ever.
    """

    at: AwareDatetime
    address: str | None
    user_agent: str | None
    tool: str
    """
    What it named: a tool, a method, a route or an operation.
    """
    count: int


class OfferedName(Answer):
    """
    What a selector may name; `title`: in words, where the platform has any.
    """

    name: str
    title: str | None


class OfferedNames(Answer):
    """
    What the platform lists for whoever asks, with their own rights. `why_not`: why there is nothing; any exact name
    may be given all the same.
    """

    scope: str
    selector: str
    names: list[OfferedName]
    why_not: str | None


class Owner(Answer):
    """
    Whose keys there are, and the most that any of them can do (`tier`).
    """

    id: str
    issuer: str
    subject: str
    tenant_id: str
    tier: str
    disabled: bool
    created_at: AwareDatetime


class OwnerPage(Answer):
    """
    By name. `next_cursor`: null when there are no more.
    """

    owners: list[Owner]
    next_cursor: str | None


class Problem(Answer):
    """
    RFC 9457. `error` is `detail` once more, for the platform's clients; some codes have further members.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    error: str
    missing: list[str] | None = None
    """
    Scopes that would have been needed.
    """
    faults: list[Fault] | None = None


class KeySession(Answer):
    """
    An MCP session that a key holds upstream; its id is its holder's alone.
    """

    upstream: str
    protocol_version: str | None
    created_at: AwareDatetime
    last_seen_at: AwareDatetime
    secret_version: int


class KeySessions(Answer):
    """
    The newest first.
    """

    sessions: list[KeySession]


class Use(Answer):
    """
    How often a rule allowed or denied, resting on these scopes; of a denial: which would have sufficed, if any.
    """

    rule: str
    scopes: list[str]
    allowed: bool
    count: int
    last_at: AwareDatetime


class Identity(Answer):
    """
    What a valid key says of its owner. `scopes`: what it can do now, its maker's and its tier's limits applied.
    """

    user_id: str
    tenant_id: str
    aegis_role: str | None
    scopes: list[str]
    zaru_tier: str
    key_id: str
    name: str
    expires_at: AwareDatetime | None


class AgentSummary(Answer):
    id: str
    name: str
    description: str
    scope: str
    """
    Who sees it: user, tenant, global.
    """
    revision: int


class Agent(AgentSummary):
    manifest_yaml: str


class AgentPage(Answer):
    agents: list[AgentSummary]
    total: int
    limit: int
    offset: int


class WorkflowSummary(Answer):
    id: str
    name: str
    description: str
    scope: str
    """
    Who sees it: user, tenant, global.
    """
    revision: int


class Workflow(WorkflowSummary):
    manifest_yaml: str


class WorkflowPage(Answer):
    workflows: list[WorkflowSummary]
    total: int
    limit: int
    offset: int


class Version(Answer):
    version: int
    manifest_yaml: str


class VersionPage(Answer):
    versions: list[Version]
    total: int
    limit: int
    offset: int


class Execution(Answer):
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


class ExecutionPage(Answer):
    executions: list[Execution]
    total: int
    limit: int
    offset: int


class LogEvent(Answer):
    type: str
    execution_id: str | None = None
    number: int | None = None
    line: str | None = None


class LogPage(Answer):
    execution_id: str
    events: list[LogEvent]
    limit: int
    offset: int


class Volume(Answer):
    id: str
    label: str
    size_limit_bytes: int
    used_bytes: int


class VolumePage(Answer):
    volumes: list[Volume]
    total: int
    limit: int
    offset: int


class VolumeFile(Answer):
    path: str
    size_bytes: int | None = None
    """
    Absent: it is a directory.
    """


class FilePage(Answer):
    files: list[VolumeFile]
    total: int
    limit: int
    offset: int


class UploadedFile(Answer):
    volume_id: str
    path: str
    size_bytes: int
    sha256: str


class Quota(Answer):
    used_bytes: int
    limit_bytes: int
    volumes: int


class ApiKey(Answer):
    """
    A key as everybody may see it who may see it at all: never any part of a secret.
    """

    id: str
    name: str
    owner: str
    """
    The owner's subject.
    """
    issuer: str
    tenant_id: str
    tier: str
    preset: str | None
    scopes: list[str]
    status: str
    expires_at: AwareDatetime | None
    created_at: AwareDatetime
    created_by: str
    parent_id: str | None
    constraints: dict[str, Any]
    version: int
    old_secret_until: AwareDatetime | None
    revoked_at: AwareDatetime | None
    revoked_by: str | None
    revoked_reason: str | None
    last_used_at: AwareDatetime | None
    last_used: LastUse | None
    last_refused: LastRefusal | None
    old_secret_last_used_at: AwareDatetime | None


class ApiKeyPage(Answer):
    """
    `next_cursor`: null when there are no more.
    """

    api_keys: list[ApiKey]
    next_cursor: str | None


class MintedKey(ApiKey):
    """
    A key with its token, for the one sight of it.
    """

    key: str
    """
    The token. It is not stored, and never shown again.
    """


class Receipt(Answer):
    """
    What became of a revocation on every instance: what it ended there, and whether the instance said so.
    """

    message: str
    confirmed: bool
    milliseconds: float | None
    instances: list[Confirmation]
    streams: int
    calls: int
    api_key: ApiKey


class RotatedKey(ApiKey):
    """
    A key with its new token. `descendants_revoked`: of a compromised one.
    """

    key: str
    """
    The token. It is not stored, and never shown again.
    """
    descendants_revoked: int


class Usage(Answer):
    """
    What a key did on the last days, today included and last.
    """

    days: list[DayUse]
    uses: list[Use]
