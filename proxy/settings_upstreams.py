"""What we stand in front of, as the operator decided.  [pure]

In go the values of the section `upstreams`, out comes a frozen value or a fault with its mend, as for every other
section. How an upstream is spoken to is not known here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from proxy.headers import HOP_BY_HOP, JUDGED
from proxy.settings_shapes import FRAMING, Audience, Count, HeaderName, Seconds, Section, UpstreamUrl, unusable
from proxy.settings_source import ABSENT
from proxy.upstream_address import parse_upstream_address
from proxy.upstream_identity import Claim


def read_absence(value: object) -> object:
    """An empty heading means the defaults, so that absence needs a word."""
    return None if value == ABSENT else {} if value is None else value


def name_absence(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"const": ABSENT} if variant == {"type": "null"} else variant for variant in schema["anyOf"]]


class TlsSettings(Section):
    ca_file: Path | None = Field(None, description="PEM: whom to trust; none: the system's authorities")
    client_certificate_file: Path | None = Field(None, description="PEM: who we are, for upstreams that ask")
    client_key_file: Path | None = Field(None, description="PEM, unencrypted: its private key")

    @field_validator("client_key_file")
    @classmethod
    def belongs_to_a_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("client_certificate_file") is None):
            cause = ("upstreams",)
            raise unusable("a client certificate and its key come together", "set both files or neither", cause)
        return value


class IdentitySettings(Section):
    profile: Literal["none", "assertion", "headers"] = Field("none", description="how it learns who is asking")
    header: HeaderName = Field("X-Zaru-User-Token", description="of profile assertion: the header that carries it")
    audience: Audience | None = Field(None, description="of profile assertion: `aud`; null: this upstream's name")
    headers: dict[HeaderName, Claim] = Field({}, description="of profile headers: what each of them says")

    @field_validator("header", "headers")
    @classmethod
    def is_ours_to_say(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for name in [value] if isinstance(value, str) else value:
            lowered = name.lower()
            if lowered in HOP_BY_HOP | JUDGED | FRAMING or lowered.startswith("mcp-"):
                raise unusable("this header has a meaning of its own", "choose a name such as X-User-Id")
        return value

    @field_validator("headers")
    @classmethod
    def says_something(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if (info.data.get("profile") == "headers") != bool(value):
            raise unusable(
                "profile headers and the list of headers come together",
                "write headers: { X-User-Id: sub, … } with profile: headers, and nowhere else",
                ("upstreams",),
            )
        if len({name.lower() for name in value}) < len(value):
            raise unusable("a header is named twice", "header names are the same in every case: keep one of them")
        return value


class UpstreamSettings(Section):
    url: UpstreamUrl = Field(parse_upstream_address("http://127.0.0.1:3000"), description="where it listens")
    bearer_token: SecretStr | None = Field(None, description="our own credential towards this upstream")
    identity: IdentitySettings = Field(IdentitySettings(), description="how it learns who is asking")
    tls: TlsSettings = Field(TlsSettings(), description="for https")
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

    @field_validator("identity")
    @classmethod
    def leaves_the_credential_alone(cls, value: IdentitySettings, info: ValidationInfo) -> IdentitySettings:
        names = {value.header} if value.profile == "assertion" else set(value.headers)
        if info.data.get("bearer_token") is not None and "authorization" in {name.lower() for name in names}:
            raise unusable("bearer_token and identity both want the Authorization header", "keep one of them")
        return value

    @field_validator("tls")
    @classmethod
    def has_a_use(cls, value: TlsSettings, info: ValidationInfo) -> TlsSettings:
        url = info.data.get("url")
        if value != TlsSettings() and url is not None and url.scheme != "https":
            raise unusable("tls is set for an upstream without TLS", "write https:// in its url, or take tls out")
        return value


class UpstreamsSettings(Section):
    mcp: Annotated[UpstreamSettings | None, BeforeValidator(read_absence)] = Field(
        UpstreamSettings(), description="the MCP server; none: its routes answer 502", json_schema_extra=name_absence
    )
    api: UpstreamSettings | None = Field(None, description="the platform's REST API; none: its routes answer 502")

    @property
    def configured(self) -> dict[str, UpstreamSettings]:
        """Those that are there, by the names that routes use."""
        named = {"mcp": self.mcp, "api": self.api}
        return {name: upstream for name, upstream in named.items() if upstream is not None}

    @field_validator("api")
    @classmethod
    def leaves_something(cls, value: UpstreamSettings | None, info: ValidationInfo) -> UpstreamSettings | None:
        if value is None and "mcp" in info.data and info.data["mcp"] is None:
            raise unusable("there is no upstream at all", "configure upstreams.mcp or upstreams.api", ("upstreams",))
        return value
