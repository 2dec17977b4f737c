"""Where settings are written: a YAML file, and the environment over it.  [pure, apart from reading one file]

In go a path and the environment; out come plain values, the line or variable each was written at, and what is wrong
with the writing itself. Which settings exist and what they may hold is `settings`' business. No text of the file is
ever repeated in a fault: it may be a password in the wrong place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.parser import ParserError
from ruamel.yaml.scanner import ScannerError

from proxy.errors import Fault

Location = tuple[str, ...]

ENVIRONMENT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "AEGIS_DATABASE_URL": ("database", "url"),
        "AEGIS_LISTENER_DATABASE_URL": ("database", "listener_url"),
        "AEGIS_STATE_DIR": ("state_dir",),
        "AEGIS_SECRET_KEY": ("secret_key",),
        "AEGIS_UPSTREAM_MCP": ("upstreams", "mcp", "url"),
        "AEGIS_UPSTREAM_API": ("upstreams", "api", "url"),
        "AEGIS_LISTEN": ("listen",),
        "AEGIS_OPS_LISTEN": ("ops_listen",),
        "AEGIS_POLICY": ("policy",),
        "AEGIS_LOG_LEVEL": ("log_level",),
        "AEGIS_CONSOLE_CLIENT_SECRET": ("console", "client_secret"),
    }
)
# Read by clients of the proxy, which may share our environment.
CLIENT_VARIABLES: Final = frozenset({"AEGIS_API_KEY", "AEGIS_BASE_URL"})
# Kubernetes writes these into every pod that starts beside a Service whose name begins with "aegis".
SERVICE_LINK: Final = re.compile(r"AEGIS_(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT_[0-9]+_(TCP|UDP|SCTP)\w*)")
SERVICE_LINK_PORT: Final = re.compile(r"(tcp|udp|sctp)://.*")
# Settings nest four deep, and headers are named in the fourth; a deeper file is at fault already, and an alias may lead
# back into itself.
MAX_DEPTH: Final = 5
# What names a file, relative to this one.
TLS_FILES: Final = ("ca_file", "client_certificate_file", "client_key_file")
PATHS: Final[tuple[Location, ...]] = (
    ("policy",),
    ("state_dir",),
    ("assertions", "key_file"),
    ("management", "identity_provider", "ca_file"),
    *(("upstreams", upstream, "tls", name) for upstream in ("mcp", "api") for name in TLS_FILES),
)
# In place of a section that is on unless it says this.
ABSENT: Final = "none"
# Only these name no more than one character of the file in their message.
HARMLESS_ERRORS: Final = (ScannerError, ParserError)


@dataclass(slots=True)
class Source:
    """What was written, and where: `lines` for the file at `path`, `variables` for the environment."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)
    variables: dict[Location, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def is_written(self, location: Location) -> bool:
        return location in self.lines or location in self.variables

    def find_place(self, location: Location) -> tuple[str, int | None]:
        """The variable, or the file and line, where this setting or the nearest one around it was written."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.variables:
                return self.variables[location[:end]], None
            if location[:end] in self.lines:
                return self.path, self.lines[location[:end]]
        return self.path, None


def find_shipped(name: str) -> Path:
    """The configuration file that came with the package: inside an installed one, beside it in a checkout."""
    here = Path(__file__).parent
    packaged = here / "_config" / name
    return packaged if packaged.is_file() else here.parent / "config" / name


def read_source(path: Path, environ: Mapping[str, str]) -> Source:
    source = Source(str(path))
    read_file(path, source)
    source.values.setdefault("state_dir", str(find_state_dir(environ)))
    for location in PATHS:
        anchor_path(source.values, location, path.parent)
    read_environment(environ, source)
    return source


def anchor_path(values: dict[str, Any], location: Location, directory: Path) -> None:
    *sections, name = location
    for section in sections:
        values = values.get(section) or {}
        if not isinstance(values, dict):  # at fault, and told so where it is read
            return
    if isinstance(written := values.get(name), str):
        values[name] = directory / written


def find_state_dir(environ: Mapping[str, str]) -> Path:
    """XDG base directories: `$XDG_STATE_HOME`, which counts only when absolute, or `~/.local/state`."""
    if environ.get("XDG_STATE_HOME", "").startswith("/"):
        return Path(environ["XDG_STATE_HOME"], "aegis-proxy")
    if environ.get("HOME", "").startswith("/"):
        return Path(environ["HOME"], ".local", "state", "aegis-proxy")
    return Path("/var/lib/aegis-proxy")


# --- the file ------------------------------------------------------------------------------------------------------


def read_file(path: Path, source: Source) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        source.faults.append(Fault(source.path, None, f"cannot be read: {why}", "name a readable YAML file"))
        return
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        index_lines(root, (), source)
        values = {} if source.faults else YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: the 32nd of a month
        source.faults.append(describe_syntax(error, source.path))
        return
    if isinstance(values, dict):
        source.values.update(values)
    elif values is not None:
        source.faults.append(Fault(source.path, 1, "this is not a mapping of settings", "write `name: value` lines"))


def index_lines(node: Node | None, location: Location, source: Source) -> None:
    """Note the line of every setting, and every one that is written twice (YAML forbids it, §3.2.1.3)."""
    if len(location) == MAX_DEPTH:
        return
    if isinstance(node, MappingNode):
        for key, value in node.value:
            place, line = (*location, str(key.value)), key.start_mark.line + 1
            if place in source.lines:
                mend = f"keep this one or that of line {source.lines[place]}"
                source.faults.append(Fault(source.path, line, f"{write_name(place)} is written twice", mend))
            source.lines.setdefault(place, line)
            index_lines(value, place, source)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            source.lines[*location, str(index)] = item.start_mark.line + 1
            index_lines(item, (*location, str(index)), source)


def describe_syntax(error: Exception, path: str) -> Fault:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    line = mark.line + 1 if mark is not None else None
    problem = error.problem if isinstance(error, HARMLESS_ERRORS) else None
    message = "this is not valid YAML" + (f": {problem}" if problem else "")
    return Fault(path, line, message, "check indentation, quotes and colons here and just above")


# --- the environment -----------------------------------------------------------------------------------------------


def read_environment(environ: Mapping[str, str], source: Source) -> None:
    for name, value in environ.items():
        if not name.startswith("AEGIS_") or is_foreign(name, value):
            continue
        if name not in ENVIRONMENT:
            mend = suggest(name, ENVIRONMENT) or f"the variables are {', '.join(ENVIRONMENT)}"
            source.faults.append(Fault(name, None, "there is no such variable", mend))
        elif not value:
            source.faults.append(Fault(name, None, "is set but empty", "unset it or give it a value"))
        else:
            write_value(source.values, ENVIRONMENT[name], value)
            source.variables[ENVIRONMENT[name]] = name


def is_foreign(name: str, value: str) -> bool:
    if name in CLIENT_VARIABLES or SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and SERVICE_LINK_PORT.fullmatch(value) is not None


def write_value(values: dict[str, Any], location: tuple[str, ...], value: str) -> None:
    *sections, name = location
    for section in sections:
        if values.get(section) in (None, ABSENT):
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):  # the file is at fault, and will be told so at this very place
            return
    values[name] = value


# --- what is wrong with the values ---------------------------------------------------------------------------------


def describe_faults(error: ValidationError, model: type[BaseModel], source: Source) -> Iterator[Fault]:
    known = list(name_settings(model))
    for details in error.errors(include_url=False):
        location = tuple(str(part) for part in details["loc"])
        cause = location if source.is_written(location) else details.get("ctx", {}).get("cause") or location
        yield Fault(*source.find_place(cause), *describe(details, location, known))


def describe(details: ErrorDetails, location: Location, known: list[str]) -> tuple[str, str]:
    """Message and mend. Numbers out of range are repeated, everything else the operator wrote is not."""
    name, context = write_name(location), details.get("ctx", {})
    if details["type"] == "extra_forbidden":
        return f"there is no setting {name}", suggest(name, known) or "remove it"
    if details["type"] == "missing":
        return f"{name} is not set", "add it: it has no default"
    if "mend" in context:
        return f"{name}: {details['msg']}", str(context["mend"])
    mend = re.sub(r"^(Input|String|Value) ", "it ", details["msg"])
    if details["type"] in {"greater_than_equal", "less_than_equal"}:
        return f"{name} is {details['input']}", mend
    return f"{name} cannot be used", mend


def suggest(name: str, known: Mapping[str, object] | list[str]) -> str | None:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


def name_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, about in model.model_fields.items():
        yield prefix + name
        for kind in (about.annotation, *get_args(about.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from name_settings(kind, f"{prefix}{name}.")


def write_name(location: Location) -> str:
    """`database.url`; what does not look like the name of a setting is left out, it may be a slipped-in value."""
    return ".".join(part if re.fullmatch(r"[\w-]{1,40}", part) else "…" for part in location)
