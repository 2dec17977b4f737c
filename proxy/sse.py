"""Server-sent events as bytes: where one ends, what it says, and how one is changed without touching the rest.  [pure]

In come chunks of a stream, cut anywhere. Out go the same bytes, event by event, so that a caller can replace or drop
single ones (`EventRewriter`), or only the knowledge whether the stream rests between two events (`EventBoundary`).
The grammar is the WHATWG one (HTML, "Server-sent events", §9.2.6): lines end with CR, LF or CRLF, a BOM may come first,
a blank line ends an event. This room refuses to know JSON, MCP and what is in an event.
"""

from __future__ import annotations

from collections.abc import Callable

_BOM = b"\xef\xbb\xbf"
_ID = b"id:"
_LINE_ENDS = (b"\n", b"\r")


def get_values(event: bytes, name: bytes) -> list[bytes]:
    """The values of a field, in order. An event's data is all of them joined by LF, its id is the last one."""
    return [value for field, value in map(_read_line, event.splitlines()) if field == name]


def replace_field(event: bytes, name: bytes, value: bytes) -> bytes:
    """The event with its first field of that name set to a value without line ends, and the others of it left out."""
    lines: list[bytes] = []
    replaced = False
    for line in event.splitlines(keepends=True):
        text = line.rstrip(b"\r\n")
        if _read_line(text)[0] != name:
            lines.append(line)
        elif not replaced:
            lines.append(name + b": " + value + line[len(text) :])
            replaced = True
    return b"".join(lines)


def form_event(data: bytes, name: bytes = b"message") -> bytes:
    """One whole event; neither has line ends."""
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def _read_line(line: bytes) -> tuple[bytes, bytes]:
    """Field and value; a comment has an empty field name, a line without a colon an empty value."""
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


def pass_any(_event: bytes) -> bool:
    """Whatever is too large to be rewritten may pass as it is."""
    return True


class _Rewriter:
    """Bytes in, bytes out, once it is clear whether the stream starts with a BOM, which passes as it is."""

    def __init__(self) -> None:
        self._opening: bytes | None = b""  # until that is clear

    def feed(self, chunk: bytes) -> bytes:
        if self._opening is None:
            return self._rewrite_chunk(chunk)
        beginning = self._opening + chunk
        if len(beginning) < len(_BOM) and _BOM.startswith(beginning):
            self._opening = beginning
            return b""
        self._opening = None
        bom = _BOM if beginning.startswith(_BOM) else b""
        return bom + self._rewrite_chunk(beginning[len(bom) :])

    def _rewrite_chunk(self, chunk: bytes) -> bytes:
        raise NotImplementedError


