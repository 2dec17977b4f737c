"""Patterns against brute force: what overlaps, what contains what, and which is more specific."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.patterns import (
    Pattern,
    contains,
    get_shared,
    overlaps,
    parse_name_pattern,
    parse_path_pattern,
    parse_uri_template,
)

# Every name and path of up to three segments over a tiny alphabet: small enough to try them all.
_WORDS = ["a", "b", "ab"]
NAMES = [dot.join(words) for size in (1, 2, 3) for words in product(_WORDS, repeat=size) for dot in "./"]
PATHS = ["/" + "/".join(words) for size in (1, 2, 3, 4) for words in product(["a", "b"], repeat=size)]

segments = st.sampled_from(["a", "b", "ab", "*"])
name_patterns = st.builds(
    lambda words, end: parse_name_pattern(".".join(words) + end),
    st.lists(segments, min_size=1, max_size=2),
    st.sampled_from(["", ".*", ".a*", "/b", ".a"]),
)
path_patterns = st.builds(
    lambda words, end: parse_path_pattern(
        "/" + "/".join(f"{{v{index}}}" if word == "*" else word for index, word in enumerate(words)) + end
    ),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
    st.sampled_from(["", "/**"]),
)


def find_all(pattern: Pattern, texts: list[str]) -> set[str]:
    return {text for text in texts if pattern.find(text) is not None}


@given(name_patterns, name_patterns)
def test_name_patterns_overlap_when_some_name_matches_both(one: Pattern, other: Pattern) -> None:
    common = find_all(one, NAMES) & find_all(other, NAMES)
    assert overlaps(one, other) == overlaps(other, one)
    if common:
        assert overlaps(one, other)


@given(path_patterns, path_patterns)
def test_path_patterns_overlap_exactly_when_some_path_matches_both(one: Pattern, other: Pattern) -> None:
    assert overlaps(one, other) == overlaps(other, one) == bool(find_all(one, PATHS) & find_all(other, PATHS))


@given(path_patterns, path_patterns)
def test_a_path_pattern_contains_another_exactly_when_all_its_paths_match(outer: Pattern, inner: Pattern) -> None:
    assert contains(outer, inner) == (find_all(inner, PATHS) <= find_all(outer, PATHS))


@given(path_patterns, path_patterns)
def test_what_two_paths_share_is_what_matches_both(one: Pattern, other: Pattern) -> None:
    if overlaps(one, other):
        pieces, tail = get_shared(one, other)
        text = "".join(f"{{s{index}}}" if piece is None else piece for index, piece in enumerate(pieces))
        shared = parse_path_pattern(text + ("**" if tail is not None else ""))
        assert find_all(shared, PATHS) == find_all(one, PATHS) & find_all(other, PATHS)


@given(path_patterns, path_patterns)
def test_a_pattern_strictly_inside_another_is_more_specific(one: Pattern, other: Pattern) -> None:
    if contains(one, other) and not contains(other, one):
        assert other.rank > one.rank


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["a", "a.b", "a/b"], ["", "a b", "\u0430"]),
        ("a.*", ["a.b", "a.b.c"], ["a", "a.", "b.b"]),
        ("a.b*", ["a.bc", "a.b.c"], ["a.b", "a.c"]),
        ("*.b", ["a.b"], ["a.c.b", ".b", "b"]),
        ("a.*.c", ["a.b.c"], ["a.b.b.c", "a..c", "a/b.c"]),
        ("n/*", ["n/a", "n/a/b"], ["n", "n/", "m/a"]),
    ],
)
def test_an_asterisk_is_one_segment_or_an_open_end(pattern: str, matching: list[str], other: list[str]) -> None:
    parsed = parse_name_pattern(pattern)
    assert find_all(parsed, matching + other) == set(matching)


@pytest.mark.parametrize(
    ("template", "overlapping", "apart"),
    [
        ("v://{a}/b", "v://{x}/b", "v://{x}/c"),
        ("v://{+a}", "v://a/b/**", "w://a/**"),
        ("v://a{?q}", "v://ab/**", "v://b/**"),
        ("v://a/{b}.txt", "v://a/{x}", "v://b/{x}"),
    ],
)
def test_a_uri_template_overlaps_the_rules_it_could_become(template: str, overlapping: str, apart: str) -> None:
    parsed = parse_uri_template(template)
    assert overlaps(parse_path_pattern(overlapping), parsed)
    assert not overlaps(parse_path_pattern(apart), parsed)
