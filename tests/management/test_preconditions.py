"""What If-Match and Idempotency-Key may be."""

from __future__ import annotations

import re

import pytest
from multidict import CIMultiDict

from proxy.errors import Reason, RequestError
from proxy.management.preconditions import IF_MATCH, read_version, read_word


def test_without_the_headers_nothing_is_asked_for() -> None:
    assert read_version(CIMultiDict()) is None
    assert read_word(CIMultiDict()) is None


@pytest.mark.parametrize(("text", "version"), [('"0"', 0), ('"17"', 17), ("*", None)])
def test_a_version_stands_in_quotes(text: str, version: int | None) -> None:
    assert read_version(CIMultiDict({"If-Match": text})) == version


@pytest.mark.parametrize("text", ['"01"', '"x"', 'W/"17"', '""', '"-1"', f'"{"9" * 20}"'])
def test_a_tag_that_we_never_gave_matches_nothing(text: str) -> None:
    assert re.search(IF_MATCH, text)
    with pytest.raises(RequestError) as caught:
        read_version(CIMultiDict({"If-Match": text}))
    assert caught.value.reason is Reason.KEY_CHANGED


@pytest.mark.parametrize("text", ["17", '"1", "2"', "", '"1"\n', '"ä"', 'w/"1"', '"a"b"'])
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_version(CIMultiDict({"If-Match": text}))
    assert caught.value.reason is Reason.INPUT_INVALID


def test_a_repeated_header_is_refused() -> None:
    with pytest.raises(RequestError):
        read_word(CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "a")]))
    with pytest.raises(RequestError):
        read_version(CIMultiDict([("If-Match", '"1"'), ("If-Match", '"1"')]))
