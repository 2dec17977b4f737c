"""JSON texts in all their spellings: values nobody expects, numbers of every shape, escapes and white space.

Everything is drawn from the `Random` that is handed in. A text need not be well-formed: a `Token` is written as it is,
and an object may hold a member twice.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

ODD_NAMES = (
    "", " ", "0", "-1", "1e3", "__proto__", "constructor", "toJSON", "length", "$ref", "a.b", "名", "\0", "\u2028",
)  # fmt: skip
TEXTS = (
    "", "a", "2.0", "2", "ping", "tools/call", "tools/list", "initialize", "echo", "e\u0301cho", "ECHO", "echo\0",
    "echo\n", " echo", "ref/prompt", "ref/tool", "aegis://texts/a", "aegis://texts/../b", "aegis://t/a\tb",
    "2026-07-28", "2025-11-25", "zzz", "null", "1", "1e5", "\ufeff", "\u200b", "\u2028\u2029", "\x7f\x85", "\U0001f600",
    "x" * 128, "x" * 129, "é" * 64, "é" * 65, "</script>", "\\", '"', "/", "\ufffd", "\ud800", "\udc00\ud800",
    "9007199254740993",
)  # fmt: skip
NEAR_NUMBERS = (
    "NaN", "Infinity", "-Infinity", "nan", "True", "None", "01", "-01", "+1", ".5", "1.", "-", "1e", "1e+", "0x10",
    "1_000", "١", "1e400", "-1e999", "1.8e308", "1E400", "0b1", "1n", "--1", "1.e5", "- 1",
)  # fmt: skip
EDGES = (0, 1, 7, 2**31, 2**32, 2**53 - 2, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1)
LITERALS = {None: "null", True: "true", False: "false"}


@dataclass(slots=True)
class Members:
    """An object as it stands in a text: members in their order, any of them more than once."""

    pairs: list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Token:
    """A number, or whatever stands in its place, to be written as it is."""

    text: str


def unfold(value: object) -> Any:
    if isinstance(value, dict):
        return Members([(name, unfold(member)) for name, member in value.items()])
    if isinstance(value, list):
        return [unfold(item) for item in value]
    return Token(json.dumps(value)) if type(value) in (int, float) else value


# Values.


def draw_value(rng: Random) -> Any:
    kind = rng.randrange(10)
    if kind < 4:
        return Token(draw_number(rng))
    if kind < 7:
        return rng.choice(TEXTS)
    if kind == 7:
        return rng.choice((None, True, False))
    inner = [(draw_name(rng), rng.choice((None, "x", Token(draw_number(rng))))) for _ in range(rng.randrange(3))]
    return Members(inner) if kind == 8 else [value for _, value in inner]


def draw_name(rng: Random) -> str:
    return rng.choice(ODD_NAMES) if rng.randrange(3) == 0 else rng.choice("abcdxyz")


def draw_number(rng: Random) -> str:
    """A number in one of its many shapes; now and then something that only looks like one."""
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(("", "-")) + str(rng.choice(EDGES))
    if kind == 3:
        return (
            rng.choice(("", "-"))
            + str(rng.randrange(1, 10))
            + _draw_digits(rng, rng.choice((0, 14, 15, 16, 18, 30, 290)))
        )
    if kind == 4 and rng.randrange(3) == 0:
        return rng.choice(NEAR_NUMBERS)
    if kind < 7:
        return _draw_decimal(rng)
    value = _draw_double(rng)
    return rng.choice(
        (repr, json.dumps, "{:.3f}".format, "{:.17g}".format, "{:e}".format, "{:.25E}".format, "{:.1f}".format)
    )(value)


def _draw_digits(rng: Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count)) if rng.randrange(3) else rng.choice("019") * count


def _draw_decimal(rng: Random) -> str:
    whole = rng.choice(("0", "-0", "1", "10", "-7", "1" + _draw_digits(rng, rng.choice((3, 15, 17, 25)))))
    fraction = rng.choice(("", "", ".0", ".5", ".50", f".{_draw_digits(rng, rng.choice((1, 6, 15, 17, 40)))}"))
    power = rng.choice(
        ("0", "00", "1", "5", "16", "17", "20", "21", "22", "23", "290", "307", "308", "323", "324", "999999")
    )
    return whole + fraction + rng.choice(("", f"{rng.choice('eE')}{rng.choice(('', '+', '-', '-'))}{power}"))


def _draw_double(rng: Random) -> float:
    kind = rng.randrange(3)
    if kind == 0:
        value: float = struct.unpack("<d", rng.randrange(2**64).to_bytes(8, "little"))[0]
        return value if math.isfinite(value) else 5e-324
    return rng.randrange(-1000, 1000) / 8 if kind == 1 else float(rng.randrange(2**54)) * 10.0 ** rng.randrange(-30, 9)


# Text.


def write(value: Any, rng: Random) -> str:
    """The value as a text, in the habits of one writer."""
    return _write(value, rng.choice(HABITS), rng)


@dataclass(frozen=True, slots=True)
class Habits:
    """How often a letter is escaped, and white space stands where it may."""

    escaping: float
    spacing: float


HABITS = (Habits(0, 0), Habits(0, 0), Habits(0.1, 0), Habits(0, 0.1), Habits(0.15, 0.15))


def _write(value: Any, habits: Habits, rng: Random) -> str:
    if isinstance(value, Members):
        return "{" + _join((_write_member(*pair, habits, rng) for pair in value.pairs), habits, rng) + "}"
    if isinstance(value, list):
        return "[" + _join((_write(item, habits, rng) for item in value), habits, rng) + "]"
    if isinstance(value, Token):
        return value.text
    return _quote(value, habits, rng) if isinstance(value, str) else LITERALS[value]


def _write_member(name: str, value: Any, habits: Habits, rng: Random) -> str:
    return (
        _quote(name, habits, rng) + _draw_gap(habits, rng) + ":" + _draw_gap(habits, rng) + _write(value, habits, rng)
    )


def _join(texts: Iterable[str], habits: Habits, rng: Random) -> str:
    gap = _draw_gap(habits, rng)
    return gap + f"{gap},{_draw_gap(habits, rng)}".join(texts) + _draw_gap(habits, rng)


def _draw_gap(habits: Habits, rng: Random) -> str:
    return rng.choice(" \n\t\r") if habits.spacing and rng.random() < habits.spacing else ""


def _quote(text: str, habits: Habits, rng: Random) -> str:
    if not habits.escaping:
        return json.dumps(text, ensure_ascii=False)
    return '"' + "".join([_spell(letter, rng.random() < habits.escaping, rng) for letter in text]) + '"'


def _spell(letter: str, escaped: bool, rng: Random) -> str:
    if not escaped and letter >= " " and letter not in '"\\':
        return letter
    if letter == "/":
        return "\\/"
    units = memoryview(letter.encode("utf-16-le", "surrogatepass")).cast("H")
    return "".join(rng.choice(("\\u{:04x}", "\\u{:04X}")).format(unit) for unit in units)
