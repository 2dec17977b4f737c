"""One stage for all tests of the SDK: a process with PostgreSQL, the sample platform and a proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.runner import Place, run_stage


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with run_stage() as place:
        yield place
