"""What happened while something failed: the events that every process of a fault bench writes down.  [pure]

In go stamps and facts, out come frozen values, which `checker` judges once they are merged. Every stamp is
CLOCK_BOOTTIME (`proxy.clock.SystemClock().boot()`), which all processes of a machine share. What a stamp may prove is
chosen so that a slow machine can never raise a false alarm: `Sent` before the first byte is written, `Changing` before
a statement is sent and `Changed` after its commit returned, `emitted_at` by the upstream before it writes.
A request's id is its nonce: it travels in the tool's arguments, and the upstream puts it into whatever it answers.
Nothing in here knows sockets, processes or verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

NONCE = re.compile(rb"nonce-[0-9a-f]{12}")
EMITTED_AT = re.compile(rb'"emitted_at": ?([0-9]+\.[0-9]+)')
# The tool argument that carries the id of a request.
NONCE_ARGUMENT = "nonce"


def form_nonce(number: int) -> str:
    """The id of a request, from a number below 2**48 that no other request of the run has."""
    return f"nonce-{number:012x}"


def find_nonces(text: bytes) -> frozenset[str]:
    """Every nonce that stands in bytes a client has read."""
    return frozenset(nonce.decode() for nonce in NONCE.findall(text))


def find_emitted_at(text: bytes) -> float | None:
    """When the upstream wrote the last event in these bytes; None when it wrote none of them."""
    return max((float(stamp) for stamp in EMITTED_AT.findall(text)), default=None)


def find_reason(body: bytes) -> str | None:
    """The proxy's reason in a refusal, be it a problem, a JSON-RPC error or the last event of a stream."""
    for line in body.splitlines():
        try:
            message = orjson.loads(line.removeprefix(b"data:"))
        except orjson.JSONDecodeError:
            continue
        if not isinstance(message, dict):
            continue
        error = message.get("error")
        explanation = error.get("data") if isinstance(error, dict) else message
        reason = explanation.get("reason", explanation.get("code")) if isinstance(explanation, dict) else None
        if isinstance(reason, str):
            return reason
    return None


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as the administrator wants it. Only "active" is admitted; `scopes` as they stand in the row."""

    status: Literal["active", "disabled", "revoked", "expired"]
    scopes: frozenset[str] = frozenset()
    tier: str = "pro"


# Clients. `key` is a key's public id, `proxy` the name of an instance in the bench, the same after a restart.


@dataclass(frozen=True, slots=True)
class Sent:
    """Stamped before the first byte is written. `tool` is None for a request that names none (a bare GET)."""

    at: float
    id: str
    key: str
    proxy: str
    tool: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """The head of an answer, and its body unless that is a stream. `reason` is the proxy's own, None for an upstream's
    answer; `emitted_at` the upstream's stamp in the body, `request_id` the header X-Request-Id."""

    at: float
    id: str
    status: int
    reason: str | None
    request_id: str | None
    nonces: frozenset[str] = frozenset()
    emitted_at: float | None = None

    @property
    def admitted(self) -> bool:
        """Some denials are JSON-RPC errors with status 200: they carry a reason."""
        return 200 <= self.status < 300 and self.reason is None


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer: refused, reset, or the client itself went away."""

    at: float
    id: str
    error: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a stream, as it was read."""

    at: float
    id: str
    nonces: frozenset[str]
    emitted_at: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a stream. `clean`: by its framing, not by a reset; `reason`: what the proxy's last event said."""

    at: float
    id: str
    clean: bool
    reason: str | None = None


# The upstream.


@dataclass(frozen=True, slots=True)
class Received:
    """A request reached the upstream; written down before it is answered."""

    at: float
    id: str


# Whoever changes keys. Making a key is its first change.


@dataclass(frozen=True, slots=True)
class Changing:
    """Stamped before the statement is sent: from here on the change may be in force."""

    at: float
    key: str
    state: KeyState


@dataclass(frozen=True, slots=True)
class Changed:
    """Stamped after the commit returned: from here on the bound counts."""

    at: float
    key: str
    state: KeyState


@dataclass(frozen=True, slots=True)
class ChangeFailed:
    """Nobody knows whether it was committed, or will be."""

    at: float
    key: str
    state: KeyState
    error: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A receipt was read: this instance said that it refuses the key."""

    at: float
    key: str
    proxy: str


@dataclass(frozen=True, slots=True)
class Final:
    """The row at the end of everything."""

    at: float
    key: str
    state: KeyState


# Faults, proxies, gauges.


@dataclass(frozen=True, slots=True)
class FaultBegun:
    at: float
    name: str


@dataclass(frozen=True, slots=True)
class FaultEnded:
    """Healed. Whoever loads the proxies goes on until every proxy has admitted each of the `good` keys again."""

    at: float
    name: str
    good: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Killed:
    """SIGKILL, stamped after the process is gone: what it had to say last may be lost."""

    at: float
    proxy: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision line; `at` is when it was read. `rule` is the one that let it in, None for what was not let in."""

    at: float
    proxy: str
    request_id: str
    outcome: str
    status: int
    rule: str | None
    key: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class ExchangeEnded:
    """A proxy's line about a call or stream that it ended itself."""

    at: float
    proxy: str
    key: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Complained:
    """A line of level error or critical."""

    at: float
    proxy: str
    event: str
    line: str


@dataclass(frozen=True, slots=True)
class Gauge:
    """A proxy from outside. `moment`: before the first load of this process, or at rest after the last.

    `tasks` are threads where nothing else can be counted.
    """

    at: float
    proxy: str
    moment: Literal["start", "end"]
    fds: int
    tasks: int
    exchanges: int
    rss_bytes: int


Event = (
    Sent
    | Answered
    | Failed
    | Chunk
    | Ended
    | Received
    | Changing
    | Changed
    | ChangeFailed
    | Confirmed
    | Final
    | FaultBegun
    | FaultEnded
    | Killed
    | Decision
    | ExchangeEnded
    | Complained
    | Gauge
)


def merge(*journals: Iterable[Event]) -> list[Event]:
    """One journal, in the order of the stamps."""
    return sorted((event for journal in journals for event in journal), key=lambda event: event.at)


def parse_proxy_line(line: bytes, *, proxy: str, at: float) -> Event | None:
    """What a line of the proxy's log says to the checker; None for a line that says nothing to it."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:  # the last line of a killed process, or a traceback of the interpreter
        return Complained(at, proxy, "not_json", line.decode("utf-8", "replace")) if line.strip() else None
    if said.get("room") == "decision" and said["event"] == "request":
        return Decision(
            at,
            proxy,
            said["request_id"],
            said["outcome"],
            said["status"],
            None if said.get("decision") == "denied" else said.get("rule"),
            said.get("key_id"),
            said.get("name"),
        )
    if said["event"] == "exchanges_ended":
        return ExchangeEnded(at, proxy, said["key_id"], said["kind"], said["reason"])
    if said["level"] in ("error", "critical"):
        return Complained(at, proxy, said["event"], line.decode("utf-8", "replace"))
    return None


def parse_upstream_line(line: bytes) -> Received:
    """A line of `tests.faults.upstream`: `{"at": …, "id": …}`."""
    said = orjson.loads(line)
    return Received(said["at"], said["id"])
