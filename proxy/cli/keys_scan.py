"""`aegis-proxy keys scan`: finds keys in files, and never repeats one."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from proxy.cli.context import ConfigOption, JsonOption, open_database, read_settings
from proxy.cli.output import open_progress, print_json, print_lines, quote, say, say_error
from proxy.keys.findings import ACTIVE, Finding, judge_tokens
from proxy.keys.legacy import LegacyToken
from proxy.keys.scanning import FoundKey, find_keys
from proxy.keys.token import PREFIX
from proxy.settings import Settings

FOUND: Final = 1
CHUNK: Final = 1024 * 1024
STDIN: Final = "-"
COLORS: Final = {ACTIVE: "red"}


@dataclass(slots=True)
class Scan:
    """What was found so far, where, and what could not be read."""

    found: list[tuple[str, FoundKey]] = field(default_factory=list)
    files: int = 0
    unreadable: list[str] = field(default_factory=list)

    def read(self, name: str, chunks: Iterable[bytes]) -> None:
        self.files += 1
        self.found += [(name, key) for key in find_keys(chunks)]


def scan_files(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files and folders; - reads stdin.")],
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out what this pattern matches, by path or name; may be repeated.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Ask the database whose each key is, and whether it still opens anything.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find API keys in files, of this form and of the platform's older one; exits 1 when there are any.

    Prints where each stands and its id, never the key. Everything is read: binary files, hidden ones, and those that
    .gitignore names, because a key is most often in one of these. Links are not followed.

    `git diff --staged | aegis-proxy keys scan -`
    """
    missing = [path for path in paths if path != STDIN and not Path(path).exists()]
    if missing:
        raise typer.BadParameter(f"there is no {quote(missing[0])}", param_hint="PATH")
    scan = Scan()
    _scan(scan, paths, exclude or [])
    findings = asyncio.run(_judge(read_settings(config), scan)) if check and scan.found else {}
    if json:
        print_json(_form(scan, findings))
    else:
        print_lines(_describe(name, key, findings) for name, key in scan.found)
    _say_outcome(scan)
    if scan.found or scan.unreadable:
        raise typer.Exit(FOUND)


def _scan(scan: Scan, paths: list[str], exclude: list[str]) -> None:
    if STDIN in paths:
        scan.read(STDIN, _read_chunks(sys.stdin.buffer, lambda _: None))
    files = [file for path in paths if path != STDIN for file in _list_files(path, exclude, scan)]
    sizes = [_get_size(file) for file in files]
    with open_progress("Scanning, bytes", sum(sizes)) as advance:
        for file in files:
            try:
                with file.open("rb") as content:
                    scan.read(str(file), _read_chunks(content, advance))
            except OSError as error:
                scan.unreadable.append(f"{file}: {error.strerror}")


def _read_chunks(content: BinaryIO, advance: Callable[[float], None]) -> Iterator[bytes]:
    while chunk := content.read(CHUNK):
        advance(len(chunk))
        yield chunk


def _list_files(path: str, exclude: list[str], scan: Scan) -> Iterator[Path]:
    """Regular files, in a settled order; a link that was named itself is followed."""
    start = Path(path)
    if start.is_file():
        yield start
        return

    def note(error: OSError) -> None:
        scan.unreadable.append(f"{error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(start, onerror=note):
        folders[:] = sorted(name for name in folders if not _is_excluded(Path(folder, name), exclude))
        for name in sorted(names):
            file = Path(folder, name)
            if not _is_excluded(file, exclude) and _is_regular(file):
                yield file


def _is_excluded(path: Path, exclude: list[str]) -> bool:
    return any(fnmatch(path.name, pattern) or fnmatch(str(path), pattern) for pattern in exclude)


def _is_regular(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except OSError:  # gone meanwhile
        return False


def _get_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


async def _judge(settings: Settings, scan: Scan) -> dict[str, Finding]:
    async with open_database(settings) as database:
        return await judge_tokens(database, (key.token for _, key in scan.found))


# What is said


def _describe(name: str, key: FoundKey, findings: dict[str, Finding]) -> tuple[str, str]:
    finding = findings.get(key.token.text)
    text = f"{quote(name)}:{key.line} {_name(key, finding)}"
    if finding is None:
        return text, ""
    whose = f", of {quote(finding.owner)}" if finding.owner is not None else ""
    return f"{text} {finding.state}{whose}", COLORS.get(finding.state, "")


def _name(key: FoundKey, finding: Finding | None) -> str:
    """`aegis_<id>`; a token of the older form has none, and is told from others by the beginning of its digest."""
    if not isinstance(key.token, LegacyToken):
        return f"{PREFIX}{key.token.key_id}"
    known = f"{PREFIX}{finding.key_id} " if finding is not None and finding.key_id is not None else ""
    return f"{known}(older form, SHA-256 {key.token.digest.hex()[:12]}…)"


def _form(scan: Scan, findings: dict[str, Finding]) -> dict[str, Any]:
    return {
        "files": scan.files,
        "unreadable": scan.unreadable,
        "keys": [_form_key(name, key, findings.get(key.token.text)) for name, key in scan.found],
    }


def _form_key(name: str, key: FoundKey, finding: Finding | None) -> dict[str, Any]:
    older = isinstance(key.token, LegacyToken)
    told: dict[str, Any] = {"path": name, "line": key.line, "form": "older" if older else "current"}
    if isinstance(key.token, LegacyToken):
        told |= {"id": None, "sha256_begins": key.token.digest.hex()[:12]}
    else:
        told |= {"id": key.token.key_id}
    if finding is not None:
        told |= {"state": finding.state, "owner": finding.owner, "id": finding.key_id or told["id"]}
    return told


def _say_outcome(scan: Scan) -> None:
    for one in scan.unreadable:
        say_error(f"{one}: not read")
    places = len({name for name, _ in scan.found})
    if scan.found:
        say(f"[red]{len(scan.found)} keys[/] in {places} of {scan.files} files. Revoke each, then take it out.")
    else:
        say(f"[green]No keys[/] in {scan.files} files.")
