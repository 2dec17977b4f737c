"""Who may manage keys over HTTP, as the operator decided.  [pure]

In go the values of the section `management`, out comes a frozen value or a fault with its mend, as for every other
section. What a token is worth is not known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from proxy.provider_documents import Algorithm, check_provider_url
from proxy.settings_shapes import Audience, Seconds, Section, unusable


def check_setting(value: str) -> str:
    try:
        return check_provider_url(value)
    except ValueError as error:
        raise unusable("this is not the address of an identity provider", str(error)) from None


ProviderUrl = Annotated[str, StringConstraints(max_length=1024, pattern=r"^https?://"), AfterValidator(check_setting)]


class IdentityProviderSettings(Section):
    issuer: ProviderUrl = Field(description="`iss`, letter for letter; owners carry it")
    audience: Audience = Field(description="`aud`: the name under which the provider knows this management API")
    jwks_url: ProviderUrl | None = Field(None, description="where its public keys are; null: as its metadata says")
    algorithms: tuple[Algorithm, ...] = Field(("RS256", "ES256"), description="how its tokens are signed")
    ca_file: Path | None = Field(None, description="PEM: whom to trust; null: the system's authorities")
    leeway_seconds: Seconds = Field(30.0, ge=0, le=300, description="how far its clock may be ahead of ours")
    timeout_seconds: Seconds = Field(5.0, ge=0.1, le=60, description="until its public keys must be read")
    refresh_seconds: Seconds = Field(300.0, ge=10, le=86_400, description="the age at which they are read again")
    keep_seconds: Seconds = Field(3600.0, ge=10, le=604_800, description="the age until which they may be used")

    @field_validator("algorithms")
    @classmethod
    def allow_something(cls, value: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        if not value:
            raise unusable("no algorithm is allowed", "name those that the provider signs with")
        return value

    @field_validator("keep_seconds")
    @classmethod
    def outlasts_a_refresh(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("refresh_seconds", 0):
            cause = ("management", "identity_provider", "refresh_seconds")
            raise unusable("keep_seconds is shorter than refresh_seconds", "raise the one or lower the other", cause)
        return value


class ManagementSettings(Section):
    identity_provider: IdentityProviderSettings | None = Field(
        None, description="whose tokens manage keys; null: nobody's, API keys alone do"
    )
