"""What is made and not written is what would be made now."""

from __future__ import annotations

import json
import re

import pytest

import aegis_sdk
import proxy
from sdk import generate_typescript
from sdk.assemble import DOCUMENT, assemble
from sdk.generate_python import PACKAGE, list_made
from tests.sdk.runner import ROOT


def test_the_document_is_what_its_parts_make() -> None:
    assert DOCUMENT.read_text() == assemble(), "make sdk"


def test_models_and_the_blocking_client_are_what_they_are_made_from() -> None:
    made = list_made()
    assert {path: path.read_text() for path in made} == made, "make sdk"
    assert {path.name for path in (PACKAGE / "_sync").glob("*.py")} == {
        path.name for path in (PACKAGE / "_async").glob("*.py")
    }


def test_nothing_of_the_blocking_client_waits() -> None:
    for path in (PACKAGE / "_sync").glob("*.py"):
        code = path.read_text().replace("AbstractAsyncContextManager", "").replace("async with client.mcp()", "")
        assert not [word for word in ("await ", "async ", "Async", "anyio") if word in code], path


def test_the_typescript_models_are_what_they_are_made_from() -> None:
    assert generate_typescript.MODELS.read_text() == generate_typescript.form_models(), "make sdk"


def test_both_languages_have_the_same_models() -> None:
    python = set(re.findall(r"^class (\w+)", (PACKAGE / "models.py").read_text(), re.MULTILINE))
    typescript = set(re.findall(r"^export interface (\w+)", generate_typescript.MODELS.read_text(), re.MULTILINE))
    assert python == typescript


def test_their_versions_are_the_proxys() -> None:
    described, locked = (
        json.loads((generate_typescript.PACKAGE / name).read_text()) for name in ("package.json", "package-lock.json")
    )
    versions = {aegis_sdk.__version__, described["version"], locked["version"], locked["packages"][""]["version"]}
    assert versions == {proxy.__version__}


@pytest.mark.parametrize("folder", ["sdk/typescript", "tests/sdk/oldest_node", "tests/conformance"])
def test_a_lock_of_npm_names_no_registry_and_every_hash(folder: str) -> None:
    locked = json.loads((ROOT / folder / "package-lock.json").read_text())
    packages = {name: package for name, package in locked["packages"].items() if name}
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if not package.get("integrity")]
