"""The answer to a client: in one piece, begun as a stream, or cut into pieces."""

from __future__ import annotations

from proxy.client_response import WHOLE_ANSWER_BYTES, cut


async def test_a_body_is_cut_into_pieces_that_are_its_own_bytes() -> None:
    body = bytes(range(256)) * 1000
    read = cut(body, then=None)
    pieces = []
    while piece := await read():
        pieces.append(piece)
    assert b"".join(pieces) == body
    assert all(len(piece) <= WHOLE_ANSWER_BYTES for piece in pieces)


async def test_what_follows_is_read_once_the_body_is_through() -> None:
    rest = iter([b"c", b""])

    async def read_rest() -> bytes:
        return next(rest)

    read = cut(b"ab", then=read_rest)
    assert [await read(), await read(), await read()] == [b"ab", b"c", b""]
