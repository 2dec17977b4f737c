"""A few texts stand for all that patterns match: whoever decides about any text decides about one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.patterns import Pattern, PatternIndex, parse_name_pattern, parse_path_pattern
from proxy.policy.regions import is_sample, list_probes, list_regions

WORDS = st.sampled_from(["a", "b", "ab"])
PATHS = st.builds(
    lambda segments, end: "/" + "/".join(segments) + end,
    st.lists(st.sampled_from(["a", "b", "{x}", "{y}"]), min_size=1, max_size=3, unique=True),
    st.sampled_from(["", "/**"]),
)
NAMES = st.builds(
    lambda segments, end: ".".join([*segments, end]),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=3),
    st.sampled_from(["a", "b", "*", "a*"]),
)


def check_regions(patterns: list[Pattern], text: str) -> None:
    """Whatever pair of patterns decides about the text, one in each half, decides about a region's probe."""
    half = len(patterns) // 2
    indexes = [PatternIndex((one, one.text) for one in some) for some in (patterns[:half], patterns[half:])]

    def decide(name: str) -> tuple[str | None, ...]:
        return tuple(found[0] if (found := index.find(name)) else None for index in indexes)

    decided = {decide(region.probe) for region in list_regions((), patterns)}
    assert decide(text) in decided | {(None, None)}


@given(st.lists(PATHS, min_size=2, max_size=6, unique=True), st.lists(WORDS, min_size=1, max_size=5))
def test_every_pair_of_deciding_paths_has_a_probe(paths: list[str], segments: list[str]) -> None:
    check_regions([parse_path_pattern(path) for path in paths], "/" + "/".join(segments))


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.lists(WORDS, min_size=1, max_size=5))
def test_every_pair_of_deciding_names_has_a_probe(names: list[str], segments: list[str]) -> None:
    check_regions([parse_name_pattern(name) for name in names], ".".join(segments))


@given(PATHS | NAMES)
def test_a_probe_is_matched_by_its_pattern(text: str) -> None:
    pattern = parse_path_pattern(text) if text.startswith("/") else parse_name_pattern(text)
    assert all(pattern.find(probe) is not None for probe in list_probes(pattern, [pattern]))


def test_exact_names_come_first_then_patterns_then_where_they_cross() -> None:
    patterns = [parse_name_pattern(name) for name in ("a.*.c", "a.b.*")]
    words = dict.fromkeys(region.words for region in list_regions(["a.b.c", "a.b.c"], patterns))
    assert list(words) == ["a.b.c", "a.*.c", "a.b.*", "a.*.c and a.b.*"]
    assert [one.probe for one in list_regions([], patterns) if " and " in one.words] == ["a.b.c"]


def test_a_pattern_inside_another_crosses_nothing() -> None:
    patterns = [parse_path_pattern(path) for path in ("/a/**", "/a/{x}", "/a/{x}/b")]
    assert not [region for region in list_regions([], patterns) if " and " in region.words]


@pytest.mark.parametrize(("path", "open_variables"), [("/a/{x}", 1), ("/{x}/{y}/**", 2)])
def test_what_a_variable_stands_for_is_known_as_a_sample(path: str, open_variables: int) -> None:
    pattern = parse_path_pattern(path)
    variables = pattern.find(list_probes(pattern, [])[0])
    assert variables is not None
    assert len({value for value in variables.values() if is_sample(value)}) == open_variables
