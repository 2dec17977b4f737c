"""The private directory of an embedded PostgreSQL: whose it is, who may use it, how to get in.  [io]

In: a path, or None for a throw-away one. Out: a directory of mode 0700 with a password, a lock and an owner that the
server can run as. Nothing outside of it is changed, and a directory that holds anything else is refused.
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
import tempfile
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
    """Make the directory, or check that an existing one is ours; 0700 either way."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="aegis-postgres-"))
    home = directory.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    entries = {entry.name for entry in home.iterdir()}
    if entries and "owner.lock" not in entries:
        raise DatabaseError(f"{home} holds other files: give the embedded PostgreSQL a directory of its own")
    _check_version(home / "data" / "PG_VERSION")
    home.chmod(0o700)
    return home


def _check_version(version_file: Path) -> None:
    found = version_file.read_text().strip() if version_file.exists() else MAJOR_VERSION
    if found != MAJOR_VERSION:
        raise DatabaseError(
            f"{version_file.parent} was written by PostgreSQL {found}, this server is {MAJOR_VERSION}: "
            "dump it with the old version and restore it here, or choose another directory"
        )


def lock_for_owner(home: Path) -> int:
    """The lock of the one process that may run a server here; freed by the kernel however that process ends."""
    lock = lock_exclusively(home / "owner.lock")
    if lock is None:
        raise DatabaseError(f"another process is running the embedded PostgreSQL in {home}")
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
    """Give the directory to the server's account and, before it is initialised, a password."""
    data, password = home / "data", home / "password"
    account = _choose_account(data)
    if not data.exists():
        password.unlink(missing_ok=True)
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    elif not password.exists():
        raise DatabaseError(f"{password} is missing: without it nobody can open the database beside it")
    _give(account, home, password)
    return account


def _choose_account(data: Path) -> Account | None:
    """None: ourselves. As root: the owner of existing data, else an unprivileged account the system already has."""
    if os.geteuid() != 0:
        return None
    if data.exists():
        status = data.stat()
        return Account(status.st_uid, status.st_gid)
    for name in UNPRIVILEGED_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseError(
        f"PostgreSQL does not run as root, and there is no account {' or '.join(UNPRIVILEGED_ACCOUNTS)}"
    )


def _give(account: Account | None, *paths: Path) -> None:
    if account is not None:
        for path in paths:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def choose_socket_directory(home: Path, account: Account | None) -> Path:
    """The directory itself, or a short private one when its name does not fit into a socket address."""
    if SOCKET_DIRECTORY.fullmatch(str(home)):
        return home
    sockets = Path(tempfile.mkdtemp(prefix="aegis-socket-"))
    _give(account, sockets)
    return sockets


def copy_binaries(binaries: Path, home: Path, account: Account) -> Path:
    """Copy the installation and the libraries that its programs look for three directories up (38 MB, ~0.1 s)."""
    installation, package = binaries.parent, binaries.parent.parent
    copy = home / "binaries" / package.name / installation.name
    libraries = package.with_name(f"{package.name}.libs")
    shutil.rmtree(home / "binaries", ignore_errors=True)
    shutil.copytree(installation, copy, ignore=shutil.ignore_patterns("include"))
    if libraries.exists():
        shutil.copytree(libraries, home / "binaries" / libraries.name)
    _give(account, home / "binaries", *(home / "binaries").rglob("*"))
    return copy / "bin"


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a server that accepts connections says of itself in `postmaster.pid`."""

    pid: int
    sockets: Path


def read_postmaster(home: Path) -> Postmaster | None:
    """Lines 1, 5 and 8 of the file (miscadmin.h, LOCK_FILE_LINE_…); None unless it says `ready`."""
    try:
        lines = (home / "data" / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return Postmaster(int(lines[0]), Path(lines[4])) if len(lines) >= 8 and lines[7].strip() == "ready" else None


def answers(sockets: Path) -> bool:
    """Whether someone listens: the files of a server that was killed stay behind."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        return client.connect_ex(str(sockets / ".s.PGSQL.5432")) == 0


def build_url(home: Path, sockets: Path) -> str:
    password = (home / "password").read_text().strip()
    return f"postgresql://{USER}:{password}@/postgres?host={sockets}"
