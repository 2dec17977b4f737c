"""The platform's keys as its table was exported: CSV with a header, or JSON lines.  [io]

In go lines of text and the policy, out come keys, or every fault at once, each with its line and its mend. The columns
are those of the platform's table `api_keys`, by its names; it is strict about them, because a key that came out other
than it was would be found out by somebody who lost rights, or by nobody. It knows nothing of what is in our tables.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from proxy.errors import Fault, ProxyError
from proxy.keys.minting import MintError, check_identifier, check_longest, check_name, check_role, check_tier
from proxy.policy import Policy

Format = Literal["csv", "jsonl"]
MAX_KEYS: Final = 1_000_000  # each is held until all were read
MAX_FAULTS: Final = 1_000  # nobody reads further
_NAME = re.compile(r"[A-Za-z_]{1,30}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
# One member of a Postgres array in its text form, and what stands before it.
_MEMBER = re.compile(r'(?:^|,)(?:"((?:[^"\\]|\\.)*)"|([^\s{},"\\]+))')


class ExportError(ProxyError):
    """The export cannot be taken over: every fault, with its line and its mend."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class ExportedKey:
    """One key of the platform's. `tenant` and `tier` None: the owner's own."""

    line: int
    digest: bytes = field(repr=False)
    name: str
    owner: str
    scopes: tuple[str, ...]
    tenant: str | None = None
    tier: str | None = None
    role: str | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    status: str = "active"


@dataclass(frozen=True, slots=True)
class _Column:
    """What becomes of a value, and what one has to look like. `read` raises ValueError, MintError."""

    member: str
    read: Callable[[Any], object]
    mend: str
    required: bool = False


def parse_export(lines: Iterable[str], form: Format, policy: Policy, source: str,
                 renamed: Mapping[str, Sequence[str]], now: float) -> list[ExportedKey]:  # fmt: skip
    """Read an export. Raises ExportError.

    `renamed`: scopes of the policy, for each scope that is called otherwise. `now`: seconds since the epoch.
    """
    faults = _Faults(source)
    rows = _read_csv(lines, faults) if form == "csv" else _read_json_lines(lines, faults)
    keys: list[ExportedKey] = []
    scopes = _Scopes(policy, renamed)
    for line, row in rows:
        values = _read_row(line, row, policy, faults)
        if values is not None:
            keys.append(ExportedKey(line, **(values | {"scopes": scopes.translate(line, values["scopes"])})))
        if len(keys) > MAX_KEYS:
            faults.add(line, f"more than {MAX_KEYS} keys", "import them in several files")
            break
        if faults.full:
            faults.add(line, "here reading was given up", "mend what is told so far, and try again")
            break
    faults.found += scopes.list_faults(source)
    _find_repetitions(keys, faults)
    _find_long_lives(keys, policy, now, faults)
    if faults.found:
        raise ExportError(sorted(faults.found, key=lambda fault: fault.line or 0))
    return keys


class _Faults:
    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[Fault] = []

    def add(self, line: int | None, message: str, mend: str) -> None:
        self.found.append(Fault(self.source, line, message, mend))

    @property
    def full(self) -> bool:
        return len(self.found) >= MAX_FAULTS


class _Scopes:
    """Scopes as the policy calls them; what it does not know is noted, once for all the rows that have it."""

    def __init__(self, policy: Policy, renamed: Mapping[str, Sequence[str]]) -> None:
        self._policy = policy
        self._renamed = renamed
        self._unknown: dict[str, list[int]] = {}
        self._judged: dict[str, str | None] = {}

    def translate(self, line: int, scopes: Sequence[str]) -> tuple[str, ...]:
        called = [name for scope in scopes for name in self._renamed.get(scope, (scope,))]
        for name in called:
            if name not in self._judged:
                self._judged[name] = self._find_fault(name)
            if self._judged[name] is not None:
                self._unknown.setdefault(name, []).append(line)
        return tuple(dict.fromkeys(called))

    def _find_fault(self, scope: str) -> str | None:
        try:
            self._policy.check_scope(scope)
        except ValueError as error:
            return str(error)
        return None

    def list_faults(self, source: str) -> list[Fault]:
        return [
            Fault(source, lines[0], f"{self._judged[scope]}, in {len(lines)} keys from here on",
                  f"--map {scope}=SCOPE of the policy")
            for scope, lines in self._unknown.items()
        ]  # fmt: skip


# Rows


def _read_csv(lines: Iterable[str], faults: _Faults) -> Iterator[tuple[int, Mapping[str, object]]]:
    """An empty field is none, as Postgres writes it."""
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None or not _check_header(header, faults):
            return
        line = reader.line_num + 1
        for fields in reader:
            if len(fields) == len(header):
                yield line, {name: value or None for name, value in zip(header, fields, strict=True)}
            elif fields:
                faults.add(line, f"{len(fields)} fields, where the header has {len(header)}", "export it again")
            line = reader.line_num + 1
    except csv.Error as error:
        faults.add(reader.line_num, f"this is no CSV: {error}", "export it again")


def _check_header(header: Sequence[str], faults: _Faults) -> bool:
    unknown = [name for name in header if name not in COLUMNS and name not in LEFT_OUT]
    missing = [name for name, column in COLUMNS.items() if column.required and name not in header]
    for name in dict.fromkeys(unknown):
        faults.add(1, f"an unknown column{_quote(name)}", f"the columns are {', '.join([*COLUMNS, *LEFT_OUT])}")
    for name in missing:
        faults.add(1, f"there is no column {name}", "the first line names the columns, as the platform's table does")
    if len(set(header)) < len(header):
        faults.add(1, "a column stands there twice", "name each once")
    return not faults.found


