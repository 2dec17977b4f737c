"""Manifests: what is read from them, and what is said of bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.sample_definition import Definition, manifest_of, parse_manifest, search


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), st.from_regex(r"[A-Za-z][A-Za-z ]{0,40}", fullmatch=True)
)
def test_a_manifest_says_what_was_written_into_it(name: str, description: str) -> None:
    read = parse_manifest("agent", manifest_of("agent", f"x-{name}", f"It {description}."))
    assert read == (f"x-{name}", f"It {description}.")


@given(st.text(alphabet="kind: Agmetdname{}[]&*!|>-'\"\n#%@`\t,?", max_size=60))
def test_whatever_is_written_it_is_a_manifest_or_an_answer(text: str) -> None:
    try:
        name, _ = parse_manifest("agent", text)
    except ToolError:
        return
    assert name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "is not YAML"),
        ("a: 1\na: 2", "is not YAML"),
        ("!!int", "is not YAML"),
        ("a: 2001-99-99", "is not YAML"),
        ("[" * 1000, "is not YAML"),
        ("- a", "must be a mapping with kind: Agent"),
        ("kind: Workflow\nmetadata: {name: x}", "must be a mapping with kind: Agent"),
        ("kind: Agent", "must give metadata.name"),
        ("kind: Agent\nmetadata: [name]", "must give metadata.name"),
        ("kind: Agent\nmetadata: {name: 7}", "must give metadata.name"),
        ("kind: Agent\nmetadata: {name: ''}", "must give metadata.name"),
    ],
)
def test_a_bad_manifest_is_explained(text: str, why: str) -> None:
    with pytest.raises(ToolError, match=why):
        parse_manifest("agent", text)


def test_words_are_found_in_names_and_descriptions() -> None:
    definitions = [Definition("agent", name, [""], "Reads mail.") for name in ("one", "two")]
    assert [each["name"] for each in search(definitions, "MAIL two", 5)] == ["two"]
    assert len(search(definitions, "mail", 1)) == 1
    assert search(definitions, "three", 5) == []
