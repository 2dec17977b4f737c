"""Forms: from our own pages, read once, leading nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.console.forms import check_same_site, read_form, settle_onward
from proxy.errors import Reason, RequestError

HOST = "aegis.example:8443"
FORM = CIMultiDict({"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"})


def form_headers(origin: str | None, site: str | None) -> CIMultiDict[str]:
    pairs = {"Host": HOST, "Origin": origin, "Sec-Fetch-Site": site}
    return CIMultiDict({name: value for name, value in pairs.items() if value is not None})


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        (f"https://{HOST}", "same-origin"),
        (f"https://{HOST}", None),
        (f"http://{HOST}", None),
        (f"HTTPS://{HOST.upper()}", None),
        ("https://public.example", None),
        ("null", "same-origin"),
        (None, "none"),
        (None, None),
    ],
)
def test_our_own_pages_may_ask(origin: str | None, site: str | None) -> None:
    check_same_site(form_headers(origin, site), "https://public.example/prefix")


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        ("https://evil.example", None),
        ("https://evil.example", "same-origin"),
        (f"https://{HOST}", "cross-site"),
        (f"https://{HOST}", "same-site"),
        (f"https://{HOST}.evil.example", None),
        (f"https://evil.example/{HOST}", None),
        ("https://aegis.example", None),
        ("null", None),
        ("null", "cross-site"),
        ("null", "none"),
        ("", None),
        (None, "cross-site"),
        (None, "same-site"),
        (None, "anything"),
    ],
)
def test_other_sites_may_not(origin: str | None, site: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        check_same_site(form_headers(origin, site), "https://public.example/prefix")
    assert caught.value.reason is Reason.ORIGIN_NOT_ALLOWED


def test_a_form_is_its_members() -> None:
    assert read_form(FORM, b"key=a%20b&csrf=&next=%2Fsettings") == {"key": "a b", "csrf": "", "next": "/settings"}
    assert read_form(FORM, b"") == {}


@pytest.mark.parametrize(
    "body",
    [b"key", b"key=a&key=b", b"key=a&%6Bey=b", b"\xff=a", b"a=%ff", b"&".join([b"a=1"] * 20), b"&&", b"{}"],
)
def test_what_is_no_form_or_says_something_twice_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_form(FORM, body)
    assert caught.value.reason is Reason.MESSAGE_UNREADABLE


@pytest.mark.parametrize("media_type", ["", "application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_another_media_type_is_no_form(media_type: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_form(CIMultiDict({"Content-Type": media_type}), b"key=a")
    assert caught.value.reason is Reason.CONTENT_TYPE_UNSUPPORTED


@pytest.mark.parametrize(
    "place",
    [
        "/settings/api-keys",
        "/settings/api-keys/0123456789ab",
        "/settings/api-keys/connect",
        "/settings/api-keys?q=a%20b&status=active",
    ],
)
def test_a_sign_in_leads_to_a_page_of_ours(place: str) -> None:
    assert settle_onward(place) == place


@pytest.mark.parametrize(
    "place",
    [
        None,
        "",
        "https://evil.example/",
        "//evil.example/settings/api-keys",
        "/\\evil.example",
        "/settings/api-keys/../../evil",
        "/settings/api-keys//evil.example",
        "/settings/api-keys/%2e%2e",
        "/settings/api-keysevil",
        "/settings/api-keys\n",
        "/settings/api-keys\r\nSet-Cookie: a=b",
        "/settings/api-keys?a=<script>",
        '/settings/api-keys?a="',
        "/settings/api-keys#https://evil.example",
        "/settings/sign-in?next=x",
        "/settings/sign-out",
        "/mcp/v1",
        "javascript:alert(1)",
        "/settings/api-keys?" + "a" * 1001,
    ],
)
def test_a_sign_in_leads_nowhere_else(place: str | None) -> None:
    assert settle_onward(place) == "/settings/api-keys"


@given(st.text())
def test_no_text_leads_away(place: str) -> None:
    assert settle_onward(place).startswith("/settings/api-keys")
