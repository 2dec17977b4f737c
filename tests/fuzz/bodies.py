"""Bodies that a crooked client might POST: sound messages, bent in their structure and then in their bytes.

Everything is drawn from the `Random` that is handed in, so that a seed brings a body back and Hypothesis can shrink
one. About a third comes out well enough to be admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.json_texts import Members, Token, draw_name, draw_number, draw_value, unfold, write
from tests.staging import INITIALIZE, MODERN_META


def _call(method: str, params: dict[str, Any], **identity: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", **identity, "method": method, "params": params}


_ARGUMENTS = {"name": "a", "count": 3, "ratio": 0.25, "tags": ["x", "é", None, True], "deep": {"list": [[], {}]}}
SOUND: tuple[dict[str, Any], ...] = (
    {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    INITIALIZE,
    _call("tools/call", {"name": "echo", "arguments": _ARGUMENTS}, id=2),
    _call("tools/call", {"name": "echo", "arguments": _ARGUMENTS, "_meta": MODERN_META}, id="c"),
    _call("tools/call", {"name": "echo", "task": {"ttl": 60000}, "_meta": {"progressToken": 7}}, id=3),
    _call("tools/list", {"cursor": ""}, id=4),
    _call("prompts/get", {"name": "greeting", "arguments": {"who": "you"}}, id=5),
    _call("resources/read", {"uri": "aegis://texts/a", "_meta": MODERN_META}, id=6),
    _call("resources/subscribe", {"uri": "aegis://texts/b%20c"}, id=7),
    _call(
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "greeting"}, "argument": {"name": "who", "value": "y"}},
        id=8,
    ),
    _call("completion/complete", {"ref": {"type": "ref/resource", "uri": "aegis://texts/{t}"}}, id=9),
    _call("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["aegis://texts/a"]}}, id=10),
    _call("tasks/get", {"taskId": "t-1"}, id=11),
    _call("tasks/list", {"taskId": "t-1", "cursor": "c"}, id=15),
    _call("subscriptions/listen", {"notifications": {"taskIds": ["t-1"]}, "_meta": MODERN_META}, id=16),
    _call("vendor/open", {"volume": "v", "size": 1}, id=12),
    _call("notifications/cancelled", {"requestId": 2, "reason": "late"}),
    _call("notifications/progress", {"progressToken": "p", "progress": 0.5, "total": 1}),
    _call("tools/call", {"name": "echo", "inputResponses": {"k": {}}, "requestState": "s"}, id=13),
    {"jsonrpc": "2.0", "id": 14, "result": {"content": []}},
    {"jsonrpc": "2.0", "id": "r", "error": {"code": -32601, "message": "no", "data": [1]}},
)  # fmt: skip

NAMES = (
    "jsonrpc", "id", "method", "params", "result", "error", "name", "arguments", "uri", "ref", "type", "cursor",
    "_meta", "taskId", "task", "requestId", "requestState", "inputResponses", "notifications", "progressToken",
    "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/logLevel", "protocolVersion",
)  # fmt: skip
LOOKALIKES = {"s": "ſ", "k": "\u212a", "i": "ı", "e": "е", "a": "а", "o": "ο", "fi": "ﬁ"}
PIECES = (
    b"\xef\xbb\xbf", b"\xfe\xff", b"\0", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc2\xa0",
    b"\xe2\x80\xa8", b"\x0b", b"\x0c", b"\t", b"\r\n", b" ", b",", b":", b"[", b"]", b"{", b"}", b'"', b"\\", b"'",
    b"//\n", b"/**/", b"#", b"1", b"-", b".", b"e", b"0", b"NaN", b"Infinity", b"nul", b"true", b"undefined",
    b"\\ud800", b"\\udc00", b"\\u0000", b"\\u006d", b"\\x41", b"\\u00", b'"a":1,', b',"id":1', b',"method":"ping"',
)  # fmt: skip
TAILS = (
    b"\n", b" \t\r\n", b"\0", b"x", b"{}", b"null", b",", b"]", b"}", b"\x1a", b'{"jsonrpc":"2.0"}', b"\xef\xbb\xbf",
)  # fmt: skip
DEPTHS = (1, 5, 58, 60, 61, 62, 63, 64, 65, 66, 130, 260, 1100)


def write_body(rng: Random) -> bytes:
    """One body."""
    tree = unfold(rng.choice(SOUND))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3))):
        tree = rng.choice(BENDS)(tree, rng)
    body = write(tree, rng).encode("utf-8", "surrogatepass")
    if rng.randrange(4) == 0:
        for _ in range(rng.choice((1, 1, 2))):
            body = rng.choice(DAMAGES)(body, rng)
    return body


# Structure.


def _find_objects(tree: Any) -> list[Members]:
    """Every object, the outer ones more than once: that is where the members are that mean something."""
    found: list[Members] = []
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, Members):
            found += [node] * max(1, 4 - depth)
        if depth < 8:
            children = [child for _, child in node.pairs] if isinstance(node, Members) else node
            waiting += [(child, depth + 1) for child in children] if isinstance(children, list) else []
    return found


def _insert(node: Members, pair: tuple[str, Any], rng: Random) -> None:
    node.pairs.insert(rng.randrange(len(node.pairs) + 1), pair)


def _change(at: Callable[[Members, Random], None]) -> Callable[[Any, Random], Any]:
    def change(tree: Any, rng: Random) -> Any:
        objects = _find_objects(tree)
        if objects:
            at(rng.choice(objects), rng)
        return tree

    return change


def _repeat_member(node: Members, rng: Random) -> None:
    if node.pairs:
        name, value = rng.choice(node.pairs)
        _insert(node, (name, value if rng.randrange(2) else draw_value(rng)), rng)


def _imitate_member(node: Members, rng: Random) -> None:
    name = rng.choice(node.pairs)[0] if node.pairs and rng.randrange(3) else rng.choice(NAMES)
    _insert(node, (rng.choice(IMITATIONS)(name, rng), draw_value(rng)), rng)


def _replace_value(node: Members, rng: Random) -> None:
    if node.pairs:
        at = rng.randrange(len(node.pairs))
        node.pairs[at] = (node.pairs[at][0], draw_value(rng))


def _replace_number(node: Members, rng: Random) -> None:
    """In the deep, where any number may stand."""
    _insert(node, (rng.choice(("n", "x", "size")), Token(draw_number(rng))), rng)


def _drop_member(node: Members, rng: Random) -> None:
    if node.pairs:
        del node.pairs[rng.randrange(len(node.pairs))]


def _add_member(node: Members, rng: Random) -> None:
    name = rng.choice(NAMES) if rng.randrange(2) else draw_name(rng)
    _insert(node, (name, draw_value(rng)), rng)


def _shuffle_members(node: Members, rng: Random) -> None:
    rng.shuffle(node.pairs)


def _nest_value(node: Members, rng: Random) -> None:
    """Written out here: what nests too deep for a parser nests too deep for `write`."""
    levels = [rng.choice((("[", "]"), ('{"d":', "}"))) for _ in range(rng.choice(DEPTHS))]
    nested = "".join(start for start, _ in levels) + "1" + "".join(end for _, end in reversed(levels))
    _insert(node, (draw_name(rng), Token(nested)), rng)


def _make_batch(tree: Any, rng: Random) -> Any:
    return rng.choice(([tree], [tree, tree], [[tree]], [], [Token("1"), tree]))


BENDS: tuple[Callable[[Any, Random], Any], ...] = (
    *map(_change, (
        _repeat_member, _imitate_member, _replace_value, _replace_value, _replace_number, _replace_number,
        _drop_member, _add_member, _add_member, _shuffle_members, _shuffle_members, _nest_value,
    )),
) * 3 + (_make_batch,)  # fmt: skip


def _swap_lookalike(name: str, rng: Random) -> str:
    plain = [letters for letters in LOOKALIKES if letters in name]
    return name.replace(letters := rng.choice(plain), LOOKALIKES[letters], 1) if plain else name + "\u0307"


def _split_words(name: str, _rng: Random) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


IMITATIONS: tuple[Callable[[str, Random], str], ...] = (
    lambda name, rng: name.upper(),
    lambda name, rng: name.title(),
    lambda name, rng: name.swapcase(),
    lambda name, rng: "".join(rng.choice((letter, letter.upper())) for letter in name),
    lambda name, rng: name + rng.choice(("\0", " ", "\u200b", "\u0307", "_", "\n", "s")),
    lambda name, rng: rng.choice(("_", " ", "\ufeff")) + name,
    lambda name, rng: name.lstrip("_"),
    lambda name, rng: name.replace("_", "-"),
    _swap_lookalike,
    _split_words,
)


# Bytes.


def _flip(body: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(body) or 1)
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def _insert_piece(body: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(PIECES) + body[at:]


def _cut_out(body: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + body[at + rng.choice((1, 1, 2, 5, 20)) :]


DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _insert_piece,
    _insert_piece,
    _cut_out,
    lambda body, rng: body + rng.choice(TAILS),
    lambda body, rng: rng.choice(TAILS) + body,
    lambda body, rng: body[: rng.randrange(len(body) + 1)],
    lambda body, rng: body.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig"))
    ),
    lambda body, rng: body * 2,
)
