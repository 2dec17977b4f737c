"""docs/keys.md says what there is: commands and their options, columns of an export, members of a declaration."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.core import TyperGroup

from proxy.cli import app
from proxy.keys.constraints import Constraints
from proxy.keys.declarations import DeclaredKey
from proxy.keys.exports import COLUMNS, LEFT_OUT

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()


def find_section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def list_words(section: str) -> set[str]:
    """What stands in the first column of its table."""
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def test_every_command_on_the_page_is_one_and_takes_the_options_it_is_shown_with() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    keys = root.commands["keys"]
    assert isinstance(keys, TyperGroup)
    shown = set()
    for name, rest in re.findall(r"aegis-proxy keys (\w+)([^`\n]*)", PAGE):
        options = {option for parameter in keys.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest.partition("#")[0])) <= options, name
        shown.add(name)
    assert {
        "mint",
        "list",
        "show",
        "update",
        "rotate",
        "disable",
        "enable",
        "revoke",
        "apply",
        "import",
        "scan",
    } <= shown


def test_the_columns_of_an_export_are_those_that_are_read() -> None:
    assert list_words(find_section("The platform's existing keys")) == {*COLUMNS, *LEFT_OUT}


def test_the_members_of_a_declaration_are_those_there_are() -> None:
    section = find_section("Keys declared in a file")
    assert list_words(section) == set(DeclaredKey.model_fields)
    (constraints,) = re.findall(r"^\| `constraints` \| (.*) \|$", section, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", constraints)) == set(Constraints.model_fields)
