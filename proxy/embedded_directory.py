"""The private directory of an embedded PostgreSQL: whose it is, who may use it, how to get in.  [io]

In: a path, or None for a throw-away one. Out: a directory closed to others, with a password, locks, a log and a place
for the data. Nothing outside of it is changed, and a directory that holds anything else is refused.
Run as root, the server is somebody else, whom we do not trust: the directory and all in it stay root's, except `data`
and `sockets`, and in these two root writes nothing. So no link planted there can lead root anywhere.
Refuses to know: processes. All of it is short blocking work on files: callers in an event loop use a thread.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import secrets
import shutil
import socket
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import DatabaseError

MAJOR_VERSION = "18"
USER = "aegis"
UNPRIVILEGED_ACCOUNTS = ("postgres", "nobody")
# `sockaddr_un` holds 108 bytes on Linux, 104 elsewhere, of which "/.s.PGSQL.5432" takes 14. A comma would read as a
# list in `unix_socket_directories` and in URLs, a space would need quoting in both.
SOCKET_DIRECTORY = re.compile(r"[\w./-]{1,88}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as, when we are root: PostgreSQL refuses uid 0."""

    uid: int
    gid: int


def claim_directory(directory: Path | None) -> Path:
    """Make the directory, or check that an existing one is ours; closed to others either way."""
    if directory is None:
        return _make_temporary("aegis-postgres-", choose_account(None))
    home = directory.resolve()
    _check_version(home / "data" / "PG_VERSION")
    account = choose_account(home / "data")
    _check_way(home.parent, account)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = home.stat().st_uid
    if owner != os.geteuid():
        raise DatabaseError(
            f"{home} belongs to another user (uid {owner}): choose another directory, or chown this one"
        )
    entries = {entry.name for entry in home.iterdir()}
    if entries and "owner.lock" not in entries:
        raise DatabaseError(f"{home} holds other files: give the embedded PostgreSQL a directory of its own")
    _close(home, account)
    return home


def _check_version(version_file: Path) -> None:
    found = (_read_start(version_file) or MAJOR_VERSION).strip()
    if found != MAJOR_VERSION:
        raise DatabaseError(
            f"{version_file.parent} was written by PostgreSQL {found}, this server is {MAJOR_VERSION}: "
            "dump it with the old version and restore it here, or choose another directory"
        )


def _read_start(path: Path) -> str | None:
    """The first 4 kB of a file of the server's account: no link is followed, no pipe waited for. None: no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    finally:
        os.close(descriptor)


def _check_way(directory: Path, account: Account | None) -> None:
    """Root works in a directory by name: the account must not be able to put another one in the place of any part."""
    if account is None:
        return
    for place in (directory, *directory.parents):
        if place.exists() and _may_rename_in(place.stat(), account):
            raise DatabaseError(f"uid {account.uid}, which the server is to run as, can change {place}: choose another")


def _may_rename_in(place: os.stat_result, account: Account) -> bool:
    writable = place.st_mode & stat.S_IWOTH or (place.st_gid == account.gid and place.st_mode & stat.S_IWGRP)
    return place.st_uid == account.uid or bool(writable and not place.st_mode & stat.S_ISVTX)


def _make_temporary(prefix: str, account: Account | None) -> Path:
    parent = Path(tempfile.gettempdir()).resolve()
    _check_way(parent, account)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _close(directory, account)
    return directory


def _close(directory: Path, account: Account | None) -> None:
    """Ours alone; the account may pass through it to what is its own, but not list or change it."""
    if account is None:
        directory.chmod(0o700)
    else:
        os.chown(directory, 0, account.gid)
        directory.chmod(stat.S_IRWXU | stat.S_IXGRP)


def lock_for_owner(home: Path) -> int:
    """The lock of the one process that may run a server here; freed by the kernel however that process ends."""
    lock = lock_exclusively(home / "owner.lock")
    if lock is None:
        raise DatabaseError(
            f"another process is running the embedded PostgreSQL in {home}: stop it, or set another AEGIS_STATE_DIR"
        )
    return lock


def lock_exclusively(path: Path) -> int | None:
    """An exclusive lock as an open file descriptor; None while someone else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def prepare_directory(home: Path) -> Account | None:
    """Whom the server runs as. Without data: also a password, and `data.new` for `initdb` to fill."""
    data, new, password = home / "data", home / "data.new", home / "password"
    if data.exists() and not password.exists():
        raise DatabaseError(f"{password} is missing: without it nobody can open the database beside it")
    account = choose_account(data)
    if not data.exists():
        with os.fdopen(_create(password, os.O_WRONLY), "w") as file:
            file.write(secrets.token_urlsafe(32))
        _remove_tree(new)
        _make_own(new, account)
    return account


