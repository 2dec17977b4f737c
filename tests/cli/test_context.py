"""What every command needs before it can begin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from proxy.cli.context import (
    find_database_url,
    get_actor,
    get_postgres_directory,
    open_database,
    read_since,
    with_database,
)
from proxy.embedded_postgres import run_embedded_postgres
from proxy.errors import ConfigError
from proxy.settings import load_settings

URL = "postgresql://ada:hunter2@db.test/aegis"


def test_the_configured_database_is_used() -> None:
    assert find_database_url(load_settings(None, {"AEGIS_DATABASE_URL": URL})) == URL


def test_without_one_and_without_a_proxy_on_this_machine_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^AEGIS_DATABASE_URL: there is no database to talk to \(set AEGIS"):
        find_database_url(load_settings(None, {"AEGIS_STATE_DIR": str(tmp_path)}))


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Not below pytest's own directory: that one is closed to the account a root's server runs as."""
    with tempfile.TemporaryDirectory(prefix="aegis-test-") as parent:
        Path(parent).chmod(0o755)
        yield Path(parent)


async def test_the_embedded_database_of_a_running_proxy_is_found(state_dir: Path) -> None:
    settings = load_settings(None, {"AEGIS_STATE_DIR": str(state_dir)})
    directory = get_postgres_directory(settings)
    async with run_embedded_postgres(directory) as postgres:
        assert find_database_url(settings) == postgres.url
        async with open_database(settings) as database:
            assert (await database.fetch("SELECT 1"))[0][0] == 1
    with pytest.raises(ConfigError):
        find_database_url(settings)


def test_another_database_replaces_both_addresses_and_stays_out_of_sight() -> None:
    listener = "postgresql://ada:hunter2@primary.test/aegis"
    settings = load_settings(None, {"AEGIS_DATABASE_URL": URL, "AEGIS_LISTENER_DATABASE_URL": listener})
    changed = with_database(settings, "postgresql://embedded:hunter2@/postgres?host=/tmp/x")
    assert find_database_url(changed) == "postgresql://embedded:hunter2@/postgres?host=/tmp/x"
    assert changed.database.listening_url == changed.database.url
    assert "hunter2" not in repr(changed)


def test_the_actor_is_who_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    assert get_actor() == "cli:ada"


@pytest.mark.parametrize(
    ("text", "ago"), [("30m", timedelta(minutes=30)), ("24h", timedelta(hours=24)), ("7d", timedelta(days=7))]
)
def test_a_moment_is_told_by_how_long_ago_it_was(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    assert before - ago <= read_since(text) <= datetime.now(UTC) - ago


@pytest.mark.parametrize(
    "text", ["2026-11-24", "2026-11-24T00:00", "2026-11-24T00:00:00Z", "2026-11-24T02:00:00+02:00"]
)
def test_a_moment_is_told_by_its_date(text: str) -> None:
    assert read_since(text) == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "-1h", "99999d", "24 h", "١h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_since(text)
