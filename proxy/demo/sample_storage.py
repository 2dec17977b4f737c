"""What the sample platform keeps: files on volumes, repositories, scripts.  [io]

In: paths and contents; texts are kept in memory, uploads in files on disk, however large. Out: the same again, or a
`ToolError`. Refuses to know: requests, and whose volume it is. Paths are names only: none ever reaches the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.sample_faults import InTheWay, Missing

LIMIT_BYTES = 1 << 30
READABLE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`content` is the bytes themselves, or where on disk they are."""

    content: bytes | Path = field(repr=False)
    size_bytes: int
    sha256: str

    def read_text(self) -> str:
        """The content, if it is a text of a size that a model can read. Raises ToolError."""
        if self.size_bytes > READABLE_BYTES:
            raise ToolError(f"the file has {self.size_bytes} bytes: too many to be read as text; download it")
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise ToolError("the file is not a text; download it") from error

    def discard(self) -> None:
        """Give its place on disk back. Whoever is reading it can go on."""
        if isinstance(self.content, Path):
            self.content.unlink(missing_ok=True)


def store_text(text: str) -> StoredFile:
    content = text.encode()
    return StoredFile(content, len(content), hashlib.sha256(content).hexdigest())


class _Intake:
    """An upload being written down. Opening and closing are done in place: whoever waited for them in a thread could be
    cancelled just then, and the file would stay."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / uuid.uuid4().hex
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = self.path.open("xb")

    def take(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._file.write(chunk)

    def finish(self) -> StoredFile:
        self._file.close()
        return StoredFile(self.path, self.size_bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        self._file.close()
        self.path.unlink()


async def store_upload(chunks: AsyncIterator[bytes], directory: Path, check_size: Callable[[int], None]) -> StoredFile:
    """Write it down as it comes. `check_size` raises when there is no room for as much; then nothing is kept."""
    intake = _Intake(directory)
    try:
        async for chunk in chunks:
            intake.size_bytes += len(chunk)
            check_size(intake.size_bytes)
            await asyncio.to_thread(intake.take, chunk)
        return intake.finish()
    except BaseException:
        intake.abandon()
        raise


def parse_path(path: str) -> str:
    """A path as files are named by, without slashes around it. Raises ToolError."""
    name = path.strip("/")
    if any(part in ("", ".", "..") for part in name.split("/")) or not name.isprintable():
        raise ToolError(f"{path!r} is not a path of a file: write names with slashes between them")
    return name


@dataclass
class Volume:
    label: str
    size_limit_bytes: int = LIMIT_BYTES
    files: dict[str, StoredFile] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    @property
    def used_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "label": self.label,
            "size_limit_bytes": self.size_limit_bytes,
            "used_bytes": self.used_bytes,
        }

    def list_names(self, path: str) -> list[str]:
        """Every file and directory below a path; names of directories end with a slash."""
        below = path.strip("/")
        names = sorted([*self.files, *(f"{directory}/" for directory in self.directories)])
        return [name for name in names if not below or name.startswith(f"{below}/")]

    def get_file(self, path: str) -> StoredFile:
        file = self.files.get(path.strip("/"))
        if file is None:
            raise Missing(f"there is no file {path!r} on volume {self.id!r}")
        return file

    def check_room(self, path: str, size_bytes: int) -> None:
        """Raises InTheWay when a file of that size would not fit, in place of what is there."""
        replaced = self.files.get(path.strip("/"))
        if self.used_bytes - (replaced.size_bytes if replaced else 0) + size_bytes > self.size_limit_bytes:
            raise InTheWay(f"volume {self.id!r} has a quota of {self.size_limit_bytes} bytes")

    def put(self, path: str, file: StoredFile) -> None:
        """Keep a file, in place of what was there. Raises ToolError, and then the file is gone."""
        try:
            name = parse_path(path)
            if name in self.directories:
                raise InTheWay(f"{path!r} is a directory on volume {self.id!r}")
            self.check_room(name, file.size_bytes)
        except ToolError:
            file.discard()
            raise
        if name in self.files:
            self.files[name].discard()
        self.files[name] = file

    def make_directory(self, path: str) -> None:
        name = parse_path(path)
        if name in self.files:
            raise InTheWay(f"{path!r} is a file on volume {self.id!r}")
        self.directories.add(name)

    def find_below(self, path: str) -> list[str]:
        """The names of a file, or of everything in a directory. Raises Missing."""
        name = path.strip("/")
        found = [each for each in self.files if each == name or each.startswith(f"{name}/")]
        if not found and name not in self.directories:
            raise Missing(f"there is no file or directory {path!r} on volume {self.id!r}")
        return found

    def delete(self, path: str) -> list[str]:
        """Delete a file, or a directory with everything in it; returns what is gone."""
        gone, name = self.find_below(path), path.strip("/")
        for each in gone:
            self.files.pop(each).discard()
        self.directories = {each for each in self.directories if each != name and not each.startswith(f"{name}/")}
        return gone or [name]

    def move(self, source: str, target: str) -> None:
        """Move a file, or a directory with everything in it, to where nothing is yet."""
        moved, old, new = self.find_below(source), source.strip("/"), parse_path(target)
        if new == old or new.startswith(f"{old}/"):
            raise ToolError(f"{source!r} cannot be moved into itself")
        if self.list_names(new) or new in self.files or new in self.directories:
            raise InTheWay(f"there is a file or directory {target!r} on volume {self.id!r}")
        for each in moved:
            self.files[new + each.removeprefix(old)] = self.files.pop(each)
        self.directories = {
            new + each.removeprefix(old) if each == old or each.startswith(f"{old}/") else each
            for each in self.directories
        }

    def clear(self) -> None:
        """Give everything up."""
        for file in self.files.values():
            file.discard()
        self.files.clear()


@dataclass
class Repository:
    """A git repository bound to a volume; `changes` are those not yet committed."""

    label: str
    repo_url: str
    commits: list[str]
    pushed: int = 1
    changes: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Script:
    name: str
    code: str
    description: str
    tags: list[str]
    versions: list[str]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
