"""Pages around a sign-in: everything in them is escaped, whoever it comes from."""

from __future__ import annotations

from proxy.console.sign_in_pages import find_prefix, form_onward_page, form_sign_in_page

HOSTILE = "\"'><script>alert(1)</script>&"


def test_hostile_values_are_inert() -> None:
    for page in (
        form_sign_in_page(prefix=HOSTILE, csrf=HOSTILE, onward=HOSTILE, provider=True, fault=HOSTILE),
        form_onward_page(HOSTILE, HOSTILE),
    ):
        assert "<script" not in page
        assert "'>" not in page


def test_there_is_a_way_to_the_provider_only_where_there_is_one() -> None:
    assert "/settings/sign-in/start" in form_sign_in_page(
        prefix="", csrf="c", onward="/settings/api-keys", provider=True
    )
    assert "start" not in form_sign_in_page(prefix="", csrf="c", onward="/settings/api-keys", provider=False)


def test_what_stands_before_our_paths_follows_from_the_public_address_and_names_no_host() -> None:
    for url, prefix in (
        (None, ""),
        ("https://aegis.example", ""),
        ("https://aegis.example/", ""),
        ("https://aegis.example/gate/keys/", "/gate/keys"),
        ("https://aegis.example//evil.example", "/evil.example"),
    ):
        assert find_prefix(url) == prefix
