"""Cookies: read once or not at all, written so that nobody else can read or write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.console.cookies import FLOW, SIGN_IN, Cookies, Mark, derive, derive_csrf, hash_value, is_csrf

VALUE, OTHER = "a" * 43, "b" * 43
PLAIN, SECURE = Cookies(secure=False), Cookies(secure=True)


def find(*lines: str, cookies: Cookies = PLAIN) -> str | None:
    return cookies.find(CIMultiDict([("Cookie", line) for line in lines]), SIGN_IN)


@pytest.mark.parametrize(
    "lines",
    [
        (f"aegis-sign-in={VALUE}",),
        (f"a=b; aegis-sign-in={VALUE}; c",),
        (f"a=b;aegis-sign-in={VALUE};",),
        ("a=b", f"aegis-sign-in={VALUE}"),
        (f"aegis-sign-in-form={OTHER}; aegis-sign-in={VALUE}; __Host-aegis-sign-in={OTHER}",),
    ],
)
def test_a_cookie_is_found_among_others(lines: tuple[str, ...]) -> None:
    assert find(*lines) == VALUE


@pytest.mark.parametrize("blank", ["\u2000", "\u00a0", "\u0085", "\u3000", "\x0b", "\x0c", "\x1c"])
def test_a_blank_that_browsers_take_for_a_part_of_the_name_is_one(blank: str) -> None:
    """They would let another domain write it, which `__Host-` forbids; nor does it make the real one stand twice."""
    forged = f"{blank}__Host-aegis-sign-in={OTHER}"
    assert find(forged, cookies=SECURE) is None
    assert find(f"{forged}; __Host-aegis-sign-in={VALUE}", cookies=SECURE) == VALUE


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("",),
        (";;==;",),
        ("aegis-sign-in=",),
        (f"aegis-sign-in={VALUE}a",),
        (f"aegis-sign-in={VALUE[1:]}",),
        (f'aegis-sign-in="{VALUE}"',),
        (f"aegis-sign-in={VALUE[1:]}é",),
        (f"aegis-sign-in={VALUE[1:]}٣",),
        (f"AEGIS-SIGN-IN={VALUE}",),
        (f"aegis-sign-in ={VALUE}",),
        (f"aegis-sign-in={VALUE}; aegis-sign-in={OTHER}",),
        (f"aegis-sign-in={VALUE}", f"aegis-sign-in={VALUE}"),
        (f"aegis-sign-in={VALUE}; aegis-sign-in=",),
    ],
)
def test_what_is_misshapen_or_stands_twice_is_no_cookie(lines: tuple[str, ...]) -> None:
    assert find(*lines) is None


def test_over_tls_only_a_cookie_that_nobody_else_can_write_counts() -> None:
    assert find(f"aegis-sign-in={VALUE}", cookies=SECURE) is None
    assert find(f"__Host-aegis-sign-in={VALUE}; aegis-sign-in={OTHER}", cookies=SECURE) == VALUE


def test_what_is_written_is_for_the_server_alone() -> None:
    assert SECURE.write(SIGN_IN, VALUE) == f"__Host-aegis-sign-in={VALUE}; Path=/; HttpOnly; SameSite=Strict; Secure"
    assert PLAIN.write(FLOW, VALUE, seconds=600, same_site="Lax") == (
        f"aegis-sign-in-flow={VALUE}; Path=/; HttpOnly; SameSite=Lax; Max-Age=600"
    )
    assert SECURE.clear(SIGN_IN) == "__Host-aegis-sign-in=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0"


@given(st.text(max_size=60), st.text(max_size=60))
def test_only_its_own_token_is_a_sign_ins(value: str, token: str) -> None:
    assert is_csrf(value, derive_csrf(value))
    assert is_csrf(value, token) is (token == derive_csrf(value))


def test_what_is_derived_tells_purposes_apart_and_not_the_value() -> None:
    derived = {derive(VALUE, "one"), derive(VALUE, "two"), derive(OTHER, "one"), hash_value(VALUE).hex()}
    assert len(derived) == 4
    assert not any(VALUE in text for text in derived)


def test_only_what_was_marked_with_the_same_key_is_ours() -> None:
    mark, other = Mark(b"k" * 32), Mark(b"o" * 32)
    value = mark.put_on("r" * 22)
    assert find(f"aegis-sign-in={value}") == value
    assert mark.is_on(value)
    changed = (f"{value[:at]}{'a' if value[at] != 'a' else 'b'}{value[at + 1 :]}" for at in range(len(value)))
    assert not any(mark.is_on(made_up) for made_up in (other.put_on("r" * 22), VALUE, value[:22], "", *changed))
