"""One OpenAPI document for the SDKs, of two: the management API's own, and the platform's routes that the SDKs use.

`python -m sdk.assemble` writes `sdk/openapi.json`; a test holds that to be what this gives. Answers are described more
openly than their makers promise them: a client of today has to read the answers of tomorrow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import proxy

HERE = Path(__file__).parent
DOCUMENT = HERE / "openapi.json"


def assemble() -> str:
    """The text of `openapi.json`."""
    platform = read_platform()
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "AEGIS",
            "version": proxy.__version__,
            "description": "What the SDKs reach through the proxy: its own management API, and the platform's routes.",
        },
        "paths": platform["paths"],
        "components": platform["components"],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_platform() -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(HERE / "platform.yaml")
    return document


def main() -> None:
    DOCUMENT.write_text(assemble())


if __name__ == "__main__":
    main()
