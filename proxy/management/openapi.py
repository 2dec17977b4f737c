"""The OpenAPI 3.1 document of the management API, made from the very models and rows that serve it.  [pure]

In go the endpoints, out comes the document. What any request may be refused for stands at every endpoint, because
whoever writes a client has to expect it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from proxy.challenges import TABLE
from proxy.errors import Reason
from proxy.management.endpoints import Endpoint
from proxy.management.preconditions import IDEMPOTENCY_KEY, IF_MATCH
from proxy.management.shown import Key, Problem

REFERENCE: Final = "#/components/schemas/{model}"
ANY_REQUEST: Final = (
    Reason.CREDENTIAL_MISPLACED, Reason.QUERY_NOT_ALLOWED, Reason.BODY_UNEXPECTED, Reason.HEADER_INVALID,
    Reason.ORIGIN_NOT_ALLOWED, Reason.METHOD_NOT_ALLOWED, Reason.BODY_TIMEOUT, Reason.BODY_TOO_LARGE,
    Reason.EXPECTATION_FAILED, Reason.HOST_NOT_ALLOWED, Reason.HEAD_TOO_LARGE,
    Reason.TRANSFER_ENCODING_UNSUPPORTED, Reason.STATE_UNKNOWN, Reason.HTTP_VERSION_UNSUPPORTED,
)  # fmt: skip
ANY_CALLER: Final = (
    Reason.CREDENTIAL_MISSING, Reason.CREDENTIAL_INVALID, Reason.ADDRESS_NOT_ALLOWED, Reason.RATE_EXCEEDED,
    Reason.TOO_MANY_FAILURES,
)  # fmt: skip
ANY_BODY: Final = (Reason.MESSAGE_UNREADABLE, Reason.CONTENT_TYPE_UNSUPPORTED, Reason.INPUT_INVALID)
ANY_TOKEN: Final = (Reason.OWNER_UNKNOWN, Reason.TENANT_MISMATCH)
IDS: Final = {
    "api-keys": {"type": "string", "pattern": "^[0-9A-Za-z]{12}$"},
    "owners": {"type": "string", "format": "uuid"},
}


def form_document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """`version`: the proxy's."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _form_operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Aegis MCP Proxy: management of API keys", "version": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _form_schemas(endpoints),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key that holds the scope of the operation, or a token of the configured"
                    " identity provider.",
                }
            },
        },
    }


def _form_schemas(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for endpoint in endpoints:
        if endpoint.body is not None:
            wanted[endpoint.body, "validation"] = None
        for answer in chain(*endpoint.answers.values()):
            wanted[answer, "serialization"] = None
    _, schema = models_json_schema(list(wanted), ref_template=REFERENCE)
    return dict(sorted(schema["$defs"].items()))


def _form_operation(endpoint: Endpoint) -> dict[str, Any]:
    takes = f" Takes the scope `{endpoint.scope}`." if endpoint.scope is not None else ""
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": f"{endpoint.summary}{takes}",
        "security": [] if endpoint.asker == "nobody" else [{"bearer": []}],
        "responses": _form_responses(endpoint),
    }
    parameters = _form_parameters(endpoint)
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {"application/json": {"schema": _refer(endpoint.body)}}
        operation["requestBody"] = {"required": not endpoint.body_optional, "content": content}
    return operation


def _form_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": IDS[endpoint.path.split("/")[2]]}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    if endpoint.idempotent:
        parameters.append(_form_header("Idempotency-Key", "A word of the caller's for this request.", IDEMPOTENCY_KEY))
    if endpoint.conditional:
        parameters.append(_form_header("If-Match", "The ETag of the key as the caller knows it.", IF_MATCH))
    if endpoint.query is not None:
        properties = endpoint.query.model_json_schema(ref_template=REFERENCE)["properties"]
        parameters += [
            {
                "name": name, "in": "query", "required": False, "schema": _drop_null(schema),
                **({"style": "form", "explode": False} if _is_list(schema) else {}),
            }
            for name, schema in properties.items()
        ]  # fmt: skip
    return parameters


def _form_header(name: str, description: str, pattern: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _drop_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: what is not given is left out."""
    kept = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    if rest.get("default", 0) is None:
        del rest["default"]
    return {**rest, **kept[0]} if len(kept) == 1 else {**rest, **({"anyOf": kept} if kept else {})}


def _is_list(schema: dict[str, Any]) -> bool:
    return _drop_null(schema).get("type") == "array"


def _form_responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): _form_success(endpoint, models) for status, models in sorted(endpoint.answers.items())
    }
    if not responses:
        responses["200"] = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
    for status, reasons in _group(_list_reasons(endpoint)).items():
        responses[str(status)] = {
            "description": "; ".join(f"`{reason}`: {TABLE[reason].title}" for reason in reasons) + ".",
            "content": {"application/problem+json": {"schema": _refer(Problem)}},
        }
    return responses


def _form_success(endpoint: Endpoint, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    schemas = [_refer(model) for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    success: dict[str, Any] = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    headers = {
        **({"ETag": "The key's version, for If-Match."} if any(issubclass(one, Key) for one in models) else {}),
        **(
            {"Idempotent-Replay": "true: it was done before, and no token is shown again."}
            if endpoint.idempotent
            else {}
        ),
    }
    if headers:
        text = {"schema": {"type": "string"}}
        success["headers"] = {name: {"description": words, **text} for name, words in headers.items()}
    return success


def _list_reasons(endpoint: Endpoint) -> Iterable[Reason]:
    yield from ANY_REQUEST
    if endpoint.asker != "nobody":
        yield from (*ANY_CALLER, *ANY_TOKEN)
    if endpoint.asker == "admin":
        yield Reason.ROLE_MISSING
    if endpoint.body is not None:
        yield from ANY_BODY
    if endpoint.query is not None or endpoint.idempotent or endpoint.conditional:
        yield Reason.INPUT_INVALID
    if endpoint.scope is not None:
        yield Reason.SCOPE_MISSING
    yield from endpoint.refusals


def _group(reasons: Iterable[Reason]) -> dict[int, list[Reason]]:
    grouped: dict[int, list[Reason]] = {}
    for reason in dict.fromkeys(reasons):
        grouped.setdefault(TABLE[reason].status, []).append(reason)
    return dict(sorted(grouped.items()))


def _refer(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}
