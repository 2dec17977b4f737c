"""The command of each test, on a database of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Command, form_environment
from tests.ear import Ear


@pytest.fixture
def aegis(database_url: str, tmp_path: Path, ear: Ear) -> Command:
    """On a migrated database."""
    return Command(form_environment(database_url, tmp_path), ear)


@pytest.fixture
def early(empty_database_url: str, tmp_path: Path, ear: Ear) -> Command:
    """On a database without a schema."""
    return Command(form_environment(empty_database_url, tmp_path), ear)
