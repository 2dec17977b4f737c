"""One stage for all tests of the SDKs, a process with PostgreSQL, the sample platform and a proxy; and the packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.packages import build_tarball, build_wheel, install_wheel
from tests.sdk.runner import Place, run_stage


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with run_stage() as place:
        yield place


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel."""
    return install_wheel(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tarball(tmp_path_factory.mktemp("tarball"))
