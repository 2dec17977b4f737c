"""The form of a key: what is read, what is refused, and that its secret stays out of sight."""

from __future__ import annotations

import random
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import KeyId
from proxy.keys.token import (
    ALPHABET,
    ID_LENGTH,
    SCANNER_PATTERN,
    SECRET_LENGTH,
    TAG_LENGTH,
    TOKEN_LENGTH,
    Token,
    draw,
    fast_tag,
    form_token,
    parse_token,
)

ids = st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH).map(KeyId)
secrets = st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH)
tokens = st.builds(form_token, ids, secrets)

KNOWN_ID = KeyId("Ab3dEf6hIj9k")
KNOWN_SECRET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"


@given(ids, secrets)
def test_a_token_formed_is_the_token_read(key_id: KeyId, secret: str) -> None:
    formed = form_token(key_id, secret)
    assert parse_token(formed.text) == formed == Token(key_id, secret, formed.text)


def test_keys_and_tags_handed_out_by_earlier_releases_stay_valid() -> None:
    assert form_token(KNOWN_ID, KNOWN_SECRET).text == f"aegis_Ab3dEf6hIj9k_{KNOWN_SECRET}48OhbG"
    assert fast_tag(KNOWN_ID, KNOWN_SECRET).hex() == "15017f44"


@given(tokens, st.integers(0, TOKEN_LENGTH - 1), st.characters())
def test_any_single_changed_character_is_refused(token: Token, place: int, character: str) -> None:
    changed = token.text[:place] + character + token.text[place + 1 :]
    if changed == token.text:
        assert parse_token(changed) == token
        return
    with pytest.raises(ValueError, match=r"checksum|form"):
        parse_token(changed)


@given(tokens, st.integers(0, TOKEN_LENGTH - 8))
def test_two_swapped_neighbours_are_refused(token: Token, place: int) -> None:
    one, other = token.text[place], token.text[place + 1]
    swapped = token.text[:place] + other + one + token.text[place + 2 :]
    if one == other:
        assert swapped == token.text
        return
    with pytest.raises(ValueError, match=r"checksum|form"):
        parse_token(swapped)


@given(tokens, st.integers(0, TOKEN_LENGTH - 1))
def test_a_cut_off_token_is_refused_for_its_length(token: Token, length: int) -> None:
    with pytest.raises(ValueError, match=f"a key has {TOKEN_LENGTH} characters, this has {length}$"):
        parse_token(token.text[:length])


@given(tokens, st.text(min_size=1))
def test_nothing_may_follow_or_precede_a_token(token: Token, more: str) -> None:
    for text in (token.text + more, more + token.text):
        with pytest.raises(ValueError, match="characters"):
            parse_token(text)


def test_a_megabyte_is_refused_by_its_length_alone() -> None:
    with pytest.raises(ValueError, match="this has 1048576"):
        parse_token("a" * 1_048_576)


@given(st.text(min_size=TOKEN_LENGTH, max_size=TOKEN_LENGTH))
def test_any_other_text_of_the_right_length_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"checksum|form") as caught:
        parse_token(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize("newline", ["\n", "\r", "\x00", " "])
def test_a_token_may_not_end_in_white_space(newline: str) -> None:
    text = form_token(KNOWN_ID, KNOWN_SECRET).text
    with pytest.raises(ValueError, match="form"):
        parse_token(text[:-1] + newline)


@given(tokens)
def test_a_double_click_selects_all_of_it(token: Token) -> None:
    assert len(token.text) == TOKEN_LENGTH
    assert set(token.text) <= {*string.ascii_letters, *string.digits, "_"}


def test_the_alphabet_is_base62_in_one_fixed_order() -> None:
    assert list(ALPHABET) == [*string.digits, *string.ascii_uppercase, *string.ascii_lowercase]


@given(tokens)
def test_no_representation_shows_the_secret(token: Token) -> None:
    for shown in (repr(token), str(token), f"{token}", repr([token]), repr({"token": token})):
        assert token.secret not in shown
        assert token.text[-6:] not in shown.removeprefix(f"Token(key_id='{token.key_id}'")
        assert token.key_id in shown


@given(tokens, st.integers(0, TOKEN_LENGTH - 1))
def test_a_refusal_quotes_nothing_of_the_secret(token: Token, place: int) -> None:
    changed = token.text[:place] + "-" + token.text[place + 1 :]
    with pytest.raises(ValueError, match="form") as caught:
        parse_token(changed)
    assert not any(changed[start : start + 8] in str(caught.value) for start in range(19, TOKEN_LENGTH - 8))


@given(tokens)
def test_the_published_pattern_finds_a_token_in_a_file(token: Token) -> None:
    for text in (f'# settings\nAEGIS_API_KEY="{token.text}"\n', f'"first line\\n{token.text}\\n"'):
        found = re.search(SCANNER_PATTERN, text)
        assert found is not None
        assert found[0] == token.text


@given(tokens)
def test_the_published_pattern_finds_neither_a_shortened_id_nor_a_longer_word(token: Token) -> None:
    for harmless in (token.text[:18], token.text[:-1], token.text + "x"):
        assert re.search(SCANNER_PATTERN, harmless) is None


def test_drawing_asks_the_given_source_for_every_character() -> None:
    asked: list[str] = []

    def choose(alphabet: str) -> str:
        asked.append(alphabet)
        return alphabet[len(asked) - 1]

    assert draw(5, choose) == "01234"
    assert asked == [ALPHABET] * 5


@given(st.integers())
def test_a_drawn_secret_makes_a_readable_token(seed: int) -> None:
    choose = random.Random(seed).choice
    token = form_token(KeyId(draw(ID_LENGTH, choose)), draw(SECRET_LENGTH, choose))
    assert parse_token(token.text) == token


@given(ids, ids, secrets, secrets)
def test_the_fast_tag_depends_on_id_and_secret(one: KeyId, other: KeyId, secret: str, wrong: str) -> None:
    tag = fast_tag(one, secret)
    assert len(tag) == TAG_LENGTH
    assert (fast_tag(other, secret) == tag) == (one == other)
    assert (fast_tag(one, wrong) == tag) == (secret == wrong)
