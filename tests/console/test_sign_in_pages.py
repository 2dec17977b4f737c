"""Pages around a sign-in: everything in them is escaped, whoever it comes from."""

from __future__ import annotations

from proxy.console.sign_in_pages import form_onward_page, form_sign_in_page

HOSTILE = "\"'><script>alert(1)</script>&"


def test_hostile_values_are_inert() -> None:
    for page in (
        form_sign_in_page(csrf=HOSTILE, onward=HOSTILE, provider=True, fault=HOSTILE),
        form_onward_page(HOSTILE),
    ):
        assert "<script" not in page
        assert "'>" not in page


def test_there_is_a_way_to_the_provider_only_where_there_is_one() -> None:
    assert "/settings/sign-in/start" in form_sign_in_page(csrf="c", onward="/settings/api-keys", provider=True)
    assert "start" not in form_sign_in_page(csrf="c", onward="/settings/api-keys", provider=False)
