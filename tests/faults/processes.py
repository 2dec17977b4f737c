"""Real processes that faults happen to: a PostgreSQL that survives its own death, proxies, an upstream.

What a process prints goes, line by line, to whoever started it. Nobody restarts by itself: whoever kills starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from proxy.embedded_directory import (
    USER,
    Account,
    build_url,
    choose_socket_directory,
    claim_directory,
    copy_binaries,
    prepare_directory,
)
from proxy.embedded_postgres import find_binaries

REPOSITORY = Path(__file__).parents[2]
POLL_SECONDS = 0.01
GUARD_SECONDS = 60.0
"""How long anything is waited for that should come at once: a bench runs more processes than a machine has cores."""
MAX_LINE_BYTES = 1 << 20

# Processes die here, the machine does not: the page cache survives, so nothing is ever flushed to the disk. But what
# was answered must be in that cache: `synchronous_commit` stays on.
POSTGRES_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "io_method": "sync",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "replica",
    "timezone": "UTC",
    "restart_after_crash": "on",
}


PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child, before its program begins: whatever ends the bench, SIGKILL included, leaves nothing behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(slots=True)
class Postgres:
    """A server on a unix socket, in a directory of its own that outlives it."""

    home: Path
    binaries: Path
    sockets: Path
    account: Account | None
    settings: dict[str, str]
    url: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.home / "data"

    async def start(self) -> None:
        """Start it on what is there, and return once it answers. What its predecessor left may have to end first."""
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                if self.process is None or self.process.poll() is not None:
                    self.process = self._launch()
                if await self.answers():
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def answers(self) -> bool:
        """Whether a connection can be made."""
        try:
            connection = await asyncpg.connect(self.url, timeout=GUARD_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    def kill(self) -> None:
        """SIGKILL to the postmaster: its backends notice, each when it looks, and leave."""
        self._send(signal.SIGKILL)

    def stop_immediately(self) -> None:
        """What `pg_ctl stop -m immediate` does: nothing is written any more."""
        self._send(signal.SIGQUIT)

    def freeze(self) -> None:
        """SIGSTOP to the whole tree, its root first so that no new backend escapes."""
        self._send(signal.SIGSTOP)
        self._send_children(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_children(signal.SIGCONT)
        self._send(signal.SIGCONT)

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {**POSTGRES_SETTINGS, "unix_socket_directories": str(self.sockets), **self.settings}
        options = (f"--{name}={value}" for name, value in settings.items())
        return self.run_binary("postgres", "-D", str(self.data), *options)

    def run_binary(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """One of PostgreSQL's programs, as the account the server runs as; what it says goes to the server's log."""
        with (self.home / "server.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.binaries / name), *arguments],
                cwd=self.home,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    async def finish_binary(self, name: str, *arguments: str) -> None:
        """Run it to its good end."""
        code = await asyncio.to_thread(self.run_binary(name, *arguments).wait, GUARD_SECONDS)
        assert code == 0, f"{name}:\n{(self.home / 'server.log').read_text()}"

    async def stop_following(self) -> None:
        """A replica that has heard everything so far hears nothing more."""
        await self._ask("ALTER SYSTEM SET primary_conninfo = ''")
        await self._ask("SELECT pg_reload_conf()")
        async with asyncio.timeout(GUARD_SECONDS):
            while await self._ask("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"):
                await asyncio.sleep(POLL_SECONDS)

    async def promote(self) -> None:
        """A replica becomes a primary, on a timeline of its own."""
        await self._ask("SELECT pg_promote()")

    async def _ask(self, statement: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url, timeout=GUARD_SECONDS)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    def _send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGQUIT):
            self.process.wait(GUARD_SECONDS)

    def _send_children(self, number: signal.Signals) -> None:
        """PostgreSQL's processes have no children of their own."""
        assert self.process is not None
        pid = self.process.pid
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), number)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self._send(signal.SIGQUIT)


@contextlib.asynccontextmanager
async def prepare_postgres(settings: Mapping[str, str], disk_bytes: int | None = None) -> AsyncIterator[Postgres]:
    """A server without data and without a process, in a directory that is thrown away at the end.

    With `disk_bytes` its data lie on a file system of that size, which takes root to mount.
    """
    home = claim_directory(None)
    account = prepare_directory(home)
    binaries = copy_binaries(find_binaries(), home) if account else find_binaries()
    sockets = choose_socket_directory(home, account)
    server = Postgres(home, binaries, sockets, account, dict(settings), build_url(home, sockets))
    server.data.mkdir()
    if disk_bytes is not None:
        mount = ("mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(server.data))
        subprocess.run(mount, check=True)
    _give_to(server.account, server.data)
    server.data.chmod(0o700)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.end)
        if disk_bytes is not None:
            subprocess.run(("umount", str(server.data)), check=True)
        for directory in {home, sockets if sockets.is_relative_to(home) else sockets.parent}:
            shutil.rmtree(directory, ignore_errors=True)


