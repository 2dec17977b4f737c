"""The table tells languages apart wherever they are not the same."""

from __future__ import annotations

from tests.sdk.table import form

SAID = {"one": ["ok", "ok", "NotFoundError"], "two": ["ok"]}


def test_languages_that_agree_with_what_is_said_make_a_table_of_it() -> None:
    text, right = form({"a": SAID, "b": SAID}, SAID)
    assert right
    assert "| one | 2 ok, NotFoundError | 2 ok, NotFoundError |" in text


def test_a_language_that_differs_or_leaves_something_out_is_shown() -> None:
    for other in ({**SAID, "two": ["wrong: call x"]}, {"one": SAID["one"]}):
        text, right = form({"a": SAID, "b": other}, SAID)
        assert not right
        assert "| two | 1 ok | **" in text
    assert not form({"a": {**SAID, "two": ["ValueError"]}}, SAID)[1], "all alike, and not as said"
