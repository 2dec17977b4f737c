"""The command of each test, on a database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, form_environment
from tests.cli.nursery import Nursery, run_nursery
from tests.ear import Ear


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with run_nursery({"PATH": os.environ["PATH"]}) as nursery:
        yield nursery


@pytest.fixture
def aegis(database_url: str, tmp_path: Path, ear: Ear, nursery: Nursery) -> Command:
    """On a migrated database."""
    return Command(form_environment(database_url, tmp_path), ear, nursery)


@pytest.fixture
def early(empty_database_url: str, tmp_path: Path, ear: Ear, nursery: Nursery) -> Command:
    """On a database without a schema."""
    return Command(form_environment(empty_database_url, tmp_path), ear, nursery)
