"""Patterns against brute force: what overlaps, what contains what, and which is more specific."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.patterns import (
    Pattern,
    PatternIndex,
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


def scan(patterns: list[Pattern], text: str) -> tuple[str, dict[str, str]] | None:
    """One by one, the most specific first."""
    for pattern in sorted(patterns, key=lambda pattern: pattern.rank, reverse=True):
        variables = pattern.find(text)
        if variables is not None:
            return pattern.text, dict(variables)
    return None


names = st.lists(st.sampled_from(["a", "b", "ab", "", "A", "\u00e4"]), min_size=1, max_size=4)
separators = st.sampled_from("./")


@given(st.lists(name_patterns, max_size=8, unique_by=lambda pattern: pattern.text), names, separators, separators)
def test_an_index_finds_the_name_pattern_that_a_scan_finds(
    patterns: list[Pattern], words: list[str], first: str, second: str
) -> None:
    index = PatternIndex((pattern, pattern.text) for pattern in patterns)
    text = first.join(words[:2]) + "".join(second + word for word in words[2:])
    assert index.find(text) == scan(patterns, text)
    assert all(index.find(name) == scan(patterns, name) for name in NAMES)


@given(st.lists(path_patterns, max_size=8, unique_by=lambda pattern: pattern.pieces), st.text("ab/.?", max_size=8))
def test_an_index_finds_the_path_pattern_that_a_scan_finds(patterns: list[Pattern], text: str) -> None:
    index = PatternIndex((pattern, pattern.text) for pattern in patterns)
    assert all(index.find(path) == scan(patterns, path) for path in [text, f"/{text}", *PATHS])


@pytest.mark.parametrize(
    ("parse", "templates", "text"),
    [
        (parse_path_pattern, "/v1/things-{}/{{id}}/run", "/v1/things-{}/7/run"),
        (parse_path_pattern, "/v1/{{tenant}}/things-{}/run", "/v1/acme/things-{}/run"),
        (parse_path_pattern, "/v1/{{tenant}}/{{id}}/do-{}", "/v1/acme/7/do-{}"),
        (parse_path_pattern, "aegis://kind-{}/{{id}}/**", "aegis://kind-{}/7/a/b"),
        (parse_name_pattern, "aegis.team-{}.*", "aegis.team-{}.run"),
        (parse_name_pattern, "*.team-{}.run", "aegis.team-{}.run"),
    ],
)
def test_of_a_thousand_patterns_an_index_tries_one(parse: Any, templates: str, text: str) -> None:
    tried: list[str] = []

    @dataclass(frozen=True)
    class Watched(Pattern):
        def find(self, text: str) -> Mapping[str, str] | None:
            tried.append(self.text)
            return super().find(text)

    patterns = [parse(templates.format(number)) for number in range(1000)]
    watched = [Watched(p.text, p.pieces, p.tail, p.expression, p.splits_at_dots) for p in patterns]
    found = PatternIndex((pattern, pattern.text) for pattern in watched).find(text.format(517))
    assert found is not None
    assert found[0] == templates.format(517)
    assert tried == [found[0]]
