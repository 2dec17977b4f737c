"""What is made and not written is what would be made now."""

from __future__ import annotations

import aegis_sdk
import proxy
from sdk.assemble import DOCUMENT, assemble
from sdk.generate_python import PACKAGE, list_made


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


def test_its_version_is_the_proxys() -> None:
    assert aegis_sdk.__version__ == proxy.__version__