class EventRewriter(_Rewriter):
    """Bytes in, bytes out: each complete event passes through `rewrite`, which returns what is sent instead.

    `rewrite` sees an event with its line ends and the blank line; it returns the same bytes to let it pass, or b"" to
    drop it. Comments and blank lines between events pass at once, so keep-alives are never held back. An event of more
    than `max_event_bytes` cannot be judged: it is dropped, unless what came of it may `pass_large`. `dropped` counts.
    """

    def __init__(
        self,
        rewrite: Callable[[bytes], bytes],
        *,
        max_event_bytes: int,
        pass_large: Callable[[bytes], bool] | None = None,
    ) -> None:
        super().__init__()
        self._rewrite = rewrite
        self._max_event_bytes = max_event_bytes
        self._pass_large = pass_large
        self._event = bytearray()  # what has come of the present event, the line in progress included
        self._line_is_empty = True
        self._skipping = False  # the rest of an event that was too large
        self._passing = False  # which passes
        self._ended_with_cr = False  # a LF that follows belongs to that line end ...
        self._sent_last = True  # ... and shares the fate of the line
        self.dropped = 0

    def _rewrite_chunk(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        sent = b""
        if self._ended_with_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            sent = self._end_cr_lf()
        self._ended_with_cr = chunk.endswith(b"\r")
        return sent + b"".join([self._take(piece) for piece in chunk.splitlines(keepends=True)])

    def finish(self) -> bytes:
        """The stream has ended. A client may or may not read an event without its blank line: it is judged as well."""
        rest = self._opening or bytes(self._event)
        self._opening, self._event = None, bytearray()
        return self._judge(rest) if rest else b""

    def _end_cr_lf(self) -> bytes:
        if self._event:
            self._event += b"\n"
            return b""
        return b"\n" if self._sent_last else b""

    def _take(self, piece: bytes) -> bytes:
        """A line, or the beginning or the rest of one."""
        ended = piece.endswith(_LINE_ENDS)
        blank = ended and self._line_is_empty and piece[:1] in _LINE_ENDS
        self._line_is_empty = ended
        if self._skipping:
            self._skipping = not blank
            return piece if self._passing else b""
        self._event += piece
        if len(self._event) > self._max_event_bytes:
            self._skipping = not blank
            return self._give_up()
        # A comment is only ever first in the buffer when no event is in progress: it has just been completed.
        if not blank and not (ended and self._event.startswith(b":")):
            return b""
        event, self._event = bytes(self._event), bytearray()
        sent = self._judge(event) if blank and len(event) > len(piece) else event
        self._sent_last = sent != b""
        return sent

    def _give_up(self) -> bytes:
        """The event is too large to be judged."""
        event, self._event = bytes(self._event), bytearray()
        self._sent_last = self._passing = self._pass_large is not None and self._pass_large(event)
        self.dropped += not self._passing
        return event if self._passing else b""

    def _judge(self, event: bytes) -> bytes:
        sent = self._rewrite(event)
        if not sent:
            self.dropped += 1
        return sent


class IdRewriter(_Rewriter):
    """Bytes in, bytes out: the value of every `id` field passes through `rewrite`, which returns what is sent instead;
    None leaves the field out, and so does an id longer than `max_id_bytes`. Every other byte passes as it came, and at
    once: only a line that may be an `id` waits for its end.
    """

    def __init__(self, rewrite: Callable[[bytes], bytes | None], *, max_id_bytes: int) -> None:
        super().__init__()
        self._rewrite = rewrite
        self._max_id_bytes = max_id_bytes
        self._line: bytes | None = b""  # what has come of a line that may be an `id`; None within any other
        self._leaving_out = False  # within an id that is too long
        self._left_out_cr = False  # a LF that follows belongs to the line that was left out

    def _rewrite_chunk(self, chunk: bytes) -> bytes:
        if self._left_out_cr:
            self._left_out_cr = not chunk
            chunk = chunk.removeprefix(b"\n")
        sent = [self._take(piece) for piece in chunk.splitlines(keepends=True)]
        self._left_out_cr |= chunk.endswith(b"\r") and not sent[-1]
        return b"".join(sent)

    def finish(self) -> bytes:
        """The stream has ended within a line."""
        rest, self._line = self._opening or self._line or b"", None
        return self._rewrite_line(rest)

    def _take(self, piece: bytes) -> bytes:
        ended = piece.endswith(_LINE_ENDS)
        if self._line is None:
            left_out = self._leaving_out
            self._line, self._leaving_out = (b"", False) if ended else (None, left_out)
            return b"" if left_out else piece
        line = self._line + piece
        if ended:
            self._line = b""
            return self._rewrite_line(line)
        if line[: len(_ID)] != _ID[: len(line)]:
            self._line = None
            return line
        self._leaving_out = len(_read_line(line)[1]) > self._max_id_bytes
        self._line = None if self._leaving_out else line
        return b""

    def _rewrite_line(self, line: bytes) -> bytes:
        text = line.rstrip(b"\r\n")
        name, value = _read_line(text)
        if name != b"id" or not value:
            return line
        rewritten = self._rewrite(value) if len(value) <= self._max_id_bytes else None
        return b"" if rewritten is None else b"id: " + rewritten + line[len(text) :]


class EventBoundary:
    """Whether the bytes relayed so far end between two events, so that one of our own may follow. Constant memory.

    Where a BOM comes first, the answer stays a cautious no until the first blank line.
    """

    def __init__(self) -> None:
        self.at_boundary = True
        self._line_is_empty = True
        self._is_comment = False
        self._in_event = False
        self._ended_with_cr = False

    def feed(self, chunk: bytes) -> None:
        if not chunk:
            return
        if self._ended_with_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._ended_with_cr = chunk.endswith(b"\r")
        if chunk.endswith((b"\n\n", b"\r\r", b"\n\r\n")):  # whatever came before: the usual end of a chunk
            self._line_is_empty, self._in_event = True, False
        else:
            for piece in chunk.splitlines(keepends=True):
                self._take(piece)
        self.at_boundary = self._line_is_empty and not self._in_event

    def _take(self, piece: bytes) -> None:
        ended = piece.endswith(_LINE_ENDS)
        if self._line_is_empty:
            self._is_comment = piece.startswith(b":")
        if self._line_is_empty and piece[:1] in _LINE_ENDS:
            self._in_event = False
        elif not self._is_comment:
            self._in_event = True
        self._line_is_empty = ended
