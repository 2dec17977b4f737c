"""One HTTP/1.x answer, taken apart as it arrives.  [pure]

In: the bytes of one connection, in whatever pieces they come. Out: status, headers, pieces of the body, and verdicts:
is the head complete, is the body, did the upstream break the rules, may the connection be used again.
Refuses to know: sockets, time, who asked.

llhttp (under httptools) does the parsing. It was tried case by case and refuses by itself: bare CR or LF, obs-fold,
control characters in fields, repeated or malformed Content-Length, Content-Length beside Transfer-Encoding, crooked
chunk sizes. What it lets pass and must not is refused here: see `_judge_framing`.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

# A server needs one or two (100, then perhaps 103); a flood of them would keep the request waiting for ever.
MAX_INTERIM_ANSWERS = 8


class _RuleBrokenError(Exception):
    """Raised through the C parser to stop it; never leaves this module."""


class Answer:
    """The state of one answer. A fresh one for each request: nothing of a former answer can lean into the next."""

    __slots__ = (
        "_fields",
        "_fruitless_bytes",
        "_interim_answers",
        "_max_header_bytes",
        "_parser",
        "_to_head",
        "_until_close",
        "broken",
        "buffered_bytes",
        "chunks",
        "complete",
        "head_complete",
        "headers",
        "keep_alive",
        "started",
        "status",
        "surplus",
    )

    status: int  # set once `head_complete`, like `headers`
    headers: CIMultiDict[str]

    def __init__(self, *, to_head: bool, max_header_bytes: int) -> None:
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._to_head = to_head
        self._max_header_bytes = max_header_bytes
        self._fields: list[tuple[bytes, bytes]] = []
        self._interim_answers = 0
        self._fruitless_bytes = 0
        self._until_close = False
        self.chunks: list[bytes] = []
        self.buffered_bytes = 0
        self.started = False  # a byte has come
        self.head_complete = False
        self.complete = False
        self.broken = False  # the rules were broken before the end: what was buffered stands, nothing will follow
        self.surplus = False  # bytes came after the end: this answer stands, the connection is not to be trusted
        self.keep_alive = False

    def feed(self, received: bytes | memoryview) -> None:
        """Take the next bytes (at least one); raises nothing: look at the public fields afterwards."""
        if self._parser is None:
            self.surplus = True
            return
        if not self.started:
            self.started = True
            self.broken = received[0] != 0x48  # "H": llhttp also reads RTSP and ICE, and skips empty lines
        buffered_bytes = self.buffered_bytes
        try:
            if not self.broken:
                self._parser.feed_data(received)
        except (HttpParserError, HttpParserUpgrade):
            self.surplus = self.complete
            self.broken = not self.complete
        if self.complete or self.broken:
            self._parser = None  # it holds our bound methods: without this every answer would wait for the collector
        elif self.buffered_bytes != buffered_bytes:
            self._fruitless_bytes = 0
        else:
            self._count_fruitless(len(received))

    def finish(self) -> None:
        """The upstream closed its side in an orderly way: the proper end of a body that has no other end."""
        if self.head_complete and self._until_close:
            self.complete = True
            self._parser = None

    def take(self) -> bytes:
        """Everything buffered, leaving nothing."""
        chunks = self.chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered_bytes = 0
        return taken

    def abandon(self) -> None:
        """Nothing of this answer may be handed on any more."""
        self.chunks.clear()
        self.buffered_bytes = 0
        self.head_complete = self.complete = False
        self._parser = None

    def _count_fruitless(self, received_bytes: int) -> None:
        """Heads, trailers and chunk extensions: httptools gathers fields without a bound of its own."""
        self._fruitless_bytes += received_bytes
        if self._fruitless_bytes > self._max_header_bytes:
            self.broken = True
            self._parser = None

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self.complete:
            raise _RuleBrokenError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))  # trailers come here too, and are looked at by nobody

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        fields, self._fields = self._fields, []
        if sum([len(name) + len(value) + 4 for name, value in fields]) > self._max_header_bytes:
            raise _RuleBrokenError
        status = self._parser.get_status_code()
        headers = CIMultiDict(
            [(name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")) for name, value in fields]
        )
        self._judge_framing(self._parser, status, headers)
        if status < 200:
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                raise _RuleBrokenError
            return
        self.status = status
        self.headers = headers
        self.head_complete = True
        self.complete = self._to_head  # llhttp cannot be told that no body follows: end here, do not reuse

    def on_body(self, chunk: bytes) -> None:
        if self.complete:
            raise _RuleBrokenError
        self.chunks.append(chunk)
        self.buffered_bytes += len(chunk)

    def on_message_complete(self) -> None:
        self.complete = self.head_complete  # an interim answer completes nothing

    def _judge_framing(self, parser: HttpResponseParser, status: int, headers: CIMultiDict[str]) -> None:
        """Refuse what leaves the end of the body open to opinion (RFC 9112 section 6.3), and note what ends it."""
        version = parser.get_http_version()
        length = headers.get("Content-Length")
        codings = headers.getall("Transfer-Encoding", ())
        framed = bool(codings) or length not in (None, "0")
        if version not in ("1.1", "1.0") or not 100 <= status <= 599 or status == 101:
            raise _RuleBrokenError
        if codings and (version == "1.0" or len(codings) > 1 or codings[0].lower() != "chunked"):
            raise _RuleBrokenError  # `gzip, chunked`, `xchunked`, a list in two lines: llhttp takes them all
        if framed and (status < 200 or status == 204):
            raise _RuleBrokenError  # RFC 9110 section 8.6, RFC 9112 section 6.1: never there, so somebody expects bytes
        bodiless = self._to_head or status in (204, 304)
        self._until_close = not bodiless and length is None and not codings
        # A 304 may tell the length of the 200: an upstream that then sends that much would speak into the next answer.
        self.keep_alive = parser.should_keep_alive() and not self._to_head and not (status == 304 and framed)
