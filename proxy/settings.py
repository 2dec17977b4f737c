"""What the operator decided: one frozen `Settings` value.  [pure, apart from reading one file]

In go a YAML file and the environment, which overrides it; out comes a value every room takes its numbers from, or a
`ConfigError` that reports every fault together, each with its line and its mend. The reason for each number stands in
`config/gateway.yaml`. This room does not know what the numbers do, and it never echoes a text the operator wrote:
the wrong field may hold the right password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from proxy.errors import ConfigError
from proxy.settings_source import describe_faults, read_source
from proxy.settings_source import find_shipped as find_shipped
from proxy.upstream_address import UpstreamAddress, parse_upstream_address

# --- values with a shape of their own ------------------------------------------------------------------------------

HOST: Final = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)"
ADDRESS: Final = re.compile(HOST + r":(?P<port>[0-9]{1,5})")


def unusable(message: str, mend: str, cause: tuple[str, ...] = ()) -> PydanticCustomError:
    """A fault for the operator. `cause` is the other setting of a contradiction, which may be the only one written."""
    return PydanticCustomError("unusable", "{message}", {"message": message, "mend": mend, "cause": cause})


def parse_host(text: str) -> str:
    """A host as sockets want it: the brackets of an IPv6 address are gone. Raises ValueError."""
    return str(IPv6Address(text[1:-1])) if text.startswith("[") else text.lower()


def parse_port(text: str) -> int:
    if int(text) > 65535:
        raise ValueError("a port has 16 bits")
    return int(text)


def write_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Address(NamedTuple):
    """Where to listen: `host:port`; port 0 lets the system pick a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{write_host(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    match = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is not None:
            return Address(parse_host(match["host"]), parse_port(match["port"]))
    except ValueError:
        pass
    raise unusable("this is not an address to listen on", "write host:port, such as 127.0.0.1:8080 or [::1]:8080")


def parse_upstream_url(value: object) -> UpstreamAddress:
    if isinstance(value, UpstreamAddress):
        return value
    try:
        return parse_upstream_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise unusable("this is not the address of an upstream", str(error)) from None


def write_upstream_url(address: UpstreamAddress) -> str:
    return f"{address.scheme}://{address.authority}{address.base_path}"


def check_database_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.match(r"postgres(ql)?://.", value.get_secret_value()):
        raise unusable("this is not the address of a PostgreSQL database", "write postgresql://user:password@host/name")
    return value


Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True)]
KiB: Final = 1024
MiB: Final = 1024 * KiB

ListenAddress = Annotated[
    Address, PlainValidator(parse_address), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
UpstreamUrl = Annotated[
    UpstreamAddress,
    PlainValidator(parse_upstream_url),
    PlainSerializer(write_upstream_url),
    WithJsonSchema({"type": "string", "format": "uri"}),
]
HostName = Annotated[
    str, StringConstraints(to_lower=True, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?$")
]
WebOrigin = Annotated[str, StringConstraints(pattern=r"^https?://(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{1,5})?$")]
PublicUrl = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?$")]
# RFC 9110 §5.6.4: what a quoted-string holds without escapes.
Realm = Annotated[str, StringConstraints(pattern=r"^[ !#-\[\]-~]{1,64}$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def read_empty_section(cls, value: object) -> object:
        """A heading whose fields are all commented out is null in YAML: it means the defaults."""
        return {} if value is None else value


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


class UpstreamSettings(Section):
    url: UpstreamUrl = Field(parse_upstream_address("http://127.0.0.1:3000"), description="where it listens")
    bearer_token: SecretStr | None = Field(None, description="our own credential towards this upstream")
    connect_timeout_seconds: Seconds = Field(5.0, ge=0.05, le=60, description="until a connection stands")
    headers_timeout_seconds: Seconds = Field(60.0, ge=0.05, le=3600, description="until the answer begins")
    idle_timeout_seconds: Seconds | None = Field(None, ge=1, le=86400, description="silence allowed inside an answer")
    resumable: bool = Field(False, strict=True, description="it keeps the events of each session apart")
    max_idle_connections: Count = Field(64, ge=0, le=10000, description="connections kept for the next request")
    keepalive_seconds: Seconds = Field(4.0, ge=0, le=3600, description="how long an idle connection is kept")

    @field_validator("bearer_token")
    @classmethod
    def fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        """RFC 6750 §2.1 b64token: nothing in it can end the header line."""
        if value is not None and not re.fullmatch(r"[0-9A-Za-z\-._~+/]+=*", value.get_secret_value()):
            raise unusable("this is not a bearer token", "give the token alone: no blanks, line ends or `Bearer `")
        return value


class UpstreamsSettings(Section):
    mcp: UpstreamSettings = Field(UpstreamSettings(), description="the MCP server")
    api: UpstreamSettings | None = Field(None, description="the platform's REST API; none: its routes answer 502")


class AfterLeavingSettings(Section):
    seconds: Seconds = Field(30.0, ge=0, le=600, description="how long it is read")
    bytes: Count = Field(4 * MiB, ge=0, le=256 * MiB, description="how much of it is read")


class ServerSettings(Section):
    max_connections: Count | None = Field(
        None, ge=1, le=1_000_000, description="of clients; null: as descriptors allow"
    )
    max_body_bytes: Count = Field(4 * MiB, ge=1 * KiB, le=256 * MiB, description="request body")
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


class Settings(Section):
    listen: ListenAddress = Field(Address("127.0.0.1", 8080), description="data listener, host:port")
    ops_listen: ListenAddress = Field(Address("127.0.0.1", 9090), description="health and metrics, never public")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the quietest line to write")
    policy: Path = Field(default_factory=lambda: find_shipped("policy.yaml"), description="the policy file")
    state_dir: Path = Field(Path("/var/lib/aegis-proxy"), description="where the embedded database lives")
    secret_key: SecretStr | None = Field(None, min_length=32, description="one secret shared by all instances")
    database: DatabaseSettings = Field(DatabaseSettings(), description="where keys live")
    upstreams: UpstreamsSettings = Field(UpstreamsSettings(), description="what we stand in front of")
    server: ServerSettings = Field(ServerSettings(), description="limits of the front door")
    hashing: HashingSettings = Field(HashingSettings(), description="what proving a secret costs")
    cache: CacheSettings = Field(CacheSettings(), description="what is remembered between requests")
    revocation: RevocationSettings = Field(RevocationSettings(), description="how fast a revoked key dies")
    sessions: SessionsSettings = Field(SessionsSettings(), description="MCP sessions of the upstream")

    @field_validator("ops_listen")
    @classmethod
    def stands_apart(cls, value: Address, info: ValidationInfo) -> Address:
        if value.port != 0 and value == info.data.get("listen"):
            raise unusable(
                "listen and ops_listen are the same address", "give the ops listener a port of its own", ("listen",)
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
