"""What of the package is made, not written: models from the OpenAPI document, the blocking client from the other one.

`python sdk/python/generate.py` writes both; a test holds them to be what this gives.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE / "src" / "aegis_sdk"
DOCUMENT = HERE.parent / "openapi.json"
RUFF = Path(sys.executable).with_name("ruff")
MODELS_HEAD = '''"""The API's answers, as they are on the wire. Made from `sdk/openapi.json` by `generate.py`."""

'''
# In this order; each is tried on what the ones before it left.
TO_BLOCKING = (
    (r"The asynchronous client, written by hand. [^\"]*", "The blocking client, made from `_async` by `generate.py`."),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\banyio\.sleep\b", "time.sleep"),
    (r"\bimport anyio\b", "import time"),
    (r"\b_async\b", "_sync"),
    (r"\bform_async_pieces\b", "form_pieces"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b_?Async([A-Z])", r"\1"),
    (r"\b__a(iter|next|enter|exit)__\b", r"__\1__"),
    (r"\ba(close|read)\b", r"\1"),
    (r"for item in page\.items:\s+yield item", "yield from page.items"),
)  # fmt: skip
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
    """The module of models."""
    command = [
        sys.executable, "-m", "datamodel_code_generator",
        "--input", str(DOCUMENT), "--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel",
        "--target-python-version", "3.11", "--use-standard-collections", "--use-union-operator", "--use-annotated",
        "--use-schema-description", "--use-field-description", "--use-double-quotes", "--disable-timestamp",
        "--extra-fields", "allow", "--enum-field-as-literal", "all", "--openapi-scopes", "schemas",
        "--strict-nullable", "--collapse-root-models", "--disable-warnings", "--formatters", "builtin",
    ]  # fmt: skip
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    body = found[found.index("from __future__") :]
    return tidy(MODELS_HEAD + body)


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