def create_log(home: Path) -> int:
    """An empty log as an open file descriptor."""
    return _create(home / "server.log", os.O_WRONLY | os.O_APPEND)


def _create(path: Path, flags: int) -> int:
    """A new file in the place of an old one, whatever that was."""
    path.unlink(missing_ok=True)
    return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)


def _remove_tree(path: Path) -> None:
    """Unlike `ignore_errors`, this says so when the path is a link: what follows would go through it."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


def _make_own(directory: Path, account: Account | None) -> None:
    """A directory of the account's, in one that is not."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(directory, account.uid, account.gid, follow_symlinks=False)


def choose_account(data: Path | None) -> Account | None:
    """None: ourselves. As root: the owner of existing data, else an unprivileged account the system already has."""
    if os.geteuid() != 0:
        return None
    if data is not None and os.path.lexists(data):
        return _find_owner(data)
    for name in UNPRIVILEGED_ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseError(
        f"PostgreSQL does not run as root, and there is no account {' or '.join(UNPRIVILEGED_ACCOUNTS)}"
    )


def _find_owner(data: Path) -> Account:
    """The group is the account's own, not that of the files: it opens the way to them."""
    status = data.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid == 0:
        raise DatabaseError(f"{data} is no directory of an unprivileged account, and PostgreSQL does not run as root")
    try:
        return Account(status.st_uid, pwd.getpwuid(status.st_uid).pw_gid)
    except KeyError:
        raise DatabaseError(f"{data} belongs to uid {status.st_uid}, which is no account of this system") from None


def choose_socket_directory(home: Path, account: Account | None) -> Path:
    """The directory itself, or one in it for the account; a short one elsewhere when that is no socket address."""
    sockets = home if account is None else home / "sockets"
    if not SOCKET_DIRECTORY.fullmatch(str(sockets)):
        sockets = _make_temporary("aegis-socket-", account) / "sockets"
    if sockets != home:
        _make_own(sockets, account)
    return sockets


def copy_binaries(binaries: Path, home: Path) -> Path:
    """Copy the installation and the libraries that its programs look for three directories up (38 MB, ~0.1 s)."""
    installation, package = binaries.parent, binaries.parent.parent
    copies = home / "binaries"
    copy = copies / package.name / installation.name
    libraries = package.with_name(f"{package.name}.libs")
    _remove_tree(copies)
    shutil.copytree(installation, copy, ignore=shutil.ignore_patterns("include"))
    if libraries.exists():
        shutil.copytree(libraries, copies / libraries.name)
    for entry in (copies, *copies.rglob("*")):
        entry.chmod(entry.stat().st_mode | 0o055)  # they stay root's: to be read and run is enough
    return copy / "bin"


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a server that accepts connections says of itself in `postmaster.pid`."""

    pid: int
    sockets: Path


def read_postmaster(home: Path) -> Postmaster | None:
    """Lines 1, 5 and 8 of the file (miscadmin.h, LOCK_FILE_LINE_…); None unless it says `ready`."""
    lines = (_read_start(home / "data" / "postmaster.pid") or "").splitlines()
    return Postmaster(int(lines[0]), Path(lines[4])) if len(lines) >= 8 and lines[7].strip() == "ready" else None


def answers(sockets: Path) -> bool:
    """Whether someone listens: the files of a server that was killed stay behind."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        return client.connect_ex(str(sockets / ".s.PGSQL.5432")) == 0


def build_url(home: Path, sockets: Path) -> str:
    password = (home / "password").read_text().strip()
    return f"postgresql://{USER}:{password}@/postgres?host={sockets}"
