"""What is sealed opens here, for its purpose, with what it belongs to, and never changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sealing import Seal, SealError

SECRET = b"the one secret that the instances share"
SEAL = Seal(SECRET, "mcp-session")
texts = st.binary(max_size=300)


@given(texts, texts)
def test_what_was_sealed_is_what_opens(text: bytes, belongs_to: bytes) -> None:
    assert SEAL.unseal(SEAL.seal(text, belongs_to), belongs_to) == text


def test_what_earlier_releases_sealed_still_opens() -> None:
    sealed = bytes.fromhex("bf7ceba868950e0f036110e1bb948217ad316d5e89d5af612cf351de76991aa1c80645c225330f3c")
    assert SEAL.unseal(sealed, b"belongs to") == b"a session id"
    assert SEAL.seal(b"a session id", b"belongs to") == sealed


@given(st.binary(min_size=4, max_size=300), texts)
def test_sealed_bytes_do_not_show_the_text(text: bytes, belongs_to: bytes) -> None:
    assert text not in SEAL.seal(text, belongs_to)


@given(texts, texts, st.data())
def test_one_changed_bit_is_noticed(text: bytes, belongs_to: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SEAL.seal(text, belongs_to))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        SEAL.unseal(bytes(sealed), belongs_to)


@given(texts, texts, st.data())
def test_a_missing_piece_is_noticed(text: bytes, belongs_to: bytes, data: st.DataObject) -> None:
    sealed = SEAL.seal(text, belongs_to)
    length = data.draw(st.integers(0, len(sealed) - 1))
    for piece in (sealed[:length], sealed[len(sealed) - length :], sealed + b"\0"):
        with pytest.raises(SealError):
            SEAL.unseal(piece, belongs_to)


@given(texts)
def test_other_bytes_never_open(foreign: bytes) -> None:
    with pytest.raises(SealError):
        SEAL.unseal(foreign, b"belongs to")


@given(texts, texts, texts)
def test_it_opens_only_with_what_it_belongs_to(text: bytes, belongs_to: bytes, other: bytes) -> None:
    sealed = SEAL.seal(text, belongs_to)
    if other == belongs_to:
        assert SEAL.unseal(sealed, other) == text
        return
    with pytest.raises(SealError):
        SEAL.unseal(sealed, other)


@pytest.mark.parametrize(
    "other",
    [
        Seal(SECRET, "cookie"),
        Seal(SECRET, "mcp-session "),
        Seal(SECRET, ""),
        Seal(SECRET + b"\0", "mcp-session"),
        Seal(b"another secret of another deployment", "mcp-session"),
    ],
)
def test_it_opens_under_no_other_secret_and_for_no_other_purpose(other: Seal) -> None:
    sealed = SEAL.seal(b"a session id", b"belongs to")
    with pytest.raises(SealError) as caught:
        other.unseal(sealed, b"belongs to")
    assert str(caught.value) == "sealed under another secret, for another purpose, or changed"
    assert other.seal(b"a session id", b"belongs to") != sealed


def test_instances_with_the_same_secret_open_each_others_seals() -> None:
    assert Seal(SECRET, "mcp-session").unseal(SEAL.seal(b"a session id", b"x"), b"x") == b"a session id"


@given(texts, texts, texts, texts)
def test_equal_things_are_sealed_equally_and_different_ones_under_different_nonces(
    one: bytes, one_place: bytes, other: bytes, other_place: bytes
) -> None:
    sealed, again = SEAL.seal(one, one_place), SEAL.seal(other, other_place)
    assert (sealed == again) == ((one, one_place) == (other, other_place))
    assert (sealed[:12] == again[:12]) == (one_place + b"\0" + one == other_place + b"\0" + other)


def test_a_seal_shows_nothing_of_its_key() -> None:
    assert SECRET.decode() not in repr(SEAL)
    assert "key" not in repr(SEAL)
