"""The private directory of the embedded PostgreSQL, without a server."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from pathlib import Path

import pytest

from proxy.embedded_directory import (
    Account,
    Postmaster,
    choose_socket_directory,
    claim_directory,
    copy_binaries,
    create_log,
    lock_exclusively,
    prepare_directory,
    read_postmaster,
)
from proxy.errors import DatabaseError

NOBODY = Account(pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
# The server's account passes through a root's directory; nobody reads it.
CLOSED = 0o710 if os.geteuid() == 0 else 0o700


def write_postmaster(home: Path, *lines: str) -> None:
    (home / "data").mkdir(exist_ok=True)
    (home / "data" / "postmaster.pid").write_text("\n".join(lines))


def make_data(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(home / "data", NOBODY.uid, NOBODY.gid)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """What a planted link points to: a directory with a file, both of somebody else."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "letter").write_text("private")
    return victim


def is_untouched(victim: Path) -> bool:
    owners = {entry.lstat().st_uid for entry in (victim, victim / "letter")}
    return (
        owners == {os.geteuid()} and os.listdir(victim) == ["letter"] and (victim / "letter").read_text() == "private"
    )


def test_a_claimed_directory_is_closed_to_everyone_else(tmp_path: Path) -> None:
    home = claim_directory(tmp_path / "new" / "database")
    assert stat.S_IMODE(home.stat().st_mode) == CLOSED
    home.chmod(0o755)
    (home / "owner.lock").touch()
    assert stat.S_IMODE(claim_directory(home).stat().st_mode) == CLOSED


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
    make_data(tmp_path)
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
        shutil.rmtree(sockets.parent)


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


def test_a_version_is_not_read_through_a_link(tmp_path: Path, victim: Path) -> None:
    make_data(tmp_path / "home")
    (tmp_path / "home" / "owner.lock").touch()
    (tmp_path / "home" / "data" / "PG_VERSION").symlink_to(victim / "letter")
    with pytest.raises(OSError, match="symbolic links") as refusal:
        claim_directory(tmp_path / "home")
    assert "private" not in str(refusal.value)


def test_a_log_takes_the_place_of_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "server.log").symlink_to(victim / "letter")
    os.close(create_log(tmp_path))
    assert stat.S_ISREG((tmp_path / "server.log").lstat().st_mode)
    assert is_untouched(victim)


def test_trees_are_removed_without_following_links_planted_meanwhile() -> None:
    assert shutil.rmtree.avoids_symlink_attacks


def test_binaries_are_not_copied_through_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "package" / "installation" / "bin").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "binaries").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        copy_binaries(tmp_path / "package" / "installation" / "bin", tmp_path / "home")
    assert is_untouched(victim)


def test_copied_binaries_stay_ours_and_can_be_read_and_run_by_all(tmp_path: Path) -> None:
    binaries = tmp_path / "package" / "installation" / "bin"
    binaries.mkdir(parents=True, mode=0o700)
    (binaries / "postgres").touch(mode=0o700)
    copy = copy_binaries(binaries, tmp_path / "home")
    for entry in (copy / "postgres", copy, copy.parent, copy.parent.parent, tmp_path / "home" / "binaries"):
        assert entry.stat().st_uid == os.geteuid()
        assert stat.S_IMODE(entry.stat().st_mode) == 0o755


@needs_root
def test_root_does_not_work_in_a_directory_of_the_account(tmp_path: Path, victim: Path) -> None:
    home = tmp_path / "home"
    make_data(home)
    (home / "owner.lock").touch()
    (home / "binaries").symlink_to(victim)
    os.chown(home, NOBODY.uid, NOBODY.gid)
    with pytest.raises(DatabaseError, match="belongs to another user"):
        claim_directory(home)
    assert home.stat().st_uid == NOBODY.uid
    assert is_untouched(victim)


@needs_root
@pytest.mark.parametrize(("uid", "gid", "mode"), [(NOBODY.uid, 0, 0o700), (0, NOBODY.gid, 0o770), (0, 0, 0o777)])
def test_root_does_not_work_below_a_directory_that_the_account_can_change(
    tmp_path: Path, uid: int, gid: int, mode: int
) -> None:
    make_data(tmp_path / "between" / "home")
    (tmp_path / "between" / "home" / "owner.lock").touch()
    os.chown(tmp_path / "between", uid, gid)
    (tmp_path / "between").chmod(mode)
    with pytest.raises(DatabaseError, match=r"can change .*between: choose another"):
        claim_directory(tmp_path / "between" / "home")


@needs_root
@pytest.mark.parametrize("target", ["/", "/nowhere/at/all", "."])
def test_data_that_is_a_link_makes_nobody_the_servers_account(tmp_path: Path, target: str) -> None:
    (tmp_path / "password").touch()
    (tmp_path / "data").symlink_to(target)
    with pytest.raises(DatabaseError, match="no directory of an unprivileged account"):
        prepare_directory(tmp_path)


@needs_root
def test_root_is_never_the_servers_account(tmp_path: Path) -> None:
    (tmp_path / "password").touch()
    (tmp_path / "data").mkdir()
    with pytest.raises(DatabaseError, match="no directory of an unprivileged account"):
        prepare_directory(tmp_path)


@needs_root
def test_the_servers_account_is_the_owner_of_the_data_with_its_own_group(tmp_path: Path) -> None:
    (tmp_path / "password").touch()
    make_data(tmp_path)
    os.chown(tmp_path / "data", NOBODY.uid, 0)
    assert prepare_directory(tmp_path) == NOBODY


@needs_root
@pytest.mark.parametrize("name", ["short", "x" * 100])
def test_the_account_gets_its_sockets_in_a_directory_that_stays_roots(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    sockets = choose_socket_directory(tmp_path / name, NOBODY)
    try:
        assert (sockets.stat().st_uid, stat.S_IMODE(sockets.stat().st_mode)) == (NOBODY.uid, 0o700)
        assert sockets.parent.stat().st_uid == 0
    finally:
        shutil.rmtree(sockets.parent)
