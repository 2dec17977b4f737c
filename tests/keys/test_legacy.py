"""Tokens of the older form: read, told from every other, and held against the digest that is stored."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.keys.legacy import LEGACY_PATTERN, LEGACY_VERSION, find_legacy_secret, parse_legacy_token
from proxy.keys.token import ALPHABET, parse_token
from tests.records import (
    form_key_id,
    form_legacy_token,
    form_secret_token,
    make_legacy_secret,
    make_record,
    make_secret,
)

KEY = form_key_id(1)
texts = st.text(ALPHABET, min_size=40, max_size=40).map("aegis_{}".format)


@given(texts)
def test_a_token_is_known_by_the_sha256_of_its_whole_text(text: str) -> None:
    token = parse_legacy_token(text)
    assert token.digest == hashlib.sha256(text.encode()).digest()
    assert text not in repr(token)
    assert re.search(LEGACY_PATTERN, f"key={text};") is not None


@given(texts)
def test_no_token_is_of_both_forms(text: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        parse_token(text)
    with pytest.raises(ValueError, match="older form"):
        parse_legacy_token(form_secret_token(KEY).text)


@pytest.mark.parametrize(
    "text",
    ["", "aegis_", "aegis_" + "a" * 39, "aegis_" + "a" * 41, "aegis_" + "a" * 39 + "-", "aegis_" + "a" * 39 + "\u0660",
     "AEGIS_" + "a" * 40, "aegis_" + "a" * 40 + "\n", " aegis_" + "a" * 40, "a" * 1_048_576],
)  # fmt: skip
def test_what_is_not_of_that_form_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"older form") as refused:
        parse_legacy_token(text)
    assert len(text) < 40 or text not in str(refused.value)


def test_only_the_digest_of_version_zero_proves_a_token() -> None:
    token, other = form_legacy_token(), form_legacy_token(1)
    secret = make_legacy_secret(token)
    held = make_record(KEY, secrets=[secret, make_secret(form_secret_token(KEY), token.digest.hex())])
    assert find_legacy_secret(token, held) == secret
    assert secret.version == LEGACY_VERSION
    assert find_legacy_secret(other, held) is None
    ours = make_record(KEY, secrets=[make_secret(form_secret_token(KEY), token.digest.hex())])
    assert find_legacy_secret(token, ours) is None
