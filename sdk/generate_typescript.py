"""What of the TypeScript package is made, not written: the models.

In: the OpenAPI document. Out: `src/models.ts`, which `python -m sdk.generate_typescript` writes; a test holds it to be
what this gives. Interfaces, one for each schema, are what one reads in an editor; a generator for any document would
give paths into one large type instead.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

from sdk.assemble import DOCUMENT, SCHEMAS, WORDS, Schema, find_answers
from sdk.generate_python import GIVEN

PACKAGE = Path(__file__).parent / "typescript"
MODELS = PACKAGE / "src" / "models.ts"
HEAD = "// The API's answers, as they are on the wire. Made from `openapi.json` by `sdk/generate_typescript.py`.\n"
WIDTH = 120
PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def form_models() -> str:
    """The module of models: what is answered, and what is given in a shape of its own."""
    document = json.loads(DOCUMENT.read_text())
    named = {*find_answers(document), *GIVEN}
    schemas = {name: schema for name, schema in document["components"]["schemas"].items() if name in named}
    return "\n".join([HEAD, *(form_interface(name, schema) for name, schema in schemas.items())])


def form_interface(name: str, schema: Schema) -> str:
    """One schema. What is made of another one and more extends it."""
    more: list[Schema] = schema.get("allOf", [schema])
    bases = [form_type(part) for part in more if "$ref" in part]
    extending = f" extends {', '.join(bases)}" if bases else ""
    members = [
        form_member(word if word in part.get("required", []) else f"{word}?", member)
        for part in more
        for word, member in part.get("properties", {}).items()
    ]
    body = "{\n" + "".join(members) + "}" if members else "{}"
    return f"{form_comment(schema.get('description'))}export interface {name}{extending} {body}\n"


def form_member(word: str, schema: Schema) -> str:
    return f"{form_comment(schema.get('description'), '  ')}  {word}: {form_type(schema)};\n"


def form_type(schema: Schema) -> str:
    """The type of what a schema describes."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(SCHEMAS)
    if WORDS in schema:
        # Known words are offered, and others are none the less words.
        return " | ".join([*(json.dumps(word) for word in schema[WORDS]), "(string & {})"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " | ".join(dict.fromkeys(form_type(each) for each in schema[several]))
    kind = schema.get("type")
    if kind == "array":
        item = form_type(schema["items"])
        return f"({item})[]" if " " in item else f"{item}[]"
    if kind == "object":
        values = schema.get("additionalProperties", {})
        return f"Record<string, {form_type(values) if isinstance(values, dict) else 'unknown'}>"
    return PLAIN[kind] if kind else "unknown"


def form_comment(text: str | None, indent: str = "") -> str:
    """As editors show it beside the name."""
    if not text:
        return ""
    text = re.sub(r"\s+", " ", text.replace("*/", "*\\/"))
    if len(line := f"{indent}/** {text} */") <= WIDTH:
        return line + "\n"
    lines = textwrap.wrap(text, WIDTH, initial_indent=f"{indent} * ", subsequent_indent=f"{indent} * ")
    return "\n".join([f"{indent}/**", *lines, f"{indent} */", ""])


def main() -> None:
    MODELS.write_text(form_models())


if __name__ == "__main__":
    main()
