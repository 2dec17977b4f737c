"""The private directory of the embedded PostgreSQL, without a server."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from proxy.embedded_directory import (
    Postmaster,
    choose_socket_directory,
    claim_directory,
    lock_exclusively,
    prepare_directory,
    read_postmaster,
)
from proxy.errors import DatabaseError


def write_postmaster(home: Path, *lines: str) -> None:
    (home / "data").mkdir(exist_ok=True)
    (home / "data" / "postmaster.pid").write_text("\n".join(lines))


def test_a_claimed_directory_is_closed_to_everyone_else(tmp_path: Path) -> None:
    home = claim_directory(tmp_path / "new" / "database")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o755)
    (home / "owner.lock").touch()
    assert stat.S_IMODE(claim_directory(home).stat().st_mode) == 0o700


def test_only_one_may_hold_a_lock_until_it_is_closed(tmp_path: Path) -> None:
    first = lock_exclusively(tmp_path / "lock")
    assert first is not None
    assert lock_exclusively(tmp_path / "lock") is None
    os.close(first)
    second = lock_exclusively(tmp_path / "lock")
    assert second is not None
    os.close(second)


def test_a_lock_is_not_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock_exclusively(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_gets_one_password_for_the_life_of_its_data(tmp_path: Path) -> None:
    prepare_directory(tmp_path)
    password = (tmp_path / "password").read_text()
    assert len(password) == 43
    (tmp_path / "data").mkdir()
    prepare_directory(tmp_path)
    assert (tmp_path / "password").read_text() == password
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


def test_data_without_its_password_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DatabaseError, match="password is missing"):
        prepare_directory(tmp_path)


@pytest.mark.parametrize("name", ["x" * 100, "a,b", "a b", "ä", "a'b"])
def test_a_name_that_does_not_fit_a_socket_address_gets_a_short_directory(tmp_path: Path, name: str) -> None:
    sockets = choose_socket_directory(tmp_path / name, None)
    try:
        assert sockets.parent != tmp_path
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(sockets)


def test_a_short_plain_name_holds_its_own_socket() -> None:
    assert choose_socket_directory(Path("/srv/aegis-1/postgres"), None) == Path("/srv/aegis-1/postgres")


def test_a_server_is_known_once_it_says_that_it_is_ready(tmp_path: Path) -> None:
    assert read_postmaster(tmp_path) is None
    write_postmaster(tmp_path, "12", "/d", "1", "5432", "/s", "", "1 2")
    assert read_postmaster(tmp_path) is None
    write_postmaster(tmp_path, "12", "/d", "1", "5432", "/s", "", "1 2", "starting")
    assert read_postmaster(tmp_path) is None
    write_postmaster(tmp_path, "12", "/d", "1", "5432", "/s", "", "1 2", "ready   ")
    assert read_postmaster(tmp_path) == Postmaster(12, Path("/s"))
