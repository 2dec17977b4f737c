"""The page Settings → API Keys, as the operator decided.  [pure]

In go the values of the section `console`, out comes a frozen value or a fault with its mend, as for every other.
"""

from __future__ import annotations

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from proxy.settings_shapes import Audience, Seconds, Section, unusable


class ConsoleSettings(Section):
    enabled: bool = Field(True, strict=True, description="whether there is the page /settings/api-keys")
    client_id: Audience | None = Field(None, description="as the identity provider knows the page; null: API keys only")
    client_secret: SecretStr | None = Field(None, min_length=1, description="of that client; null: it has none")
    idle_seconds: Seconds = Field(1800.0, ge=60, le=86_400, description="unused sign-in before it ends")
    absolute_seconds: Seconds = Field(43_200.0, ge=300, le=604_800, description="the longest a sign-in lasts")

    @field_validator("client_secret")
    @classmethod
    def belongs_to_a_client(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and info.data.get("client_id") is None:
            raise unusable("client_secret is set, but no client_id", "set both or neither", ("console",))
        return value

    @field_validator("absolute_seconds")
    @classmethod
    def outlasts_idleness(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("idle_seconds", 0):
            cause = ("console", "idle_seconds")
            raise unusable("absolute_seconds is shorter than idle_seconds", "raise the one or lower the other", cause)
        return value
