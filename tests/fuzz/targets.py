"""Request targets that a crooked client might send: paths of the policy, bent byte by byte.

Everything is drawn from the `Random` that is handed in. A good third is canonical all the same.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random

BASES = (
    b"/mcp/v1", b"/v1/workflows/mine", b"/v1/workflows/other", b"/v1/workflows/mine/runs/7", b"/files/a/b", b"/files/x",
    b"/files/caf%C3%A9/a%20b", b"/public", b"/files/.../a.b", b"/",
)  # fmt: skip
# Leave a path canonical, as often as not.
MILD = (
    b"/a", b"/mine", b"/v1", b"a", b".", b"-", b"~", b"%20", b"%C3%A9", b"e%CC%81", b"%F0%9F%98%80", b"%3B", b"%3F",
    b"%23", b"%2A", b"@", b":8080", b"!", b"$&'()*+,=", b"?", b"?a=b", b"?a=%2e%2e/&b=/../", b"?a=b?c=d", b"?a=1&b=2",
    b"_",
)  # fmt: skip
WILD = (
    b"/", b"//", b"///", b"/.", b"/./", b"/..", b"/../", b"/../v1/workflows/other", b"%2e", b"%2E%2E", b".%2e",
    b"%2f", b"%2F", b"%5c", b"\\", b"..\\", b";", b";x=y", b"..;/", b"%00", b"\0", b"%c0%af", b"%C0%AE", b"%E0%80%AF",
    b"%ED%A0%80", b"%F4%90%80%80", b"%FF", b"%25", b"%252F", b"%252e%252e", b"%", b"%2", b"%zz", b"%u002f", b"%0d%0a",
    b"%0A", b"%09", b"#", b"#/v1/workflows/mine", b"?x=/v1/workflows/mine", b"\xc3\xa9", b"\xff", b"\xe2\x80\xa8",
    b"%6D", b"%4d", b"|", b"^", b"[", b"]", b"{", b"}", b"<", b">", b'"', b"`", b"\x7f", b"\x80", b"\t", b"\x0b",
    b"\x0c", b" ", b"\r", b"\n", b"*", b"http://", b"http://evil.example", b"//evil.example", b"localhost:80", b"?\0",
    b"?a\\b", b"?%", b"?a=%0d%0a", b"?a#b", b"?tenant_id=x", b"?A=1&a=2",
)  # fmt: skip
LETTERS = (string.ascii_letters + string.digits).encode()


def write_target(rng: Random) -> bytes:
    """One target; whatever it is, it is one line of three words to whoever is careless enough."""
    target = rng.choice(BASES)
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))):
        target = rng.choice(BENDS)(target, rng)
    return target


def _place(tricks: tuple[bytes, ...]) -> Callable[[bytes, Random], bytes]:
    """At the end, at a slash, or anywhere; now and then in the place of what stands there."""

    def place(target: bytes, rng: Random) -> bytes:
        slashes = [at for at, byte in enumerate(target) if byte == 0x2F]
        at = rng.choice((len(target), rng.choice(slashes or [0]), rng.randrange(len(target) + 1)))
        return target[:at] + rng.choice(tricks) + target[at + (rng.randrange(4) == 0) :]

    return place


def _escape_one(target: bytes, rng: Random) -> bytes:
    """One byte in its escaped spelling, once or twice over."""
    at = rng.randrange(len(target) or 1)
    spelling = rng.choice((b"%%%02X", b"%%%02x", b"%%25%02X")) % (target[at] if target else 0x2F)
    return target[:at] + spelling + target[at + 1 :]


def _swap_one(target: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(target) or 1)
    byte = rng.choice(LETTERS) if rng.randrange(3) else rng.randrange(256)
    return target[:at] + bytes([byte]) + target[at + 1 :]


def _swap_case(target: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(target) or 1)
    return target[:at] + target[at:].swapcase()


BENDS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_place(MILD),) * 6,
    *(_place(WILD),) * 3,
    _escape_one,
    _swap_one,
    _swap_one,
    _swap_case,
    lambda target, rng: target + rng.choice(BASES),
    lambda target, rng: target * 2 if len(target) < 3000 else target,
    lambda target, rng: target[rng.randrange(2) :],
)