def _read_json_lines(lines: Iterable[str], faults: _Faults) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text, object_pairs_hook=_refuse_repeated)
            if not isinstance(row, dict):
                raise ValueError("a row is an object")
        except (ValueError, RecursionError) as error:
            why = f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            faults.add(number, f"this is no JSON object: {why}", "one object on each line, as row_to_json writes it")
            continue
        unknown = [name for name in row if name not in COLUMNS and name not in LEFT_OUT]
        for name in unknown:
            faults.add(number, f"an unknown member{_quote(name)}", f"members are {', '.join([*COLUMNS, *LEFT_OUT])}")
        if not unknown:
            yield number, row


def _quote(name: str) -> str:
    """What can be a name; without a header, what stands there may be anything, a key included."""
    return f" {name!r}" if _NAME.fullmatch(name) else ""


def _refuse_repeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a member stands there twice")
    return dict(pairs)


def _read_row(line: int, row: Mapping[str, object], policy: Policy, faults: _Faults) -> dict[str, Any] | None:
    """The members of an ExportedKey; None when there is a fault."""
    before = len(faults.found)
    values: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        value = row.get(name)
        try:
            if value is not None:
                values[column.member] = column.read(value)
                if name == "zaru_tier":
                    check_tier(values["tier"], policy)
            elif column.required:
                raise ValueError("is missing")
        except (ValueError, MintError, OverflowError) as error:
            faults.add(line, f"{name}: {error}", column.mend)
    return values if len(faults.found) == before else None


def _find_repetitions(keys: Iterable[ExportedKey], faults: _Faults) -> None:
    """What no two keys may share, and what all keys of an owner do."""
    digests: dict[bytes, int] = {}
    names: dict[tuple[str, str], int] = {}
    owners: dict[tuple[str, str], tuple[str, int]] = {}
    for key in keys:
        first = digests.setdefault(key.digest, key.line)
        if first != key.line:
            faults.add(key.line, f"key_hash: the same as in line {first}", "one row for each key")
        if key.status == "active":
            first = names.setdefault((key.owner, key.name), key.line)
            if first != key.line:
                faults.add(key.line, f"name: {key.owner} has an active key {key.name!r} in line {first}", "rename one")
        for column, value in (("tenant_id", key.tenant), ("zaru_tier", key.tier)):
            if value is not None:
                told, first = owners.setdefault((key.owner, column), (value, key.line))
                if told != value:
                    mend = "an owner has one, for all keys: make them agree, or leave the column out"
                    faults.add(key.line, f"{column}: {value!r}, but {told!r} in line {first}", mend)


def _find_long_lives(keys: Iterable[ExportedKey], policy: Policy, now: float, faults: _Faults) -> None:
    """The policy's longest life holds for keys from elsewhere, too."""
    for key in keys:
        try:
            if key.status != "revoked":
                check_longest(key.expires_at, policy, now)
        except MintError as error:
            faults.add(key.line, f"expires_at: {error}", "give it a date that the policy allows")


# Values


def _read_digest(value: object) -> bytes:
    text = _read_text(value)
    if text.startswith("aegis_"):
        raise ValueError("this is a key itself, and whoever has the file has the key: revoke it")
    if _DIGEST.fullmatch(text) is None:
        raise ValueError("this is no SHA-256 digest")
    return bytes.fromhex(text)


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _read_name(value: object) -> str:
    name = _read_text(value)
    check_name(name)
    return name


def _read_identifier(value: object) -> str:
    text = _read_text(value)
    check_identifier("value", text)
    return text


def _read_role(value: object) -> str:
    role = _read_text(value)
    check_role(role)
    return role


def _read_scopes(value: object) -> list[str]:
    """A list (JSON), or a Postgres array in its text form (CSV)."""
    scopes = [_read_text(one) for one in value] if isinstance(value, list) else _read_array(_read_text(value))
    if not scopes:
        raise ValueError("there are none, and such a key would open nothing")
    return scopes


def _read_array(text: str) -> list[str]:
    inside = text[1:-1]
    if text[:1] + text[-1:] != "{}" or _MEMBER.sub("", inside):
        raise ValueError("is not of the form {agent:list,workflow:run}")
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in _MEMBER.findall(inside)]


def _read_moment(value: object) -> datetime:
    text = _read_text(value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("is no time with its offset from UTC")
    return moment.astimezone(UTC)


def _read_status(value: object) -> str:
    if value not in ("active", "disabled", "revoked"):
        raise ValueError("is none that a key has")
    return str(value)


COLUMNS: Final[Mapping[str, _Column]] = {
    "key_hash": _Column("digest", _read_digest, "SHA-256 of the whole key, 64 hexadecimal digits", required=True),
    "name": _Column("name", _read_name, "rename it, at the platform or in the file", required=True),
    "user_id": _Column("owner", _read_identifier, "whose key it is, as the platform's tokens name them", required=True),
    "scopes": _Column("scopes", _read_scopes, "give it a scope, or leave the row out", required=True),
    "tenant_id": _Column("tenant", _read_identifier, "the owner's tenant, or empty: the tenant the owner has"),
    "zaru_tier": _Column("tier", _read_identifier, "a tier of the policy, or empty: the tier the owner has"),
    "aegis_role": _Column("role", _read_role, "1 to 64 printable characters, or empty: none"),
    "expires_at": _Column("expires_at", _read_moment, "such as 2027-01-31T00:00:00Z, or empty: never"),
    "created_at": _Column("created_at", _read_moment, "such as 2026-01-31T00:00:00Z, or empty: now"),
    "status": _Column("status", _read_status, "active, disabled or revoked; empty: active"),
}
# Columns of the platform's table that have no place here: ids are ours, and so are observations.
LEFT_OUT: Final = ("id", "last_used_at")
