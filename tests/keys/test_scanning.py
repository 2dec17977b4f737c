"""Keys found in bytes: whatever stands around them, wherever a chunk ends, and nothing that only looks like one."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import KeyId
from proxy.keys.scanning import PATTERN, find_keys
from proxy.keys.token import ALPHABET, ID_LENGTH, SECRET_LENGTH, form_token
from tests.records import form_key_id, form_legacy_token, form_secret_token

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()
KEY, OLD = form_secret_token(form_key_id(1)).text, form_legacy_token(1).text
texts = st.builds(
    form_token,
    st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH).map(KeyId),
    st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH),
).map(lambda token: token.text) | st.text(ALPHABET, min_size=40, max_size=40).map("aegis_{}".format)
surroundings = st.binary(max_size=200).filter(lambda text: b"aegis_" not in text)


def scan(text: bytes, size: int = 10**6) -> list[tuple[int, str]]:
    chunks = (text[start : start + size] for start in range(0, len(text), size))
    return [(found.line, found.token.text) for found in find_keys(chunks)]


@given(texts, surroundings, surroundings, st.integers(1, 300))
def test_a_key_is_found_whatever_stands_around_it_and_wherever_chunks_end(
    text: str, before: bytes, after: bytes, size: int
) -> None:
    content = before + text.encode() + b" " + after
    assert (1 + before.count(b"\n"), text) in scan(content, size)


@given(st.lists(texts, max_size=5), st.integers(1, 300))
def test_every_key_is_found_once_with_its_line(found: list[str], size: int) -> None:
    content = "".join(f"line\nkey = {text!r}, again {text!r}\n" for text in found).encode()
    assert scan(content, size) == [(2 * number, text) for number, text in enumerate(found, start=1)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_keys_in_utf_16_are_found_with_their_lines(encoding: str, size: int) -> None:
    content = f"first\r\n$env:AEGIS_API_KEY = '{KEY}'\r\n{OLD}\r\n".encode(encoding)
    assert scan(content, size) == [(2, KEY), (3, OLD)]


def test_a_key_in_json_is_found_though_an_escape_stands_before_it() -> None:
    assert scan(json.dumps(f"keys:\n{KEY}\n{OLD}\n").encode()) == [(1, KEY), (1, OLD)]


def test_a_binary_file_is_read_like_any_other() -> None:
    content = bytes(range(256)) * 3 + KEY.encode() + b"\0\xff" + OLD.encode() + b"\0"
    assert scan(content) == [(4, KEY), (4, OLD)]


@pytest.mark.parametrize(
    "text",
    [KEY[:-1], KEY + "x", KEY[:-1] + "!", KEY[:20] + ("a" if KEY[20] != "a" else "b") + KEY[21:], "aegis_", KEY[:18],
     OLD[:-1], OLD + "x", OLD + "_", OLD.upper(), "AEGIS_API_KEY=aegis_YOUR_KEY_HERE"],
)  # fmt: skip
def test_what_only_looks_like_a_key_is_left_alone(text: str) -> None:
    assert scan(f"key = '{text}'".encode()) == []
    assert scan(text.encode()) == []


@given(texts)
def test_the_published_pattern_finds_what_is_a_key(text: str) -> None:
    found = re.search(PATTERN, f"token: {text}\n")
    assert found is not None
    assert found[0] == text


def test_the_page_publishes_the_very_pattern() -> None:
    (published,) = re.findall(r"```regex\n(.*?)\n```", PAGE)
    assert published == PATTERN
    (rules,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (rule,) = tomllib.loads(rules)["rules"]
    assert rule["regex"] == PATTERN
    assert rule["keywords"] == ["aegis_"]
