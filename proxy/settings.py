"""What the operator decided: one frozen `Settings` value.  [pure, apart from reading one file]

In go a YAML file and the environment, which overrides it; out comes a value every room takes its numbers from, or a
`ConfigError` that reports every fault together, each with its line and its mend. The reason for each number stands in
`config/gateway.yaml`. This room does not know what the numbers do, and it never echoes a text the operator wrote:
the wrong field may hold the right password.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from proxy.errors import ConfigError
from proxy.settings_console import ConsoleSettings
from proxy.settings_management import ManagementSettings
from proxy.settings_shapes import Address as Address
from proxy.settings_shapes import (
    Audience,
    Count,
    HostName,
    KiB,
    ListenAddress,
    MiB,
    ProxyNetwork,
    PublicUrl,
    Rate,
    Realm,
    Seconds,
    Section,
    WebOrigin,
    check_database_url,
    unusable,
)
from proxy.settings_source import describe_faults, read_source
from proxy.settings_source import find_shipped as find_shipped
from proxy.settings_upstreams import IdentitySettings as IdentitySettings
from proxy.settings_upstreams import TlsSettings as TlsSettings
from proxy.settings_upstreams import UpstreamSettings as UpstreamSettings
from proxy.settings_upstreams import UpstreamsSettings as UpstreamsSettings

# --- the sections, in the order of config/gateway.yaml -------------------------------------------------------------


class DatabaseSettings(Section):
    url: SecretStr | None = Field(None, description="PostgreSQL, read-write primary; none needs --embedded")
    listener_url: SecretStr | None = Field(None, description="where to LISTEN, if not at url; never a pooler")
    pool_min_size: Count = Field(2, ge=1, le=100, description="connections kept open")
    pool_max_size: Count = Field(10, ge=1, le=1000, description="connections at most")
    connect_timeout_seconds: Seconds = Field(5.0, ge=0.1, le=60, description="until a connection stands")
    query_timeout_seconds: Seconds = Field(1.0, ge=0.05, le=60, description="until a query on the request path answers")

    @property
    def listening_url(self) -> SecretStr | None:
        return self.listener_url or self.url

    _urls = field_validator("url", "listener_url")(check_database_url)

    @field_validator("pool_max_size")
    @classmethod
    def holds_the_minimum(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("pool_min_size", 0):
            cause = ("database", "pool_min_size")
            raise unusable("pool_max_size is below pool_min_size", "raise the one or lower the other", cause)
        return value


class AssertionsSettings(Section):
    issuer: Audience = Field("aegis-proxy", description="`iss`")
    algorithm: Literal["RS256", "EdDSA"] = Field("RS256", description="how assertions are signed")
    lifetime_seconds: Count = Field(60, ge=10, le=300, description="how long one is valid")
    rotate_seconds: Seconds = Field(86_400.0, ge=60, le=31_536_000, description="how long a signing key signs")
    publish_ahead_seconds: Seconds = Field(
        35.0, ge=0, le=3600, description="a signing key is published before it signs"
    )
    key_file: Path | None = Field(None, description="PEM: the signing key; none: each instance makes its own")
    publish: bool = Field(False, strict=True, description="the public keys on the data listener, too")


class AfterLeavingSettings(Section):
    seconds: Seconds = Field(30.0, ge=0, le=600, description="how long it is read")
    bytes: Count = Field(4 * MiB, ge=0, le=256 * MiB, description="how much of it is read")


class ServerSettings(Section):
    max_connections: Count | None = Field(
        None, ge=1, le=1_000_000, description="of clients; null: as descriptors allow"
    )
    max_body_bytes: Count = Field(4 * MiB, ge=1 * KiB, le=256 * MiB, description="request body")
    max_upload_bytes: Count = Field(4096 * MiB, ge=1 * KiB, le=MiB * MiB, description="streamed body of a REST request")
    max_answer_bytes: Count = Field(8 * MiB, ge=64 * KiB, le=256 * MiB, description="list answer held to be filtered")
    max_json_depth: Count = Field(64, ge=8, le=200, description="nesting of a message")
    max_line_bytes: Count = Field(8190, ge=1 * KiB, le=64 * KiB, description="request line")
    max_field_bytes: Count = Field(8190, ge=1 * KiB, le=64 * KiB, description="one header field")
    max_header_count: Count = Field(64, ge=16, le=1000, description="header fields of a request")
    header_timeout_seconds: Seconds = Field(5.0, ge=0.1, le=60, description="first byte to end of headers")
    body_timeout_seconds: Seconds = Field(10.0, ge=0.1, le=600, description="silence allowed inside a request body")
    keepalive_timeout_seconds: Seconds = Field(60.0, ge=1, le=3600, description="idle time between requests")
    slow_reader_seconds: Seconds = Field(30.0, ge=1, le=3600, description="how long a client may not read")
    read_buffer_bytes: Count = Field(16 * KiB, ge=4 * KiB, le=1 * MiB, description="read ahead per connection")
    drain_seconds: Seconds = Field(10.0, ge=0, le=600, description="time for running calls at shutdown")
    allowed_hosts: tuple[HostName, ...] | None = Field(None, description="Host names we answer to")
    allowed_origins: tuple[WebOrigin, ...] = Field((), description="web pages that may call us")
    trusted_proxies: tuple[ProxyNetwork, ...] = Field(
        (), max_length=64, description="proxies in front of us, whose X-Forwarded-For is believed"
    )
    public_url: PublicUrl | None = Field(None, description="how clients write our address")
    authorization_servers: tuple[PublicUrl, ...] = Field((), description="whose access tokens are keys of ours")
    realm: Realm = Field("aegis", description="the realm named in WWW-Authenticate")
    after_leaving: AfterLeavingSettings = Field(
        AfterLeavingSettings(), description="the answer to a client that left before 2026-07-28"
    )

    @field_validator("authorization_servers")
    @classmethod
    def is_of_a_known_resource(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and info.data.get("public_url") is None:
            raise unusable(
                "authorization_servers are named, but not what they protect",
                "set public_url to the address that clients are configured with, without the route's path",
                ("server", "public_url"),
            )
        return value


class HashingSettings(Section):
    memory_cost_kib: Count = Field(8 * KiB, ge=1 * KiB, le=256 * KiB, description="argon2id m")
    time_cost: Count = Field(1, ge=1, le=16, description="argon2id t")
    threads: Count | None = Field(None, ge=1, le=64, description="hashes at once; null: cores - 1, from 1 to 4")
    queue_size: Count = Field(256, ge=1, le=100_000, description="proofs waiting for a thread")
    timeout_seconds: Seconds = Field(2.0, ge=0.05, le=60, description="until a hash must be done")


class FailuresSettings(Section):
    burst: Count = Field(20, ge=1, le=100_000, description="invalid keys of one address at once")
    per_second: Rate = Field(1.0, ge=0.01, le=10_000, description="invalid keys of one address from then on")


class CacheSettings(Section):
    max_proofs: Count = Field(100_000, ge=1, le=10_000_000, description="proven tokens remembered")
    max_states: Count = Field(50_000, ge=1, le=10_000_000, description="key states remembered")
    negative_max: Count = Field(10_000, ge=1, le=1_000_000, description="unknown key ids remembered")
    negative_ttl_seconds: Seconds = Field(5.0, ge=0.1, le=60, description="how long an id stays unknown")


class RevocationSettings(Section):
    heartbeat_seconds: Seconds = Field(0.5, ge=0.05, le=60, description="between two nonces")
    lease_seconds: Seconds = Field(2.0, ge=0.1, le=300, description="trust after the last nonce that came back")
    grace_seconds: Seconds = Field(1.0, ge=0, le=300, description="from a lost lease and a silent database to closing")
    database_loss_grace_seconds: Seconds = Field(0.0, ge=0, le=86400, description="added to the grace")
    revalidate_seconds: Seconds = Field(15.0, ge=1, le=3600, description="between two reads of all that is open")

    @property
    def bound_seconds(self) -> float:
        """The published promise: nothing outlives a committed revocation by more."""
        return self.lease_seconds + self.grace_seconds + self.database_loss_grace_seconds

    @property
    def silent_bound_seconds(self) -> float:
        """The same for a change whose news was never sent: a round that fails is not waited for twice."""
        return 2 * self.revalidate_seconds + self.bound_seconds

    @field_validator("lease_seconds")
    @classmethod
    def survives_one_lost_heartbeat(cls, value: float, info: ValidationInfo) -> float:
        if value < 2 * info.data.get("heartbeat_seconds", 0):
            raise unusable(
                "lease_seconds is shorter than two heartbeats: one late nonce would lose it",
                "make it at least twice heartbeat_seconds",
                ("revocation", "heartbeat_seconds"),
            )
        return value

    @field_validator("revalidate_seconds")
    @classmethod
    def is_rarer_than_the_heartbeat(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("heartbeat_seconds", 0):
            raise unusable(
                "revalidate_seconds is shorter than heartbeat_seconds",
                "raise the one or lower the other",
                ("revocation", "heartbeat_seconds"),
            )
        return value


class SessionsSettings(Section):
    idle_seconds: Seconds = Field(1800.0, ge=10, le=604_800, description="unused session before it is swept")
    cleanup_attempts: Count = Field(3, ge=1, le=20, description="upstream DELETE attempts")
    cleanup_timeout_seconds: Seconds = Field(5.0, ge=0.1, le=60, description="for each attempt")


class UsageSettings(Section):
    flush_seconds: Seconds = Field(10.0, ge=0.1, le=3600, description="between two batches of counts and denials")


class Settings(Section):
    listen: ListenAddress = Field(Address("127.0.0.1", 8080), description="data listener, host:port")
    ops_listen: ListenAddress = Field(Address("127.0.0.1", 9090), description="health and metrics, never public")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the quietest line to write")
    policy: Path = Field(default_factory=lambda: find_shipped("policy.yaml"), description="the policy file")
    state_dir: Path = Field(Path("/var/lib/aegis-proxy"), description="where the embedded database lives")
    secret_key: SecretStr | None = Field(None, min_length=32, description="one secret shared by all instances")
    database: DatabaseSettings = Field(DatabaseSettings(), description="where keys live")
    upstreams: UpstreamsSettings = Field(UpstreamsSettings(), description="what we stand in front of")
    assertions: AssertionsSettings = Field(AssertionsSettings(), description="what upstreams are told of the caller")
    server: ServerSettings = Field(ServerSettings(), description="limits of the front door")
    management: ManagementSettings = Field(ManagementSettings(), description="who manages keys over HTTP")
    console: ConsoleSettings = Field(ConsoleSettings(), description="the page where owners manage their keys")
    hashing: HashingSettings = Field(HashingSettings(), description="what proving a secret costs")
    failures: FailuresSettings = Field(FailuresSettings(), description="how many invalid keys are answered in full")
    cache: CacheSettings = Field(CacheSettings(), description="what is remembered between requests")
    revocation: RevocationSettings = Field(RevocationSettings(), description="how fast a revoked key dies")
    sessions: SessionsSettings = Field(SessionsSettings(), description="MCP sessions of the upstream")
    usage: UsageSettings = Field(UsageSettings(), description="what is written down of what keys do")

    @field_validator("ops_listen")
    @classmethod
    def stands_apart(cls, value: Address, info: ValidationInfo) -> Address:
        if value.port != 0 and value == info.data.get("listen"):
            raise unusable(
                "listen and ops_listen are the same address", "give the ops listener a port of its own", ("listen",)
            )
        return value

    @field_validator("management")
    @classmethod
    def trusts_another(cls, value: ManagementSettings, info: ValidationInfo) -> ManagementSettings:
        """What we sign speaks to upstreams in a key's name: it must never sign anybody in here."""
        provider, assertions = value.identity_provider, info.data.get("assertions")
        if provider is not None and assertions is not None and provider.issuer == assertions.issuer:
            raise unusable(
                "management.identity_provider.issuer is the issuer of our own assertions",
                "name the platform's identity provider",
                ("management", "identity_provider", "issuer"),
            )
        return value

    @field_validator("console")
    @classmethod
    def can_be_come_back_to(cls, value: ConsoleSettings, info: ValidationInfo) -> ConsoleSettings:
        """OpenID Connect needs a provider, and an address that the provider sends browsers back to."""
        management, server = info.data.get("management"), info.data.get("server")
        if value.client_id is not None and management is not None and management.identity_provider is None:
            raise unusable(
                "console.client_id is set, but no identity provider",
                "set management.identity_provider, too",
                ("console", "client_id"),
            )
        if value.client_id is not None and server is not None and server.public_url is None:
            raise unusable(
                "console.client_id is set, but not where the provider sends browsers back to",
                "set server.public_url, too",
                ("console", "client_id"),
            )
        return value

    @field_validator("revocation")
    @classmethod
    def outlasts_a_query(cls, value: RevocationSettings, info: ValidationInfo) -> RevocationSettings:
        database = info.data.get("database")
        if database is not None and database.query_timeout_seconds > value.lease_seconds:
            raise unusable(
                "database.query_timeout_seconds is longer than revocation.lease_seconds: trust could be renewed over "
                "a re-read that is stuck",
                "lower the timeout or lengthen the lease",
                ("database", "query_timeout_seconds"),
            )
        return value


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read `path` (None: the shipped `gateway.yaml`) under `environ`.

    Paths written in the file are relative to the file, those of the environment to the working directory.
    Raises `ConfigError` with every fault found.
    """
    source = read_source(path or find_shipped("gateway.yaml"), environ)
    faults = list(source.faults)
    settings = None
    try:
        settings = Settings.model_validate(source.values)
    except ValidationError as error:
        faults += describe_faults(error, Settings, source)
    if settings is None or faults:
        raise ConfigError(sorted(faults, key=lambda fault: (fault.source, fault.line or 0)))
    return settings


class UntitledSchema(GenerateJsonSchema):
    """Without titles, which would only repeat the names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def render_schema() -> str:
    """The text of `config/gateway.schema.json`, for editors that check as one types."""
    schema = {"$schema": UntitledSchema.schema_dialect} | Settings.model_json_schema(schema_generator=UntitledSchema)
    return json.dumps(schema, indent=2) + "\n"
