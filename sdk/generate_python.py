"""What of the package is made, not written: models, and the blocking client.

In: the OpenAPI document, and the asynchronous client. Out: `models.py` and `_sync/`, which
`python -m sdk.generate_python` writes; a test holds them to be what this gives.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from sdk.assemble import DOCUMENT, Schema, find_answers, strip

PACKAGE = Path(__file__).parent / "python" / "src" / "aegis_sdk"
RUFF = Path(sys.executable).with_name("ruff")
MODELS_HEAD = '''"""The API's answers, as they are on the wire. Made from `openapi.json` by `sdk/generate_python.py`."""

'''
# In this order; each is tried on what the ones before it left.
TO_BLOCKING = (
    (r"The asynchronous client, written by hand. [^\"]*", "The blocking client, made by `sdk/generate_python.py`."),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\banyio\.sleep\b", "time.sleep"),
    (r"\bimport anyio\b", "import time"),
    (r"\b_async\b", "_sync"),
    (r"\bform_async_pieces\b", "form_pieces"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bAsync([A-Z])", r"\1"),
    (r"\b__a(iter|next|enter|exit)__\b", r"__\1__"),
    (r"\ba(close|read)\b", r"\1"),
    (r"for item in page\.items:\s+yield item", "yield from page.items"),
)  # fmt: skip
# What is sent in a shape of its own.
GIVEN = {"Constraints"}
# What only the server checks.
BOUNDS = {
    "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "pattern", "title",
}  # fmt: skip
# `mcp()` is asynchronous in either client.
KEPT = re.compile(r"async with client\.mcp\(\)|AbstractAsyncContextManager")


def form_blocking(text: str) -> str:
    """A module of the asynchronous client as one of the blocking client."""
    kept: list[str] = []

    def put_by(match: re.Match[str]) -> str:
        kept.append(match.group())
        return f"\0{len(kept) - 1}\0"

    text = KEPT.sub(put_by, text)
    for pattern, replacement in TO_BLOCKING:
        text = re.sub(pattern, replacement, text)
    text = re.sub("\0(\\d+)\0", lambda match: kept[int(match.group(1))], text)
    return tidy(text)


def form_models() -> str:
    """The module of models: what is answered, and what is given in a shape of its own. The server judges, not we."""
    document = strip(json.loads(DOCUMENT.read_text()), BOUNDS)
    named = {*find_answers(document), *GIVEN}
    schemas = {name: schema for name, schema in document["components"]["schemas"].items() if name in named}
    head: Schema = {"openapi": "3.1.0", "info": document["info"], "paths": {}}
    command = [
        sys.executable, "-m", "datamodel_code_generator", "--input-file-type", "openapi",
        "--output-model-type", "pydantic_v2.BaseModel", "--base-class", "aegis_sdk.answers.Answer",
        "--target-python-version", "3.11", "--use-standard-collections", "--use-union-operator",
        "--use-schema-description", "--use-field-description", "--use-double-quotes", "--disable-timestamp",
        "--openapi-scopes", "schemas", "--strict-nullable", "--disable-warnings", "--formatters", "builtin",
    ]  # fmt: skip
    asked = json.dumps({**head, "components": {"schemas": schemas}})
    found = subprocess.run(command, input=asked, check=True, capture_output=True, text=True).stdout
    return tidy(MODELS_HEAD + found[found.index("from __future__") :])


def tidy(text: str) -> str:
    """As ruff writes it."""
    for arguments in (["check", "--quiet", "--select", "I,F401", "--fix-only"], ["format", "--quiet"]):
        command = [str(RUFF), *arguments, "--stdin-filename", str(PACKAGE / "made.py"), "-"]
        text = subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout
    return text


def list_made() -> dict[Path, str]:
    """Every made file and its content."""
    made = {PACKAGE / "models.py": form_models()}
    for source in sorted((PACKAGE / "_async").glob("*.py")):
        made[PACKAGE / "_sync" / source.name] = form_blocking(source.read_text())
    return made


def main() -> None:
    (PACKAGE / "_sync").mkdir(exist_ok=True)
    for path, text in list_made().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