def _give_to(account: Account | None, path: Path) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)


@contextlib.asynccontextmanager
async def run_postgres(settings: Mapping[str, str], disk_bytes: int | None = None) -> AsyncIterator[Postgres]:
    """A running server with an empty database."""
    async with prepare_postgres(settings, disk_bytes) as server:
        password = server.home / "password.initdb"
        shutil.copyfile(server.home / "password", password)
        _give_to(server.account, password)
        await server.finish_binary(
            "initdb",
            f"--pgdata={server.data}",
            f"--username={USER}",
            f"--pwfile={password}",
            *("--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"),
        )
        await server.start()
        yield server


@contextlib.asynccontextmanager
async def follow_primary(primary: Postgres) -> AsyncIterator[Postgres]:
    """A replica that has caught up with a primary; it can be left behind and promoted."""
    async with prepare_postgres(primary.settings) as replica:
        shutil.copyfile(primary.home / "password", replica.home / "password")
        password = (primary.home / "password").read_text().strip()
        replica.url = build_url(replica.home, replica.sockets)
        await replica.finish_binary(
            "pg_basebackup",
            f"--pgdata={replica.data}",
            f"--dbname=postgresql://{USER}:{password}@/postgres?host={primary.sockets}",
            *("--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"),
        )
        await replica.start()
        yield replica


@dataclass
class Daemon:
    """A child of ours. `prefix` is put before its command: `prlimit`, `nice`; `environ` over our own environment."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict, repr=False)
    prefix: tuple[str, ...] = ()
    hear: Callable[[bytes], None] = field(default=lambda _line: None, repr=False)
    process: asyncio.subprocess.Process | None = None
    _listening: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start it. What it prints is heard from now on, whatever it is."""
        self.process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *self.command,
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            preexec_fn=die_with_parent,
        )
        self._listening = asyncio.create_task(self._listen(self.process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.take(line)

    def take(self, line: bytes) -> None:
        """A line it printed."""
        self.hear(line)

    async def wait_word(self, said: asyncio.Event) -> None:
        """Return once it has said something; one that has ended says nothing more."""
        assert self._listening is not None
        word = asyncio.create_task(said.wait())
        await asyncio.wait({word, self._listening}, timeout=GUARD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        word.cancel()
        assert said.is_set(), f"{self.name} does not start"

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, and everything it printed before is heard."""
        self._send(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        self._send(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> int:
        """Its exit code, once it has ended and what it printed was heard."""
        assert self.process is not None
        assert self._listening is not None
        async with asyncio.timeout(GUARD_SECONDS):
            code = await self.process.wait()
            await self._listening
        return code

    def _send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.returncode is None:
            self.resume()
            await self.kill()


@dataclass
class ProxyProcess(Daemon):
    """`python -m proxy serve`. It keeps its addresses when it is started again."""

    data: str = ""
    ops: str = ""
    instance: str = ""
    _listens: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Start it, and return once it listens; trusted it need not be yet."""
        self._listens.clear()
        self.environ["AEGIS_LISTEN"] = self.data.removeprefix("http://") or "127.0.0.1:0"
        self.environ["AEGIS_OPS_LISTEN"] = self.ops.removeprefix("http://") or "127.0.0.1:0"
        await super().start()
        await self.wait_word(self._listens)

    def take(self, line: bytes) -> None:
        if b'"listening"' in line:
            said = json.loads(line)
            self.data, self.ops, self.instance = said["data"], said["ops"], said["instance"]
            self._listens.set()
        self.hear(line)

    async def read_readiness(self) -> dict[str, Any]:
        """What `/readyz` says."""
        timeout = aiohttp.ClientTimeout(total=GUARD_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{self.ops}/readyz") as answer:
            said: dict[str, Any] = await answer.json()
            return said

    async def wait_readiness(self, *, ready: bool = True) -> None:
        """Return once it is ready, or once it is not."""
        async with asyncio.timeout(GUARD_SECONDS):
            while (await self.read_readiness())["ready"] is not ready:
                await asyncio.sleep(POLL_SECONDS)

    def count_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def read_rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def count_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))


def form_proxy(name: str, config: Path, environ: Mapping[str, str]) -> ProxyProcess:
    """A proxy that is not started yet. It finds its schema there: migrating needs a database that is well."""
    command = (sys.executable, "-m", "proxy", "serve", "--no-migrate", "--config", str(config))
    return ProxyProcess(name, command, dict(environ))
