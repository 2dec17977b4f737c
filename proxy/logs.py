"""What the proxy says while it works: one JSON object a line.  [io]

In go an event and its fields, from our rooms (structlog) and from libraries (`logging`); out goes a line with UTC
time, level, room and event. Whatever looks like a credential is blotted out of the finished line, so no route around
it exists: field, nested value, exception text or the repr of a foreign object. This room does not know what is worth
logging.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import re
import sys
from typing import BinaryIO, Final, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

# Applied to finished JSON, where a string ends at a bare quote and `\.` is one character. Lengths are bounded so that
# no text, however hostile, takes longer than linear time to search.
CREDENTIAL: Final = re.compile(
    rb"""
      (?P<key>aegis_[0-9A-Za-z]{12}_)[0-9A-Za-z]+         # also a part of a key: its beginning helps to guess
    | (?P<legacy>aegis_)[0-9A-Za-z]{40}
    | (?P<bearer>\b[Bb][Ee][Aa][Rr][Ee][Rr][ ]+)(?:\\.|[^\s"\\,]){6,}  # shorter ones are prose
    | (?P<jwt>\beyJ)[\w-]{4,512}\.[\w-]{4,8192}\.[\w-]*
    | (?P<url>\b[A-Za-z][A-Za-z0-9+.-]{0,15}://(?:\\.|[^\s"\\/@:]){0,128}:)(?:\\.|[^\s"\\]){1,256}(?=@)
    | (?P<field>\bpassword=)(?:\\.|[^\s"\\&])+
    | (?P<control>\x7f|\xc2[\x80-\x9f])                   # orjson leaves these to the terminal to act upon
    """,
    re.VERBOSE,
)
# One of these is in whatever the pattern finds, lower-cased; most lines hold none and save the search (29 µs to 14).
SIGNS: Final = (b"aegis_", b"bearer", b"eyj", b"://", b"password=", b"\x7f", b"\xc2")
# Longer than any line of ours with its traceback; the search above takes 20 ms for a hostile line of this length.
MAX_LINE_BYTES: Final = 16 * 1024
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str, stream: TextIO | BinaryIO | None = None) -> None:
    """Send every line from `level` ("debug", "info", "warning", "error") upwards to `stream`, by default stdout.

    Calling it again changes level and stream, also for loggers already handed out.
    """
    writer = LineWriter(stream or sys.stdout)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    route_standard_logging(LEVELS[level])


def get_logger(room: str) -> FilteringBoundLogger:
    return cast("FilteringBoundLogger", structlog.get_logger(room=room))


def route_standard_logging(level: int) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, RoomHandler):
            root.removeHandler(handler)
    root.addHandler(RoomHandler())
    root.setLevel(level)
    logging.getLogger("aiohttp.access").disabled = True  # our own line says more, and only where it matters


def render(logger: object, method: str, event: EventDict) -> bytes:
    """One line of JSON, whatever it takes: a value it cannot write is written as its repr."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS  # reprs know which fields to hide
    try:
        line = orjson.dumps(event, default=repr, option=options)
    except (TypeError, RecursionError):  # lone surrogates of a header, integers beyond 64 bits, cycles
        line = json.dumps({str(name): ascii(value) for name, value in event.items()}).encode()
    if len(line) > MAX_LINE_BYTES:
        line = orjson.dumps(
            {"event": "line_too_long", "bytes": len(line), "begins": line[:1000].decode("utf-8", "replace")}
        )
    return blot(line)


def blot(line: bytes) -> bytes:
    """Finished JSON without whatever in it looks like a credential."""
    return CREDENTIAL.sub(_blot_out, line) if has_signs(line) else line


def has_signs(line: bytes) -> bool:
    """Whether there may be anything to blot out."""
    lowered = line.lower()
    return any(sign in lowered for sign in SIGNS)


def _blot_out(match: re.Match[bytes]) -> bytes:
    if match.lastgroup == "control":
        return b"\\u%04x" % ord(match["control"].decode())
    return match[match.lastgroup or 0] + "…".encode()


class LineWriter:
    """Where structlog drops its lines. A reader that went away must not take the proxy with it.

    Lines of one turn of the event loop leave in one write: a system call costs more than a line does.
    """

    def __init__(self, stream: TextIO | BinaryIO) -> None:
        self._text = stream if isinstance(stream, io.TextIOBase) and not hasattr(stream, "buffer") else None
        self._binary = cast("BinaryIO", getattr(stream, "buffer", stream))
        self._waiting: list[bytes] = []

    def msg(self, line: bytes) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop here: another thread, or before it all begins
            self._write(line + b"\n")
            return
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(line + b"\n")

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._write(b"".join(waiting))

    def _write(self, lines: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            if self._text is not None:
                self._text.write(lines.decode())
            else:
                self._binary.write(lines)
                self._binary.flush()

    debug = info = warning = error = critical = msg


class RoomHandler(logging.Handler):
    """Lines of aiohttp, asyncio and asyncpg, rendered like ours; their logger's name is the room."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the message
            event = str(record.msg)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        get_logger(record.name).log(level, event, exc_info=record.exc_info)
