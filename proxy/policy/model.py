"""The shape of the policy file, as pydantic sees it, and the JSON Schema editors read.  [pure]

Plain values come in, a `PolicyFile` goes out. Only shape is known here: what the words mean is judged in `build`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

Text = Annotated[StrictStr, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]

# Stands in for what could not be read, so that the rest of a faulty file can be checked; never part of a policy.
UNREADABLE: Final = "\0unreadable"

LIFETIME: Final = r"never|[1-9][0-9]{0,3}d|[1-9][0-9]?y"
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def _get_shape(value: Any) -> str:  # noqa: ANN401 - anything a YAML file can hold
    """Which variant of a union is meant, so that a fault is reported once and not once for each variant."""
    if isinstance(value, list):
        return "list"
    return "map" if isinstance(value, dict | BaseModel) else "text"


def _get_scalar(value: Any) -> str | None:  # noqa: ANN401
    kinds = {str: "text", int: "number", bool: "flag"}
    return kinds.get(type(value))


Scalar = Annotated[
    Annotated[StrictStr, Tag("text")] | Annotated[StrictInt, Tag("number")] | Annotated[StrictBool, Tag("flag")],
    Discriminator(
        _get_scalar, custom_error_type="scalar", custom_error_message="must be a text, a whole number, true or false"
    ),
]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScopeEntry(_Entry):
    title: Text = Field(description="What holding this scope allows, in the words of the key page.")
    selector: Text | None = Field(default=None, description="What a selector names; without it there is none.")


class NamesEntry(_Entry):
    """Where the platform lists what a selector may name."""

    path: Text = Field(
        description="A path of an http route that takes GET, with its query: asked as whoever looks at the key page.",
        examples=["/v1/workflows"],
    )
    list: Text | None = Field(
        default=None,
        description="Where the answer holds the entries; dots lead inside. Without it the answer is the list.",
        examples=["workflows"],
    )
    name: Text = Field(description="The member of an entry that selectors name it by.", examples=["name"])
    title: Text | None = Field(default=None, description="The member that says in words which one it is.")


class PresetEntry(_Entry):
    title: Text
    extends: Text | None = Field(default=None, description="The preset whose scopes come first.")
    scopes: list[Text] = Field(description='Scopes of the catalogue, or "*".')


class TierEntry(_Entry):
    extends: Text | None = None
    scopes: list[Text]


class AnyOf(_Entry):
    any: Texts = Field(description="One of these scopes suffices.")


class ConditionEntry(_Entry):
    """Exactly one member. Texts may be {owner.tenant} or {owner.subject}."""

    absent_or: Scalar | None = None
    equals: Scalar | None = None
    one_of: Annotated[list[Scalar], Field(min_length=1)] | None = None


class NestedCallEntry(_Entry):
    """A call inside the arguments that must be allowed as well."""

    name: Text = Field(examples=["arguments.tool_name"])
    arguments: Text = Field(examples=["arguments.args"])


TextOrTexts = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Texts, Tag("list")],
    Discriminator(_get_shape, custom_error_type="text_or_list", custom_error_message="must be a text or a list"),
]
Require = Annotated[
    Annotated[Text, Tag("text")] | Annotated[Texts, Tag("list")] | Annotated[AnyOf, Tag("map")],
    Discriminator(_get_shape),
]
Where = Annotated[dict[Text, ConditionEntry], Field(min_length=1)]


class RuleEntry(_Entry):
    """One subject (http, rpc, tool, prompt, uri, or rpc with uri) and either `require` or `allow`."""

    id: Text | None = None
    http: Annotated[list[HttpMethod], Field(min_length=1)] | None = None
    rpc: TextOrTexts | None = None
    tool: TextOrTexts | None = None
    prompt: TextOrTexts | None = None
    uri: Text | None = None
    require: Require | None = None
    allow: Literal["any-key"] | None = None
    where: Where | None = None
    also_tool: NestedCallEntry | None = None
    lists_tools: Text | None = Field(
        default=None,
        description="The result of this tool lists tools: the member of structuredContent that holds the entries, each "
        "with a name. It is filtered like tools/list, and so is the same text. In any other result of the route, a "
        "list at that place whose entries have names is filtered as well.",
        examples=["tools", "catalogue.tools"],
    )


class RouteEntry(_Entry):
    id: Text
    path: Text = Field(description="A canonical path; {variable} is one segment, a final ** all the rest.")
    methods: Annotated[list[HttpMethod], Field(min_length=1)]
    upstream: Text
    protocol: Literal["mcp", "mcp-sse", "http"] = "http"
    messages: Text | None = Field(
        default=None, description="With protocol mcp-sse: the path of its POSTs; that of its GETs is `path`."
    )
    rpc_denials: Literal["json-rpc", "http-403"] = "json-rpc"
    require: Require | None = Field(default=None, description="For every method of an http route without rules.")
    allow: Literal["any-key", "anyone"] | None = Field(
        default=None, description="any-key: whatever it holds. anyone, on a whole http route: even without a key."
    )
    query: Where | None = Field(
        default=None, description="Conditions on members of the query, by name; tenant and user only pass with one."
    )
    repeatable: Texts | None = Field(default=None, description="Members of the query that may stand there twice.")
    rules: Annotated[list[RuleEntry], Field(min_length=1)] | None = None
    rules_of: Text | None = Field(default=None, description="The id of the route whose rules hold here too.")
    every_tool: Where | None = Field(default=None, description="Conditions on every tool call, besides its rule's own.")


def parse_lifetime(text: str) -> timedelta | None:
    """`90d`, `1y` (of 365 days), or None for `never`. Raises ValueError."""
    if re.fullmatch(LIFETIME, text) is None:
        raise ValueError("must be never, or days or years, such as 90d or 1y")
    if text == "never":
        return None
    return timedelta(days=int(text[:-1]) * (365 if text.endswith("y") else 1))


def describe_lifetime(lifetime: timedelta | None) -> str:
    """As messages say it."""
    return "never" if lifetime is None else f"{lifetime.days} days"


def _check_lifetime(text: str) -> str:
    parse_lifetime(text)
    return text


class PolicyFile(_Entry):
    version: Literal[1]
    default_tier: Text
    longest_expiry: Annotated[StrictStr, AfterValidator(_check_lifetime)] = Field(
        default="never",
        description="How long from now a key may live at most, whoever makes or changes it: never, 90d, 1y.",
        json_schema_extra={"pattern": f"^({LIFETIME})$"},
    )
    scopes: dict[Text, ScopeEntry]
    names: dict[Text, NamesEntry] = Field(
        default={}, description="By the words of a selector: where the key page gets the names that it offers for it."
    )
    presets: dict[Text, PresetEntry]
    tiers: dict[
        Text,
        Annotated[
            Annotated[list[Text], Tag("list")] | Annotated[TierEntry, Tag("map")],
            Discriminator(_get_shape, custom_error_type="list_or_map", custom_error_message="must be a list of scopes"),
        ],
    ]
    routes: list[RouteEntry]


ENTRIES: Final = (
    PolicyFile,
    ScopeEntry,
    NamesEntry,
    PresetEntry,
    TierEntry,
    RouteEntry,
    RuleEntry,
    ConditionEntry,
    NestedCallEntry,
    AnyOf,
)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema published as `config/policy.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Policy", **_get_plain_schema()}


def _get_plain_schema() -> dict[str, Any]:
    schema = PolicyFile.model_json_schema()
    return {name: value for name, value in schema.items() if name != "title"}
