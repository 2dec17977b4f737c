"""One OpenAPI document for the SDKs, of two: the management API's own, and the platform's routes that the SDKs use.

`python -m sdk.assemble` writes `sdk/openapi.json`; a test holds that to be what this gives. Answers are described more
openly than their makers promise them, because a client of today has to read the answers of tomorrow: members may be
added, and words of an enumeration.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import proxy
from proxy.management.endpoints import ENDPOINTS
from proxy.management.openapi import form_document

HERE = Path(__file__).parent
DOCUMENT = HERE / "openapi.json"
SCHEMAS = "#/components/schemas/"
Schema = dict[str, Any]
# What users of an SDK see beside agents and workflows has to say by itself what it is.
RENAMED = {
    "Key": "ApiKey", "KeyPage": "ApiKeyPage", "NewKey": "MintedKey", "Grantables": "ScopeCatalogue",
    "Revocation": "Receipt", "Validation": "Identity", "Explained": "Explanation", "Session": "KeySession",
    "SessionList": "KeySessions", "Event": "AuditEvent", "EventPage": "AuditPage",
}  # fmt: skip
EXTENDING = {"MintedKey", "RotatedKey"}
# Words that are known today of an enumeration that may grow.
WORDS = "x-extensible-enum"


def assemble() -> str:
    """The text of `openapi.json`."""
    management, platform = form_document(ENDPOINTS, proxy.__version__), read_platform()
    schemas = {RENAMED.get(name, name): schema for name, schema in management["components"]["schemas"].items()}
    both = {"management": schemas, "platform": platform["components"]["schemas"]}
    assert not both["management"].keys() & both["platform"].keys()
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "AEGIS",
            "version": proxy.__version__,
            "description": "What the SDKs reach through the proxy: its own management API, and the platform's routes.",
        },
        "paths": {**management["paths"], **platform["paths"]},
        "components": {
            **management["components"],
            **platform["components"],
            "schemas": {**both["management"], **both["platform"]},
        },
    }
    document = rename(document)
    for name in find_answers(document):
        document["components"]["schemas"][name] = open_up(document["components"]["schemas"][name])
    extend(document["components"]["schemas"])
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_platform() -> Schema:
    document: Schema = YAML(typ="safe", pure=True).load(HERE / "platform.yaml")
    return document


def rename(part: Any) -> Any:  # noqa: ANN401 - JSON
    """With references to what is called otherwise here."""
    if isinstance(part, Mapping):
        return {name: rename(value) for name, value in part.items()}
    if isinstance(part, str) and part.startswith(SCHEMAS):
        name = part.removeprefix(SCHEMAS)
        return SCHEMAS + RENAMED.get(name, name)
    return [rename(each) for each in part] if isinstance(part, list | tuple) else part


def find_answers(document: Schema) -> set[str]:
    """The schemas that answers are made of."""
    shared = document["components"]["responses"]
    operations = [way for path in document["paths"].values() for name, way in path.items() if name != "parameters"]
    waiting = [name for way in operations for name in find_references([way["responses"], shared])]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += find_references(document["components"]["schemas"][name])
    return found


def find_references(part: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(part, Mapping):
        for value in part.values():
            yield from find_references(value)
    elif isinstance(part, list):
        for value in part:
            yield from find_references(value)
    elif isinstance(part, str) and part.startswith(SCHEMAS):
        yield part.removeprefix(SCHEMAS)


def strip(part: Any, words: Collection[str]) -> Any:  # noqa: ANN401 - JSON
    """Schemas without these words; members may be called like them."""
    if isinstance(part, list):
        return [strip(each, words) for each in part]
    if not isinstance(part, Mapping):
        return part
    return {
        name: {member: strip(schema, words) for member, schema in value.items()}
        if name in ("properties", "schemas")
        else strip(value, words)
        for name, value in part.items()
        if name not in words
    }


def open_up(schema: Schema) -> Schema:
    """Without what would make a client refuse an answer that says more."""
    opened: Schema = strip(name_words(schema), ("enum", "const", "title"))
    return strip(opened, ("additionalProperties",)) if schema.get("additionalProperties") is False else opened


def name_words(part: Any) -> Any:  # noqa: ANN401 - JSON
    """With the words of every enumeration as words that are known."""
    if isinstance(part, Mapping):
        named = {name: name_words(value) for name, value in part.items()}
        return {**named, WORDS: part["enum"]} if isinstance(part.get("enum"), list) else named
    return [name_words(each) for each in part] if isinstance(part, list) else part


def extend(schemas: Schema) -> None:
    """What is a key and more is said to be one, so that it may be given wherever a key may."""
    key = schemas["ApiKey"]["properties"]
    for name in EXTENDING & schemas.keys():
        schema = schemas[name]
        assert key.keys() <= schema["properties"].keys()
        more = {member: value for member, value in schema["properties"].items() if member not in key}
        required = [member for member in schema["required"] if member in more]
        beside = {"type": "object", "properties": more, "required": required}
        described = {"description": schema["description"]} if "description" in schema else {}
        schemas[name] = {**described, "allOf": [{"$ref": f"{SCHEMAS}ApiKey"}, beside]}


def main() -> None:
    DOCUMENT.write_text(assemble())


if __name__ == "__main__":
    main()
